"""Memory planner: decide where weights wait, where originals of merged LoRAs are kept, and what LoRAs may take.

Every decision about memory is made here, from sizes and amounts of free memory alone, without a device:

    plan = make_plan(
        offload=OffloadMode.AUTO,
        pristine=PristineMode.AUTO,
        lora_host_bytes=8 * 2**30,
        weights=WeightBytes({"text_encoder": 11_361_000_000, "transformer": 28_579_000_000, ...}, experts=(...)),
        free=FreeMemory(gpu=148_000_000_000, host=500_000_000_000),
    )
    plan.offload, plan.originals  # (OffloadMode.NONE, PristineMode.GPU)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from serve_app.errors import ConfigurationInvalid
from serve_app.settings import OffloadMode, PristineMode

_GIB = 2**30

# What a render needs besides weights: activations, and what torch's allocator keeps of them. For 1024x1024, 41 frames,
# the default render: measured on an H200 with full-size components of random weights in bfloat16 (torch 2.11,
# diffusers 0.42.1), decoding peaks at 11.2 GiB in tensors, 16.0 GiB with what the allocator keeps; one expert with a
# rank 32 LoRA at 5.2 and 8.6 GiB. 1280x720, 81 frames, needs less.
ACTIVATION_BYTES = 16 * _GIB

# On the GPU a LoRA saves its 6 ms over the bus at each switch; six rank 32 LoRAs of Wan A14B are worth no more.
_GPU_LORA_BYTES = 2 * _GIB

_FROM_FASTEST = (OffloadMode.NONE, OffloadMode.TEXT, OffloadMode.MODEL, OffloadMode.SEQUENTIAL)

# The others put hooks around the experts, where ranks that share a render put theirs.
_OF_RANKS = (OffloadMode.NONE, OffloadMode.TEXT)

TEXT_ENCODER = "text_encoder"  # works once a prompt, for a fraction of a second

_HOST_SHARE = 0.8  # of the free host memory; encoding and the page cache need some, too


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Bytes that nothing uses, measured while all weights lie in host memory. `gpu` is None if a CPU computes."""

    gpu: int | None
    host: int


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Size of the weights of each pipeline component that has any, and which components are experts."""

    components: Mapping[str, int]
    experts: tuple[str, ...]

    @property
    def total(self) -> int:
        """Return the bytes of all components."""
        return sum(self.components.values())

    @property
    def largest(self) -> tuple[str, int]:
        """Return the largest component and its bytes."""
        return max(self.components.items(), key=lambda item: item[1])

    @property
    def without_text_encoder(self) -> int:
        """Return the bytes of all components that work at every step or frame."""
        return self.total - self.components.get(TEXT_ENCODER, 0)

    @property
    def of_experts(self) -> int:
        """Return the bytes that LoRAs may change."""
        return sum(self.components[name] for name in self.experts)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where everything lies. Sizes are bytes; `offload` and `originals` are never AUTO."""

    offload: OffloadMode  # where weights wait while they are not in use
    reason: str  # why there, in words for the log and the result
    originals: PristineMode  # where weights that merged LoRAs change are kept as they were
    lora_host_bytes: int  # for LoRAs that stay ready
    lora_gpu_bytes: int  # for copies of some of them, which only make a switch faster
    fallbacks: tuple[OffloadMode, ...] = ()  # each needs less GPU memory than the one before

    def leaner(self) -> "MemoryPlan | None":
        """Return the plan to go to when this one ran out of GPU memory; None if there is none."""
        if not self.fallbacks:
            return None
        offload, *others = self.fallbacks
        reason = f"out of memory with {self.offload.value} ({self.reason})"
        return replace(self, offload=offload, reason=reason, fallbacks=tuple(others))


