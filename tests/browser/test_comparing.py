"""A grid fills, plays in step, survives a reload, and two of its videos are compared."""

import asyncio
import base64
import json
import random
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Visit
from tests.browser.steps import fill, times

pytestmark = pytest.mark.asyncio(loop_scope="session")

IN_STEP_S = 0.13  # two frames at 16 a second
PIXELS = """(canvas, seconds) => {
    canvas.seekTo(seconds);
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return [...data].filter((_, at) => at % 4 < 3);
}"""

Pixels = npt.NDArray[np.int16]


def training_preview(path: Path) -> Pixels:
    """Write an animated WebP as AI Toolkit does; its frames [F, H, W, 3]. The later ones hold what changed."""
    frames = np.full((33, 48, 48, 3), 40, np.uint8)
    for number, frame in enumerate(frames):
        frame[8:16, number : number + 8] = (200, 60, 120)
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, "WEBP", save_all=True, append_images=others, duration=62, lossless=True)
    return frames.astype(np.int16)


async def render_grid(page: Page) -> None:
    """Render 0, 0.5, 1 times two checkpoints, from the settings of "Make"."""
    await page.get_by_role("link", name="Compare", exact=True).click()
    for name in ("wan22_demo 500", "style 500"):
        chosen = page.locator(f"[data-axis=rows] input[aria-label='{name}']")
        await chosen.check(force=True)
    await expect(page.locator(".axes [name=cost]")).to_contain_text("6 videos")
    await page.get_by_role("button", name="Render 6 videos").click()
    await expect(page.locator("[data-state=succeeded] video")).to_have_count(6)


async def add_training_preview(page: Page, directory: Path) -> None:
    """Put a file beside the grid, which plays in step and shows its frames."""
    preview = directory / "1234__000000500_0.webp"
    frames = training_preview(preview)
    await page.locator("video-grid input[type=file]").set_input_files(preview)
    await expect(page.locator(".reference canvas")).to_be_visible()
    found = await times(page, ".cell video, .reference canvas")
    assert len(found) == 7
    assert max(found) - min(found) < IN_STEP_S, found
    for number in (0, 7, 32):
        shown = np.array(await page.locator(".reference canvas").evaluate(PIXELS, (number + 0.5) * 0.062), np.int16)
        assert np.array_equal(shown, frames[number].reshape(-1)), number


async def compare_two(page: Page) -> None:
    """Open a cell beside the training preview, and go on from there by keyboard."""
    await page.locator(".cell").nth(4).click()
    dialog = page.get_by_role("dialog", name="Compare two")
    captions = dialog.locator("figcaption")
    await expect(captions).to_have_text(["Training preview · 48 × 48", "× 0.5, style 500 · 64 × 64"])
    await page.keyboard.press("Shift+ArrowRight")
    await expect(captions).to_have_text(["× 0, wan22_demo 500", "× 0.5, style 500"])
    await page.keyboard.press("ArrowRight")
    await expect(captions.nth(1)).to_have_text("× 1, style 500")
    await expect(dialog.locator("video")).to_have_count(2)
    await page.keyboard.press("d")
    await expect(dialog.locator(".duel")).to_have_attribute("data-mode", "difference")
    await page.keyboard.press("w")
    await dialog.get_by_label("Wipe between the two").fill("20")
    edge = await dialog.locator(".duel").evaluate("stage => stage.style.getPropertyValue('--wipe')")
    assert edge == "20%"
    await dialog.get_by_role("radio", name="Side by side").check()
    await expect(dialog.locator(".duel")).to_have_attribute("data-mode", "side")
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)


