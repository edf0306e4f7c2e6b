"""Colours of latents: the fit, the demo's own map, the published maps of the real VAEs, predictions within a render."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKLWan

from deployments.pipeline import Frames, RenderInputs
from deployments.wan.demo import TRAINED
from deployments.wan.demo.training.colours import examples
from deployments.wan.latent_rgb import RgbMap, cell_means, fitted, latent_rgb, predicted
from deployments.wan.runtime import WanRuntime
from serve_app.models.card import load_card
from serve_app.spec import Sampler
from tests.deployments.wan.conftest import difference, frames_of, make_spec

CPU = torch.device("cpu")
CARDS = ("wan22_14b_t2v", "wan22_14b_i2v", "wan22_5b")


@pytest.mark.parametrize("name", CARDS)
def test_each_model_has_a_map_and_its_frames_are_small(name: str) -> None:
    card = load_card(name)
    rgb = latent_rgb("org/base", card)
    assert rgb is not None
    latents = torch.randn(1, card.latents.channels, 21, 60, 150)
    frames = RgbMap.of(rgb, CPU).frames(latents)
    assert frames.shape == (8, 30, 75, 3)
    assert frames.std() > 0


def test_the_fit_finds_a_linear_map() -> None:
    torch.manual_seed(0)
    factors, latents = torch.randn(4, 3), torch.randn(2, 4, 3, 5, 6)
    colours = (latents.movedim(1, -1) @ factors + torch.tensor([0.1, -0.2, 0.3])).movedim(-1, 1)
    video = colours.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)
    rgb = fitted(latents, video)
    torch.testing.assert_close(torch.tensor(rgb.factors), factors, atol=1e-4, rtol=1e-3)
    assert rgb.bias == pytest.approx((0.1, -0.2, 0.3), abs=1e-4)


def test_the_demos_own_map_shows_videos_that_it_was_not_fitted_to() -> None:
    checkpoint = TRAINED / "checkpoint"
    rgb = latent_rgb(str(checkpoint), load_card(CARDS[0]))
    assert rgb is not None
    assert rgb != load_card(CARDS[0]).latents.rgb
    vae = AutoencoderKLWan.from_pretrained(checkpoint / "vae").float()
    latents, video = examples(vae, 4, seed=99)
    wanted = cell_means(latents, video)
    found = RgbMap.of(rgb, CPU).colours(latents.movedim(1, -1)).movedim(-1, 1)
    spread = (wanted - wanted.mean()).square().mean()
    assert (found - wanted).square().mean() < 0.2 * spread  # it explains four fifths of what is to be seen


def test_where_an_euler_step_leads_is_told_from_it() -> None:
    torch.manual_seed(0)
    video, noise = torch.randn(2, 1, 4, 2, 3, 3).unbind(0)
    sigmas = torch.tensor([1.0, 0.7, 0.3, 0.0])
    at = [(1 - sigma) * video + sigma * noise for sigma in sigmas.tolist()]
    scheduler = SimpleNamespace(sigmas=sigmas, step_index=2)
    found = predicted(scheduler, at[2], at[1])
    assert found is not None
    torch.testing.assert_close(found, video)
    assert predicted(scheduler, at[1], None) is None


def test_unipc_keeps_what_it_predicts() -> None:
    kept = [None, torch.ones(1)]
    assert predicted(SimpleNamespace(model_outputs=kept), torch.zeros(1), None) is kept[1]


@pytest.mark.parametrize(("sampler", "first"), [(Sampler.UNIPC, 1), (Sampler.EULER, 2)])
def test_a_render_draws_previews_and_gives_the_same_frames(runtime: WanRuntime, sampler: Sampler, first: int) -> None:
    spec = make_spec(sampler=sampler, sample_steps=3)
    drawn = {}

    def previews(step: int, draw: Callable[[], Frames | None]) -> None:
        drawn[step] = draw()

    shown = runtime.render(spec, RenderInputs({}, previews=previews), lambda _: None)
    assert [step for step, frames in drawn.items() if frames is not None] == list(range(first, 4))
    last = drawn[3]
    assert last is not None
    assert last.shape == (2, spec.height // 8, spec.width // 8, 3)
    assert difference(shown.frames, frames_of(runtime, spec)) == 0
