"""The reference server's rules for models of one expert, on the made-up model of `tests.lantern`."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from safetensors.numpy import load_file, save_file

from serve_app.spec import Expert
from tests.client import pair
from tests.fixtures.api import Api, ServeApi
from tests.lantern import CARD
from tests.lantern.loras import save_lora

LORA = {"path": "lantern.safetensors"}


def body(*loras: dict[str, Any], **prompt: Any) -> dict[str, Any]:
    return {"model": "lantern_1b", "loras": list(loras), "prompts": [{"prompt": "a lantern", **prompt}]}


@pytest_asyncio.fixture
async def lantern(serve_api: ServeApi) -> AsyncIterator[Api]:
    """Yield the API of a service that runs the made-up model."""
    async with serve_api(model=str(CARD), demo=False) as api:
        save_lora(api.lora_root / LORA["path"])
        yield api


async def test_a_lora_needs_no_expert_and_acts_on_the_only_one(lantern: Api) -> None:
    (spec,) = await lantern.specs(body({**LORA, "network_multiplier": 0.5}))
    (lora,) = spec.loras
    assert (lora.expert, lora.reference, lora.multiplier) == (Expert.ONLY, LORA["path"], 0.5)
    assert spec.loras_for(Expert.ONLY) == spec.loras
    assert spec.warnings == ()


async def test_what_is_omitted_takes_the_cards_defaults(lantern: Api) -> None:
    (spec,) = await lantern.specs(body(LORA))
    assert (spec.width, spec.height, spec.num_frames, spec.fps) == (144, 96, 17, 12)
    assert (spec.sample_steps, spec.guidance_scale, spec.seed) == (3, 1.5, 7)


async def test_an_item_that_names_an_expert_is_refused(lantern: Api) -> None:
    error = await lantern.refused(body({**LORA, "transformer": "high"}), "MOE_FORMAT_NOT_SUPPORTED")
    assert error["details"]["loras"][0]["transformer"] == "high"


async def test_several_loras_are_refused(lantern: Api) -> None:
    error = await lantern.refused(body(LORA, LORA), "SINGLE_LORA_ONLY")
    assert len(error["details"]["loras"]) == 2


async def test_an_arg_allows_several_which_act_in_their_order(serve_api: ServeApi) -> None:
    async with serve_api(model=str(CARD), max_loras_per_side=2) as api:
        for name in ("a", "b"):
            save_lora(api.lora_root / f"{name}.safetensors")
        (spec,) = await api.specs(body({"path": "b.safetensors"}, {"path": "a.safetensors"}))
        assert [lora.reference for lora in spec.loras] == ["b.safetensors", "a.safetensors"]
        answer = await api.post(body(*[{"path": "a.safetensors"}] * 3))
        assert answer.json()["detail"]["error"]["code"] == "SINGLE_LORA_ONLY"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "other", "loras": []}, "MODEL_NOT_FOUND"),
        ({"loras": []}, "LORA_FILE_REQUIRED"),
        ({"loras": [{"path": "absent", "transformer": "low"}] * 2}, "MOE_FORMAT_NOT_SUPPORTED"),
        ({"loras": [{"path": "absent"}] * 2}, "SINGLE_LORA_ONLY"),
        ({"loras": [{"path": "absent.safetensors"}]}, "LORA_NOT_FOUND"),
    ],
)
async def test_the_rules_are_checked_in_the_references_order(lantern: Api, changes: dict[str, Any], code: str) -> None:
    await lantern.refused(body() | changes, code)


async def test_a_lora_of_a_model_with_other_sizes_is_refused(lantern: Api) -> None:
    error = await lantern.refused(body({"path": pair()[0]["path"]}), "LORA_INVALID")
    assert "layers of Lantern 1B" in error["message"]


async def test_a_file_for_both_experts_of_a_pair_is_refused(lantern: Api) -> None:
    single = load_file(lantern.lora_root / LORA["path"])
    both = {
        name.replace("diffusion_model.", f"diffusion_model.{expert}."): tensor
        for expert in ("transformer_1", "transformer_2")
        for name, tensor in single.items()
    }
    save_file(both, lantern.lora_root / "both.safetensors")
    error = await lantern.refused(body({"path": "both.safetensors"}), "LORA_INVALID")
    assert "two experts" in error["message"]


async def test_the_documentation_speaks_of_this_model(lantern: Api) -> None:
    schemas = (await lantern.get("/openapi.json"))["components"]["schemas"]
    fields = schemas["PromptItem"]["properties"]
    assert "multiple of 48" in fields["width"]["description"]
    assert "(n - 1) // 8 * 8 + 1; 24 when omitted" in fields["num_frames"]["description"]
    assert schemas["InferenceRequest"]["examples"][0]["model"] == "lantern_1b"
