"""A model that starts from an image: the page asks for one, and sends it."""

from io import BytesIO

import pytest
from PIL import Image
from playwright.async_api import FilePayload, expect

from serve_app.spec import Fit
from tests.browser.conftest import Visits
from tests.fixtures.images import ServeImages
from tests.fixtures.loopback import loopback

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_image_is_chosen_and_sent_with_its_fit(visits: Visits, serve_images: ServeImages) -> None:
    drawn = BytesIO()
    Image.new("RGB", (64, 48), "teal").save(drawn, "PNG")
    async with serve_images("required") as api, loopback(api.app) as url:
        visit = await visits(url)
        page = visit.page
        await visit.go()
        await page.locator("pair-picker .pair-row").first.wait_for()
        await page.get_by_role("radio", name="lantern").first.check(force=True)
        await page.get_by_role("textbox", name="Prompt", exact=True).fill("a lantern")
        image = FilePayload(name="teal.png", mimeType="image/png", buffer=drawn.getvalue())
        await page.get_by_label("Control image").set_input_files(image)
        await expect(page.get_by_alt_text("The control image")).to_be_visible()
        await page.get_by_label("Fit").select_option("crop")
        await expect(page.locator(".make [name=cost]")).to_contain_text("to render")
        await page.get_by_role("button", name="Make video").click()
        await expect(page.locator("render-card")).to_be_visible()
        claim = await api.claim()
    assert claim.spec.image is not None
    assert claim.spec.image.fit is Fit.CROP
