"""From a POST to the video, as the reference server's clients go."""

from uuid import UUID

import pytest

from tests.client import body
from tests.fixtures.api import Api, Json, ServeApi, on_both_databases

pytestmark = on_both_databases

VIDEO_FIELDS = ("format", "width", "height", "num_frames", "fps", "seed")


async def test_a_client_posts_polls_fetches_the_result_and_downloads_the_video(api: Api) -> None:
    posted = await api.post(body({"width": 100, "num_frames": 6}))
    assert posted.status_code == 200
    job = posted.json()
    assert job["status"] == "in_queue"
    status_path = f"/v1/requests/{job['request_id']}/status"
    assert (await api.get(status_path))["status"] == "in_queue"
    claim = await api.claim()
    assert (await api.get(status_path))["status"] == "in_progress"
    await api.finish(claim, b"moving pictures")
    assert (await api.get(status_path))["status"] == "succeeded"
    result = await api.result(job["request_id"])
    assert (result["request_id"], result["status"], result["error"]) == (job["request_id"], "succeeded", None)
    assert result["outputs"]["images"] == []
    (video,) = result["outputs"]["videos"]
    assert {field: video[field] for field in VIDEO_FIELDS} == {
        "format": "mp4",
        "width": 96,
        "height": 64,
        "num_frames": 5,
        "fps": 16,
        "seed": 42,
    }
    assert (await api.http.get(video["url"])).content == b"moving pictures"


async def test_the_links_of_an_accepted_request_lead_to_it(api: Api) -> None:
    job = (await api.post(body())).json()
    assert str(UUID(job["request_id"])) == job["request_id"]
    for link in (job["status_url"], job["result_url"]):
        assert (await api.get(link))["request_id"] == job["request_id"]
    canceled = await api.http.post(job["cancel_url"])
    assert (canceled.json()["request_id"], canceled.json()["status"]) == (job["request_id"], "canceled")


async def test_an_accepted_request_is_durable_before_its_answer_and_then_announced(api: Api) -> None:
    request_id = await api.submit(body({"prompt": "a fox"}, {"prompt": "an owl"}))
    record = await api.store.requests.get(request_id)
    assert [(render.index, render.spec.prompt) for render in record.renders] == [(0, "a fox"), (1, "an owl")]
    assert api.announced.count == 1


async def test_every_post_is_a_request_of_its_own(api: Api) -> None:
    ids = {await api.submit(body()) for _ in range(5)}
    assert len(ids) == 5
    assert api.announced.count == 5


async def test_polling_announces_nothing(api: Api) -> None:
    request_id = await api.submit(body())
    await api.status(request_id)
    await api.result(request_id)
    assert api.announced.count == 1


async def links(api: Api) -> list[str]:
    """Return every link that the API gives out for one request."""
    job: Json = (await api.post(body())).json()
    await api.finish(await api.claim())
    (video,) = (await api.result(job["request_id"]))["outputs"]["videos"]
    return [job["status_url"], job["result_url"], job["cancel_url"], video["url"]]


@pytest.mark.parametrize("address", ["http://api.test", "https://gpu-box:8443", "http://10.0.0.7:8000"])
async def test_links_lead_to_the_address_that_the_client_called(serve_api: ServeApi, address: str) -> None:
    async with serve_api(address=address) as api:
        assert all(link.startswith(f"{address}/v1/requests/") for link in await links(api))


@pytest.mark.parametrize("base_url", ["https://videos.example.com", "https://example.com/videos/"])
async def test_links_lead_to_the_public_address_where_one_is_configured(serve_api: ServeApi, base_url: str) -> None:
    async with serve_api(base_url=base_url) as api:
        assert all(link.startswith(f"{base_url.rstrip('/')}/v1/requests/") for link in await links(api))
