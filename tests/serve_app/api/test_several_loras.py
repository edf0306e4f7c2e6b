"""More than one pair in a request, files of both experts, and what looks like a mistake about sides."""

from typing import Any

import pytest

from tests.client import body, pair
from tests.fixtures.api import Api, ServeApi
from tests.loras.layouts import write
from tests.serve_app.loras.files import METADATA, full, save
from tests.serve_app.loras.files import pair as halves

HIGH, LOW = pair()


def other(api: Api, side: str, multiplier: float = 0.5, rank: int = 8) -> dict[str, Any]:
    name = f"style_{side}_noise.safetensors"
    save(api.lora_root / name, full(rank=rank))
    return {"path": name, "transformer": side, "network_multiplier": multiplier}


async def test_a_server_that_takes_more_loras_keeps_their_order_and_scales(serve_api: ServeApi) -> None:
    async with serve_api(max_loras_per_side=2) as api:
        loras = [HIGH, other(api, "low"), LOW, other(api, "high", 1.5)]
        (spec,) = await api.specs(body(loras=loras))
    assert [(lora.reference, lora.expert, lora.multiplier) for lora in spec.loras] == [
        (lora["path"], lora["transformer"], lora.get("network_multiplier", 1.0)) for lora in loras
    ]


async def test_the_order_within_a_side_makes_another_pair_key(serve_api: ServeApi) -> None:
    async with serve_api(max_loras_per_side=4) as api:
        style = other(api, "high")
        orders = [[HIGH, style, LOW], [style, HIGH, LOW], [LOW, HIGH, style], [HIGH, LOW]]
        keys = [(await api.specs(body(loras=loras)))[0].pair_key for loras in orders]
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


async def test_more_than_the_server_takes_is_refused_with_its_limit(serve_api: ServeApi) -> None:
    async with serve_api(max_loras_per_side=2) as api:
        error = await api.refused(body(loras=[HIGH, HIGH, HIGH, LOW]), "SINGLE_MOE_CONFIG_ONLY")
    assert "2" in error["message"]


async def test_the_default_is_the_references_rule(api: Api) -> None:
    await api.refused(body(loras=[HIGH, other(api, "high"), LOW]), "SINGLE_MOE_CONFIG_ONLY")


@pytest.mark.parametrize("named", [[{}], [{"transformer": "high"}, {"transformer": "low"}]])
async def test_a_file_of_both_experts_is_named_once_or_for_each(api: Api, named: list[dict[str, str]]) -> None:
    file = write("combined", api.lora_root).path
    (spec,) = await api.specs(body(loras=[{"path": file.name, "network_multiplier": 0.7, **side} for side in named]))
    assert [(lora.expert, lora.multiplier, lora.reference) for lora in spec.loras] == [
        ("high", 0.7, file.name),
        ("low", 0.7, file.name),
    ]
    assert spec.warnings == ()


async def test_a_file_of_both_experts_counts_for_both(api: Api) -> None:
    file = write("combined", api.lora_root).path
    await api.refused(body(loras=[{"path": file.name}, HIGH]), "SINGLE_MOE_CONFIG_ONLY")


async def test_a_file_for_one_expert_alone_cannot_be_sent_for_the_other(api: Api) -> None:
    tensors = {key.replace("diffusion_model.", "diffusion_model.transformer_2."): v for key, v in full().items()}
    save(api.lora_root / "only_low.safetensors", tensors)
    error = await api.refused(body(loras=[{"path": "only_low.safetensors", "transformer": "high"}]), "LORA_INVALID")
    assert "low" in error["message"]
    (spec,) = await api.specs(body(loras=[{"path": "only_low.safetensors"}]))
    assert [lora.expert for lora in spec.loras] == ["low"]


async def test_sides_that_disagree_with_the_names_are_a_warning(api: Api) -> None:
    swapped = [{**HIGH, "transformer": "low"}, {**LOW, "transformer": "high"}]
    (spec,) = await api.specs(body(loras=swapped))
    assert len(spec.warnings) == 2
    assert all("high" in warning and "low" in warning for warning in spec.warnings)
    assert HIGH["path"].rpartition("/")[2] in spec.warnings[0]


async def test_one_file_for_both_sides_is_a_warning(api: Api) -> None:
    save(api.lora_root / "same.safetensors", full())
    (spec,) = await api.specs(body(loras=[{"path": "same.safetensors", "transformer": s} for s in ("high", "low")]))
    (warning,) = spec.warnings
    assert "both" in warning


async def test_a_right_pair_has_no_warning(api: Api) -> None:
    (spec,) = await api.specs(body())
    assert spec.warnings == ()


async def test_a_file_that_fits_in_part_needs_strict_false(api: Api) -> None:
    beyond = {key.replace("blocks.0", "blocks.7"): value for key, value in halves("blocks.0.ffn.0").items()}
    save(api.lora_root / "part_high_noise.safetensors", full() | beyond, METADATA)
    loras = [{"path": "part_high_noise.safetensors", "transformer": "high"}]
    error = await api.refused(body(loras=loras), "LORA_INVALID")
    assert '"strict": false' in error["message"]
    assert sorted(error["details"]["keys"]) == sorted(beyond)
    (spec,) = await api.specs(body(loras=loras, strict=False))
    assert not spec.strict
