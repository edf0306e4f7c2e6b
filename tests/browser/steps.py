"""What a person does on the page, as steps of a test."""

import base64
from typing import Any

from playwright.async_api import Page, expect

# Rendered in a moment by the demo of random weights.
SMALL = {"width": 64, "height": 64, "num_frames": 9, "sample_steps": 4}
VIDEO_STATE = (
    "videos => videos.map(video => ({time: video.currentTime, paused: video.paused, width: video.videoWidth}))"
)


async def fill(page: Page, prompt: str, **settings: Any) -> None:
    """Pick the demo's pair and fill in a small video."""
    await page.locator("pair-picker .pair-row").first.wait_for()
    await page.locator("input[aria-label='wan22_demo 500']").first.check(force=True)
    await page.get_by_role("textbox", name="Prompt", exact=True).fill(prompt)
    for name, value in {**SMALL, **settings}.items():
        await page.locator(f".make [name={name}]").fill(str(value))


async def answered(page: Page) -> None:
    """Wait for what the service says of the settings: it comes above fields, and moves them."""
    await expect(page.locator(".make .inspection")).not_to_be_empty()
    await expect(page.locator(".make [name=cost]")).to_contain_text("to render")


async def make(page: Page) -> None:
    """Press the button, once the page has said what it will cost."""
    await expect(page.locator(".make [name=cost]")).to_contain_text("to render")
    await page.get_by_role("button", name="Make video").click()


async def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file on the page."""
    script = """([name, text]) => {
        const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], name));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    await page.evaluate(script, [name, base64.b64encode(content).decode()])


async def times(page: Page, selector: str) -> list[float]:
    """Return where the videos are, in seconds, at one moment."""
    found: list[dict[str, float]] = await page.locator(selector).evaluate_all(VIDEO_STATE)
    return [video["time"] for video in found]
