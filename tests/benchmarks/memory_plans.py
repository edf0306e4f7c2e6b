"""Memory plans at full size: what a card of so many GiB does with a model of Wan 2.2, and what a render then takes.

    python -m tests.benchmarks.memory_plans [--caps 0 78 48 24] [--sizes 832x480x41] [--steps 2] [--speed exact fast]
                                            [--model wan22_14b_t2v]

A pipeline with random weights in bfloat16 of the real sizes (T2V: experts 2 x 14.3 B, text encoder 5.7 B, VAE) is made
in host memory: 70 GB. A model that takes images gets one. For each cap (0: the card as it is) the planner decides from
so many free GiB, PyTorch may take no more than that, and each size is rendered with guidance and no LoRA. Prints the
plan, and seconds and peak GiB of each render; last, one line of JSON. Tiny sizes on a CPU with `--device cpu`.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline
from transformers import UMT5Config, UMT5EncoderModel

from deployments.pipeline import RenderInputs
from deployments.wan.loading import COMPONENTS
from deployments.wan.memory.measuring import free_memory, weight_bytes
from deployments.wan.memory.planner import Demand, FreeMemory
from deployments.wan.parallel.team import Team
from deployments.wan.prompts import PromptEmbeddings
from deployments.wan.runtime import WanRuntime
from serve_app.models.card import ModelCard, load_card
from serve_app.settings import DEFAULT_MODEL, OffloadMode, PristineMode
from serve_app.spec import Recipe, Speed
from tests.benchmarks.expert_forward import random_expert
from tests.benchmarks.images import noise_image
from tests.benchmarks.vae import random_vae
from tests.deployments.wan.conftest import make_spec

_GIB = 2**30
UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
UMT5_SMALL = UMT5_XXL | {"vocab_size": 512, "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2}


@dataclass(frozen=True)
class Row:
    """One render under one plan. Times in seconds."""

    cap_gib: int
    offload: str
    originals: str
    speed: str
    size: str
    text: float
    step: float
    decode: float
    peak_gib: float


class TokenlessEmbeddings(PromptEmbeddings):
    """Encodes 512 made-up tokens: random weights need no vocabulary."""

    @torch.no_grad()
    def _encode(self, text: str) -> torch.Tensor:
        encoder = self._pipe.text_encoder
        generator = torch.Generator().manual_seed(len(text))
        tokens = torch.randint(encoder.config.vocab_size, (1, 512), generator=generator).to(self._device)
        embedding: torch.Tensor = encoder(tokens).last_hidden_state
        return embedding


def random_pipeline(card: ModelCard, device: torch.device, layers: int | None) -> Any:
    """Make a pipeline of `card` in host memory whose weights are drawn on `device`, which is faster."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    sizes = UMT5_XXL if device.type == "cuda" else UMT5_SMALL
    with device:
        encoder = UMT5EncoderModel(UMT5Config(**sizes)).to(dtype).eval().cpu()
    vae = random_vae(card, device, dtype).cpu()
    experts = {COMPONENTS[side]: random_expert(card, layers, device, dtype).cpu() for side in card.experts}
    if device.type == "cuda":
        torch.cuda.empty_cache()
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=card.checkpoint_shift
    )
    pipe = WanPipeline(None, encoder, vae, scheduler, **experts, boundary_ratio=card.boundary_ratio(Recipe.REFERENCE))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def rows_of(pipe: Any, card: ModelCard, cap_gib: int, args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Plan for that many GiB, and render each size at each speed."""
    weights = weight_bytes(pipe, [COMPONENTS[side] for side in card.experts])
    measured = free_memory(device)
    free = FreeMemory(measured.gpu, measured.host + weights.total)  # as before the weights were made
    if device.type == "cuda":
        card_bytes = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(cap_gib * _GIB / card_bytes if cap_gib else 1.0)
    if cap_gib:
        free = FreeMemory(cap_gib * _GIB, free.host)
    demand = Demand(OffloadMode.AUTO, PristineMode.AUTO, lora_host_bytes=2**33, weights=weights, free=free)
    dtype = pipe.transformer.dtype
    runtime = WanRuntime(pipe, card, demand, device=device, dtype=dtype, files=lambda _: {}, team=Team())
    told = runtime.runtime
    print(f"{cap_gib or 'no cap'}: {told.offload} ({told.offload_reason}); originals: {told.pristine}", flush=True)
    runtime._prompts = TokenlessEmbeddings(pipe, device)
    rows = []
    for speed in args.speed:
        for size in args.sizes:
            rows.append(_render(runtime, size, Speed(speed), args.steps, cap_gib))
            print(rows[-1], flush=True)
    runtime._placement._unhook()  # the next plan has hooks of its own
    return rows


def _render(runtime: WanRuntime, size: str, speed: Speed, steps: int, cap_gib: int) -> Row:
    width, height, frames = map(int, size.split("x"))
    spec = make_spec(
        model=runtime._card.id,
        width=width,
        height=height,
        num_frames=frames,
        sample_steps=steps,
        speed=speed,
        prompt=f"{size} {speed}",  # another one each time, so that it is encoded
    )
    cuda = runtime._device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    marks = [time.perf_counter()]

    def on_step(_: int) -> None:
        if cuda:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())

    rendered = runtime.render(spec, RenderInputs({}, noise_image(runtime._card, width, height)), on_step)
    # The last step: the first ones load experts, and compile.
    return Row(
        cap_gib,
        rendered.made_with.runtime.offload,
        rendered.made_with.runtime.pristine,
        speed.value,
        size,
        rendered.seconds.text,
        marks[-1] - marks[-2],
        rendered.seconds.decode,
        torch.cuda.max_memory_reserved() / _GIB if cuda else 0.0,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--caps", nargs="+", type=int, default=[0])
    parser.add_argument("--sizes", nargs="+", default=["832x480x41"])
    parser.add_argument("--speed", nargs="+", choices=list(Speed), default=["exact"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--layers", type=int, help="silent: the model's")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    started = time.perf_counter()
    card = load_card(args.model)
    pipe = random_pipeline(card, device, args.layers)
    print(f"made in {time.perf_counter() - started:.0f} s", flush=True)
    rows = [row for cap in args.caps for row in rows_of(pipe, card, cap, args, device)]
    setting = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        "model": args.model,
    }
    print(json.dumps({"benchmark": "memory_plans", "setting": setting, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
