"""Warm start: read-ahead of checkpoint files into the page cache, and a small render before a replica is ready.

Example:
    read_ahead(weight_files(options))  # returns at once
    ...                                # load the model; files that are read by then come from memory
    spec = warm_up_spec(card, Speed.FAST, sampler.passes)
    runtime.render(spec, warm_up_inputs(card, spec), on_step)
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Thread

import numpy as np

from deployments.pipeline import PipelineOptions, RenderInputs
from deployments.wan.loading import COMPONENTS, local_folder
from serve_app.models.card import ImageInput, ModelCard
from serve_app.spec import OutputFormat, Recipe, RenderSpec, Speed

logger = logging.getLogger("ray.serve.wan")

_SIDE = 128  # pixels; enough for several tokens in each direction
_MOST_STEPS = 16


def weight_files(options: PipelineOptions) -> Iterator[Path]:
    """Find the safetensors files that a pipeline loads, the experts' first, if they are on this machine's disks."""
    card = options.card
    places = [(options.transformer_model, COMPONENTS[expert]) for expert in card.experts]
    if card.parts is not None and options.base_model == card.base_model:
        places += [(part.checkpoint, part.folder) for part in (card.parts.text_encoder, card.parts.vae)]
    else:
        places += [(options.base_model, folder) for folder in ("text_encoder", "vae")]
    for checkpoint, folder in places:
        found = local_folder(checkpoint, folder)
        if found is not None:
            yield from sorted(found.glob("*.safetensors"))


def read_ahead(files: Iterable[Path]) -> None:
    """Make the system read `files` into the page cache, in the background.

    Weights are loaded through memory maps, page by page in the order of the model. A disk, and even more a network
    disk, is faster if it is asked for whole files, several at a time. What does not fit the page cache is read again.
    """
    for file in files:
        Thread(target=_read, args=(file,), name=f"read-ahead {file.name}", daemon=True).start()


def _read(file: Path) -> None:
    try:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
    except OSError as error:  # loading the file will fail in the same way, with an error
        logger.info("%s is not read ahead: %s", file, error.strerror)


def warm_up_spec(card: ModelCard, speed: Speed, passes: Callable[[RenderSpec], Iterable[int]]) -> RenderSpec:
    """Return a small render without LoRAs in which every expert runs; `passes` counts how often each does."""
    side = card.snap(_SIDE, Recipe.REFERENCE)
    spec = RenderSpec(
        model=card.id,
        recipe=Recipe.REFERENCE,
        speed=speed,
        loras=(),
        prompt="a fox runs through fresh snow",
        negative_prompt="",
        width=side,
        height=side,
        num_frames=card.latents.stride.frames + 1,
        fps=card.defaults.fps,
        sample_steps=1,
        guidance_scale=card.defaults.guidance_scale,
        seed=0,
        output_format=OutputFormat.MP4,
    )
    while not all(passes(spec)) and spec.sample_steps < _MOST_STEPS:
        spec = spec.model_copy(update={"sample_steps": spec.sample_steps + 1})
    return spec


def warm_up_inputs(card: ModelCard, spec: RenderSpec) -> RenderInputs:
    """Return the inputs for `warm_up_spec`: a black image if the model requires one."""
    black = np.zeros((spec.height, spec.width, 3), np.uint8)
    return RenderInputs({}, black if card.image_input is ImageInput.REQUIRED else None)
