"""The page for everyone: axe-core's rules, a phone's width, light and dark, the keyboard, a service with keys."""

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.browser.conftest import DESKTOP, PHONE, Visits
from tests.browser.steps import answered, drop, fill, make
from tests.client import pair
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.keys import ADMIN_KEY
from tests.fixtures.loopback import loopback
from tests.fixtures.specs import MODEL
from tests.lantern import CARD
from tests.lantern.loras import save_lora
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

SERIOUS = ("serious", "critical")
PLACES = ("#/make", "#/compare", "#/gallery")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
async def test_nothing_keeps_people_from_using_it(
    visits: Visits, two_checkpoints: ServiceProcess, size: dict[str, int], scheme: str
) -> None:
    visit = await visits(two_checkpoints.url, size, color_scheme=scheme)
    page = visit.page
    await visit.go()
    await fill(page, "for everyone")
    await make(page)
    await expect(page.locator("render-card video")).to_be_visible()
    for place in PLACES:
        await visit.go(place)
        await page.wait_for_load_state("networkidle")
        found = (await Axe().run(page)).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in SERIOUS] == [], place
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size["width"], place


async def test_it_works_without_a_mouse(visits: Visits, two_checkpoints: ServiceProcess) -> None:
    visit = await visits(two_checkpoints.url)
    page = visit.page
    await visit.go()
    await fill(page, "by keyboard")
    await page.get_by_role("textbox", name="Prompt", exact=True).focus()
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("render-card video")).to_be_visible()


async def test_lora_files_that_are_dropped_are_checked_and_listed(visits: Visits, serve_api: ServeApi) -> None:
    async with serve_api(uploads=True) as api, loopback(api.app) as url:
        (api.lora_root / "wallet.safetensors").write_bytes(b"no LoRA at all")
        visit = await visits(url)
        page = visit.page
        await visit.go()
        await page.locator("pair-picker .pair-row").first.wait_for()
        await page.get_by_text("One file cannot be used").click()
        await expect(page.locator(".make pair-picker li")).to_contain_text("wallet.safetensors: ")
        for lora in pair():
            content = (api.lora_root / lora["path"]).read_bytes()
            await drop(page, f"mine_{lora['transformer']}_noise.safetensors", content)
        await expect(page.get_by_role("radio", name="mine")).to_be_visible()
        await drop(page, "notes.safetensors", b"these are my notes")
        await expect(page.locator(".make .field-problem")).to_contain_text("notes.safetensors")


async def test_a_service_with_keys_asks_once(visits: Visits, serve_api: ServeApi) -> None:
    async with serve_api(admin_key=ADMIN_KEY) as api, loopback(api.app) as url:
        visit = await visits(url)
        page = visit.page
        await visit.go()
        dialog = page.get_by_role("dialog", name="This service asks for a key")
        await dialog.get_by_label("Key").fill("a wrong one")
        await dialog.get_by_role("button", name="Use it").click()
        await expect(dialog.locator("#key-reason")).to_contain_text("unknown, revoked or expired")
        await dialog.get_by_label("Key").fill(ADMIN_KEY)
        await dialog.get_by_role("button", name="Use it").click()
        await expect(page.locator("pair-picker .pair-row").first).to_be_visible()
        await page.reload()
        await expect(page.locator("pair-picker .pair-row").first).to_be_visible()
        await expect(dialog).to_be_hidden()


async def test_of_several_models_each_has_its_own_loras_and_defaults(visits: Visits, serve_api: ServeApi) -> None:
    async with serve_api(models=[{"model": MODEL}, {"model": str(CARD)}]) as api, loopback(api.app) as url:
        save_lora(api.lora_root / "lantern.safetensors")
        visit = await visits(url)
        page = visit.page
        await visit.go()
        await expect(page.get_by_role("radio", name="wan22_demo 500")).to_be_visible()
        await expect(page.get_by_label("Strength, low")).to_be_visible()
        await page.get_by_label("Model").select_option("lantern_1b")
        await expect(page.get_by_role("radio", name="wan22_demo 500")).to_have_count(0)
        await expect(page.get_by_label("Strength, low")).to_be_hidden()
        await expect(page.locator(".make [name=width]")).to_have_value("150")
        await page.get_by_role("radio", name="lantern").check(force=True)
        await page.get_by_role("textbox", name="Prompt", exact=True).fill("a lantern")
        await expect(page.locator("#snapped")).to_contain_text("144 × 96")
        await make(page)
        await expect(page.locator("render-card")).to_contain_text("144 × 96")
        (request,) = api.observed.requests
        assert request.specs[0].model == "lantern_1b"


async def test_a_draft_has_its_own_steps_and_gives_back_those_of_before(visits: Visits, drafting: Api) -> None:
    async with loopback(drafting.app) as url:
        visit = await visits(url)
        page = visit.page
        await visit.go()
        await fill(page, "a fox", sample_steps=7)
        await answered(page)
        steps, guidance = (page.locator(f".make [name={name}]") for name in ("sample_steps", "guidance_scale"))
        await page.get_by_role("radio", name="Draft").check(force=True)
        await expect(steps).to_have_value("5")
        await expect(guidance).to_be_disabled()
        await make(page)
        await expect(page.locator("render-card")).to_contain_text("5 steps")
        await page.get_by_role("radio", name="Reference").check(force=True)
        await expect(steps).to_have_value("7")
        await expect(guidance).to_be_enabled()
    (request,) = drafting.observed.requests
    assert [(spec.recipe, spec.sample_steps, spec.guidance_scale) for spec in request.specs] == [("draft", 5, 1.0)]
