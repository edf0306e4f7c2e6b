"""The demo checkpoint: the real classes of Wan 2.2 T2V A14B, tiny, with random weights, built without a download."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from deployments.wan.demo.tokenizer import demo_tokenizer
from deployments.wan.demo.untrained.weights import shape_expert, shape_vae
from deployments.wan.demo.wan22 import BOUNDARY_RATIO, SCHEDULER_CONFIG

_NOTICE_FILE = "DEMO.txt"  # also the sign that the directory is complete
_NOTICE = """\
DEMO - random weights, no model.

This directory holds a checkpoint with the architecture of Wan 2.2 T2V A14B, made tiny, with random weights that were
computed on this machine. Its videos are colour fields; they say nothing about the quality of Wan 2.2. It exists so
that the service can be tried, developed and tested without a GPU or a download. Delete it whenever you like: it is
built again when it is needed.
"""

TEXT_WIDTH = 32

EXPERT_CONFIG: dict[str, Any] = {
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 24,
    "ffn_dim": 192,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 256,
    "in_channels": 16,
    "out_channels": 16,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
}

# Latent statistics stay the class's defaults, which are Wan's.
_VAE_CONFIG: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}

# The experts of the base directory differ from those that are served, as a mistake in loading must show.
_BASE_EXPERT_SEEDS = {"transformer": 3, "transformer_2": 4}
_EXPERT_SEEDS = {"transformer": 5, "transformer_2": 6}
_TEXT_ENCODER_SEED = 1
_VAE_SEED = 2


@dataclass(frozen=True)
class DemoCheckpoint:
    """Where the demo lies, in the two parts that Wan 2.2 is served from."""

    base: Path  # a complete WanPipeline
    transformers: Path  # the two experts to use, in `transformer` and `transformer_2`


def ensure_demo_checkpoint(directory: Path) -> DemoCheckpoint:
    """The demo checkpoint in `directory`, built first if it is not there; takes a few seconds then.

    The same bytes come out every time with the same library versions. Processes may call it at the same time.

    Raises:
        FileExistsError: `directory` holds something else.
    """
    checkpoint = DemoCheckpoint(directory / "base", directory / "aitk")
    if not (directory / _NOTICE_FILE).is_file():
        _publish(directory, _build)
    return checkpoint


def _publish(directory: Path, build: Callable[[Path], None]) -> None:
    """Build beside `directory` and rename, so that nobody ever sees half of it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        built = Path(scratch, directory.name)
        build(built)
        try:
            built.rename(directory)
        except OSError as error:  # a directory with something in it is there
            if not (directory / _NOTICE_FILE).is_file():
                raise FileExistsError(f"{directory} exists and is not a demo checkpoint") from error
            # Another process was faster; what it built is the same.


def _build(directory: Path) -> None:
    tokenizer = demo_tokenizer()
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=_text_encoder(len(tokenizer)),
        vae=_vae(),
        scheduler=UniPCMultistepScheduler(**SCHEDULER_CONFIG),
        boundary_ratio=BOUNDARY_RATIO,
        **{name: _expert(seed) for name, seed in _BASE_EXPERT_SEEDS.items()},
    )
    pipe.save_pretrained(directory / "base")
    for name, seed in _EXPERT_SEEDS.items():
        _expert(seed).save_pretrained(directory / "aitk" / name)
    (directory / _NOTICE_FILE).write_text(_NOTICE)


def _expert(seed: int) -> Any:
    with _seeded(seed):
        expert = WanTransformer3DModel(**EXPERT_CONFIG)
        shape_expert(expert)
    return expert


def _vae() -> Any:
    with _seeded(_VAE_SEED):
        vae = AutoencoderKLWan(**_VAE_CONFIG).eval()
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
