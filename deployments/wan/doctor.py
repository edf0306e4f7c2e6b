"""The doctor: what this machine has for a model, its memory plan, its kernels, and what is missing.

    python -m deployments.wan.doctor wan22_14b_t2v  # a `serve_app.models.diagnosis.Diagnosis` as JSON

Everything is asked of the capability and of what is installed, and nothing of a card's name. The gains are those of
docs/performance.md.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec

import torch
import torch.distributed as dist
from torch.utils._triton import has_triton

from deployments.wan.kernels import FLASH_3_PACKAGE
from deployments.wan.loading import COMPONENTS
from deployments.wan.memory.host import available_bytes
from deployments.wan.memory.needs import Needs
from deployments.wan.memory.planner import TEXT_ENCODER, Demand, FreeMemory, Need, WeightBytes, make_plan
from deployments.wan.parallel.mix import best_mix
from deployments.wan.speed.attention import HOPPER
from deployments.wan.speed.float8 import ADA
from serve_app.models.card import ModelCard, load_card
from serve_app.models.diagnosis import Diagnosis, Finding, Gpu, Placement, SizePlan
from serve_app.needs import NeedKey
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import Speed

SIZES = ("832x480x41", "1024x1024x41", "1280x720x81")
_PASSES = 2  # a step with guidance
_DRAFT_STEPS = 4  # of the arg `draft`, by default
_BF16 = 2  # bytes
_AMPERE = 8  # CUDA compute capability, major; bfloat16 from here on
_MATRIX = 8192
# Of UMT5-XXL and of Wan's VAE in bfloat16, which the cards of Wan 2.2 share but for the VAE of TI2V 5B (1.4 GB).
_OTHER_WEIGHTS = {TEXT_ENCODER: 11_361_000_000, "vae": 1_400_000_000}


def diagnose(card: ModelCard) -> Diagnosis:
    """Look at this machine. Takes seconds if there is a GPU, whose matrix product is measured."""
    gpus = tuple(_gpu(index) for index in range(torch.cuda.device_count()))
    flops = _matrix_flops() if gpus else None
    return Diagnosis(
        model=card.title,
        torch=torch.__version__,
        gpus=gpus,
        host_free=available_bytes(),
        flops=flops,
        placement=_placement(card, gpus[0].free) if gpus else None,
        sizes=tuple(_size(card, size, flops, max(1, len(gpus))) for size in SIZES),
        findings=tuple(_findings(gpus)),
    )


def _gpu(index: int) -> Gpu:
    free, total = torch.cuda.mem_get_info(index)
    capability = torch.cuda.get_device_capability(index)
    return Gpu(name=torch.cuda.get_device_name(index), capability=capability, total=total, free=free)


def _matrix_flops() -> float:
    """Return FLOP/s of a plain bfloat16 matrix product on the first GPU."""
    one, other = (torch.randn(_MATRIX, _MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    rounds = 20
    for _ in range(3):
        one @ other
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(rounds):
        one @ other
    torch.cuda.synchronize()
    return rounds * 2 * _MATRIX**3 / (time.perf_counter() - started)


def _placement(card: ModelCard, free_gpu: int) -> Placement:
    expert = card.architecture.linear_parameters * _BF16
    experts = tuple(COMPONENTS[side] for side in card.experts)
    block = expert // card.architecture.num_layers
    demand = Demand(
        offload=OffloadMode.AUTO,
        pristine=PristineMode.AUTO,
        lora_host_bytes=0,
        weights=WeightBytes(_OTHER_WEIGHTS | dict.fromkeys(experts, expert), experts, block=block),
        free=FreeMemory(free_gpu, available_bytes()),
    )
    usual = card.defaults
    key = NeedKey.of_size(usual.width, usual.height, usual.num_frames, Speed.EXACT)
    plan = make_plan(demand, Need(Needs(card).bytes(key)))
    return Placement(offload=plan.offload.value, reason=plan.reason, originals=plan.originals.value)


def _size(card: ModelCard, size: str, flops: float | None, gpus: int) -> SizePlan:
    width, height, frames = map(int, size.split("x"))
    tokens = card.token_count(width=width, height=height, num_frames=frames)
    work = _PASSES * card.architecture.forward_flops(tokens)
    mix = best_mix(gpus, heads=card.architecture.num_attention_heads, tokens=tokens, guided=True)
    return SizePlan(
        size=size,
        tokens=tokens,
        step_s=work / flops if flops else None,
        draft_s=_DRAFT_STEPS * work / _PASSES / flops if flops else None,
        shared_by=f"guidance {mix.guidance} x ulysses {mix.ulysses} x ring {mix.ring}" if gpus > 1 else "one GPU",
    )


def _findings(gpus: tuple[Gpu, ...]) -> Iterator[Finding]:
    yield Finding(
        name="CUDA GPU",
        found=bool(gpus),
        gives="the real model; a step takes seconds",
        missing="without one, the service shows the demo checkpoint; is a driver there, and PyTorch's build for CUDA?",
    )
    if not gpus:
        return
    newest = gpus[0].capability[0]
    yield Finding(
        name="bfloat16",
        found=newest >= _AMPERE,
        gives="half of float32's memory and many times its speed",
        missing="this GPU is older than Ampere; use another one",
    )
    yield Finding(
        name="FP8",
        found=gpus[0].capability >= ADA,
        gives="`speed: turbo`, where `speeds` allows it: faster than `fast`, and it changes pictures",
        missing="this GPU is older than Ada; a server whose `speeds` names turbo does not start on it",
    )
    if newest == HOPPER:  # the kernel is written for it alone
        yield Finding(
            name="FlashAttention 3",
            found=find_spec(FLASH_3_PACKAGE) is not None,
            gives="`speed: fast` another 5 % at 832x480x41, more at larger sizes",
            missing="pip install 'wan-lora-serve[hopper]'",
        )
    yield Finding(
        name="torch.compile",
        found=has_triton() and shutil.which("cc") is not None,
        gives="`speed: fast` a pass in 1.05 s in place of 1.29 s (H200, 832x480x41)",
        missing="it needs the package triton, which comes with PyTorch for Linux, and a C compiler (cc, gcc)",
    )
    if len(gpus) > 1:
        yield Finding(
            name="GPUs that reach each other",
            found=dist.is_nccl_available() and torch.cuda.can_device_access_peer(0, 1),
            gives="`gpus_per_generator: 2`: a render in half of the time",
            missing="NCCL, or direct access between GPUs 0 and 1; through host memory a shared render is slower",
        )


def main() -> None:
    """Print the diagnosis for the model card that the command line names."""
    sys.stdout.write(diagnose(load_card(sys.argv[1])).model_dump_json())


if __name__ == "__main__":
    main()
