"""Memory planner: decide where weights are kept, where originals of merged LoRAs are kept, and the memory for LoRAs.

Every decision about memory is made here, from sizes and amounts of free memory alone, without a device:

    demand = Demand(
        offload=OffloadMode.AUTO,
        pristine=PristineMode.AUTO,
        lora_host_bytes=8 * 2**30,
        weights=WeightBytes({"text_encoder": 11_361_000_000, "transformer": 28_579_000_000, ...}, experts=(...), ...),
        free=FreeMemory(gpu=148_000_000_000, host=500_000_000_000),
    )
    plan = make_plan(demand, Need(activations=17_000_000_000))
    plan.offload, plan.originals  # (OffloadMode.NONE, PristineMode.GPU)

`needs` says what a render needs, and `chooser` which plan follows another.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from serve_app.errors import ConfigurationInvalid
from serve_app.settings import OffloadMode, PristineMode

_GIB = 2**30

# On the GPU a LoRA saves its 6 ms over the bus at each switch; six rank 32 LoRAs of Wan A14B are worth no more.
_GPU_LORA_BYTES = 2 * _GIB

# What must be left free beside originals on the GPU. With 2.2 GiB left by prediction, an H200 gave them up in one of
# four renders of 1024x1024x41, as it does when memory runs out. That costs a whole attempt, and originals there save a
# second of a switch.
_BESIDE_ORIGINALS = 4 * _GIB

FROM_FASTEST = (
    OffloadMode.NONE,
    OffloadMode.TEXT,
    OffloadMode.SWAP,
    OffloadMode.MODEL,
    OffloadMode.GROUPS,
    OffloadMode.SEQUENTIAL,
)

# The others move the experts, around which ranks that share a render put hooks of their own.
_OF_RANKS = (OffloadMode.NONE, OffloadMode.TEXT)

# Under these, the experts' weights wait in host memory, from where they are copied over and over.
FROM_HOST = (OffloadMode.SWAP, OffloadMode.GROUPS)

# Under these, the weights of an expert stay where they are while it runs, so that FP8 copies can stand for them.
IN_PLACE = frozenset({OffloadMode.NONE, OffloadMode.TEXT, OffloadMode.MODEL})

TEXT_ENCODER = "text_encoder"  # works once a prompt, for a fraction of a second
STREAM_SLOTS = 2  # blocks of an expert on the GPU under GROUPS: one runs, the next one is copied

_HOST_SHARE = 0.8  # of the free host memory; encoding and the page cache need some, too


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Bytes that nothing uses, measured before any weights are loaded. `gpu` is None if a CPU computes."""

    gpu: int | None
    host: int


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Size of the weights of each pipeline component that has any, and which components are experts."""

    components: Mapping[str, int]
    experts: tuple[str, ...]
    block: int = 0  # of one of the repeated blocks of an expert
    outside: int = 0  # of all experts together, what is in no block

    @property
    def total(self) -> int:
        """Return the bytes of all components."""
        return sum(self.components.values())

    @property
    def of_experts(self) -> int:
        """Return the bytes that LoRAs may change."""
        return sum(self.components[name] for name in self.experts)

    def on_gpu(self, mode: OffloadMode) -> int:
        """Return the most bytes of weights that are on the GPU at once under `mode` while frames are made."""
        all_but_text = self.total - self.components.get(TEXT_ENCODER, 0)
        beside_experts = all_but_text - self.of_experts
        match mode:
            case OffloadMode.TEXT:
                return all_but_text
            case OffloadMode.SWAP:
                return beside_experts + self.outside + max((self.components[name] for name in self.experts), default=0)
            case OffloadMode.GROUPS:
                return beside_experts + self.outside + STREAM_SLOTS * self.block
            case OffloadMode.MODEL:
                return max(self.components.values())
            case OffloadMode.SEQUENTIAL:
                return 0  # a layer at a time
            case _:
                return self.total

    def on_host(self, mode: OffloadMode) -> int:
        """Return the bytes of weights that stay in host memory under `mode` beside a GPU."""
        match mode:
            case OffloadMode.TEXT:
                return self.components.get(TEXT_ENCODER, 0)
            case OffloadMode.SWAP | OffloadMode.GROUPS:
                return self.components.get(TEXT_ENCODER, 0) + self.of_experts
            case OffloadMode.MODEL | OffloadMode.SEQUENTIAL:
                return self.total
            case _:
                return 0


@dataclass(frozen=True, slots=True)
class Demand:
    """The inputs that all renders of a replica share: the operator's args, the weights, and the free memory."""

    offload: OffloadMode  # where the operator wants weights that are not in use
    pristine: PristineMode  # where the operator wants originals
    lora_host_bytes: int  # host memory that the operator gives to LoRAs
    weights: WeightBytes
    free: FreeMemory  # all ranks of a node share the host's
    ranks: int = 1  # processes that share each render, each with a GPU and weights of its own

    @property
    def candidates(self) -> tuple[OffloadMode, ...]:
        """Return the modes that a render may run under, the fastest first.

        Raises:
            ConfigurationInvalid: the operator's mode needs a GPU, and there is none.
        """
        if self.free.gpu is None:
            if self.offload in (OffloadMode.AUTO, OffloadMode.NONE):
                return (OffloadMode.NONE,)
            raise ConfigurationInvalid(f"offload: {self.offload.value} needs a GPU; use auto or none on a CPU")
        first = 0 if self.offload is OffloadMode.AUTO else FROM_FASTEST.index(self.offload)
        # MODEL waits for whole experts, which SWAP copies meanwhile: only an operator takes it.
        unwanted = {OffloadMode.MODEL} - {self.offload}
        if len(self.weights.experts) == 1:
            unwanted |= {OffloadMode.SWAP} - {self.offload}
        if self.ranks > 1:
            unwanted |= set(FROM_FASTEST[first + 1 :]) - set(_OF_RANKS)
        return tuple(mode for mode in FROM_FASTEST[first:] if mode not in unwanted)


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of GPU memory that a render needs besides weights."""

    activations: int  # with what the allocator keeps
    adapters: int = 0  # they act beside the weights
    float8: int = 0  # copies of weights, which are made under `IN_PLACE` only

    def under(self, mode: OffloadMode) -> int:
        """Return the sum of what a render holds under `mode`."""
        return self.activations + self.adapters + (self.float8 if mode in IN_PLACE else 0)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where everything is kept. Sizes are bytes; `offload` and `originals` are never AUTO."""

    offload: OffloadMode  # where weights wait while they are not in use
    reason: str  # why there, in words for the log and the result
    originals: PristineMode  # where weights that merged LoRAs change are kept as they were
    lora_host_bytes: int  # for LoRAs that stay ready
    lora_gpu_bytes: int  # for copies of some of them, which only make a switch faster
    pinned: bool = False  # whether experts that wait in host memory are page-locked, which a GPU reads faster
    predicted_bytes: int | None = None  # the most GPU memory that the render will hold; None on a CPU

    @property
    def has_copies(self) -> bool:
        """Return whether there may be copies on the GPU that only make a switch between LoRAs faster."""
        return self.originals is PristineMode.GPU or self.lora_gpu_bytes > 0

    @property
    def slowness(self) -> tuple[int, int]:
        """Return the place of this plan among others, the fastest first."""
        places = (PristineMode.GPU, PristineMode.HOST, PristineMode.CHECKPOINT)
        return FROM_FASTEST.index(self.offload), places.index(self.originals)

    def lies_as(self, other: "MemoryPlan") -> bool:
        """Return whether everything lies where it lies under another plan."""
        mine, others = ((plan.offload, plan.originals, plan.lora_gpu_bytes, plan.pinned) for plan in (self, other))
        return mine == others

    def without_copies(self, originals: PristineMode) -> "MemoryPlan":
        """Return this plan with nothing on the GPU that only makes a switch between LoRAs faster."""
        return replace(self, originals=originals, lora_gpu_bytes=0)


