"""Seconds of one forward pass of a full-size expert: plain diffusers, `exact` in both recipes, `fast` and its parts.

    python -m tests.benchmarks.expert_forward [--sizes 832x480x41 1024x1024x41] [--layers 40] [--rank 32] [--repeat 3]
                                              [--device cuda] [--ways exact preview fast ...] [--model wan22_14b_t2v]

The expert has the sizes that the model's card says (with `--device cpu`, tiny ones) and random weights, so these are
times and not pictures. A denoising step with guidance is two passes. The ceiling is a plain matrix product in the
compute dtype, measured in the same run; `share` is a pass's FLOP/s of it. `drift` is the relative L2 distance of a
pass's output from that of the first way. `switch` and `scale` are seconds to go to another resident LoRA, and to
another multiplier, on this expert. Prints a table and, last, one line of JSON.
"""

import argparse
import dataclasses
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from deployments.wan.loras.state import LoraState
from deployments.wan.memory.planner import MemoryPlan
from deployments.wan.speed.accelerator import Accelerator
from serve_app.models.architecture import WanArchitecture
from serve_app.models.card import ModelCard, load_card
from serve_app.results import Attention
from serve_app.settings import DEFAULT_MODEL, OffloadMode, PristineMode
from serve_app.spec import Recipe, RenderSpec, Speed
from tests.deployments.wan.conftest import lora_file, make_spec
from tests.deployments.wan.held import held

SIZES = (
    *("num_layers", "num_attention_heads", "attention_head_dim", "ffn_dim"),
    *("text_dim", "freq_dim", "in_channels", "out_channels"),
)
SMALL = {"num_attention_heads": 2, "ffn_dim": 256, "text_dim": 32, "attention_head_dim": 32}
TEXT_TOKENS = 512
MATRIX = {"cuda": 8192, "cpu": 1024}  # side of the matrices whose product is the ceiling


@dataclass(frozen=True)
class Way:
    """One way to run the expert: a spec's recipe and speed, or a part of `fast` alone."""

    recipe: Recipe
    speed: Speed
    attention: Attention | None = None  # silent: the best
    compiled: bool = True
    originals: PristineMode = PristineMode.GPU


WAYS: Mapping[str, Way] = {
    "exact": Way(Recipe.REFERENCE, Speed.EXACT),  # also what plain diffusers does: eager, with an adapter
    "preview": Way(Recipe.PREVIEW, Speed.EXACT),
    "fast": Way(Recipe.REFERENCE, Speed.FAST),
    "fast, originals: host": Way(Recipe.REFERENCE, Speed.FAST, originals=PristineMode.HOST),
    "fast, not compiled": Way(Recipe.REFERENCE, Speed.FAST, compiled=False),
    "fast, cuDNN": Way(Recipe.REFERENCE, Speed.FAST, attention=Attention.CUDNN),
    "fast, native": Way(Recipe.REFERENCE, Speed.FAST, attention=Attention.NATIVE),
    "turbo": Way(Recipe.REFERENCE, Speed.TURBO),
    "turbo, not compiled": Way(Recipe.REFERENCE, Speed.TURBO, compiled=False),
}


@dataclass(frozen=True)
class Row:
    """What one way costs at one size. Times in seconds."""

    way: str
    size: str
    forward: float
    first: float
    share: float
    drift: float
    peak_gib: float
    switch: float
    scale: float


