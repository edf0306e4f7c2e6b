"""A video is made, watched, played, canceled, made again from its file, and found in the gallery."""

import asyncio
import hashlib
import re
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Route, expect

from tests.browser.conftest import Visit, Visits
from tests.browser.steps import VIDEO_STATE, drop, fill, make, times
from tests.client import Client, body, pair
from tests.fixtures.api import ServeApi
from tests.fixtures.loopback import loopback
from tests.fixtures.renderer import rendering
from tests.fixtures.s3 import S3Server

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIRST_LOAD = 200_000  # bytes


async def test_a_video_is_made_from_a_picked_pair_and_plays(visit: Visit) -> None:
    page = visit.page
    await visit.go()
    await fill(page, "[trigger] in the snow", trigger_word="fox", sample_steps=40)
    assert await visit.loaded_bytes() < FIRST_LOAD
    await expect(page.locator("#snapped")).to_contain_text("64 × 64, 9 frames")
    await make(page)
    card = page.locator("render-card").first
    bar = card.locator("progress")
    await bar.wait_for()
    seen = {0.0}
    while not await bar.is_hidden():
        seen.add(await bar.evaluate("bar => bar.value"))
    assert any(0 < value < 1 for value in seen), seen
    video = card.locator("video")
    await expect(video).to_be_visible()
    before = await times(page, "render-card video")
    await page.wait_for_timeout(300)
    assert await times(page, "render-card video") != before
    ((state,),) = [await video.evaluate_all(VIDEO_STATE)]
    assert (state["paused"], state["width"]) == (False, 64)
    await expect(card).to_contain_text("fox in the snow")
    assert await card.get_by_role("link", name="Download").get_attribute("download")


async def test_a_connection_that_is_lost_is_taken_up_again(visit: Visit) -> None:
    page, lost = visit.page, 0

    async def cut_off(route: Route) -> None:
        nonlocal lost
        lost += 1
        if lost > 2:
            await route.continue_()
        else:
            await route.abort("connectionreset")

    await page.route("**/events", cut_off)
    await visit.go()
    await fill(page, "in spite of all", sample_steps=150, width=128, height=128)
    await make(page)
    await expect(page.locator("render-card .state")).to_contain_text("Step")
    await expect(page.locator("render-card video")).to_be_visible()
    assert lost == 3


async def test_videos_in_a_bucket_play_from_there(visits: Visits, serve_api: ServeApi, s3: S3Server) -> None:
    s3.create("videos")
    async with serve_api(output_url="s3://videos/made") as api, loopback(api.app) as url, rendering(api):
        visit = await visits(url, also=s3.url)
        page = visit.page
        await visit.go()
        await fill(page, "far away")
        await make(page)
        video = page.locator("render-card video")
        await expect(video).to_be_visible()
        while not (await times(page, "render-card video"))[0]:
            await page.wait_for_timeout(100)
        assert any(answer.url.startswith(s3.url) for answer in visit.responses)
        await video.evaluate("(video, other) => { video.src = other }", "http://127.0.0.1:1/elsewhere.mp4")
        await page.wait_for_timeout(300)
        (stopped,) = visit.wrong
        assert "media-src" in stopped  # nowhere else
        visit.wrong.clear()


async def test_a_video_is_canceled_while_it_is_made(visit: Visit) -> None:
    page = visit.page
    await visit.go()
    await fill(page, "too long", sample_steps=150, width=256, height=256)
    await make(page)
    card = page.locator("render-card").first
    await card.get_by_role("button", name="Cancel").click()
    await expect(card.locator(".state")).to_have_text("Canceled")
    await expect(card.get_by_role("button", name="Use these settings")).to_be_visible()