@dataclass(frozen=True, slots=True)
class Barred:
    """What has run out of memory for a render of this size or a smaller one."""

    modes: frozenset[OffloadMode] = frozenset()
    copies: bool = False  # on the GPU, which only make a switch between LoRAs faster


def make_plan(demand: Demand, need: Need, barred: Barred = Barred()) -> MemoryPlan:
    """Decide where everything is kept: weights first, then originals, then LoRAs, each in the fastest memory left.

    A mode of the operator other than AUTO is used unchanged. A `barred` mode is used only if no other one is left.

    Raises:
        ConfigurationInvalid: a mode that needs a GPU if there is none; or one that moves the experts during a render
            which several ranks share.
    """
    mode, reason = _choose(demand, need, barred.modes)
    if demand.ranks > 1 and mode not in _OF_RANKS:
        raise ConfigurationInvalid(
            f"gpus_per_generator: {demand.ranks} needs the experts on every GPU, and not offload: {mode.value} "
            f"({reason}); use larger GPUs or gpus_per_generator: 1"
        )
    weights, gpu = demand.weights, demand.free.gpu
    on_host = weights.total if gpu is None else weights.on_host(mode)
    # What is left of the host's memory for each rank, after weights and LoRAs.
    host = int(demand.free.host * _HOST_SHARE) // demand.ranks - on_host - demand.lora_host_bytes
    placed = weights.on_gpu(mode) + need.under(mode)
    # Where not even one expert stays on the GPU, what is free there is not for copies.
    no_copies = gpu is None or barred.copies or mode in (OffloadMode.SEQUENTIAL, OffloadMode.GROUPS)
    spare = 0 if gpu is None or no_copies else max(0, gpu - placed)
    gpu_for_originals = spare - _BESIDE_ORIGINALS
    originals = _place_originals(
        demand.pristine, weights.of_experts, gpu=gpu_for_originals, host=host, has_gpu=gpu is not None
    )
    if originals is PristineMode.GPU:
        spare = gpu_for_originals - weights.of_experts
    plan = MemoryPlan(
        offload=mode,
        reason=reason,
        originals=originals,
        lora_host_bytes=demand.lora_host_bytes,
        lora_gpu_bytes=max(0, min(spare, _GPU_LORA_BYTES)),
        pinned=mode in FROM_HOST and host >= 0,
    )
    return predicted(demand, plan, need)


