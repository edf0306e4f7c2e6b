"""The reference server's rules for models of two experts, and this model's own."""

from typing import Any

from tests.client import body, pair
from tests.fixtures.api import Api
from tests.fixtures.each import each
from tests.fixtures.specs import MODEL

HIGH, LOW = pair()


@each("loras", [[HIGH], [LOW], [HIGH, LOW], [LOW, HIGH]])
async def test_a_pair_is_one_high_or_one_low_or_one_of_each_in_any_order(api: Api, loras: list[dict[str, Any]]) -> None:
    (spec,) = await api.specs(body(loras=loras))
    assert {lora.expert.value: lora.reference for lora in spec.loras} == {
        lora["transformer"]: lora["path"] for lora in loras
    }


async def test_a_request_without_loras_is_refused(api: Api) -> None:
    assert (await api.refused(body(loras=[]), "LORA_FILE_REQUIRED"))["details"] == {"loras": []}


@each("side", [{}, {"transformer": None}])
@each("others", [[], [LOW], [LOW, HIGH]])
async def test_a_lora_that_does_not_name_its_expert_is_refused(
    api: Api, side: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    error = await api.refused(body(loras=[{"path": HIGH["path"], **side}, *others]), "MOE_FORMAT_REQUIRED")
    assert "low" in error["message"]
    assert "high" in error["message"]
    assert error["details"]["loras"][0]["path"] == HIGH["path"]


@each("loras", [[HIGH, HIGH], [LOW, LOW], [HIGH, {**LOW, "transformer": "high"}], [HIGH, LOW, HIGH], [LOW, HIGH, LOW]])
async def test_more_than_one_lora_for_an_expert_is_refused(api: Api, loras: list[dict[str, Any]]) -> None:
    error = await api.refused(body(loras=loras), "SINGLE_MOE_CONFIG_ONLY")
    assert [lora["path"] for lora in error["details"]["loras"]] == [lora["path"] for lora in loras]


@each("model", ["wan21_14b", "", "WAN22_14B_T2V"])
async def test_a_model_that_this_service_does_not_run_is_refused_with_the_one_it_does(api: Api, model: str) -> None:
    error = await api.refused(body(model=model), "MODEL_NOT_FOUND")
    assert MODEL in error["message"]
    assert error["details"] == {"supported_models": [MODEL]}


async def test_the_model_is_checked_before_its_loras(api: Api) -> None:
    await api.refused(body(model="other", loras=[]), "MODEL_NOT_FOUND")


@each("field", ["ctrl_img", "ctrl_img_1", "ctrl_img_2", "ctrl_img_3"])
async def test_a_control_image_is_refused_not_ignored(api: Api, field: str) -> None:
    error = await api.refused(body({}, {field: "https://example.com/x.png"}), "CONTROL_IMAGE_NOT_SUPPORTED")
    assert field in error["message"]
    assert error["details"] == {"prompt_index": 1, "fields": [field]}


async def test_control_images_that_are_null_are_accepted(api: Api) -> None:
    await api.submit(body({"ctrl_img": None, "ctrl_img_1": None, "ctrl_img_2": None, "ctrl_img_3": None}))


@each("multiplier", [-2, -0.5, 0, 1.25, 2])
async def test_each_side_gets_its_own_multiplier(api: Api, multiplier: float) -> None:
    (spec,) = await api.specs(body(loras=[{**HIGH, "network_multiplier": multiplier}, LOW]))
    assert {lora.expert.value: lora.multiplier for lora in spec.loras} == {"high": multiplier, "low": 1.0}


async def test_a_multiplier_of_null_is_one(api: Api) -> None:
    (spec,) = await api.specs(body(loras=[{**HIGH, "network_multiplier": None}]))
    assert [lora.multiplier for lora in spec.loras] == [1.0]