class Bench:
    """One expert with random weights on one device, and two LoRAs for it."""

    def __init__(
        self, card: ModelCard, device: torch.device, folder: Path, *, layers: int | None, rank: int, repeat: int
    ) -> None:
        self.card = card
        self.side = card.experts[0]
        self.device = device
        self.repeat = repeat
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.expert = random_expert(card, layers, device, self.dtype)
        self.architecture = WanArchitecture.from_config(self.expert.config)
        self.loras = [random_lora(self.architecture, folder / f"{name}.safetensors", rank) for name in "ab"]
        self.ceiling = self._ceiling()
        self.reference: dict[str, torch.Tensor] = {}

    def rows(self, name: str, sizes: Sequence[str]) -> Iterator[Row]:
        """Run one way at every size; the first size is also the first that it compiles."""
        way = WAYS[name]
        state = self._state(way.originals)
        specs = [
            make_spec(lora_file(self.side, file, factor), recipe=way.recipe, speed=way.speed)
            for file, factor in ((self.loras[0], 1.0), (self.loras[1], 1.0), (self.loras[1], 0.5))
        ]
        switch, scale = self._switches(state, specs)
        self._apply(state, specs[0])
        torch.compiler.reset()
        accelerator = Accelerator([self.expert], self.device, self.dtype, attention=way.attention)
        for size in sizes:
            inputs = self._inputs(size)
            self._reset_peak()
            with accelerator.running(way.speed, compilable=way.compiled):
                first = self._timed(partial(self._forward, inputs))
                output = self._forward(inputs)
                taken = statistics.median(self._timed(partial(self._forward, inputs)) for _ in range(self.repeat))
            base = self.reference.setdefault(size, output.float())
            drift = ((output.float() - base).norm() / base.norm()).item()
            flops = self.architecture.forward_flops(self._tokens(size))
            yield Row(name, size, taken, first, flops / taken / self.ceiling, drift, self._peak(), switch, scale)
        self._apply(state, make_spec())

    def _switches(self, state: LoraState, specs: Sequence[RenderSpec]) -> tuple[float, float]:
        one, other, scaled = specs
        for spec in (one, other):  # reads the files, and copies originals
            self._apply(state, spec)
        switch = [self._timed(partial(self._apply, state, spec)) for spec in [one, other] * self.repeat]
        scale = [self._timed(partial(self._apply, state, spec)) for spec in [scaled, other] * self.repeat]
        return statistics.median(switch), statistics.median(scale)

    def _apply(self, state: LoraState, spec: RenderSpec) -> None:
        with held(state.lacking(spec), self.expert.config, strict=True) as files:
            state.apply(spec, files)

    def _state(self, originals: PristineMode) -> LoraState:
        plan = MemoryPlan(
            offload=OffloadMode.NONE,
            reason="",
            originals=originals if self.device.type == "cuda" else PristineMode.HOST,
            lora_host_bytes=2**33,
            lora_gpu_bytes=2**31 if self.device.type == "cuda" else 0,
        )
        gc.collect()
        return LoraState(
            {self.side: self.expert},
            device=self.device,
            dtype=self.dtype,
            plan=plan,
            files=lambda _: {},
            without_hooks=nullcontext,
        )

    def _inputs(self, size: str) -> dict[str, Any]:
        width, height, frames = map(int, size.split("x"))
        stride = self.card.latents.stride
        latents = ((frames - 1) // stride.frames + 1, height // stride.rows, width // stride.columns)
        shape = (1, self.expert.config.in_channels, *latents)
        time = torch.full((1, self._tokens(size)) if self.card.token_timesteps else (1,), 900.0, device=self.device)
        torch.manual_seed(1)  # the same for each way, so that outputs can be compared
        text = (1, TEXT_TOKENS, self.expert.config.text_dim)
        return {
            "hidden_states": torch.randn(shape, device=self.device, dtype=self.dtype),
            "encoder_hidden_states": torch.randn(text, device=self.device, dtype=self.dtype),
            "timestep": time,
            "return_dict": False,
        }

    def _tokens(self, size: str) -> int:
        width, height, frames = map(int, size.split("x"))
        return self.card.token_count(width=width, height=height, num_frames=frames)

    def _forward(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        # Not inference mode: the pipeline, too, runs without gradients.
        with torch.no_grad():
            output: torch.Tensor = self.expert(**inputs)[0]
        return output

    def _timed(self, work: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _ceiling(self) -> float:
        """Return FLOP/s of a plain matrix product."""
        side = MATRIX[self.device.type]
        one, other = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
        for _ in range(3):
            one @ other
        taken = self._timed(lambda: [one @ other for _ in range(50)])
        return 50 * 2 * side**3 / taken

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _peak(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0


def random_lora(architecture: WanArchitecture, path: Path, rank: int) -> Path:
    """Write a LoRA of that rank for every linear layer of the blocks."""
    tensors = {}
    for module in architecture.modules:
        if module.is_linear and module.name.startswith("blocks."):
            out, wide = module.shape
            tensors[f"diffusion_model.{module.original}.lora_A.weight"] = torch.randn(rank, wide).bfloat16()
            tensors[f"diffusion_model.{module.original}.lora_B.weight"] = (torch.randn(out, rank) * 1e-3).bfloat16()
    save_file(tensors, path)
    return path


def random_expert(card: ModelCard, layers: int | None, device: torch.device, dtype: torch.dtype) -> Any:
    """Make an expert of `card` with random weights on `device`; modules that diffusers keeps in float32 are in that.

    Without `layers`, it has as many as the card says. On a CPU it is narrow.
    """
    sizes = {name: getattr(card.architecture, name) for name in SIZES} | ({} if device.type == "cuda" else SMALL)
    torch.manual_seed(0)
    with device:
        expert = WanTransformer3DModel(**sizes | ({} if layers is None else {"num_layers": layers}))
    kept = WanTransformer3DModel._keep_in_fp32_modules
    for name, value in expert.named_parameters():
        if not any(part in name.split(".") for part in kept):
            value.data = value.data.to(dtype)
    return expert.requires_grad_(False).eval()


def show(rows: Sequence[Row], ceiling: float) -> None:
    """Print the table."""
    print(f"ceiling: {ceiling / 1e12:.0f} TFLOP/s")
    names = [field.name for field in dataclasses.fields(Row)]
    print(f"{names[0]:24}{names[1]:>15}" + "".join(f"{name:>10}" for name in names[2:]))
    for row in rows:
        figures = (row.forward, row.first, row.share, row.drift, row.peak_gib, row.switch, row.scale)
        print(f"{row.way:24}{row.size:>15}" + "".join(f"{figure:10.3g}" for figure in figures))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["832x480x41", "1024x1024x41"])
    parser.add_argument("--layers", type=int, help="silent: the model's")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["exact", "preview", "fast"])
    args = parser.parse_args()
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(
            load_card(args.model), device, Path(directory), layers=args.layers, rank=args.rank, repeat=args.repeat
        )
        rows = [row for name in args.ways for row in bench.rows(name, args.sizes)]
    show(rows, bench.ceiling)
    setting = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        "model": args.model,
        "layers": args.layers,
        "rank": args.rank,
        "ceiling": bench.ceiling,
    }
    print(json.dumps({"benchmark": "expert_forward", "setting": setting, "rows": [vars(row) for row in rows]}))


if __name__ == "__main__":
    main()
