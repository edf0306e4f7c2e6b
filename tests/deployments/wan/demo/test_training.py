"""The training runs from nothing to a checkpoint that loads; a few steps, on the CPU."""

import copy
from pathlib import Path
from random import Random

import pytest
import torch

from deployments.wan.demo.training.autoencoder import all_frames_at_once, new_autoencoder
from deployments.wan.demo.training.broken import break_pair
from deployments.wan.demo.training.drawing import drawings
from deployments.wan.demo.training.experts import new_expert, prepare, velocity
from deployments.wan.demo.training.export import export
from deployments.wan.demo.training.loras import (
    LoraLinear,
    add_lora,
    merge_lora,
    read_lora,
    set_strength,
    share_lora,
    write_lora,
)
from deployments.wan.demo.training.scenes import SIZE, caption, random_scene
from deployments.wan.demo.training.stages import PAIRS, SIDES, TOY, Stages
from deployments.wan.demo.training.text import caption_tokenizer, tokenize
from deployments.wan.demo.untrained import DemoCheckpoint
from tests.deployments.wan.conftest import frames_of, load_demo, make_spec
from tests.deployments.wan.demo.conftest import trained_pair

CPU = torch.device("cpu")


@pytest.mark.slow
def test_from_nothing_to_a_pair_that_renders(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "work", TOY, CPU)
    stages.text()
    stages.autoencoder()
    for side in SIDES:
        stages.expert(side)
    for side in SIDES:
        stages.pair("glow", side)
    stages.pair("draft", "low_noise")
    assert stages.fade("low_noise").name == PAIRS["glow"].name.file("low_noise")
    break_pair(PAIRS["glow"].name, tmp_path / "work" / "loras")
    export(tmp_path / "work", tmp_path / "made", map_scenes=2)
    runtime = load_demo(DemoCheckpoint(tmp_path / "made" / "checkpoint", tmp_path / "made" / "checkpoint"))
    pair = trained_pair("wan22_demo", folder=tmp_path / "made" / "loras")
    assert frames_of(runtime, make_spec(*pair, prompt="a red circle", sample_steps=2)).shape == (5, 64, 64, 3)


def test_a_shape_stays_inside_the_frame() -> None:
    random = Random(1)
    scenes = drawings([random_scene(random) for _ in range(200)], CPU)
    for chosen in torch.split(torch.arange(200), 50):
        _, covered = scenes.draw(chosen)
        edge = torch.cat([covered[..., 0], covered[..., SIZE - 1], covered[..., 0, :], covered[..., SIZE - 1, :]])
        assert edge.sum() == 0


def test_the_tokenizer_knows_every_word_of_the_captions() -> None:
    random = Random(2)
    tokenizer = caption_tokenizer()
    captions = [caption(random_scene(random), random) for _ in range(500)]
    ids, mask = tokenize(tokenizer, captions, CPU)
    assert (ids != tokenizer.unk_token_id).all()
    words = torch.tensor([len(text.replace(",", "").replace(".", "").split()) for text in captions])
    marks = torch.tensor([sum(text.count(mark) for mark in ",.") for text in captions])
    assert (mask.sum(1) == words + marks + 1).all()  # no word falls apart into letters; one more token ends the text


def test_all_frames_at_once_is_frame_by_frame() -> None:
    vae = new_autoencoder().eval()
    video = torch.randn(1, 3, 9, 32, 32)
    with torch.no_grad():
        latents = vae.encode(video).latent_dist.mean
        frames = vae.decode(latents).sample
        with all_frames_at_once(vae):
            mean, _ = vae.quant_conv(vae.encoder(video)).chunk(2, dim=1)
            decoded = vae.decoder(vae.post_quant_conv(latents)).clamp(-1, 1)
    torch.testing.assert_close(mean, latents, atol=1e-4, rtol=0)
    torch.testing.assert_close(decoded, frames, atol=1e-4, rtol=0)


def test_one_padding_stands_for_all() -> None:
    expert = new_expert().eval()
    text = torch.zeros(1, 512, 64)
    text[:, :9] = torch.randn(9, 64)
    latents, timestep = torch.randn(1, 16, 2, 8, 8), torch.tensor([900.0])
    with torch.no_grad():
        whole = expert(latents, timestep, text).sample
        short = prepare(expert, CPU)(latents, timestep, text[:, :32]).sample
    torch.testing.assert_close(short, whole, atol=1e-4, rtol=0)


def test_adapters_have_a_strength_for_each_example_and_are_read_merged_and_shared(tmp_path: Path) -> None:
    expert = new_expert().eval()
    plain, read, merged, shared = (copy.deepcopy(expert) for _ in range(4))
    add_lora(expert, 4)
    for module in expert.modules():
        if isinstance(module, LoraLinear):
            torch.nn.init.normal_(module.up.weight, std=0.1)
    name = PAIRS["glow"].name
    write_lora(expert, name, "low_noise", tmp_path)
    add_lora(read, 4)
    read_lora(read, name, "low_noise", tmp_path)
    merge_lora(merged, name, "low_noise", tmp_path)
    share_lora(expert, shared)
    inputs = torch.randn(1, 16, 2, 8, 8).expand(2, -1, -1, -1, -1), torch.tensor([0.9, 0.9]), torch.randn(2, 32, 64)
    with torch.no_grad():
        without = velocity(plain, *inputs)
        whole = velocity(expert, *inputs)
        set_strength(expert, torch.tensor([0.0, 1.0]).view(2, 1, 1))
        mixed = velocity(expert, *inputs)
        for other in (read, merged, shared):
            torch.testing.assert_close(velocity(other, *inputs), whole, atol=1e-2, rtol=0)  # a file is float16
    torch.testing.assert_close(mixed, torch.stack([without[0], whole[1]]))
    assert (whole - without).abs().max() > 0.1
