"""The official `openai` package against `/v1/videos`: an unchanged client uses a LoRA pair through an alias."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import openai
import pytest
import pytest_asyncio

from serve_app.spec import Expert, Recipe, RenderSpec
from tests.client import pair
from tests.contract import listening
from tests.fixtures.api import UNKNOWN, Api, ServeApi
from tests.fixtures.images import LORA, ServeImages
from tests.serve_app.images.files import file as image_file

# The package warns that OpenAI has withdrawn its own service.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

STYLE = "my-style"
ALIAS = {"model": "wan22_14b_t2v", "loras": pair(), "trigger_word": "sks", "sample_steps": 3, "recipe": "preview"}


@pytest_asyncio.fixture
async def styled(serve_api: ServeApi) -> AsyncIterator[Api]:
    """Yield the API with an alias of the pair."""
    async with serve_api(aliases={STYLE: ALIAS}) as api:
        yield api


@asynccontextmanager
async def openai_client(api: Api) -> AsyncIterator[openai.AsyncOpenAI]:
    """Yield the package's client of an API, over a socket."""
    async with (
        listening(api) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest_asyncio.fixture
async def client(styled: Api) -> AsyncIterator[openai.AsyncOpenAI]:
    """Yield the package's client of the API with the alias."""
    async with openai_client(styled) as client:
        yield client


async def only_spec(api: Api, video_id: str) -> RenderSpec:
    record = await api.store.requests.get(video_id)
    (render,) = record.renders
    return render.spec


async def test_an_unchanged_client_makes_polls_downloads_and_deletes_a_video(
    styled: Api, client: openai.AsyncOpenAI
) -> None:
    video = await client.videos.create(model=STYLE, prompt="[trigger] a fox", seconds="4", size="1280x720")
    assert (video.status, video.object, video.progress, video.error) == ("queued", "video", 0, None)
    assert (video.seconds, video.size, video.prompt) == ("4", "1280x720", "sks a fox")
    spec = await only_spec(styled, video.id)
    assert (spec.num_frames, spec.fps, spec.sample_steps, spec.recipe) == (65, 16, 3, Recipe.PREVIEW)
    assert {lora.expert for lora in spec.loras} == {Expert.HIGH, Expert.LOW}

    polled = asyncio.create_task(client.videos.poll(video.id))
    await styled.finish(await styled.claim(), b"the video")
    done = await polled
    assert (done.status, done.progress, done.id) == ("completed", 100, video.id)
    assert done.completed_at is not None
    assert done.completed_at >= done.created_at

    content = await client.videos.download_content(video.id)
    assert content.content == b"the video"
    deleted = await client.videos.delete(video.id)
    assert (deleted.deleted, deleted.object, deleted.id) == (True, "video.deleted", video.id)
    with pytest.raises(openai.NotFoundError):
        await client.videos.retrieve(video.id)


async def test_the_header_says_when_to_ask_again(styled: Api, client: openai.AsyncOpenAI) -> None:
    video = await client.videos.create(prompt="a fox")
    answer = await client.videos.with_raw_response.retrieve(video.id)
    assert 500 <= int(answer.headers["openai-poll-after-ms"]) <= 5000


async def test_a_pair_and_everything_else_goes_through_extra_body(styled: Api, client: openai.AsyncOpenAI) -> None:
    high, low = pair()
    extra: dict[str, Any] = {
        "loras": [{**high, "network_multiplier": 0.5}, {**low, "network_multiplier": 1}],
        "recipe": "reference",
        "strict": False,
        "seed": 7,
        "guidance_scale": 3.5,
        "neg": "12",  # a text that looks like a number
        "num_frames": 5,
        "sampler": "euler",
    }
    asked: dict[str, Any] = {"model": "wan22_14b_t2v", "prompt": "7", "size": "64x64"}
    for headers in ({}, {"Content-Type": "application/json"}):  # a form, as the package sends it; and JSON
        video = await client.videos.create(**asked, extra_body=extra, extra_headers=headers)
        spec = await only_spec(styled, video.id)
        assert (spec.prompt, spec.negative_prompt, spec.seed, spec.guidance_scale) == ("7", "12", 7, 3.5)
        assert (spec.strict, spec.num_frames, spec.sampler, spec.recipe) == (False, 5, "euler", Recipe.REFERENCE)
        assert {lora.expert: lora.multiplier for lora in spec.loras} == {Expert.HIGH: 0.5, Expert.LOW: 1}


async def test_items_that_a_form_mixes_up_are_refused(client: openai.AsyncOpenAI) -> None:
    high, low = pair()
    mixed = [{**high, "network_multiplier": 0.5}, low]  # whose multiplier it is, a form does not say
    with pytest.raises(openai.BadRequestError, match="give every item the same keys") as refused:
        await client.videos.create(model="wan22_14b_t2v", prompt="a fox", extra_body={"loras": mixed})
    assert refused.value.param == "loras"


WRONG: list[tuple[dict[str, Any], str | None, str]] = [
    ({"size": "32x32"}, "size", "VIDEO_FIELD_REFUSED"),
    ({"size": "large"}, "size", "VALUE_INVALID"),
    ({"seconds": "600"}, "seconds", "VIDEO_FIELD_REFUSED"),
    ({"seconds": "soon"}, "seconds", "VALUE_INVALID"),
    ({"seconds": "4", "extra_body": {"num_frames": 5}}, "seconds", "VIDEO_FIELD_REFUSED"),
    ({"model": "sora-9"}, "model", "MODEL_NOT_FOUND"),
    ({"extra_body": {"sample_steps": 999}}, "sample_steps", "VALUE_INVALID"),
    ({"extra_body": {"steps": 9}}, "steps", "VALUE_INVALID"),
    ({"extra_body": {"loras": [{"path": "a.safetensors", "network_multiplier": 9}]}}, "loras", "VALUE_INVALID"),
    ({"model": "wan22_14b_t2v"}, None, "LORA_FILE_REQUIRED"),
    ({"extra_body": {"input_reference": {"file_id": "file-1"}}}, "input_reference", "VIDEO_FIELD_REFUSED"),
    ({"input_reference": ("a.png", image_file(), "image/png")}, None, "CONTROL_IMAGE_NOT_SUPPORTED"),
]


async def test_a_wrong_value_is_an_exception_that_names_it(client: openai.AsyncOpenAI, styled: Api) -> None:
    for wrong, param, code in WRONG:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.videos.create(**{"model": STYLE, "prompt": "a fox", **wrong})
        error = refused.value
        named = (error.param or "").partition(".")[0] or None
        assert (named, error.code, error.type) == (param, code, "invalid_request_error"), wrong
    styled.must_be_untouched()


async def test_an_image_comes_as_a_file_or_as_an_address(serve_images: ServeImages) -> None:
    picture = image_file(width=600, height=400)  # a body that is read in a thread
    assert len(picture) > 64 << 10
    inline = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    async with serve_images() as api, openai_client(api) as client:
        asked: dict[str, Any] = {"prompt": "a lantern", "size": "96x96"}
        as_file: dict[str, Any] = {"input_reference": ("start.png", picture, "image/png")}
        as_address = {"input_reference": {"image_url": inline}}
        for file, address in ((as_file, {}), ({}, as_address)):
            video = await client.videos.create(**asked, **file, extra_body={"loras": [LORA], **address})
            image = (await only_spec(api, video.id)).image
            assert image is not None
            assert image.sha256 == sha256(picture).hexdigest()


async def test_a_canceled_video_has_failed_with_a_code_and_pollers_stop(
    styled: Api, client: openai.AsyncOpenAI
) -> None:
    video = await client.videos.create(prompt="a fox")
    with pytest.raises(openai.ConflictError, match="cancel it first"):
        await client.videos.delete(video.id)
    await styled.http.post(f"/v1/requests/{video.id}/cancel")
    ended = await client.videos.poll(video.id)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == "cancelled"
    with pytest.raises(openai.NotFoundError):
        await client.videos.download_content(video.id)


async def test_a_failed_video_says_why(styled: Api, client: openai.AsyncOpenAI) -> None:
    video = await client.videos.create(prompt="a fox")
    await styled.fail(await styled.claim())
    ended = await client.videos.retrieve(video.id)
    assert ended.status == "failed"
    assert ended.error is not None
    assert (ended.error.code, ended.error.message) == ("RENDER_FAILED", "the fox ran away; try again")


async def test_models_and_aliases_are_listed(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert listed == [STYLE, "wan22_14b_t2v"]


async def test_an_unknown_video_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.videos.retrieve(UNKNOWN)
    assert missing.value.code == "REQUEST_NOT_FOUND"


async def test_videos_are_listed_page_by_page_in_both_orders(styled: Api, client: openai.AsyncOpenAI) -> None:
    made = [(await client.videos.create(prompt=f"fox {number}")).id for number in range(5)]
    newest_first = [video.id async for video in client.videos.list(limit=2)]
    oldest_first = [video.id async for video in client.videos.list(limit=2, order="asc")]
    assert newest_first == made[::-1]
    assert oldest_first == made
    page = await client.videos.list(after=made[2])
    assert ([video.id for video in page.data], page.has_more) == ([made[1], made[0]], False)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.videos.list(limit=1000)
    assert refused.value.param == "limit"
