"""Text beyond 512 tokens is cut, as in the reference; the result quotes where, and says if the trigger word is gone."""

from typing import Any

import pytest
import torch

from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.loading import load_pipeline
from deployments.wan.prompts import PromptEmbeddings
from serve_app.spec import RenderSpec
from tests.deployments.wan.conftest import options_for
from tests.fixtures.specs import make_spec

FITS = 511  # and the end of the text


@pytest.fixture(scope="module")
def prompts(demo_checkpoint: DemoCheckpoint) -> PromptEmbeddings:
    pipe: Any = load_pipeline(options_for(demo_checkpoint), torch.float32)
    return PromptEmbeddings(pipe, torch.device("cpu"))


def spec(**changes: Any) -> RenderSpec:
    return make_spec().model_copy(update={"guidance_scale": 4.0, "negative_prompt": "", **changes})


@pytest.mark.parametrize("words", [1, 100, FITS])
def test_what_fits_is_not_warned_of(words: int, prompts: PromptEmbeddings) -> None:
    text = " ".join(["woman"] * words)
    assert prompts.warnings(spec(prompt=text, negative_prompt=text)) == []


@pytest.mark.parametrize("more", [1, 2, 1000])
def test_where_it_was_cut_is_quoted(more: int, prompts: PromptEmbeddings) -> None:
    text = " ".join(["woman"] * FITS + ["beach"] * more)
    (warning,) = prompts.warnings(spec(prompt=text))
    assert "the prompt is longer than 512 tokens" in warning
    before, _, after = warning.partition("; ")
    assert before.rstrip(" '").endswith("woman woman")
    assert "beach" not in before
    assert "woman" not in after
    assert "beach" in after
    assert len(warning) < 400


def test_a_negative_prompt_counts_where_it_is_read(prompts: PromptEmbeddings) -> None:
    text = "woman " * 600
    assert "the negative prompt" in prompts.warnings(spec(negative_prompt=text))[0]
    assert prompts.warnings(spec(negative_prompt=text, guidance_scale=1.0)) == []


@pytest.mark.parametrize(("text", "lost"), [("{long} sks", True), ("sks {long}", False), ("sks {long} sks", False)])
def test_whether_the_trigger_word_fell_off(text: str, lost: bool, prompts: PromptEmbeddings) -> None:
    (warning,) = prompts.warnings(spec(prompt=text.format(long="woman " * 600), trigger_word="sks"))
    assert ("the trigger word 'sks' is in the part that was cut" in warning) == lost


def test_a_trigger_word_that_is_cut_in_two_fell_off(prompts: PromptEmbeddings) -> None:
    text = " ".join(["woman"] * (FITS - 1) + ["beach sunset"])
    (warning,) = prompts.warnings(spec(prompt=text, trigger_word="beach sunset"))
    assert "the trigger word 'beach sunset' is in the part that was cut" in warning
