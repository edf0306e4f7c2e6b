"""One runtime on the demo checkpoint for every test here, the smallest experts, and specs for both."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deployments.pipeline import Frames, PipelineOptions, Rendered, RenderInputs
from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.runtime import WanRuntime
from serve_app.models.card import ModelCard, load_card
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import Expert, LoraFile, OutputFormat, Recipe, RenderSpec
from tests.deployments.wan.experts import Experts, save_experts
from tests.deployments.wan.held import held
from tests.loras.layouts import LAYOUTS, write

LoraFactory = Callable[..., LoraFile]
Render = Callable[..., Frames]

RECIPES = (Recipe.REFERENCE, Recipe.PREVIEW)  # whose numerics differ: a draft has the reference's

collect_ignore = [] if torch.cuda.is_available() else ["test_gpu.py"]

torch.set_num_threads(1)  # faster on models of this size, and kind to the neighbours


def load_demo(
    checkpoint: DemoCheckpoint, dtype: str = "auto", pristine: PristineMode = PristineMode.AUTO
) -> WanRuntime:
    return WanRuntime.load(options_for(checkpoint, dtype=dtype, pristine=pristine))


def options_for(checkpoint: DemoCheckpoint, **changes: Any) -> PipelineOptions:
    """Return options of a runtime on the CPU."""
    options = options_of(load_card("wan22_14b_t2v"), str(checkpoint.base), str(checkpoint.transformers))
    return dataclasses.replace(options, **changes)


def options_of(card: ModelCard, base_model: str, transformer_model: str) -> PipelineOptions:
    """Return options of a runtime of any model on the CPU."""
    return PipelineOptions(
        card=card,
        base_model=base_model,
        transformer_model=transformer_model,
        dtype="auto",
        offload=OffloadMode.AUTO,
        hf_token=None,
        device="cpu",
        pristine=PristineMode.AUTO,
        lora_memory_bytes=2**30,
        compile_cache=Path(tempfile.gettempdir(), "compile-cache"),
    )


def lora_file(expert: Expert, file: Path, multiplier: float = 1.0) -> LoraFile:
    """Pin `file` to its content of now."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return LoraFile(
        expert=expert,
        reference=file.name,
        location=str(file),
        content=digest,
        sha256=digest,
        multiplier=multiplier,
    )


def make_spec(*loras: LoraFile, **changes: Any) -> RenderSpec:
    values: dict[str, Any] = {
        "model": "wan22_14b_t2v",
        "recipe": Recipe.REFERENCE,
        "loras": loras,
        "prompt": "a fox runs through fresh snow",
        "negative_prompt": "",
        "width": 64,
        "height": 64,
        "num_frames": 5,
        "fps": 16,
        "sample_steps": 4,
        "guidance_scale": 4.0,
        "seed": 42,
        "output_format": OutputFormat.PNG,
    }
    return RenderSpec(**{**values, **changes})


def frames_of(runtime: WanRuntime, spec: RenderSpec, on_step: Callable[[int], None] = lambda _: None) -> Frames:
    """Return the frames of one render."""
    return render_with(runtime, spec, on_step).frames


def render_with(runtime: WanRuntime, spec: RenderSpec, on_step: Callable[[int], None] = lambda _: None) -> Rendered:
    """Render as a Generator does: with the files of the LoRAs that the runtime lacks."""
    with held(runtime.lacking(spec), runtime._pipe.transformer.config, strict=spec.strict) as files:
        return runtime.render(spec, RenderInputs(files), on_step)


def difference(one: Frames, other: Frames) -> float:
    """Return mean over pixels, of 255."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.fixture(scope="session")
def tiny_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the two experts of a checkpoint; no test may change it."""
    return save_experts(tmp_path_factory.mktemp("experts"))


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a file of every layout for the tiny experts; no test may change one."""
    folder = tmp_path_factory.mktemp("layouts")
    return {name: write(name, folder, seed=seed).path for seed, name in enumerate(LAYOUTS)}


@pytest.fixture(scope="session")
def runtime(demo_checkpoint: DemoCheckpoint) -> WanRuntime:
    return load_demo(demo_checkpoint)


@pytest.fixture(scope="session")
def render(runtime: WanRuntime) -> Render:
    """Render a spec made of LoRAs and changes; no listener."""
    return lambda *loras, **changes: frames_of(runtime, make_spec(*loras, **changes))


@pytest.fixture
def high(demo_loras: tuple[Path, Path]) -> LoraFile:
    return lora_file(Expert.HIGH, demo_loras[0])


@pytest.fixture
def low(demo_loras: tuple[Path, Path]) -> LoraFile:
    return lora_file(Expert.LOW, demo_loras[1])


@pytest.fixture
def pair(high: LoraFile, low: LoraFile) -> tuple[LoraFile, LoraFile]:
    return high, low


@pytest.fixture
def other_pair(demo_loras: tuple[Path, Path]) -> tuple[LoraFile, LoraFile]:
    """Return a second pair: the demo's files with their sides exchanged."""
    return lora_file(Expert.HIGH, demo_loras[1]), lora_file(Expert.LOW, demo_loras[0])


@pytest.fixture
def experts(tiny_experts: Path) -> Experts:
    """Return the LoRA state of new experts."""
    return Experts(tiny_experts)
