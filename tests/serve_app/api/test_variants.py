"""`?variant=` of an output: a picture of the video, drawn once and deleted with it."""

import asyncio
import io
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from PIL import Image

from serve_app.clips import variants
from tests.client import body
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.renderer import rendering


@pytest_asyncio.fixture
async def made(api: Api) -> AsyncIterator[str]:
    """Yield the address of a finished video of 9 frames, 96 x 64."""
    yield await render(api, {})


async def render(api: Api, prompt: dict[str, object]) -> str:
    small = {"width": 96, "num_frames": 9, **prompt}
    async with rendering(api):
        answer = await api.http.post("/v1/inference", json=body(small), headers={"Prefer": "wait=30"})
    url: str = answer.json()["outputs"]["videos"][0]["url"]
    return url


async def picture(api: Api, url: str, variant: str) -> Image.Image:
    answer = await api.http.get(f"{url}?variant={variant}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/webp"
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.parametrize("output_format", ["mp4", "webp", "png"])
async def test_each_format_has_a_thumbnail_and_a_sprite_sheet(api: Api, output_format: str) -> None:
    url = await render(api, {"output_format": output_format})
    assert (await picture(api, url, "thumbnail")).size == (96, 64)
    assert (await picture(api, url, "spritesheet")).size == (3 * 96, 3 * 64)
    assert (await api.http.get(f"{url}?variant=video")).content == (await api.http.get(url)).content


async def test_a_list_says_where_the_thumbnail_is(api: Api, made: str) -> None:
    (request,) = (await api.get("/v1/requests"))["requests"]
    (prompt,) = request["prompts"]
    assert prompt["thumbnail_url"] == f"{made}?variant=thumbnail"


async def test_a_picture_is_drawn_once(api: Api, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = variants.draw

    def counted(*args: object) -> bytes:
        drawn.append(args)
        return draw(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(variants, "draw", counted)
    answers = await asyncio.gather(*(api.http.get(f"{made}?variant=thumbnail") for _ in range(8)))
    await api.http.get(f"{made}?variant=thumbnail")
    assert len(drawn) == 1
    assert len({answer.content for answer in answers}) == 1
    same = await api.http.get(f"{made}?variant=thumbnail", headers={"If-None-Match": answers[0].headers["ETag"]})
    assert same.status_code == 304
    assert answers[0].headers["ETag"] != (await api.http.get(made)).headers["ETag"]


async def test_pictures_are_deleted_with_their_video(api: Api, made: str) -> None:
    for variant in ("thumbnail", "spritesheet"):
        await picture(api, made, variant)
    request_id = made.split("/")[-3]
    assert (await api.http.delete(f"/v1/requests/{request_id}")).status_code == 200
    assert not [path for path in (api.directory / "outputs").rglob("*") if path.is_file()]


async def test_a_video_that_is_none_has_no_picture(api: Api) -> None:
    request_id = await api.submit(body())
    await api.finish(await api.claim(), b"no video at all")
    answer = await api.http.get(f"/v1/requests/{request_id}/outputs/0?variant=thumbnail")
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (410, "OUTPUT_GONE")


async def test_an_overwritten_video_has_no_picture(api: Api, made: str) -> None:
    (path,) = (api.directory / "outputs").rglob("*.mp4")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert (await api.http.get(f"{made}?variant=thumbnail")).status_code == 410


async def test_an_unknown_variant_and_an_unfinished_video(serve_api: ServeApi) -> None:
    async with serve_api() as api:
        request_id = await api.submit(body())
        url = f"/v1/requests/{request_id}/outputs/0"
        assert (await api.http.get(f"{url}?variant=poster")).status_code == 422
        assert (await api.http.get(f"{url}?variant=thumbnail")).status_code == 404
