"""Frames of the runtime against an independent use of diffusers, and its behaviour when a render ends early."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel

from deployments.pipeline import Frames
from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.prompts import PromptEmbeddings
from deployments.wan.runtime import WanRuntime
from serve_app.errors import ConfigurationInvalid, OutOfMemory, RenderFailed
from serve_app.models.card import load_card
from serve_app.results import Kernels, Runtime
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import Expert, LoraFile, Recipe
from tests.deployments.wan.conftest import (
    RECIPES,
    Render,
    difference,
    frames_of,
    load_demo,
    lora_file,
    make_spec,
    options_for,
    render_with,
)

_NEGATIVE = "blurry, low quality"


def _reference_frames(
    checkpoint: DemoCheckpoint, dtype: torch.dtype, multipliers: dict[Path, float], **call: Any
) -> Frames:
    """Return what the reference server does, written down from its description, with nothing of the runtime."""
    pipe = WanPipeline.from_pretrained(checkpoint.base, transformer=None, transformer_2=None, dtype=dtype)
    for folder, (path, multiplier) in zip(("transformer", "transformer_2"), multipliers.items(), strict=True):
        expert = WanTransformer3DModel.from_pretrained(checkpoint.transformers, subfolder=folder, dtype=dtype)
        setattr(pipe, folder, expert)
        pipe.load_lora_weights(
            str(path), adapter_name=folder, load_into_transformer_2=folder == "transformer_2", local_files_only=True
        )
        expert.set_adapters(folder, weights=multiplier)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(generator=torch.Generator("cpu").manual_seed(call.pop("seed")), output_type="pil", **call).frames[0]
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("values", "multipliers"),
    [
        ({"width": 64, "height": 64, "guidance_scale": 4.0}, (1.0, 1.0)),
        ({"width": 96, "height": 64, "guidance_scale": 1.0}, (0.5, 1.25)),
        ({"width": 64, "height": 96, "guidance_scale": 6.5}, (-1.0, 0.0)),
    ],
)
def test_frames_equal_the_reference_pipeline(
    demo_checkpoint: DemoCheckpoint,
    pair: tuple[LoraFile, LoraFile],
    dtype: str,
    values: dict[str, Any],
    multipliers: tuple[float, float],
) -> None:
    prompt = "  a  woman &amp; a&nbsp;horse   “quoted” café—night \n club "
    values = {**values, "prompt": prompt, "negative_prompt": _NEGATIVE, "num_frames": 5, "seed": 7}
    expected = _reference_frames(
        demo_checkpoint,
        getattr(torch, dtype),
        {Path(lora.location): multiplier for lora, multiplier in zip(pair, multipliers, strict=True)},
        num_inference_steps=3,
        **values,
    )
    loras = [lora.model_copy(update={"multiplier": m}) for lora, m in zip(pair, multipliers, strict=True)]
    frames = frames_of(load_demo(demo_checkpoint, dtype), make_spec(*loras, sample_steps=3, **values))
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_with_one_expert_renders_with_its_only_lora(
    demo_checkpoint: DemoCheckpoint, demo_loras: tuple[Path, Path], tmp_path: Path, recipe: Recipe
) -> None:
    base = shutil.copytree(demo_checkpoint.base, tmp_path / "base")
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": None}))
    card = load_card("wan22_14b_t2v").model_copy(update={"experts": (Expert.ONLY,)})
    runtime = WanRuntime.load(options_for(demo_checkpoint, base_model=str(base), card=card))
    spec = make_spec(lora_file(Expert.ONLY, demo_loras[0], 0.5), recipe=recipe)
    rendered = render_with(runtime, spec)

    expert = WanTransformer3DModel.from_pretrained(demo_checkpoint.transformers, subfolder="transformer")
    pipe = WanPipeline.from_pretrained(base, transformer=expert, transformer_2=None)
    pipe.load_lora_weights(str(demo_loras[0]), adapter_name="only", local_files_only=True)
    expert.set_adapters("only", weights=0.5)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        prompt=spec.prompt,
        negative_prompt="",
        width=64,
        height=64,
        num_frames=5,
        num_inference_steps=spec.sample_steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        output_type="pil",
    ).frames[0]
    expected = np.stack([np.asarray(image) for image in images])
    # Merged weights round otherwise than an adapter beside them.
    assert difference(rendered.frames, expected) <= (0 if recipe is Recipe.REFERENCE else 0.01)
    assert rendered.made_with.boundary_step == spec.sample_steps
    assert [lora.transformer for lora in rendered.made_with.loras] == [Expert.ONLY]
    assert difference(frames_of(runtime, make_spec(recipe=recipe)), expected) > 1


def test_prompt_seed_and_negative_prompt_change_the_video(render: Render) -> None:
    base = render()
    assert difference(render(prompt="a city street at night in the rain"), base) > 5
    assert difference(render(seed=43), base) > 5
    assert difference(render(negative_prompt=_NEGATIVE), base) > 1


@pytest.mark.parametrize(("guidance_scale", "encoded"), [(0.0, ["a"]), (1.0, ["a"]), (1.01, ["a", "b"])])
def test_a_negative_prompt_that_nothing_uses_is_not_encoded(
    render: Render, monkeypatch: pytest.MonkeyPatch, guidance_scale: float, encoded: list[str]
) -> None:
    texts: list[str] = []
    get = PromptEmbeddings.get

    def note(embeddings: PromptEmbeddings, text: str) -> torch.Tensor:
        texts.append(text)
        return get(embeddings, text)

    monkeypatch.setattr(PromptEmbeddings, "get", note)
    render(prompt="a", negative_prompt="b", guidance_scale=guidance_scale)
    assert texts == encoded


def test_every_step_is_counted(runtime: WanRuntime) -> None:
    steps: list[int] = []
    frames_of(runtime, make_spec(sample_steps=3), steps.append)
    assert steps == [1, 2, 3]


@pytest.mark.parametrize("last_step", [1, 3, 4])
def test_what_on_step_raises_comes_out_and_the_next_render_is_exact(
    runtime: WanRuntime, render: Render, high: LoraFile, low: LoraFile, last_step: int
) -> None:
    expected = render(high, low)
    stop = RuntimeError("stop")

    def abort(step: int) -> None:
        if step == last_step:
            raise stop

    with pytest.raises(RuntimeError) as caught:
        frames_of(runtime, make_spec(high, low, seed=1), abort)
    assert caught.value is stop
    np.testing.assert_array_equal(render(high, low), expected)


def _exhaust(_: int) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_exhausted_memory_is_distinguished_and_the_next_render_is_exact(runtime: WanRuntime, render: Render) -> None:
    expected = render()
    with pytest.raises(OutOfMemory, match=r"64x64, 5 frames with offload: none; ask for fewer .* frames$") as caught:
        frames_of(runtime, make_spec(), _exhaust)
    size = {"width": 64, "height": 64, "num_frames": 5}
    told = {**size, "offload": ["none"], "largest_that_fits": None, "reason": "CUDA out of memory"}
    assert caught.value.details == told
    np.testing.assert_array_equal(render(), expected)


def test_numbers_that_are_not_finite_fail_the_render(render: Render, low: LoraFile) -> None:
    expected = render(low)
    with pytest.raises(RenderFailed, match="not finite"):
        render(low.model_copy(update={"multiplier": 1e38}))
    np.testing.assert_array_equal(render(low), expected)


def test_a_frame_count_that_the_model_does_not_make_is_refused(render: Render) -> None:
    with pytest.raises(RenderFailed, match="expected"):
        render(num_frames=6)


def test_every_part_of_a_render_is_timed(demo_checkpoint: DemoCheckpoint, pair: tuple[LoraFile, LoraFile]) -> None:
    runtime = load_demo(demo_checkpoint)
    started = time.perf_counter()
    parts = render_with(runtime, make_spec(*pair)).seconds.model_dump()
    seconds = time.perf_counter() - started
    assert list(parts) == ["lora", "text", "denoise", "decode"]
    assert all(part > 0 for part in parts.values())
    assert 0.5 * seconds < sum(parts.values()) <= seconds


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 1), (8, 4), (None, 1)])
def test_a_cpu_is_shared_with_the_api(
    demo_checkpoint: DemoCheckpoint, monkeypatch: pytest.MonkeyPatch, cores: int | None, threads: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    asked: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    load_demo(demo_checkpoint)
    assert asked == [threads]


def test_what_it_runs_on_is_reported(runtime: WanRuntime) -> None:
    expected = Runtime(
        device="cpu",
        dtype="float32",
        offload="none",
        offload_reason="the device is a CPU",
        pristine="host",
        kernels=Kernels(float8=True),
    )
    assert runtime.runtime.model_copy(update={"resident_loras": ()}) == expected
    runtime.probe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float8"}, "dtype: 'float8'"),
        ({"base_model": "/nowhere"}, "base_model: cannot load '/nowhere'"),
        ({"transformer_model": "/nowhere"}, "transformer_model: cannot load '/nowhere'"),
        ({"offload": OffloadMode.MODEL}, "offload: model needs a GPU"),
        ({"pristine": PristineMode.GPU}, "pristine: gpu needs a GPU"),
    ],
)
def test_args_that_cannot_work_are_refused(
    demo_checkpoint: DemoCheckpoint, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationInvalid, match=message):
        WanRuntime.load(options_for(demo_checkpoint, **changes))
