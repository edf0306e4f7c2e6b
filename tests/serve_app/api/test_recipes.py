"""Which scheduler and which sizes a request's recipe decides on."""

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.spec import RenderSpec
from tests.client import body
from tests.fixtures.api import Api
from tests.serve_app.loras.files import METADATA, full, save


def trained_with(version: str | None, path: Path) -> dict[str, Any]:
    """Return a LoRA for the high noise expert whose metadata names that version of AI Toolkit, or none."""
    software = {"name": "ai-toolkit", "repo": "https://github.com/ostris/ai-toolkit", "version": version}
    save(path, full(), METADATA | ({"software": json.dumps(software)} if version else {}))
    return {"path": path.name, "transformer": "high"}


async def preview(api: Api, version: str | None, **prompt: Any) -> RenderSpec:
    lora = trained_with(version, api.lora_root / "own_high_noise.safetensors")
    (spec,) = await api.specs(body(prompt, loras=[lora], recipe="preview"))
    return spec


@pytest.mark.parametrize(
    ("version", "sampler", "shift", "assumed"),
    [
        ("0.9.2", "unipc", 3.0, False),
        ("0.5.10", "unipc", 3.0, False),
        ("0.9.3", "euler", 5.0, True),
        ("0.9.4", "euler", 5.0, False),
        ("0.12.26", "euler", 5.0, False),
        ("1.0.0", "euler", 5.0, False),
        (None, "euler", 5.0, True),
    ],
)
async def test_a_preview_takes_the_scheduler_of_the_version_that_trained_the_lora(
    api: Api, version: str | None, sampler: str, shift: float, assumed: bool
) -> None:
    spec = await preview(api, version)
    assert (spec.sampler, spec.shift, spec.sampler_assumed, spec.trained_with) == (sampler, shift, assumed, version)
    assert any("assumed" in warning for warning in spec.warnings) == assumed


async def test_the_newest_version_of_a_pair_decides(api: Api) -> None:
    loras = [
        trained_with("0.10.0", api.lora_root / "new_high_noise.safetensors"),
        {**trained_with("0.9.2", api.lora_root / "old_low_noise.safetensors"), "transformer": "low"},
    ]
    (spec,) = await api.specs(body(loras=loras, recipe="preview"))
    assert (spec.sampler, spec.trained_with) == ("euler", "0.10.0")


async def test_the_reference_recipe_takes_the_checkpoints_scheduler_whatever_trained_the_lora(api: Api) -> None:
    lora = trained_with("0.12.26", api.lora_root / "own_high_noise.safetensors")
    (spec,) = await api.specs(body(loras=[lora]))
    assert (spec.recipe, spec.sampler, spec.shift, spec.sampler_assumed) == ("reference", "unipc", None, False)
    assert spec.trained_with == "0.12.26"


@pytest.mark.parametrize(
    ("prompt", "sampler", "shift"),
    [
        ({"sampler": "unipc"}, "unipc", None),
        ({"sampler": "euler"}, "euler", 5.0),
        ({"sampler": "euler", "shift": 8}, "euler", 8.0),
        ({"shift": 7.5}, "euler", 7.5),
        ({"sampler": "unipc", "shift": 1}, "unipc", 1.0),
    ],
)
async def test_a_prompt_chooses_its_own_sampler(api: Api, prompt: dict[str, Any], sampler: str, shift: float) -> None:
    spec = await preview(api, None, **prompt)
    assert (spec.sampler, spec.shift) == (sampler, shift)
    assert spec.sampler_assumed == ("sampler" not in prompt)


async def test_prompts_of_one_request_may_differ(api: Api) -> None:
    specs = await api.specs(body({}, {"sampler": "euler"}, {"shift": 4}))
    assert [(spec.sampler, spec.shift) for spec in specs] == [("unipc", None), ("euler", None), ("unipc", 4.0)]


@pytest.mark.parametrize(("recipe", "size"), [("reference", (64, 96)), ("preview", (80, 112))])
async def test_sizes_floor_to_the_recipes_divisor(api: Api, recipe: str, size: tuple[int, int]) -> None:
    (spec,) = await api.specs(body({"width": 95, "height": 127}, recipe=recipe))
    assert (spec.width, spec.height) == size


@pytest.mark.parametrize(
    ("field", "value"), [("sampler", "ddim"), ("sampler", 1), ("shift", 0), ("shift", -1), ("shift", 101)]
)
async def test_an_unknown_sampler_or_shift_is_refused_by_its_field(api: Api, field: str, value: object) -> None:
    (problem, *_) = await api.invalid(body({field: value}))
    assert problem["loc"] == ["body", "prompts", 0, field]


async def test_an_unknown_recipe_is_refused_by_its_field(api: Api) -> None:
    (problem,) = await api.invalid(body(recipe="sketch"))
    assert problem["loc"] == ["body", "recipe"]
