"""Cached prompt embeddings against what the pipeline itself makes of the strings, bit for bit."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.loading import load_pipeline
from deployments.wan.prompts import PromptEmbeddings
from serve_app.results import CacheUse
from tests.deployments.wan.conftest import options_for
from tests.fixtures.specs import make_spec

_CPU = torch.device("cpu")
_ODD = "  a  woman &amp; a&nbsp;horse   “quoted” café—夜\n🦊 "


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def pipe(request: pytest.FixtureRequest, demo_checkpoint: DemoCheckpoint) -> Any:
    dtype = getattr(torch, request.param)
    return load_pipeline(options_for(demo_checkpoint), dtype)


@pytest.fixture
def encoded(pipe: Any) -> Iterator[list[torch.Tensor]]:
    """Get the token ids of each run of the text encoder."""
    runs: list[torch.Tensor] = []
    hook = pipe.text_encoder.register_forward_hook(lambda _module, args, _output: runs.append(args[0]))
    yield runs
    hook.remove()


def _run(pipe: Any, guidance_scale: float, **conditions: Any) -> tuple[list[torch.Tensor], Any]:
    """Return what the first expert is conditioned on, and the frames."""
    seen: list[torch.Tensor] = []

    def note(_module: Any, _args: Any, arguments: dict[str, Any]) -> None:
        seen.append(arguments["encoder_hidden_states"].clone())

    hook = pipe.transformer.register_forward_pre_hook(note, with_kwargs=True)
    size = {"width": 64, "height": 64, "num_frames": 1, "num_inference_steps": 2}
    generator = torch.Generator("cpu").manual_seed(7)
    frames = pipe(generator=generator, guidance_scale=guidance_scale, output_type="np", **size, **conditions).frames
    hook.remove()
    return seen, frames


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize(
    ("prompt", "negative"),
    [("a fox", "blurry, low quality"), ("", ""), (_ODD, ""), ("same", "same"), ("word " * 600, _ODD)],
    ids=["plain", "empty", "unicode", "same", "too long"],
)
def test_embeddings_are_those_of_the_strings(pipe: Any, prompt: str, negative: str, guidance_scale: float) -> None:
    wanted, frames = _run(pipe, guidance_scale, prompt=prompt, negative_prompt=negative)
    embeddings = PromptEmbeddings(pipe, _CPU)
    for _ in ("encoded now", "remembered"):
        conditions = {"prompt_embeds": embeddings.get(prompt)}
        if guidance_scale > 1:
            conditions["negative_prompt_embeds"] = embeddings.get(negative)
        seen, again = _run(pipe, guidance_scale, **conditions)
        assert len(seen) == len(wanted) > 0
        assert all(torch.equal(one, other) for one, other in zip(seen, wanted, strict=True))
        np.testing.assert_array_equal(again, frames)


def test_a_text_is_encoded_once(pipe: Any, encoded: list[torch.Tensor]) -> None:
    embeddings = PromptEmbeddings(pipe, _CPU)
    first = embeddings.get("a fox")
    assert not first.requires_grad
    assert torch.equal(embeddings.get("a fox"), first)
    embeddings.get("")
    embeddings.get("")
    assert len(encoded) == 2
    assert all(len(tokens) == 1 for tokens in encoded)  # never in a batch


def test_a_render_says_how_many_of_its_texts_were_remembered(pipe: Any) -> None:
    embeddings = PromptEmbeddings(pipe, _CPU)
    spec = make_spec(prompt="a fox", negative_prompt="blurry", guidance_scale=4.0)
    assert embeddings.use(spec) == CacheUse(misses=2)
    embeddings.arguments(spec)
    assert embeddings.use(spec) == CacheUse(hits=2)
    assert embeddings.use(make_spec(prompt="a hen", negative_prompt="blurry")) == CacheUse(hits=1, misses=1)
    assert embeddings.use(make_spec(prompt="a fox", guidance_scale=1.0)) == CacheUse(hits=1)


def test_the_least_recently_used_is_forgotten_above_the_capacity(pipe: Any, encoded: list[torch.Tensor]) -> None:
    size = PromptEmbeddings(pipe, _CPU).get("").nbytes
    embeddings = PromptEmbeddings(pipe, _CPU, capacity_bytes=2 * size)
    for text in ("one", "two", "one", "three"):
        embeddings.get(text)
    encoded.clear()
    embeddings.get("one")
    embeddings.get("three")
    assert not encoded
    embeddings.get("two")
    assert len(encoded) == 1


def test_without_room_everything_is_encoded_again(pipe: Any, encoded: list[torch.Tensor]) -> None:
    embeddings = PromptEmbeddings(pipe, _CPU, capacity_bytes=0)
    assert torch.equal(embeddings.get("a fox"), embeddings.get("a fox"))
    assert len(encoded) == 2


def test_a_text_that_failed_is_not_remembered(pipe: Any) -> None:
    embeddings = PromptEmbeddings(pipe, _CPU)
    wanted = embeddings.get("a fox")

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError

    fresh = PromptEmbeddings(pipe, _CPU)
    hook = pipe.text_encoder.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        fresh.get("a fox")
    hook.remove()
    assert torch.equal(fresh.get("a fox"), wanted)