async def test_the_program_that_is_copied_makes_the_same_video(
    visit: Visit, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = client.submit(body({"prompt": 'a "quoted" fox\nand its \\ shadow', "seed": 2**60 + 1}))
    client.wait(request_id)
    await visit.go(f"#/watch/{request_id}")
    await visit.page.get_by_role("button", name="Copy as").click()
    dialog = visit.page.get_by_role("dialog", name="Copy these settings")
    await dialog.get_by_role("radio", name="Python").check(force=True)
    program = await dialog.locator("pre").inner_text()
    monkeypatch.chdir(tmp_path)
    await asyncio.to_thread(exec, compile(program, "copied", "exec"), {})
    (made,) = client.result(request_id)["outputs"]["videos"]
    assert hashlib.sha256((tmp_path / "video_0.mp4").read_bytes()).hexdigest() == made["sha256"]


@pytest.mark.parametrize("output_format", ["mp4", "webp", "png"])
async def test_a_dropped_file_brings_its_settings_back(visit: Visit, client: Client, output_format: str) -> None:
    seed = 2**64 - 3  # more than a number of JavaScript holds
    request = body({"prompt": "sks <in> & out 🦊", "neg": "blurry", "seed": seed, "output_format": output_format})
    (content,) = client.render({**request, "recipe": "preview"})
    page = visit.page
    await visit.go()
    await page.locator("pair-picker .pair-row").first.wait_for()
    await drop(page, f"download.{output_format}", content)
    await expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("sks <in> & out 🦊")
    await expect(page.locator(".make [name=seed]")).to_have_value(str(seed))
    await expect(page.locator(".make [name=neg]")).to_have_value("blurry")
    await expect(page.locator(".make [name=recipe][value=preview]")).to_be_checked()
    await expect(page.locator("input[aria-label='wan22_demo 500']").first).to_be_checked()


async def test_a_file_without_settings_says_so(visit: Visit) -> None:
    await visit.go()
    await visit.page.locator("pair-picker .pair-row").first.wait_for()
    await drop(visit.page, "holiday.mp4", b"\0\0\0\x10ftypisom" + bytes(64))
    await expect(visit.page.locator(".make .problem")).to_contain_text("holiday.mp4 carries no settings")


async def test_what_is_wrong_stands_beside_its_field(visit: Visit) -> None:
    page = visit.page
    await visit.go()
    await fill(page, "a fox", width=4097)
    await page.get_by_role("button", name="Make video").click()
    width = page.locator(".make [name=width]")
    await expect(width).to_have_attribute("aria-invalid", "true")
    problem = page.locator("#problem-width")
    await expect(problem).to_have_text("Width: should be less than or equal to 4096")
    row, text = (
        await page.locator(".row", has=page.locator("[name=width]")).bounding_box(),
        await problem.bounding_box(),
    )
    assert row is not None
    assert text is not None
    assert text["y"] >= row["y"] + row["height"]  # below its fields, which keep their places
    await expect(width).to_be_focused()


async def test_what_the_form_cannot_show_of_a_request_is_told(visit: Visit, client: Client) -> None:
    request = body({"prompt": "the first"}, {"prompt": "the second"})
    request["loras"] += [{**pair()[0], "network_multiplier": 0.5}]
    request_id = client.submit(request)
    client.wait(request_id)
    page = visit.page
    await visit.go(f"#/watch/{request_id}")
    await page.get_by_role("button", name="Use these settings").click()
    await expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("the first")
    told = page.locator(".left-out p")
    await expect(told).to_have_text(
        [re.compile("has 3 LoRAs, several of them for one side"), re.compile("has 2 prompts")]
    )
    await expect(page.locator(".make [name=cost]")).to_contain_text("to render")
    await expect(told).to_have_count(2)


async def test_the_gallery_finds_and_deletes(visit: Visit, client: Client) -> None:
    client.render(body({"prompt": "a very rare Okapi"}))
    page = visit.page
    await visit.go("#/gallery")
    await page.get_by_label("Search prompts").fill("okapi")
    await expect(page.locator(".card")).to_have_count(1)
    await expect(page.locator(".card")).to_contain_text("a very rare Okapi")
    page.once("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("button", name="Delete: a very rare Okapi").click()
    await expect(page.locator(".card")).to_have_count(0)
    found = client.http.get("/v1/requests", params={"text": "okapi"})
    assert (found.status_code, found.json()["requests"]) == (httpx.codes.OK, [])


async def test_the_gallery_follows_what_is_being_made(visit: Visit, client: Client) -> None:
    page = visit.page
    await visit.go("#/gallery")
    await expect(page.locator(".cards li").first).to_be_visible()
    long = {"sample_steps": 150, "width": 256, "height": 256, "num_frames": 33}
    request_id = client.submit(body({"prompt": "while it is made", **long}, preview=True))
    card = page.locator(f"[data-request='{request_id}']")  # comes by itself
    await expect(card.locator(".placeholder")).to_contain_text("being made")
    await expect(card.locator("progress")).to_be_visible()
    await expect(card.locator("img.preview")).to_be_visible()
    await card.get_by_role("button", name="Cancel: while it is made").click()
    await expect(card.locator(".placeholder")).to_have_text("canceled")
    await expect(card.get_by_role("button", name="Delete: while it is made")).to_be_visible()
