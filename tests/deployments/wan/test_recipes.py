"""Both recipes on one replica, against independent uses of diffusers."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file

from deployments.wan.demo.untrained import DemoCheckpoint
from serve_app.results import Application
from serve_app.spec import Expert, LoraFile, Recipe, RenderSpec, Sampler
from tests.deployments.wan.conftest import difference, frames_of, load_demo, make_spec, render_with

_DIFFUSERS = {
    "self_attn": "attn1",
    "cross_attn": "attn2",
    ".q.": ".to_q.",
    ".k.": ".to_k.",
    ".v.": ".to_v.",
    ".o.": ".to_out.0.",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}


def _merge_as_the_trainer(expert: Any, path: str, multiplier: float) -> None:
    tensors, weights = load_file(path), dict(expert.named_parameters())
    for key in tensors:
        if ".lora_A." not in key:
            continue
        name = key.removeprefix("diffusion_model.")
        for theirs, ours in _DIFFUSERS.items():
            name = name.replace(theirs, ours)
        weight = weights[name.replace("lora_A.", "")]
        delta = tensors[key.replace("lora_A", "lora_B")].float() @ tensors[key].float()
        weight.data = (weight.data.float() + multiplier * delta).to(weight.dtype)


def _preview_frames(checkpoint: DemoCheckpoint, dtype: torch.dtype, spec: RenderSpec) -> Any:
    """Return what AI Toolkit does for a preview, written down from its description, with nothing of the runtime."""
    pipe = WanPipeline.from_pretrained(checkpoint.base, transformer=None, transformer_2=None, dtype=dtype)
    for folder, side in (("transformer", Expert.HIGH), ("transformer_2", Expert.LOW)):
        expert = WanTransformer3DModel.from_pretrained(checkpoint.transformers, subfolder=folder, dtype=dtype)
        torch.nn.Module.to(expert, dtype)  # everything, tables of the rotary embedding included
        for lora in spec.loras_for(side):
            _merge_as_the_trainer(expert, lora.location, lora.multiplier)
        setattr(pipe, folder, expert)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=5.0)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        width=spec.width,
        height=spec.height,
        num_frames=spec.num_frames,
        num_inference_steps=spec.sample_steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        output_type="np",
    ).frames[0]


def _preview(*loras: LoraFile, **changes: Any) -> RenderSpec:
    return make_spec(*loras, **{"recipe": Recipe.PREVIEW, "sampler": Sampler.EULER, "width": 80, **changes})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_previews_equal_the_trainer_s_and_neither_recipe_leaves_a_trace(
    demo_checkpoint: DemoCheckpoint, pair: tuple[LoraFile, LoraFile], dtype: str
) -> None:
    high, low = pair
    preview = _preview(high.model_copy(update={"multiplier": 0.7}), low)
    expected = (_preview_frames(demo_checkpoint, getattr(torch, dtype), preview) * 255).round().astype(np.uint8)
    runtime = load_demo(demo_checkpoint, dtype)
    reference = frames_of(runtime, make_spec(*pair))
    for _ in range(2):
        np.testing.assert_array_equal(frames_of(runtime, preview), expected)
        np.testing.assert_array_equal(frames_of(runtime, make_spec(*pair)), reference)
    assert difference(frames_of(runtime, make_spec(*pair, recipe=Recipe.PREVIEW)), reference) > 0 or (
        dtype == "float32"
    )


def test_the_result_says_what_was_in_effect(demo_checkpoint: DemoCheckpoint, pair: tuple[LoraFile, LoraFile]) -> None:
    high, low = pair
    runtime = load_demo(demo_checkpoint)
    spec = _preview(low.model_copy(update={"multiplier": 0.0}), high, sample_steps=2)
    rendered = render_with(runtime, spec)
    assert rendered.made_with.model_dump(mode="json", exclude={"runtime"}) == {
        "recipe": "preview",
        "sampler": "euler",
        "shift": 5.0,
        "boundary_step": 1,
        "acceleration": {
            "speed": "exact",
            "attention": "native",
            "compiled": False,
            "float8": False,
            "step_cache": None,
            "passes_reused": 0,
            "parallelism": {"guidance": 1, "ulysses": 1, "ring": 1},
        },
        "loras": [
            {
                "transformer": "low",
                "network_multiplier": 0.0,
                "sha256": low.sha256,
                "application": "none",
                "left_out": [],
            },
            {
                "transformer": "high",
                "network_multiplier": 1.0,
                "sha256": high.sha256,
                "application": "merged",
                "left_out": [],
            },
        ],
        "warnings": [],
        "embeddings": {"hits": 0, "misses": 2},
    }
    assert rendered.resident == {high.content, low.content}
    assert rendered.made_with.runtime == runtime.runtime
    assert {lora.sha256 for lora in runtime.runtime.resident_loras} == {high.sha256, low.sha256}
    again = render_with(runtime, make_spec(*pair, shift=8.0)).made_with
    assert (again.recipe, again.sampler, again.shift) == (Recipe.REFERENCE, Sampler.UNIPC, 8.0)
    assert [lora.application for lora in again.loras] == [Application.ADAPTER, Application.ADAPTER]
