"""Export: the parts as one half-precision WanPipeline folder, as the package carries it."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import T5TokenizerFast, UMT5EncoderModel

from deployments.wan.demo.training.colours import SCENES, write_map
from deployments.wan.demo.wan22 import BOUNDARY_RATIO, SCHEDULER_CONFIG


def export(work: Path, target: Path, *, map_scenes: int = SCENES) -> None:
    """Write the checkpoint and the LoRAs that the stages left in `work` to `target`, weights in float16.

    `map_scenes` are drawn for the map of latents to colours.
    """
    pipe = WanPipeline(
        tokenizer=T5TokenizerFast.from_pretrained(work / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(work / "text_encoder"),
        vae=AutoencoderKLWan.from_pretrained(work / "vae"),
        scheduler=UniPCMultistepScheduler(**SCHEDULER_CONFIG),
        boundary_ratio=BOUNDARY_RATIO,
        transformer=WanTransformer3DModel.from_pretrained(work / "transformer"),
        transformer_2=WanTransformer3DModel.from_pretrained(work / "transformer_2"),
    )
    pipe.to(torch.float16).save_pretrained(target / "checkpoint")
    write_map(target / "checkpoint", map_scenes)
    shutil.copytree(work / "loras", target / "loras", dirs_exist_ok=True)
    for config in target.glob("checkpoint/*/config.json"):
        _forget_origin(config)


def _forget_origin(config: Path) -> None:
    """Drop the folder of this machine that the part was loaded from."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n")
