"""Make docs/page.webp: the page with a grid of the demo, beside what stands for a training preview.

Run `make run`, and in another window `python docs/page.py`. It needs chromium (Debian: apt-get install chromium) and
the packages of the tests.
"""

import io
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from serve_app.client import Client, InferenceRequest, LoraItem, PromptItem, Side
from serve_app.spec import Recipe

SERVICE = "http://127.0.0.1:8000"
LORA = "wan22_dawn 500"
SETTINGS = {"prompt": "a red circle", "width": 128, "height": 128, "num_frames": 17, "sample_steps": 8}
STRENGTHS = "0, 0.35, 0.7, 1"
PROMPTS = "a red circle moving right\na large yellow triangle moving down"
MOMENT = "0.5"  # seconds into the videos
PATIENCE_MS = 600_000


def main() -> None:
    """Render a grid on the service that the first argument names, and save a picture of the page."""
    service = sys.argv[1] if len(sys.argv) > 1 else SERVICE
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.goto(service)
        render(page)
        add_preview(page, service)
        picture = page.screenshot(full_page=True)
        browser.close()
    Image.open(io.BytesIO(picture)).save(Path(__file__).with_name("page.webp"), quality=88, method=6)


def render(page: Page) -> None:
    """Fill in the settings and the axes, and wait for the last video of the grid."""
    page.locator(f"input[aria-label='{LORA}']").first.check(force=True)
    for name, value in SETTINGS.items():
        page.locator(f".make [name={name}]").fill(str(value))
    page.get_by_role("link", name="Compare", exact=True).click()
    across, down = page.locator("[data-axis=columns]"), page.locator("[data-axis=rows]")
    across.locator("[name=values]").fill(STRENGTHS)
    down.get_by_role("combobox").select_option("prompt")
    down.locator("[name=values]").fill(PROMPTS)
    page.get_by_role("button", name="Render 8 videos").click()
    expect(page.locator("[data-state=succeeded] video")).to_have_count(8, timeout=PATIENCE_MS)


def add_preview(page: Page, service: str) -> None:
    """Put beside the grid what a trainer would have shown of its last row: recipe `preview`, as an animated WebP."""
    with Client(service) as client, TemporaryDirectory() as directory:
        name, step = LORA.split()
        (pair,) = [pair for pair in client.loras().pairs if pair.name.endswith(name) and pair.step == int(step)]
        files = {Side.HIGH: pair.high, Side.LOW: pair.low}
        loras = [LoraItem(path=file.path, transformer=side) for side, file in files.items() if file is not None]
        prompt = PromptItem.model_validate({**SETTINGS, "prompt": PROMPTS.splitlines()[0], "output_format": "webp"})
        model = client.models().models[0].id
        request = InferenceRequest(model=model, loras=loras, prompts=[prompt], recipe=Recipe.PREVIEW)
        outputs = client.render(request).outputs
        (video,) = outputs.videos if outputs else []
        page.locator("video-grid input[type=file]").set_input_files(client.download(video, Path(directory) / "p.webp"))
    expect(page.locator(".reference canvas")).to_be_visible()
    page.get_by_role("slider", name="Time").fill(MOMENT)
    page.wait_for_timeout(1000)


if __name__ == "__main__":
    main()
