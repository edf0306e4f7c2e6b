"""The demo checkpoints: the real classes of Wan 2.2, tiny, with random weights, built without a download."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from deployments.wan.demo.tokenizer import demo_tokenizer
from deployments.wan.demo.untrained.models import T2V, TEXT_WIDTH, DemoModel
from deployments.wan.demo.untrained.weights import shape_expert, shape_vae
from deployments.wan.demo.wan22 import SCHEDULER_CONFIG

_NOTICE_FILE = "DEMO.txt"  # also the sign that the directory is complete
_NOTICE = """\
DEMO - random weights, no model.

This directory holds a checkpoint with the architecture of {title}, made tiny, with random weights that were
computed on this machine. Its videos are colour fields; they say nothing about the quality of Wan 2.2. It exists so
that the service can be tried, developed and tested without a GPU or a download. Delete it whenever you like: it is
built again when it is needed.
"""

# The experts of the base directory differ from the served ones, so that a mistake in loading becomes visible.
_BASE_EXPERT_SEEDS = {"transformer": 3, "transformer_2": 4}
_EXPERT_SEEDS = {"transformer": 5, "transformer_2": 6}
_TEXT_ENCODER_SEED = 1
_VAE_SEED = 2


@dataclass(frozen=True)
class DemoCheckpoint:
    """Where the demo lies, in the two parts that Wan 2.2 is served from."""

    base: Path  # a complete WanPipeline
    transformers: Path  # the experts to use, in `transformer` and, of a pair, `transformer_2`


def ensure_demo_checkpoint(directory: Path, model: DemoModel = T2V) -> DemoCheckpoint:
    """Return the demo checkpoint of `model` in `directory`; build it first if it is missing, which takes seconds.

    The bytes are reproducible with the same library versions. Several processes may call it at the same time.

    Raises:
        FileExistsError: `directory` contains something else.
    """
    checkpoint = DemoCheckpoint(directory / "base", directory / "aitk")
    if not (directory / _NOTICE_FILE).is_file():
        _publish(directory, partial(_build, model))
    return checkpoint


def _publish(directory: Path, build: Callable[[Path], None]) -> None:
    """Build beside `directory` and rename (atomic), so that no process sees an incomplete checkpoint."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        built = Path(scratch, directory.name)
        build(built)
        try:
            built.rename(directory)
        except OSError as error:  # the directory exists and is not empty
            if not (directory / _NOTICE_FILE).is_file():
                raise FileExistsError(f"{directory} exists and is not a demo checkpoint") from error
            # Another process was faster; its checkpoint is the same.


def _build(model: DemoModel, directory: Path) -> None:
    tokenizer = demo_tokenizer()
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=_text_encoder(len(tokenizer)),
        vae=_vae(model),
        scheduler=UniPCMultistepScheduler(**SCHEDULER_CONFIG | {"flow_shift": model.shift}),
        **model.pipeline,
        **{name: _expert(model, _BASE_EXPERT_SEEDS[name]) for name in model.experts},
    )
    pipe.save_pretrained(directory / "base")
    for name in model.experts:
        _expert(model, _EXPERT_SEEDS[name]).save_pretrained(directory / "aitk" / name)
    (directory / _NOTICE_FILE).write_text(_NOTICE.format(title=model.title))


def _expert(model: DemoModel, seed: int) -> Any:
    with _seeded(seed):
        expert = WanTransformer3DModel(**model.expert)
        shape_expert(expert)
    return expert


def _vae(model: DemoModel) -> Any:
    with _seeded(_VAE_SEED):
        vae = AutoencoderKLWan(**model.vae).eval()
        shape_vae(vae)
    return vae


def _text_encoder(vocabulary: int) -> Any:
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=8,
        relative_attention_max_distance=32,
        is_encoder_decoder=False,
        use_cache=False,
    )
    with _seeded(_TEXT_ENCODER_SEED):
        return UMT5EncoderModel(config).eval()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator for the block, and leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
