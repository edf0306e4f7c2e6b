"""Seconds a denoising step of one video on one card, and shared by several: guidance, Ulysses, ring, and the best mix.

    python -m tests.benchmarks.video_parallel [--gpus 2] [--sizes 1024x1024x41 832x480x41 1280x720x81] [--steps 3]
                                              [--layers 40] [--device cuda] [--speed fast] [--model wan22_14b_t2v]

One process a card, without Ray; what shares the steps is what a Generator's ranks run (`deployments.wan.parallel`). The
expert has the sizes that the model's card says (with `--device cpu`, tiny ones) and random weights, and so has the VAE:
times are real, pictures are not. A model that takes images gets one. Every video has guidance, so a step is two forward
passes. `step` is the median of all steps but the first, `first` the first one, which compiles. `speedup` is against one
card in the same run, `efficiency` that by card. `exchange` is the share of a step in which rank 0 runs NCCL's kernels,
waiting for others included. `peak` is a card's. `drift` is the relative L2 distance of the final latents from one
card's, and `psnr` compares the frames. `link` is what a rank sends in a second of a plain all-to-all. Prints a table
and, last, one line of JSON.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers import UniPCMultistepScheduler, WanPipeline
from torch.profiler import ProfilerActivity, profile

from deployments.pipeline import Frames
from deployments.wan.parallel.mix import best_mix
from deployments.wan.parallel.team import HANGS_AFTER_S, Rank, Team
from deployments.wan.parallel.world import World, open_rendezvous, reach_rendezvous
from deployments.wan.sampling import Stopwatch, VideoSampler
from deployments.wan.speed.accelerator import Accelerator
from serve_app.models.card import ModelCard, load_card
from serve_app.results import Parallelism
from serve_app.settings import DEFAULT_MODEL
from serve_app.spec import Expert, RenderSpec, Speed
from tests.benchmarks.expert_forward import TEXT_TOKENS, random_expert
from tests.benchmarks.images import noise_image
from tests.benchmarks.vae import random_vae
from tests.deployments.wan.conftest import make_spec

ALONE = "one card"
LINK_BYTES = {"cuda": 2**30, "cpu": 2**20}


@dataclass(frozen=True)
class Row:
    """What one way to share the steps costs at one size. Times in seconds, of rank 0."""

    size: str
    way: str
    step: float
    first: float
    decode: float
    speedup: float
    efficiency: float
    exchange: float
    peak_gib: float
    drift: float
    psnr: float


@dataclass(frozen=True)
class Video:
    """One video, as far as this rank has it."""

    steps: list[float]
    decode: float
    peak_gib: float
    latents: torch.Tensor
    frames: Frames


class Bench:
    """One rank: an expert and a VAE with random weights on one card."""

    def __init__(self, args: argparse.Namespace, world: World) -> None:
        self.device = world.device
        self.world = world
        self.card: ModelCard = load_card(args.model).model_copy(update={"experts": (Expert.ONLY,)})
        self.speed = Speed(args.speed)
        self.steps: int = args.steps
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        expert = random_expert(self.card, args.layers, self.device, dtype)
        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=self.card.checkpoint_shift
        )
        self.pipe: Any = WanPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=random_vae(self.card, self.device, dtype),
            scheduler=scheduler,
            transformer=expert,
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.heads: int = expert.config.num_attention_heads
        self.accelerator = Accelerator([expert], self.device, dtype)
        self.rank = Rank(world)
        self.rank.leads = world.rank == 0
        self.rank.take([expert], token_timesteps=self.card.token_timesteps)
        texts = torch.randn(2, 1, TEXT_TOKENS, expert.config.text_dim, generator=torch.Generator().manual_seed(2))
        names = ("prompt_embeds", "negative_prompt_embeds")
        self.texts = {name: text.to(self.device, dtype) for name, text in zip(names, texts, strict=True)}

    def rows(self, size: str) -> Iterator[Row]:
        """Run every way at one size, on every rank; rank 0 makes the rows."""
        spec = self.spec(size, self.steps)
        leads = self.world.rank == 0
        alone = self.video(spec, Team(), Parallelism()) if leads else None
        self.world.all_can(True)  # the others wait: one card is measured while they are idle
        if alone is not None:
            yield self.row((size, ALONE), alone, alone, Parallelism(), 0.0)
        for way, mix in self.ways(spec).items():
            shared = self.video(spec, self.rank, mix)
            exchange = self.exchange(self.spec(size, 1), mix)
            if alone is not None:
                yield self.row((size, way), shared, alone, mix, exchange)

    def ways(self, spec: RenderSpec) -> dict[str, Parallelism]:
        """Return each way to share the steps between all ranks, by name, the planner's choice first."""
        ranks = self.world.size
        tokens = self.card.token_count(width=spec.width, height=spec.height, num_frames=spec.num_frames)
        mixes = [Parallelism(ulysses=ranks), Parallelism(ring=ranks)]
        if ranks % 2 == 0:
            mixes.insert(0, Parallelism(guidance=2, ulysses=ranks // 2))
        best = best_mix(ranks, heads=self.heads, tokens=tokens, guided=True)
        known = [mix for mix in mixes if self.heads % mix.ulysses == 0]
        return {_name(mix) + (" (planner)" if mix == best else ""): mix for mix in dict.fromkeys([best, *known])}

    def spec(self, size: str, steps: int) -> RenderSpec:
        width, height, frames = map(int, size.split("x"))
        return make_spec(width=width, height=height, num_frames=frames, sample_steps=steps, speed=self.speed)

    def video(self, spec: RenderSpec, team: Team, mix: Parallelism) -> Video:
        """Denoise and decode; time each step."""
        taken: list[float] = []
        latents: list[torch.Tensor] = []
        decode = self.pipe.vae.decode

        def noted(given: torch.Tensor, **options: Any) -> Any:
            latents.append(given.float().cpu())
            return decode(given, **options)

        def on_step(_: int) -> None:
            self._wait()
            taken.append(time.perf_counter())

        self._reset_peak()
        watch = Stopwatch()
        image = noise_image(self.card, spec.width, spec.height)
        sampler = VideoSampler(self.pipe, self.device, self.card, team)
        self.pipe.vae.decode = noted
        try:
            with self.accelerator.running(spec.speed):
                self._wait()
                taken.append(time.perf_counter())
                made = sampler.sample(spec, self.texts, image, on_step, watch, mix=mix)
        finally:
            self.pipe.vae.decode = decode
        steps = [after - before for before, after in pairwise(taken)]
        return Video(steps, watch.seconds["decode"], self._peak, latents[0] if latents else torch.empty(0), made.frames)

    def exchange(self, spec: RenderSpec, mix: Parallelism) -> float:
        """Return the share of one step that NCCL's kernels take on this rank; 0 without a GPU."""
        self.rank.leads = False  # nobody decodes
        activity = ProfilerActivity.CPU if self.device.type == "cpu" else ProfilerActivity.CUDA
        with profile(activities=[activity]) as profiled:
            seconds = self.video(spec, self.rank, mix).steps[0]
        self.rank.leads = self.world.rank == 0
        nccl = (entry for entry in profiled.key_averages() if entry.key.startswith("nccl"))
        exchanging: float = sum(entry.self_device_time_total for entry in nccl) / 1e6
        return exchanging / seconds

    def link(self) -> float:
        """Return the bytes that a rank sends to all others in a second of a plain all-to-all."""
        size = LINK_BYTES[self.device.type] // self.world.size * self.world.size
        sent, received = (torch.empty(size, dtype=torch.uint8, device=self.device) for _ in range(2))
        seconds = []
        for _ in range(5):
            self._wait()
            started = time.perf_counter()
            dist.all_to_all_single(received, sent)
            self._wait()
            seconds.append(time.perf_counter() - started)
        return size * (self.world.size - 1) / self.world.size / statistics.median(seconds)

    def row(self, way: tuple[str, str], video: Video, alone: Video, mix: Parallelism, exchange: float) -> Row:
        step, base = (statistics.median(one.steps[1:] or one.steps) for one in (video, alone))
        return Row(
            size=way[0],
            way=way[1],
            step=step,
            first=video.steps[0],
            decode=video.decode,
            speedup=base / step,
            efficiency=base / step / mix.ranks,
            exchange=exchange,
            peak_gib=video.peak_gib,
            drift=((video.latents - alone.latents).norm() / alone.latents.norm()).item(),
            psnr=_psnr(video.frames, alone.frames),
        )

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def _peak(self) -> float:
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0


def _name(mix: Parallelism) -> str:
    parts = {"guidance": mix.guidance, "ulysses": mix.ulysses, "ring": mix.ring}
    return " x ".join(f"{name} {degree}" for name, degree in parts.items() if degree > 1)


def _psnr(one: Frames, other: Frames) -> float:
    """Return decibels; infinite where the frames are equal."""
    error = float(np.square(one.astype(np.float32) - other).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def show(rows: Sequence[Row]) -> None:
    """Print the rows of one size."""
    names = [field.name for field in dataclasses.fields(Row)]
    print(f"{names[0]:14}{names[1]:28}" + "".join(f"{name:>11}" for name in names[2:]))
    for row in rows:
        print(f"{row.size:14}{row.way:28}" + "".join(f"{getattr(row, name):11.3g}" for name in names[2:]), flush=True)


def main() -> None:
    """Start the other ranks, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=max(2, torch.cuda.device_count()))
    parser.add_argument("--sizes", nargs="+", default=["1024x1024x41", "832x480x41", "1280x720x81"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--layers", type=int, help="silent: the model's")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--speed", choices=[speed.value for speed in Speed], default=Speed.FAST.value)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = torch.device(args.device if args.device == "cpu" else f"{args.device}:{args.rank}")
    store = reach_rendezvous(args.port, args.gpus) if args.rank else open_rendezvous(args.gpus)
    command = [sys.executable, "-m", "tests.benchmarks.video_parallel", *sys.argv[1:], "--gpus", str(args.gpus)]
    others = [
        subprocess.Popen([*command, "--rank", str(rank), "--port", str(store.port)], env=os.environ)
        for rank in (range(1, args.gpus) if args.rank == 0 else ())
    ]
    bench = Bench(args, World(args.rank, args.gpus, device, store, timeout_s=HANGS_AFTER_S))
    link = bench.link()
    rows = []
    for size in args.sizes:
        of_size = list(bench.rows(size))
        rows += of_size
        if args.rank == 0:
            show(of_size)  # each as it comes: a run may be cut short
    bench.world.leave()
    if args.rank == 0:
        print(f"link: {link / 1e9:.3g} GB/s")
        setting = {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "torch": version("torch"),
            "diffusers": version("diffusers"),
            "link_bytes_per_s": link,
            **{name: getattr(args, name) for name in ("gpus", "model", "layers", "speed", "steps")},
        }
        print(json.dumps({"benchmark": "video_parallel", "setting": setting, "rows": [vars(row) for row in rows]}))
    for other in others:
        other.wait()


if __name__ == "__main__":
    main()
