"""How long one expert takes to change its LoRA, as an adapter and merged, from each place for untouched weights.

    python -m tests.benchmarks.lora_switching [--full-size] [--layers 40] [--rank 32] [--repeat 5] [--device cuda]

Silent, it takes the tiny experts of the tests. With `--full-size`, an expert with the sizes of Wan A14B, random
bfloat16 weights and `--layers` of its 40 blocks; it is written to a temporary directory (28 GB with all blocks) and
needs memory for itself twice. Each row: the first change, which also reads the LoRA's file and copies originals; then
the median of `--repeat` changes to another LoRA that is resident, and of changes of the multiplier. The floor is the
time of the bytes that a change to another LoRA must move from where the untouched weights (for an adapter, the LoRA)
wait, at the speed of a plain copy of the same kind measured in the same run. Prints a table and, last, one line of
JSON.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import save_file

from deployments.wan.loading import COMPONENTS, expert_files
from deployments.wan.loras.resident import ResidentLoras
from deployments.wan.loras.state import LoraState
from deployments.wan.memory.planner import MemoryPlan
from serve_app.models.architecture import WanArchitecture
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import PAIR, Expert, Recipe, RenderSpec
from tests.deployments.wan.conftest import lora_file, make_spec
from tests.deployments.wan.experts import save_experts
from tests.deployments.wan.held import held, lora_files

FULL_SIZE = {
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "ffn_dim": 13824,
    "text_dim": 4096,
    "freq_dim": 256,
    "in_channels": 16,
    "out_channels": 16,
}
COPIED_BYTES = 2**28  # by the plain copies


@dataclass(frozen=True)
class Row:
    """Seconds, and the bytes that a change must read from the place, of one way to apply a LoRA."""

    way: str
    first: float
    pair: float
    scale: float
    moved: int
    floor: float


class Bench:
    """Two LoRAs of rank `rank`, and the checkpoint whose high noise expert takes them."""

    def __init__(self, folder: Path, device: torch.device, rank: int, repeat: int) -> None:
        self.folder = folder
        self.device = device
        self.repeat = repeat
        self.config = WanTransformer3DModel.load_config(folder, subfolder="transformer")
        lora_files(WanArchitecture.from_config(self.config, "Wan 2.2 T2V A14B"))  # made before anything is timed
        self.layers = {
            module.original: module.shape
            for module in WanArchitecture.from_config(self.config).modules
            if module.is_linear and module.name.startswith("blocks.")
        }
        self.files = [self._lora(folder / f"{name}.safetensors", rank) for name in "ab"]
        self.lora_bytes = self.files[0].stat().st_size
        self.changed_bytes = sum(2 * out * wide for out, wide in self.layers.values())

    def rows(self) -> Iterator[Row]:
        """Yield one for each way that the device has."""
        copies = self._plain_copies()
        yield self._measure("adapter", PristineMode.HOST, Recipe.REFERENCE, copies[PristineMode.HOST])
        for mode in (PristineMode.GPU, PristineMode.HOST, PristineMode.CHECKPOINT):
            if mode in copies:
                yield self._measure(f"merged, originals: {mode.value}", mode, Recipe.PREVIEW, copies[mode])

    def read_seconds(self) -> float:
        """From a file, which the page cache holds, to a resident LoRA: hashed, parsed and copied."""
        resident, lora = ResidentLoras(self.device, host_bytes=2**33), lora_file(Expert.HIGH, self.files[0])

        def read() -> None:
            with held([lora], self.config, strict=True) as files:
                resident.get([lora], files, strict=True)

        return self._timed(read)

    def _measure(self, way: str, mode: PristineMode, recipe: Recipe, bandwidth: float) -> Row:
        state = self._state(mode)
        one, other = (make_spec(lora_file(Expert.HIGH, file), recipe=recipe) for file in self.files)
        scaled = make_spec(lora_file(Expert.HIGH, self.files[1], 0.5), recipe=recipe)
        self._apply(state, make_spec(recipe=recipe))
        initial = self._timed(partial(self._apply, state, one))
        self._apply(state, other)
        pair = [self._timed(partial(self._apply, state, spec)) for spec in [one, other] * self.repeat]
        scale = [self._timed(partial(self._apply, state, spec)) for spec in [scaled, other] * self.repeat]
        moved = self.lora_bytes if recipe is Recipe.REFERENCE else self.changed_bytes
        return Row(way, initial, statistics.median(pair), statistics.median(scale), moved, moved / bandwidth)

    def _apply(self, state: LoraState, spec: RenderSpec) -> None:
        """Hold the files that the state lacks, and go to `spec`."""
        with held(state.lacking(spec), self.config, strict=True) as files:
            state.apply(spec, files)

    def _timed(self, work: Callable[[], None]) -> float:
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _state(self, mode: PristineMode) -> LoraState:
        gc.collect()  # the last one's weights
        experts = {
            side: WanTransformer3DModel.from_pretrained(
                self.folder, subfolder=COMPONENTS[side], dtype=torch.bfloat16
            ).to(self.device)
            for side in PAIR
        }
        plan = MemoryPlan(
            offload=OffloadMode.NONE,
            reason="",
            originals=mode,
            lora_host_bytes=2**33,
            lora_gpu_bytes=2**31 if self.device.type == "cuda" else 0,
        )
        return LoraState(
            experts,
            device=self.device,
            dtype=torch.bfloat16,
            plan=plan,
            files=partial(expert_files, str(self.folder)),
            without_hooks=nullcontext,
        )

    def _plain_copies(self) -> dict[PristineMode, float]:
        """Return bytes per second to the device from each place for untouched weights, the bytes counted once."""
        cuda = self.device.type == "cuda"
        target = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=self.device)
        host = torch.ones(COPIED_BYTES, dtype=torch.uint8, pin_memory=cuda)
        speeds = {PristineMode.HOST: self._speed(lambda: target.copy_(host), COPIED_BYTES)}
        if cuda:
            there = torch.ones_like(target)
            speeds[PristineMode.GPU] = self._speed(lambda: target.copy_(there), COPIED_BYTES)
        files = expert_files(str(self.folder), Expert.HIGH)
        name = next(name for name in files if name.endswith("ffn.net.0.proj.weight"))

        def read() -> None:
            with safe_open(files[name], framework="pt") as file:
                file.get_tensor(name).to(self.device, copy=True)

        with safe_open(files[name], framework="pt") as file:
            size = file.get_tensor(name).nbytes
        speeds[PristineMode.CHECKPOINT] = self._speed(read, size)
        return speeds

    def _speed(self, copy: Callable[[], object], size: int) -> float:
        copy()
        return size / statistics.median(self._timed(lambda: void(copy())) for _ in range(self.repeat))

    def _lora(self, path: Path, rank: int) -> Path:
        tensors = {}
        for name, (out, wide) in self.layers.items():
            tensors[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(rank, wide).bfloat16()
            tensors[f"diffusion_model.{name}.lora_B.weight"] = (torch.randn(out, rank) * 1e-3).bfloat16()
        save_file(tensors, path)
        return path


def void(_: object) -> None:
    """Drop a result."""


def save_full_size(folder: Path, layers: int, device: torch.device) -> None:
    """Save a checkpoint whose high noise expert is full-size, a file for each block; the other expert is tiny."""
    save_experts(folder)
    high = folder / "transformer"
    for file in high.iterdir():
        file.unlink()
    with torch.device("meta"):
        expert = WanTransformer3DModel(**FULL_SIZE, num_layers=layers)
    expert.save_config(high)
    files: dict[str, str] = {}
    blocks: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in expert.named_parameters():
        blocks.setdefault(f"block-{name.split('.')[1] if name.startswith('blocks.') else 'none'}", {})[name] = value
    for block, values in blocks.items():
        random = {
            name: (torch.randn(value.shape, device=device) * 0.02).bfloat16().cpu() for name, value in values.items()
        }
        save_file(random, high / f"{block}.safetensors")
        files |= dict.fromkeys(values, f"{block}.safetensors")
    index = {"metadata": {}, "weight_map": files}
    (high / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(f"{'':32}{'first':>10}{'pair':>10}{'scale':>10}{'moved':>10}{'floor':>10}")
    for row in rows:
        times = "".join(f"{seconds * 1e3:7.1f} ms" for seconds in (row.first, row.pair, row.scale))
        print(f"{row.way:32}{times}{row.moved / 1e9:7.3f} GB{row.floor * 1e3:7.1f} ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        if args.full_size:
            save_full_size(folder, args.layers, device)
        else:
            save_experts(folder)
        bench = Bench(folder, device, args.rank, args.repeat)
        rows = list(bench.rows())
        read = bench.read_seconds()
    show(rows)
    print(f"reading a LoRA file of {bench.lora_bytes / 1e6:.1f} MB, hashed and copied: {read * 1e3:.1f} ms")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(
        json.dumps(
            {
                "device": name,
                "torch": version("torch"),
                "full_size": args.full_size,
                "layers": args.layers if args.full_size else None,
                "rank": args.rank,
                "read_s": read,
                "rows": [vars(row) for row in rows],
            }
        )
    )


if __name__ == "__main__":
    main()
