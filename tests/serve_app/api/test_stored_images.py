"""Control images are stored with their request: once for each content, and not without it, whatever happens."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api import durable
from serve_app.errors import OutputNotWritten, StoreUnavailable
from tests.fixtures.api import Api, Json
from tests.fixtures.images import PNG, ServeImages, kept, pinned, request, text
from tests.serve_app.images.files import file


async def test_delete_takes_the_image_along(serve_images: ServeImages) -> None:
    async with serve_images() as api:
        request_id = await api.submit(request({"ctrl_img": text(PNG)}, {}))
        for _ in range(2):
            await api.finish(await api.claim())
        assert len(kept(api)) == 3
        assert (await api.http.delete(f"/v1/requests/{request_id}")).status_code == httpx.codes.OK
        assert list((api.directory / "outputs").iterdir()) == []


async def post(api: Api, body: Json, key: str) -> httpx.Response:
    return await api.http.post("/v1/inference", json=body, headers={"Idempotency-Key": key})


async def test_a_retry_is_the_same_request_and_keeps_nothing_twice(serve_images: ServeImages, image_root: Path) -> None:
    async with serve_images(image_root=image_root) as api:
        body = request({"ctrl_img": "folder/fox.png"})
        answers = await asyncio.gather(*(post(api, body, "k") for _ in range(4)))
        (image_root / "folder" / "fox.png").unlink()
        answers.append(await post(api, body, "k"))
        assert {answer.status_code for answer in answers} == {200}
        (request_id,) = {answer.json()["request_id"] for answer in answers}
        assert [path.name for path in (api.directory / "outputs").iterdir()] == [request_id]
        assert kept(api) == [f"inputs/{pinned(PNG).sha256}"]


@pytest.mark.parametrize("other", [{"ctrl_img": text(file("PNG", seed=1))}, {"ctrl_img": text(PNG), "fit": "crop"}])
async def test_another_image_or_fit_is_another_body(serve_images: ServeImages, other: Json) -> None:
    async with serve_images() as api:
        assert (await post(api, request({"ctrl_img": text(PNG)}), "k")).status_code == httpx.codes.OK
        answer = await post(api, request(other), "k")
        assert answer.json()["detail"]["error"]["code"] == "IDEMPOTENCY_CONFLICT"
        assert len(kept(api)) == 1


async def test_a_request_that_is_not_admitted_leaves_no_image(serve_images: ServeImages) -> None:
    async with serve_images(max_queued=1) as api:
        await api.submit(request({}))
        answer = await api.post(request({"ctrl_img": text(PNG)}))
        assert answer.json()["detail"]["error"]["code"] == "QUEUE_FULL"
        assert list((api.directory / "outputs").rglob("*")) == []


async def test_a_place_that_cannot_be_written_is_a_503_and_nothing_is_accepted(
    serve_images: ServeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_args: Any) -> None:
        raise OutputNotWritten("the finished file could not be stored: No space left on device")

    async with serve_images() as api:
        monkeypatch.setattr(api.outputs, "put", full)
        answer = await api.post(request({"ctrl_img": text(PNG)}))
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert answer.json()["detail"]["error"]["code"] == "OUTPUT_STORAGE_UNAVAILABLE"
        assert int(answer.headers["retry-after"]) > 0
        api.must_be_untouched()


@pytest.mark.parametrize("stored", [True, False])
async def test_an_image_stays_until_it_is_known_whether_its_request_was_stored(
    serve_images: ServeImages, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    async with serve_images() as api:
        submit = api.store.requests.submit

        async def lost(*args: Any) -> None:
            if stored:
                await submit(*args)
            raise StoreUnavailable("the connection broke while it was committing")

        monkeypatch.setattr(api.store.requests, "submit", lost)
        monkeypatch.setattr(durable, "SETTLES_AFTER_S", 0.3)
        answer = await api.post(request({"ctrl_img": text(PNG)}))
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert len(kept(api)) == 1
        await asyncio.gather(*durable._settling)
        assert len(kept(api)) == stored


async def test_who_disconnects_leaves_no_request_without_its_image(
    serve_images: ServeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_images() as api:
        begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
        submit = api.store.requests.submit

        async def slow(*args: Any) -> Any:
            begun.set()
            await go.wait()
            accepted = await submit(*args)
            done.set()
            return accepted

        monkeypatch.setattr(api.store.requests, "submit", slow)
        call = asyncio.create_task(api.post(request({"ctrl_img": text(PNG)})))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go.set()
        await done.wait()
        assert kept(api) == [f"inputs/{pinned(PNG).sha256}"]
        assert (await api.claim()).spec.image == pinned(PNG)
