"""`GET /v1/requests` and `GET /v1/requests/{id}`: what was asked for, and a body that asks for the same again."""

import base64
import json
from typing import Any

import pytest

from serve_app.spec import RenderSpec
from tests.client import body, pair
from tests.fixtures.api import UNKNOWN, Api, Json, ServeApi
from tests.fixtures.images import ServeImages, request
from tests.serve_app.images.files import file

TOKEN = "hf_" + "x" * 20


async def replayed(api: Api, request_id: str) -> list[RenderSpec]:
    """Return what the effective body of a request becomes when it is posted again."""
    details = await api.get(f"/v1/requests/{request_id}")
    assert details["replayable"]
    return await api.specs(details["request"])


def frames(spec: RenderSpec) -> Json:
    """Return the part of a spec from which its frames follow."""
    return spec.model_dump(exclude={"warnings", "sampler_assumed"})


async def test_a_list_says_what_each_request_makes(api: Api) -> None:
    first = await api.submit(body({"prompt": "a [trigger]", "seed": 7}, {}, trigger_word="fox"))
    second = await api.submit(body(recipe="preview"))
    await api.finish(await api.claim())
    page = await api.get("/v1/requests")
    assert [each["request_id"] for each in page["requests"]] == [second, first]
    assert page["next"] is None
    newest, oldest = page["requests"]
    assert {key: oldest[key] for key in await api.status(first)} == await api.status(first)
    assert (newest["recipe"], oldest["recipe"], oldest["speed"]) == ("preview", "reference", "exact")
    made, waiting = oldest["prompts"]
    assert (made["prompt"], made["seed"], made["width"], made["num_frames"]) == ("a fox", 7, 64, 5)
    assert (await api.http.get(made["url"])).content == b"a video"
    assert (waiting["url"], waiting["thumbnail_url"]) == (None, None)
    assert oldest["loras"] == [{**lora, "network_multiplier": 1.0} for lora in pair()]


async def test_filters_and_pages(api: Api) -> None:
    ids = [await api.submit(body({"prompt": f"a {name}"})) for name in ("fox", "dog", "Foxglove")]
    await api.finish(await api.claim())
    assert [each["request_id"] for each in (await api.get("/v1/requests?text=fox"))["requests"]] == [ids[2], ids[0]]
    done = await api.get("/v1/requests?status=succeeded")
    assert [each["request_id"] for each in done["requests"]] == [ids[0]]
    both = await api.get("/v1/requests?status=succeeded&status=in_queue&limit=2")
    assert [each["request_id"] for each in both["requests"]] == [ids[2], ids[1]]
    rest = await api.get(f"/v1/requests?status=succeeded&status=in_queue&limit=2&after={both['next']}")
    assert [each["request_id"] for each in rest["requests"]] == [ids[0]]
    key = done["requests"][0]["pair_key"]
    assert len((await api.get(f"/v1/requests?pair={key}"))["requests"]) == 3
    assert (await api.get(f"/v1/requests?pair={'0' * 16}"))["requests"] == []
    assert (await api.get("/v1/requests?model=other"))["requests"] == []


@pytest.mark.parametrize(
    ("query", "status"),
    [("after=x", 400), ("limit=0", 422), ("limit=101", 422), ("status=done", 422), ("pair=x", 422), ("model=%00", 422)],
)
async def test_a_wrong_parameter_is_named(api: Api, query: str, status: int) -> None:
    answer = await api.http.get(f"/v1/requests?{query}")
    assert answer.status_code == status
    assert query.partition("=")[0] in answer.text


REPLAYED = [
    body({"seed": -1}, {"width": 500, "height": 333, "num_frames": 1000, "sampler": "euler"}, strict=False),
    body({"prompt": "[trigger] runs", "trigger_word": "sks", "shift": 7.5, "guidance_scale": 1}, recipe="preview"),
    body(
        {"prompt": "a --seed 5 --m 0.5"},
        {"prompt": "b --w 500", "width": None},
        {"prompt": "c --m -1.25"},
        recipe="preview",
    ),
    body({"sampler": "unipc", "output_format": "png"}, recipe="preview", priority="high", preview=True),
    body(
        *({"prompt": "a --m 0.5"}, {"prompt": "b"}),
        loras=[{**pair()[0], "network_multiplier": 0.5}, pair()[1]],
        recipe="preview",
    ),
    body(loras=[{**side, "network_multiplier": scale} for side, scale in zip(pair(), (0.3, -1), strict=True)]),
]


@pytest.mark.parametrize("sent", REPLAYED)
async def test_the_effective_request_posted_again_gives_the_same_frames(api: Api, sent: Json) -> None:
    request_id = await api.submit(sent)
    record = await api.store.requests.get(request_id)
    again = await replayed(api, request_id)
    assert [frames(spec) for spec in again] == [frames(render.spec) for render in record.renders]


async def test_its_control_images_come_with_it(serve_images: ServeImages) -> None:
    image = base64.b64encode(file("PNG", width=40, height=30)).decode()
    async with serve_images() as api:
        request_id = await api.submit(request({"ctrl_img": image, "fit": "crop"}, {}))
        details = await api.get(f"/v1/requests/{request_id}")
        first, second = details["request"]["prompts"]
        assert (first["ctrl_img"], first["fit"]) == (f"data:image/png;base64,{image}", "crop")
        assert (second["ctrl_img"], second["fit"]) == (None, None)
        again = await replayed(api, request_id)
        assert [spec.image for spec in again] == [
            render.spec.image for render in (await api.store.requests.get(request_id)).renders
        ]


async def test_an_image_that_is_gone_makes_it_a_request_that_cannot_be_sent_again(serve_images: ServeImages) -> None:
    async with serve_images() as api:
        request_id = await api.submit(
            request({"ctrl_img": base64.b64encode(file("PNG", width=40, height=30)).decode()})
        )
        record = await api.store.requests.get(request_id)
        await api.outputs.delete(record.input_names)
        details = await api.get(f"/v1/requests/{request_id}")
        assert details["replayable"] is False
        assert details["request"]["prompts"][0]["ctrl_img"] is None


async def test_no_token_is_in_any_answer(api: Api) -> None:
    request_id = await api.submit(body(hf_token=TOKEN))
    for path in ("/v1/requests", f"/v1/requests/{request_id}"):
        assert TOKEN not in json.dumps(await api.get(path))


async def test_an_unknown_request_is_not_found(api: Api) -> None:
    answer = await api.http.get(f"/v1/requests/{UNKNOWN}")
    assert answer.status_code == 404
    assert answer.json()["detail"]["error"]["code"] == "REQUEST_NOT_FOUND"


async def test_a_list_holds_the_own_requests_only(serve_api: ServeApi) -> None:
    async with serve_api(trust_tenant_header=True) as api:
        answer = await api.http.post("/v1/inference", json=body(), headers={"X-Tenant": "mine"})
        mine: dict[str, Any] = (await api.http.get("/v1/requests", headers={"X-Tenant": "mine"})).json()
        assert [each["request_id"] for each in mine["requests"]] == [answer.json()["request_id"]]
        assert (await api.http.get("/v1/requests")).json()["requests"] == []


async def test_a_filter_that_does_not_exist_is_refused_by_name(api: Api) -> None:
    answer = await api.http.get("/v1/requests?state=failed&limit=2&limit=3&stat=")
    assert answer.status_code == 422
    assert [(each["loc"], each["type"]) for each in answer.json()["detail"]] == [
        (["query", "state"], "extra_forbidden"),
        (["query", "stat"], "extra_forbidden"),
    ]
    assert "after, limit, model, pair, status, text" in answer.json()["detail"][0]["msg"]
