"""The description that clients and their tools read."""

import inspect
import re

import pytest
from pydantic import BaseModel

from serve_app.api.openapi import request_example
from serve_app.api.schemas import answers, bodies, errors, inspection, listing, loras, service, videos, webhooks
from serve_app.api.schemas import operations as operation_schemas
from serve_app.api.schemas.bodies import Body, InferenceRequest, RequestOptions
from serve_app.models.card import load_card
from tests.client import pair
from tests.fixtures.api import Api, Json
from tests.fixtures.specs import MODEL

EXAMPLE = request_example(load_card(MODEL))
MODELS = [
    model
    for module in (bodies, answers, errors, inspection, listing, loras, operation_schemas, service, videos, webhooks)
    for name, model in inspect.getmembers(module, inspect.isclass)
    if issubclass(model, BaseModel)
    and model.__module__ == module.__name__
    and not name.startswith("_")
    and model not in (Body, RequestOptions)
]
OPERATIONS = {
    ("post", "/v1/inference"): {"200", "400", "409", "422", "429", "503"},
    ("post", "/v1/forecast"): {"200", "400", "422", "503"},
    ("get", "/v1/requests"): {"200", "400", "422"},
    ("get", "/v1/requests/{request_id}"): {"200", "404", "503"},
    ("get", "/v1/requests/{request_id}/status"): {"200", "404"},
    ("get", "/v1/requests/{request_id}/events"): {"200", "204", "400", "404", "429", "503"},
    ("get", "/v1/requests/{request_id}/result"): {"200", "404"},
    ("get", "/v1/requests/{request_id}/webhooks"): {"200", "404"},
    ("post", "/v1/requests/{request_id}/cancel"): {"200", "404"},
    ("delete", "/v1/requests/{request_id}"): {"200", "404", "409"},
    ("get", "/v1/requests/{request_id}/outputs/{index}"): {"200", "206", "404", "416"},
    ("get", "/v1/loras"): {"200", "503"},
    ("put", "/v1/loras/{path}"): {"200", "201", "400", "403", "409", "413", "422", "503"},
    ("post", "/v1/loras/inspect"): {"200", "422"},
    ("get", "/v1/models"): {"200"},
    ("get", "/v1/usage"): {"200", "401", "403", "429", "503"},
    ("get", "/health"): {"200", "503"},
    ("post", "/v1/videos"): {"200", "400", "409", "429", "503"},
    ("get", "/v1/videos"): {"200", "400", "404"},
    ("get", "/v1/videos/{request_id}"): {"200", "404"},
    ("delete", "/v1/videos/{request_id}"): {"200", "404", "409"},
    ("get", "/v1/videos/{request_id}/content"): {"200", "206", "404", "416"},
    ("get", "/health/live"): {"200"},
    ("get", "/health/ready"): {"200", "503"},
    ("get", "/metrics"): {"200", "503"},
    ("get", "/v1/cluster"): {"200", "503"},
}


async def operations(api: Api) -> dict[tuple[str, str], Json]:
    paths: Json = (await api.get("/openapi.json"))["paths"]
    return {(method, path): operation for path, methods in paths.items() for method, operation in methods.items()}


async def test_every_endpoint_is_described_with_its_answers(api: Api) -> None:
    found = await operations(api)
    assert found.keys() == OPERATIONS.keys()
    for key, operation in found.items():
        assert operation["summary"], key
        assert operation["description"], key
        assert operation["tags"], key
        assert OPERATIONS[key] <= operation["responses"].keys(), key
        assert all(answer["description"] for answer in operation["responses"].values()), key


async def test_every_parameter_is_described(api: Api) -> None:
    parameters = [
        (key, parameter["name"], parameter.get("description"))
        for key, operation in (await operations(api)).items()
        for parameter in operation.get("parameters", [])
    ]
    assert parameters
    assert [parameter for parameter in parameters if not parameter[-1]] == []


async def test_every_property_has_a_description_or_an_example(api: Api) -> None:
    bare = [
        f"{schema}.{name}"
        for schema, content in (await api.get("/openapi.json"))["components"]["schemas"].items()
        for name, definition in content.get("properties", {}).items()
        if not schema.endswith("ValidationError")  # FastAPI's own
        and not definition.keys() & {"description", "examples"}
    ]
    assert bare == []


async def test_every_schema_is_described(api: Api) -> None:
    schemas = (await api.get("/openapi.json"))["components"]["schemas"]
    assert {model.__name__ for model in MODELS} <= schemas.keys()
    assert [model.__name__ for model in MODELS if not schemas[model.__name__].get("description")] == []


@pytest.mark.parametrize("model", MODELS)
def test_every_example_of_a_field_is_valid(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        for example in field.examples or []:
            model.__pydantic_validator__.validate_assignment(model.model_construct(), name, example)


async def test_the_example_of_a_request_is_accepted(api: Api) -> None:
    for lora, good in zip(InferenceRequest.model_validate(EXAMPLE).loras, pair(), strict=True):
        (api.lora_root / lora.path).parent.mkdir(exist_ok=True)
        (api.lora_root / good["path"]).rename(api.lora_root / lora.path)
    request_id = await api.submit(EXAMPLE)
    (spec,) = [render.spec for render in (await api.store.requests.get(request_id)).renders]
    assert spec.prompt == "sks a photo of a person"


async def test_the_request_example_is_in_the_description(api: Api) -> None:
    schemas = (await api.get("/openapi.json"))["components"]["schemas"]
    assert schemas["InferenceRequest"]["examples"] == [EXAMPLE]


async def test_limits_and_choices_are_in_the_description(api: Api) -> None:
    schemas = (await api.get("/openapi.json"))["components"]["schemas"]
    width = schemas["PromptItem"]["properties"]["width"]["anyOf"][0]
    assert (width["minimum"], width["maximum"]) == (64, 4096)
    assert schemas["OutputFormat"]["enum"] == ["mp4", "webp", "png"]
    assert schemas["PromptItem"]["additionalProperties"] is False


async def test_the_description_can_be_read_in_a_browser_without_any_other_server(api: Api) -> None:
    page = await api.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text
    assert '"validatorUrl": null' in page.text
    assert "//" not in re.sub(r"<!--.*?-->|^ *//.*$", "", page.text, flags=re.MULTILINE)
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 3
    for asset in assets:
        assert (await api.http.get(asset)).status_code == 200, asset


async def test_the_headers_of_a_post_are_described(api: Api) -> None:
    parameters = (await operations(api))["post", "/v1/inference"]["parameters"]
    assert {parameter["name"]: parameter["in"] for parameter in parameters} == {
        "X-Tenant": "header",
        "Idempotency-Key": "header",
        "Prefer": "header",
    }
    assert all(parameter["description"] for parameter in parameters)
