"""Weight streaming with double buffering: experts in host memory run from a few slots on the GPU.

A slot holds one block of an expert. After a block has run, the block that comes `slots` places later is copied into its
slot, on a separate CUDA stream, while the next blocks run:

    stream = ExpertStream([pipe.transformer, pipe.transformer_2], device, slots=2)  # two blocks at a time
    stream.begin([22, 28])  # a video: 22 passes of the first expert, then 28 of the second
    ...                     # the hooks do the rest
    stream.release()        # every weight is in host memory again, where it has been all the time

With as many slots as an expert has blocks, nothing is copied until the last pass of the first expert. Then each of its
blocks is replaced by the same block of the second expert, so the experts are swapped once per video, while one runs.

Weights do not change while they are used, so nothing is copied back. diffusers' own group offloading copies everything
outside of blocks in each pass, and pins all weights again after each change of LoRAs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook

_HOOK = "wan_expert_stream"

_Form = tuple[str, torch.Size, torch.dtype]
_Place = tuple[int, int]  # expert, block


class _Waiting:
    """Tensors in host memory, by name; while they are used, they point to copies on the device."""

    def __init__(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        self.tensors = [(name, tensor, tensor.data) for name, tensor in tensors]

    def go_home(self) -> None:
        for _, tensor, home in self.tensors:
            tensor.data = home


@dataclass
class _Slot:
    """Room for one block. Buffers stay until the stream is released, since a copy into one may still be under way."""

    buffers: dict[_Form, torch.Tensor] = field(default_factory=dict)
    holds: _Place | None = None
    filled: torch.cuda.Event | None = None


class ExpertStream:
    """Runs experts of one architecture, one at a time, on a device that does not hold them all."""

    def __init__(self, experts: Sequence[Any], device: torch.device, slots: int) -> None:
        """Take WanTransformer3DModels whose weights are in host memory; `slots` blocks are on the device."""
        self._experts = list(experts)
        self._device = device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._slots = [_Slot() for _ in range(min(slots, len(experts[0].blocks)))]
        self._left = [0] * len(self._experts)  # passes to come, of each expert
        self._blocks: list[list[_Waiting]] = []
        self._outside: list[_Waiting] = []
        for index, expert in enumerate(self._experts):
            _hook(expert, _ExpertHook(self, index))
            for number, block in enumerate(expert.blocks):
                _hook(block, _BlockHook(self, (index, number)))

    def attach(self) -> None:
        """Copy the weights outside of blocks to the device; weights and adapters may have changed since `release`."""
        self._blocks = [[_Waiting(_tensors(block)) for block in expert.blocks] for expert in self._experts]
        self._outside = [_Waiting(_tensors(expert, without="blocks.")) for expert in self._experts]
        for outside in self._outside:
            for _, tensor, home in outside.tensors:
                tensor.data = torch.empty_like(home, device=self._device).copy_(home)

    def begin(self, passes: Sequence[int]) -> None:
        """Prepare for a video that takes `passes` forward passes of each expert in turn; start copying."""
        self._left = list(passes)
        first = next((index for index, count in enumerate(passes) if count), 0)
        for number, slot in enumerate(self._slots):
            if self._slot_of((first, number)) is None:
                self._fill(slot, (first, number))

    def release(self) -> None:
        """Point every weight at host memory, and free the device's."""
        if self._copies is not None:
            self._copies.synchronize()
        for waiting in (*self._outside, *(block for blocks in self._blocks for block in blocks)):
            waiting.go_home()
        self._slots = [_Slot() for _ in self._slots]
        self._blocks, self._outside = [], []

    def detach(self) -> None:
        """Release, and remove the hooks."""
        self.release()
        for expert in self._experts:
            for module in (expert, *expert.blocks):
                HookRegistry.check_if_exists_or_initialize(module).remove_hook(_HOOK, recurse=False)

    @torch.compiler.disable  # what it does must be done at each pass, not once while it is compiled
    def before_pass(self, expert: int) -> None:
        """Count a pass of `expert`."""
        self._left[expert] -= 1

    @torch.compiler.disable
    def before_block(self, place: _Place) -> None:
        """Make the device wait until the block is in a slot; copy it now if it was not expected."""
        slot = self._slot_of(place)
        if slot is None:
            slot = self._slots[place[1] % len(self._slots)]
            self._fill(slot, place)
        if slot.filled is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.filled)

    @torch.compiler.disable
    def after_block(self, place: _Place) -> None:
        """Fill the block's slot with the block that is as many places ahead as there are slots."""
        slot, following = self._slot_of(place), self._ahead(place)
        if slot is not None and self._slot_of(following) is None:
            self._fill(slot, following)

    def _ahead(self, place: _Place) -> _Place:
        expert, number = place
        number += len(self._slots)
        if number < len(self._blocks[expert]):
            return expert, number
        # Beyond the last block comes the next pass; after the last video's last pass, most likely such a video again.
        if self._left[expert] <= 0:
            others = (index for index, left in enumerate(self._left) if left > 0)
            expert = next(others, 0)
        return expert, number - len(self._blocks[expert])

    def _slot_of(self, place: _Place) -> _Slot | None:
        return next((slot for slot in self._slots if slot.holds == place), None)

    def _fill(self, slot: _Slot, place: _Place) -> None:
        if slot.holds is not None:
            self._blocks[slot.holds[0]][slot.holds[1]].go_home()
        slot.holds = place
        waiting = self._blocks[place[0]][place[1]]
        targets = [(tensor, home, self._buffer(slot, name, home)) for name, tensor, home in waiting.tensors]
        if self._copies is None:
            for _, home, buffer in targets:
                buffer.copy_(home)
        else:
            self._copies.wait_stream(torch.cuda.current_stream(self._device))  # what still reads the buffers
            with torch.cuda.stream(self._copies):
                for _, home, buffer in targets:
                    buffer.copy_(home, non_blocking=True)
                slot.filled = self._copies.record_event()
        for tensor, _, buffer in targets:
            tensor.data = buffer

    def _buffer(self, slot: _Slot, name: str, home: torch.Tensor) -> torch.Tensor:
        form = (name, home.shape, home.dtype)
        if form not in slot.buffers:
            slot.buffers[form] = torch.empty_like(home, device=self._device)
        return slot.buffers[form]


class _ExpertHook(ModelHook):
    """Counts the passes of one expert."""

    def __init__(self, stream: ExpertStream, expert: int) -> None:
        super().__init__()
        self._stream = stream
        self._expert = expert

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self._stream.before_pass(self._expert)
        return args, kwargs


class _BlockHook(ModelHook):
    """Brings one block before it runs, and the one that takes its place afterwards."""

    def __init__(self, stream: ExpertStream, place: _Place) -> None:
        super().__init__()
        self._stream = stream
        self._place = place

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self._stream.before_block(self._place)
        return args, kwargs

    def post_forward(self, module: torch.nn.Module, output: Any) -> Any:
        self._stream.after_block(self._place)
        return output


def _hook(module: torch.nn.Module, hook: ModelHook) -> None:
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, _HOOK)


def _tensors(module: torch.nn.Module, *, without: str | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if without is None or not name.startswith(without):
            yield name, tensor
