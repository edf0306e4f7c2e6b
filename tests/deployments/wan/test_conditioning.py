"""Videos that start from an image: frames against diffusers' own image-to-video pipeline, and the parts of each way."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from deployments.pipeline import Frames, RenderInputs
from deployments.wan.conditioning import ImageChannels, KeptFirstFrame
from deployments.wan.demo.untrained import I2V, TI2V, DemoCheckpoint, ensure_demo_checkpoint
from deployments.wan.runtime import WanRuntime
from serve_app.errors import ConfigurationInvalid, RenderFailed
from serve_app.models.card import ImageInput, ModelCard, load_card
from serve_app.spec import Recipe, RenderSpec, Sampler
from tests.deployments.wan.conftest import RECIPES, difference, make_spec, options_of

SIZE = 64
IDS = {"wan22_14b_i2v": I2V, "wan22_5b": TI2V}


@dataclasses.dataclass
class Sibling:
    """One model in memory, and the folders that it came from."""

    card: ModelCard
    checkpoint: DemoCheckpoint
    runtime: WanRuntime

    def render(self, image: npt.NDArray[np.uint8] | None, **changes: Any) -> Frames:
        return self.runtime.render(self.spec(**changes), RenderInputs({}, image), lambda _: None).frames

    def spec(self, recipe: Recipe = Recipe.REFERENCE, **changes: Any) -> RenderSpec:
        sampler = Sampler.EULER if recipe is Recipe.PREVIEW else Sampler.UNIPC
        return make_spec(model=self.card.id, recipe=recipe, sampler=sampler, **changes)

    def parts(self) -> dict[str, Any]:
        """Return the components as diffusers loads them, in float32."""
        folders = ("transformer", "transformer_2") if self.card.is_pair else ("transformer",)
        experts = {
            name: WanTransformer3DModel.from_pretrained(self.checkpoint.transformers, subfolder=name)
            for name in folders
        }
        whole = WanPipeline.from_pretrained(self.checkpoint.base, transformer=None, transformer_2=None)
        return {"tokenizer": whole.tokenizer, "text_encoder": whole.text_encoder, "vae": whole.vae, **experts}


@pytest.fixture(scope="module", params=IDS)
def sibling(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sibling:
    checkpoint = ensure_demo_checkpoint(tmp_path_factory.mktemp(request.param) / "demo", IDS[request.param])
    base, experts = str(checkpoint.base), str(checkpoint.transformers)
    card = load_card(request.param).of_checkpoint(experts)
    return Sibling(card, checkpoint, WanRuntime.load(options_of(card, base, experts)))


def picture(seed: int = 1, width: int = SIZE, height: int = SIZE) -> npt.NDArray[np.uint8]:
    """Return spots of 8x8 pixels."""
    spots = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return spots.repeat(8, 0).repeat(8, 1)


def _scheduler(recipe: Recipe, card_id: str) -> Any:
    if recipe is Recipe.PREVIEW:
        return FlowMatchEulerDiscreteScheduler(shift=5.0)
    shift = {"wan22_14b_i2v": 3.0, "wan22_5b": 5.0}[card_id]
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


_BOUNDARY = {
    ("wan22_14b_i2v", Recipe.REFERENCE): 0.9,
    ("wan22_14b_i2v", Recipe.PREVIEW): 0.875,
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("steps", "values"),
    [
        (4, {}),
        (7, {"guidance_scale": 1.0}),
        (3, {"width": 96, "num_frames": 9}),
        (2, {"height": 128, "num_frames": 1}),
    ],
)
def test_frames_equal_diffusers_with_a_sampled_posterior(
    sibling: Sibling, recipe: Recipe, steps: int, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = WanImageToVideoPipeline(
        **sibling.parts(),
        scheduler=_scheduler(recipe, sibling.card.id),
        boundary_ratio=_BOUNDARY.get((sibling.card.id, recipe)),
        expand_timesteps=sibling.card.id == "wan22_5b",
    )
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(42)
    # In the trainer one generator draws the noise and then the image's latent; else each has its own.
    source = noise if recipe is Recipe.PREVIEW else torch.Generator().manual_seed(42)
    monkeypatch.setattr(DiagonalGaussianDistribution, "mode", lambda self: self.sample(source))
    spec = sibling.spec(recipe, sample_steps=steps, **values)
    image = picture(1, spec.width, spec.height)
    images = pipe(
        image=Image.fromarray(image),
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        width=spec.width,
        height=spec.height,
        num_frames=spec.num_frames,
        num_inference_steps=steps,
        guidance_scale=spec.guidance_scale,
        generator=noise,
        output_type="pil",
    ).frames[0]
    expected = np.stack([np.asarray(image) for image in images])
    monkeypatch.undo()
    np.testing.assert_array_equal(sibling.render(image, recipe=recipe, sample_steps=steps, **values), expected)


def test_the_same_request_gives_the_same_frames_whatever_was_drawn_before(sibling: Sibling) -> None:
    first = sibling.render(picture())
    torch.randn(5)  # from torch's global generator, from which the reference draws
    np.testing.assert_array_equal(sibling.render(picture()), first)
    assert difference(sibling.render(picture(2)), first) > 1


def test_a_model_that_needs_an_image_says_so(sibling: Sibling) -> None:
    if sibling.card.image_input is ImageInput.REQUIRED:
        with pytest.raises(RenderFailed, match="starts a video from an image, and the render has none"):
            sibling.render(None)
    assert sibling.render(picture()).shape == (5, SIZE, SIZE, 3)


@pytest.mark.parametrize("sibling", ["wan22_5b"], indirect=True)
def test_a_render_without_an_image_is_plain_text_to_video(sibling: Sibling) -> None:
    pipe = WanPipeline(**sibling.parts(), scheduler=_scheduler(Recipe.REFERENCE, "wan22_5b"), expand_timesteps=True)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(42)
    images = pipe(
        prompt=sibling.spec().prompt,
        negative_prompt="",
        width=SIZE,
        height=SIZE,
        num_frames=5,
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=generator,
        output_type="pil",
    ).frames[0]
    sibling.render(picture())  # leaves nothing behind
    np.testing.assert_array_equal(sibling.render(None), np.stack([np.asarray(image) for image in images]))


def test_a_render_that_was_stopped_leaves_no_image_behind(sibling: Sibling) -> None:
    first = sibling.render(picture())

    def stop(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sibling.runtime.render(sibling.spec(), RenderInputs({}, picture(2)), stop)
    np.testing.assert_array_equal(sibling.render(picture()), first)


@pytest.mark.parametrize(("exact", "rounded"), [(999, 1000), (937, 936), (909.7, 908)])
def test_timesteps_of_tokens_are_rounded_to_the_model_s_dtype(exact: float, rounded: float) -> None:
    noise = torch.zeros(1, 4, 3, 4, 6, dtype=torch.bfloat16)
    conditioning = KeptFirstFrame(noise, torch.ones(1, 4, 1, 4, 6, dtype=torch.bfloat16), (1, 2, 2))
    given = torch.full((1, 3 * 2 * 3), exact)
    timestep = conditioning.before_forward({"timestep": given})["timestep"]
    assert timestep.dtype is torch.bfloat16
    assert timestep.tolist() == [[0.0] * 6 + [rounded] * 12]


def test_the_first_latent_frame_stays_what_was_encoded() -> None:
    encoded = torch.full((1, 4, 1, 2, 2), 3.0, dtype=torch.bfloat16)
    conditioning = KeptFirstFrame(torch.zeros(1, 4, 3, 2, 2, dtype=torch.bfloat16), encoded, (1, 2, 2))
    assert conditioning.latents[0, 0, :, 0, 0].tolist() == [3, 0, 0]
    after = conditioning.after_step(torch.ones(1, 4, 3, 2, 2))
    assert (after[0, 0, :, 0, 0].tolist(), after.dtype) == ([3, 1, 1], torch.float32)


def test_channels_are_the_latents_the_mask_and_the_image() -> None:
    conditioning = ImageChannels(torch.zeros(1, 16, 2, 2, 2), torch.full((1, 16, 2, 2, 2), 7.0), mask_channels=4)
    seen = conditioning.before_forward({"hidden_states": torch.full((1, 16, 2, 2, 2), 5.0)})["hidden_states"]
    assert seen[0, :, 0, 0, 0].tolist() == [5] * 16 + [1] * 4 + [7] * 16
    assert seen[0, :, 1, 0, 0].tolist() == [5] * 16 + [0] * 4 + [7] * 16


def test_a_card_that_takes_images_must_say_how(tmp_path: Path) -> None:
    card = load_card("wan22_5b").model_copy(update={"image_conditioning": None})
    with pytest.raises(ConfigurationInvalid, match="needs image_conditioning: channels or first_latent_frame"):
        WanRuntime.load(options_of(card, str(tmp_path), str(tmp_path)))
