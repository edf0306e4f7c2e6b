"""What a request gave, at every point of its life."""

from serve_app.errors import RenderFailed
from serve_app.results import RenderMetadata, Timings
from tests.client import body
from tests.fixtures.api import Api, on_both_databases
from tests.fixtures.store import queued

pytestmark = on_both_databases


async def test_before_anything_is_finished_there_are_no_outputs(api: Api) -> None:
    request_id = await api.submit(body())
    for status in ("in_queue", "in_progress"):
        result = await api.result(request_id)
        assert (result["status"], result["outputs"], result["metadata"]) == (status, None, None)
        assert (result["finished_at"], result["error"], result["error_code"]) == (None, None, None)
        if status == "in_queue":
            await api.claim()


async def test_what_is_finished_is_there_while_the_rest_runs(api: Api) -> None:
    request_id = await api.submit(body({}, {}, {}))
    _, second = await api.claim(), await api.claim()
    await api.finish(second, b"the second")
    result = await api.result(request_id)
    assert result["status"] == "in_progress"
    (video,) = result["outputs"]["videos"]
    assert video["index"] == 1
    assert (await api.http.get(video["url"])).content == b"the second"


async def test_videos_are_in_the_order_of_their_prompts(api: Api) -> None:
    request_id = await api.submit(body({}, {"width": 96}, {"width": 128}))
    claims = [await api.claim() for _ in range(3)]
    for claim in reversed(claims):
        await api.finish(claim, str(claim.index).encode())
    result = await api.result(request_id)
    videos = result["outputs"]["videos"]
    assert [(video["index"], video["width"], video["seed"]) for video in videos] == [
        (0, 64, 42),
        (1, 96, 43),
        (2, 128, 44),
    ]
    assert [(await api.http.get(video["url"])).text for video in videos] == ["0", "1", "2"]
    assert [prompt["index"] for prompt in result["metadata"]["prompts"]] == [0, 1, 2]


async def test_what_was_used_is_reported_for_each_prompt(api: Api) -> None:
    request_id = await api.submit(body())
    await api.store.claims.release(await api.claim(), max_attempts=3)
    await api.finish(await api.claim())
    metadata = (await api.result(request_id))["metadata"]
    (prompt,) = metadata["prompts"]
    assert prompt.keys() == {"index", *RenderMetadata.model_fields}
    assert {field: prompt[field] for field in ("index", "recipe", "attempt")} == {
        "index": 0,
        "recipe": "reference",
        "attempt": 2,
    }
    assert prompt["timings"].keys() == Timings.model_fields.keys()


async def test_the_file_path_is_where_the_video_lies_on_the_server(api: Api) -> None:
    request_id = await api.submit(body())
    output = await api.finish(await api.claim(), b"moving pictures")
    (video,) = (await api.result(request_id))["outputs"]["videos"]
    assert video["file_path"] == str(api.directory / "outputs" / output.name)
    assert (api.directory / "outputs" / output.name).read_bytes() == b"moving pictures"


async def test_after_a_failure_the_finished_siblings_stay(api: Api) -> None:
    request_id = await api.submit(body({}, {}, {}))
    await api.finish(await api.claim(), b"a survivor")
    await api.fail(await api.claim(), RenderFailed("the fox ran away; try again"))
    result = await api.result(request_id)
    assert (result["status"], result["error_code"]) == ("failed", "RENDER_FAILED")
    assert result["error"] == "the fox ran away; try again"
    (video,) = result["outputs"]["videos"]
    assert (video["index"], (await api.http.get(video["url"])).content) == (0, b"a survivor")
    assert await queued(api.store) == []


async def test_after_a_failure_of_the_only_render_the_outputs_are_empty(api: Api) -> None:
    request_id = await api.submit(body())
    await api.fail(await api.claim())
    result = await api.result(request_id)
    assert result["outputs"] == {"images": [], "videos": []}
    assert result["finished_at"] is not None


async def test_a_failed_request_leaves_the_next_one_alone(api: Api) -> None:
    await api.submit(body())
    request_id = await api.submit(body())
    await api.fail(await api.claim())
    await api.finish(await api.claim())
    assert (await api.result(request_id))["status"] == "succeeded"
