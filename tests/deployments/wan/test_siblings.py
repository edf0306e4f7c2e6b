"""Image to video under every memory plan, speed profile and recipe: the frames do not depend on where weights are kept.

A CPU computes here, through the code that a GPU runs; see `test_memory_plans`. `test_gpu` has the same on a GPU.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

import deployments.wan.runtime as runtime_module
from deployments.pipeline import PipelineOptions, Rendered, RenderInputs
from deployments.wan.demo.untrained import I2V, TI2V, ensure_demo_checkpoint, ensure_demo_loras
from deployments.wan.memory.planner import FreeMemory
from deployments.wan.runtime import WanRuntime
from serve_app.models.card import load_card
from serve_app.settings import OffloadMode
from serve_app.spec import Expert, LoraFile, Recipe, RenderSpec, Sampler, Speed
from tests.deployments.wan.conftest import difference, lora_file, make_spec, options_of
from tests.deployments.wan.held import held

_PLENTY = 200 * 2**30
_SIZE = {"width": 96, "height": 64, "num_frames": 9}
_MODES = [mode for mode in OffloadMode if mode not in (OffloadMode.AUTO, OffloadMode.NONE)]
_DEMOS = {"wan22_14b_i2v": I2V, "wan22_5b": TI2V}


class Sibling:
    """A demo, its LoRAs, and a runtime with everything in its place."""

    def __init__(self, model: str, folder: Path) -> None:
        checkpoint = ensure_demo_checkpoint(folder / "checkpoint", _DEMOS[model])
        ensure_demo_loras(folder, _DEMOS[model])
        base, experts = str(checkpoint.base), str(checkpoint.transformers)
        card = load_card(model).of_checkpoint(experts)
        files = sorted((folder / "demo").iterdir())
        self.loras = tuple(lora_file(side, file) for side, file in zip(card.experts, files, strict=True))
        self.options: PipelineOptions = replace(options_of(card, base, experts), speeds=tuple(Speed))
        self.in_place = WanRuntime.load(self.options)

    def pipe_of_diffusers(self) -> Any:
        """Return diffusers' image-to-video pipeline of the checkpoint, as the recipe `reference` samples."""
        card = self.options.card
        whole = WanPipeline.from_pretrained(self.options.base_model, transformer=None, transformer_2=None)
        experts = {
            name: WanTransformer3DModel.from_pretrained(self.options.transformer_model, subfolder=name)
            for name in _DEMOS[card.id].experts
        }
        pipe = WanImageToVideoPipeline(
            tokenizer=whole.tokenizer,
            text_encoder=whole.text_encoder,
            vae=whole.vae,
            scheduler=whole.scheduler,
            **experts,
            boundary_ratio=card.boundary_ratio(Recipe.REFERENCE),
            expand_timesteps=card.token_timesteps,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def spec(self, *loras: LoraFile, **changes: Any) -> RenderSpec:
        return make_spec(*loras, model=self.options.card.id, **{**_SIZE, **changes})


@pytest.fixture(scope="module", params=_DEMOS)
def sibling(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sibling:
    return Sibling(request.param, tmp_path_factory.mktemp(request.param))


def picture(spec: RenderSpec, seed: int = 1) -> np.ndarray:
    """Return noise in the size of the video."""
    return np.random.default_rng(seed).integers(0, 256, (spec.height, spec.width, 3), np.uint8)


def rendered(runtime: WanRuntime, spec: RenderSpec, seed: int = 1) -> Rendered:
    """Render from a picture, as a Generator does."""
    with held(runtime.lacking(spec), runtime._pipe.transformer.config, strict=True) as files:
        return runtime.render(spec, RenderInputs(files, picture(spec, seed)), lambda _: None)


@pytest.mark.parametrize("mode", _MODES)
def test_every_plan_gives_the_frames_of_everything_in_its_place(
    sibling: Sibling, mode: OffloadMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "free_memory", lambda _: FreeMemory(_PLENTY, _PLENTY))
    planned = WanRuntime.load(replace(sibling.options, offload=mode))
    for spec in (
        sibling.spec(*sibling.loras),
        sibling.spec(*sibling.loras, recipe=Recipe.PREVIEW, sampler=Sampler.EULER, num_frames=5),  # merged
    ):
        made = rendered(planned, spec)
        assert made.made_with.runtime.offload == mode.value
        np.testing.assert_array_equal(made.frames, rendered(sibling.in_place, spec).frames)


@pytest.mark.parametrize(("speed", "drift"), [(Speed.FAST, 1.0), (Speed.TURBO, 8.0)])
def test_a_faster_profile_shows_the_same_image_and_leaves_nothing_behind(
    sibling: Sibling, speed: Speed, drift: float
) -> None:
    spec = sibling.spec(*sibling.loras)
    exact = rendered(sibling.in_place, spec)
    other = rendered(sibling.in_place, spec, seed=2)
    faster = rendered(sibling.in_place, spec.model_copy(update={"speed": speed}))
    assert faster.made_with.acceleration.speed is speed
    assert difference(faster.frames, exact.frames) < drift < difference(other.frames, exact.frames)
    np.testing.assert_array_equal(rendered(sibling.in_place, spec).frames, exact.frames)


def test_loras_act_as_adapters_of_diffusers_own_pipeline_do(sibling: Sibling, monkeypatch: pytest.MonkeyPatch) -> None:
    scales = {Expert.HIGH: 0.7, Expert.LOW: -1.2, Expert.ONLY: -0.8}
    loras = tuple(lora.model_copy(update={"multiplier": scales[lora.expert]}) for lora in sibling.loras)
    spec = sibling.spec(*loras, width=64, height=128, seed=7, negative_prompt="blurry")
    pipe = sibling.pipe_of_diffusers()
    for lora in loras:
        is_low = lora.expert is Expert.LOW
        pipe.load_lora_weights(lora.location, adapter_name=lora.expert, load_into_transformer_2=is_low)
        (pipe.transformer_2 if is_low else pipe.transformer).set_adapters([lora.expert], [lora.multiplier])
    source = torch.Generator().manual_seed(spec.seed)
    monkeypatch.setattr(DiagonalGaussianDistribution, "mode", lambda self: self.sample(source))
    images = pipe(
        image=Image.fromarray(picture(spec)),
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        width=spec.width,
        height=spec.height,
        num_frames=spec.num_frames,
        num_inference_steps=spec.sample_steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator().manual_seed(spec.seed),
        output_type="pil",
    ).frames[0]
    monkeypatch.undo()
    made = rendered(sibling.in_place, spec).frames
    np.testing.assert_array_equal(made, np.stack([np.asarray(image) for image in images]))
    assert difference(made, rendered(sibling.in_place, spec.model_copy(update={"loras": ()})).frames) > 1


def test_a_draft_starts_from_the_image_too(sibling: Sibling) -> None:
    few_steps = tuple(lora.model_copy(update={"multiplier": 0.5}) for lora in sibling.loras)
    spec = sibling.spec(
        *sibling.loras, draft=few_steps, recipe=Recipe.DRAFT, sampler=Sampler.EULER, guidance_scale=1.0, sample_steps=2
    )
    one, other = (rendered(sibling.in_place, spec, seed).frames for seed in (1, 2))
    assert difference(one, other) > 1
    np.testing.assert_array_equal(rendered(sibling.in_place, spec).frames, one)
    without = rendered(sibling.in_place, spec.model_copy(update={"draft": ()})).frames
    assert difference(one, without) > 0