async def test_a_grid_fills_plays_in_step_and_survives_a_reload(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    await visit.go()
    await fill(page, "a grid", num_frames=33)
    await render_grid(page)
    assert [await page.locator("th[scope=col]").all_inner_texts()] == [["× 0", "× 0.5", "× 1"]]
    await page.wait_for_timeout(500)
    for _ in range(3):
        found = await times(page, ".cell video")
        assert max(found) - min(found) < IN_STEP_S, found
        await page.wait_for_timeout(150)
    assert max(found) > 0

    await add_training_preview(page, tmp_path)
    await compare_two(page)

    asked = len([one for one in visit.responses if one.request.method == "POST" and one.url.endswith("/v1/inference")])
    assert asked == 6
    await page.reload()
    await expect(page.locator("[data-state=succeeded] video")).to_have_count(6)
    await expect(page.locator(".axes [name=prompt]")).to_have_value("a grid")
    again = [one for one in visit.responses if one.request.method == "POST" and one.url.endswith("/v1/inference")]
    assert len(again) == asked

    await page.get_by_role("link", name="Change").click()
    await page.locator(".make [name=sample_steps]").fill("5")
    await page.get_by_role("link", name="Compare", exact=True).click()
    await expect(page.locator("#grid-base")).to_contain_text("5 steps")
    await expect(page.locator("[data-axis=columns] [name=values]")).to_have_value("0, 0.5, 1")
    await expect(page.locator("[data-state=succeeded] video")).to_have_count(6)


async def test_what_is_wrong_with_an_axis_stands_beside_it(visit: Visit) -> None:
    page = visit.page
    await visit.go()
    await fill(page, "a grid")
    await page.get_by_role("link", name="Compare", exact=True).click()
    across, down = page.locator("[data-axis=columns]"), page.locator("[data-axis=rows]")
    strengths, button = across.locator("[name=values]"), page.locator(".axes [type=submit]")
    await strengths.fill("0, much")
    await expect(across.locator(".axis-problem")).to_have_text('Strength: "much" is no number from -2 to 2')
    await expect(strengths).to_have_attribute("aria-invalid", "true")
    await strengths.fill("0, 1")
    await expect(across.locator(".axis-problem")).to_be_hidden()
    await down.get_by_role("combobox").select_option("strength")
    await button.click()
    await expect(page.locator(".axes .problem")).to_contain_text("Strength stands across and down")
    await expect(page.locator(".cell")).to_have_count(0)


def link_to_another_model() -> str:
    """Return a link to a grid, as another service's page would make it."""
    axis = {"kind": "none", "values": [None]}
    base = {"prompt": "a fox", "model": "another_model"}
    packer = zlib.compressobj(wbits=-15)
    text = json.dumps({"v": 1, "base": base, "columns": axis, "rows": axis, "ids": [None]})
    return base64.urlsafe_b64encode(packer.compress(text.encode()) + packer.flush()).decode().rstrip("=")


async def test_a_link_to_a_grid_of_a_model_that_is_not_served_says_so(visit: Visit) -> None:
    await visit.go(f"#/compare/{link_to_another_model()}")
    await expect(visit.page.get_by_role("alert")).to_contain_text(
        ["the model another_model, which this service does not"]
    )


async def test_a_grid_that_is_too_long_for_a_link_says_so_and_writes_none(visit: Visit) -> None:
    page = visit.page
    await visit.go()
    await fill(page, "".join(random.Random(7).choices([chr(code) for code in range(0x4E00, 0x9FA5)], k=9_000)))
    await page.get_by_role("link", name="Compare", exact=True).click()
    await page.locator("[data-axis=columns] [name=values]").fill("1")
    await page.locator("[data-axis=rows]").get_by_role("combobox").select_option("none")
    await page.get_by_role("button", name="Render 1 video").click()
    said = page.locator(".tools").get_by_text("too long for a link")
    await expect(said).to_be_visible()
    await expect(page.get_by_role("button", name="Copy link")).to_be_hidden()
    assert await page.evaluate("location.hash") == "#/compare"

    await page.locator(".axes [name=prompt]").fill("a short one")
    await page.get_by_role("button", name="Render 1 video").click()
    await expect(page.get_by_role("button", name="Copy link")).to_be_visible()
    await expect(said).to_be_hidden()
    await expect(page.locator("[data-state=succeeded] video")).to_have_count(1)
    await page.reload()
    await expect(page.locator("[data-state=succeeded] video")).to_have_count(1)


async def test_a_grid_that_goes_on_elsewhere_leaves_the_address_alone(visit: Visit) -> None:
    page = visit.page

    async def later(route: Route) -> None:
        await asyncio.sleep(1)
        await route.continue_()

    await page.route("**/v1/inference", later)  # the answers, which change the link, come when the gallery is open
    await visit.go()
    await fill(page, "a grid that is left")
    await page.get_by_role("link", name="Compare", exact=True).click()
    await page.locator("[data-axis=rows]").get_by_role("combobox").select_option("none")
    await page.get_by_role("button", name="Render 3 videos").click()
    await page.get_by_role("link", name="Gallery").click()
    await expect(page.locator("gallery-view")).to_be_visible()
    await expect(page.locator("gallery-card").filter(has_text="a grid that is left")).to_have_count(3)
    await page.wait_for_timeout(500)  # the last answer may be younger than the gallery's list
    assert await page.evaluate("location.hash") == "#/gallery"
    await page.get_by_role("link", name="Compare", exact=True).click()
    await expect(page.locator("[data-state=succeeded] video")).to_have_count(3)
    assert (await page.evaluate("location.hash")).startswith("#/compare/")


@pytest.mark.parametrize("place", ["#/compare/AAAA", "#/compare/%F0%9F", "#/nowhere", "#/watch/no-such-request"])
async def test_a_bad_address_says_so(visit: Visit, place: str) -> None:
    await visit.go(place)
    said = visit.page.get_by_text("This link is damaged").or_(visit.page.get_by_text("nothing at this address"))
    await expect(said.or_(visit.page.get_by_text("No such request"))).to_be_visible()