def predicted(demand: Demand, plan: MemoryPlan, need: Need) -> MemoryPlan:
    """Return the plan with what a render of that need will hold at most."""
    if demand.free.gpu is None:
        return plan
    copies = demand.weights.of_experts if plan.originals is PristineMode.GPU else 0
    held = demand.weights.on_gpu(plan.offload) + copies + plan.lora_gpu_bytes + need.under(plan.offload)
    return replace(plan, predicted_bytes=held)


def holds(demand: Demand, plan: MemoryPlan, need: Need, barred: Barred = Barred()) -> bool:
    """Return whether a render with that need fits under `plan`. An operator's mode always counts as fitting."""
    if plan.offload in barred.modes or (barred.copies and plan.has_copies):
        return False
    gpu = demand.free.gpu
    if gpu is None or plan.offload is demand.offload:
        return True
    copies = 0
    if plan.originals is PristineMode.GPU:
        copies = demand.weights.of_experts + plan.lora_gpu_bytes + _BESIDE_ORIGINALS
    return demand.weights.on_gpu(plan.offload) + copies + need.under(plan.offload) <= gpu


def originals_off_gpu(needed: int, free_host: int) -> PristineMode:
    """Decide where `needed` bytes of originals go that must leave the GPU: host memory, or the checkpoint only."""
    return PristineMode.HOST if needed <= free_host * _HOST_SHARE else PristineMode.CHECKPOINT


def _choose(demand: Demand, need: Need, barred: Collection[OffloadMode]) -> tuple[OffloadMode, str]:
    candidates = demand.candidates
    if demand.free.gpu is None:
        return OffloadMode.NONE, "the device is a CPU"
    left = [mode for mode in candidates if mode not in barred] or list(candidates[-1:])
    failed = [mode.value for mode in candidates if mode in barred]
    before = f"out of memory with {', '.join(failed)} at this size or a smaller one; " if failed else ""
    if demand.offload in left:
        return demand.offload, "set by the operator"
    gpu, weights = demand.free.gpu, demand.weights
    fitting = [mode for mode in left if weights.on_gpu(mode) + need.under(mode) <= gpu]
    mode = fitting[0] if fitting else left[-1]
    room = f"{_gib(need.under(mode))} for a render, {_gib(gpu)} free"
    if mode is OffloadMode.NONE:
        return mode, f"{before}all weights fit: {_gib(weights.total)} and {room}"
    words = f"{_WORDS[mode]} ({_gib(weights.on_gpu(mode))})"
    if not fitting:
        words = f"nothing does; the least is {words}"
    return mode, f"{before}all weights do not fit ({_gib(weights.total)} and {room}); {words}"


_WORDS: Mapping[OffloadMode, str] = {
    OffloadMode.TEXT: "those without the text encoder do",
    OffloadMode.SWAP: "one expert at a time does",
    OffloadMode.MODEL: "one component at a time does",
    OffloadMode.GROUPS: "two blocks at a time do",
    OffloadMode.SEQUENTIAL: "one layer at a time does",
}


def _place_originals(mode: PristineMode, needed: int, *, gpu: int, host: int, has_gpu: bool) -> PristineMode:
    if mode is PristineMode.GPU and not has_gpu:
        raise ConfigurationInvalid("pristine: gpu needs a GPU; use auto, host or checkpoint on a CPU")
    if mode is not PristineMode.AUTO:
        return mode
    if has_gpu and needed <= gpu:
        return PristineMode.GPU
    return PristineMode.HOST if needed <= host else PristineMode.CHECKPOINT


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