def make_plan(
    *,
    offload: OffloadMode,
    pristine: PristineMode,
    lora_host_bytes: int,
    weights: WeightBytes,
    free: FreeMemory,
    activation_bytes: int = ACTIVATION_BYTES,
    ranks: int = 1,
) -> MemoryPlan:
    """Decide where everything lies: weights first, then originals, then LoRAs, each in the fastest memory left.

    A mode of the operator's other than AUTO is taken as it is.

    Args:
        offload: where the operator wants weights that are not in use.
        pristine: where the operator wants originals.
        lora_host_bytes: host memory that the operator gives to LoRAs.
        weights: what is to be placed.
        free: memory to place it in; all ranks of a node share the host's.
        activation_bytes: GPU memory that a render needs besides weights.
        ranks: processes that share each render, each with a GPU and weights of its own.

    Raises:
        ConfigurationInvalid: a mode that needs a GPU where there is none; or one that moves the experts during a render
            which several ranks share.
    """
    mode, reason = _plan_offload(offload, weights, free, activation_bytes)
    if ranks > 1 and mode not in _OF_RANKS:
        raise ConfigurationInvalid(
            f"gpus_per_generator: {ranks} needs both experts on every GPU, and not offload: {mode.value} ({reason}); "
            "use larger GPUs or gpus_per_generator: 1"
        )
    free = replace(free, host=free.host // ranks)
    leaner = () if free.gpu is None else _FROM_FASTEST[_FROM_FASTEST.index(mode) + 1 :]
    spare = _spare_gpu_bytes(mode, weights, free, activation_bytes)
    originals = _plan_originals(
        pristine, needed=weights.of_experts, gpu=spare, host=free.host - lora_host_bytes, has_gpu=free.gpu is not None
    )
    if originals is PristineMode.GPU:
        spare -= weights.of_experts
    return MemoryPlan(
        offload=mode,
        reason=reason,
        originals=originals,
        lora_host_bytes=lora_host_bytes,
        lora_gpu_bytes=max(0, min(spare, _GPU_LORA_BYTES)),
        fallbacks=tuple(other for other in leaner if ranks == 1 or other in _OF_RANKS),
    )


def originals_off_gpu(needed: int, free_host: int) -> PristineMode:
    """Decide where `needed` bytes of originals go that have to leave the GPU: the host, or nowhere at all."""
    return PristineMode.HOST if needed <= free_host * _HOST_SHARE else PristineMode.CHECKPOINT


def _plan_offload(
    mode: OffloadMode, weights: WeightBytes, free: FreeMemory, activations: int
) -> tuple[OffloadMode, str]:
    if free.gpu is None:
        if mode in (OffloadMode.AUTO, OffloadMode.NONE):
            return OffloadMode.NONE, "the device is a CPU"
        raise ConfigurationInvalid(f"offload: {mode.value} needs a GPU; use auto or none on a CPU")
    if mode is not OffloadMode.AUTO:
        return mode, "set by the operator"
    name, largest = weights.largest
    room = f"{_gib(activations)} for a render, {_gib(free.gpu)} free"
    if weights.total + activations <= free.gpu:
        return OffloadMode.NONE, f"all weights fit: {_gib(weights.total)} and {room}"
    not_all = f"all weights do not fit ({_gib(weights.total)} and {room})"
    if weights.without_text_encoder + activations <= free.gpu:
        return OffloadMode.TEXT, f"{not_all}, those without the text encoder do ({_gib(weights.without_text_encoder)})"
    if largest + activations <= free.gpu:
        return OffloadMode.MODEL, f"{not_all}, the largest component, {name}, does ({_gib(largest)})"
    return OffloadMode.SEQUENTIAL, f"{not_all}, nor does {name} alone ({_gib(largest)})"


def _spare_gpu_bytes(mode: OffloadMode, weights: WeightBytes, free: FreeMemory, activations: int) -> int:
    """Return the GPU memory that neither weights nor a render need; 0 if not even one component stays there."""
    if free.gpu is None or mode is OffloadMode.SEQUENTIAL:
        return 0
    placed = {
        OffloadMode.NONE: weights.total,
        OffloadMode.TEXT: weights.without_text_encoder,
        OffloadMode.MODEL: weights.largest[1],
    }
    return max(0, free.gpu - placed[mode] - activations)


def _plan_originals(mode: PristineMode, *, needed: int, gpu: int, host: int, has_gpu: bool) -> PristineMode:
    if mode is PristineMode.GPU and not has_gpu:
        raise ConfigurationInvalid("pristine: gpu needs a GPU; use auto, host or checkpoint on a CPU")
    if mode is not PristineMode.AUTO:
        return mode
    return PristineMode.GPU if has_gpu and needed <= gpu else originals_off_gpu(needed, host)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
