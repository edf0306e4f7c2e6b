"""Offload hooks: carry out a memory plan's placement of weights, with hooks of accelerate and diffusers."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from deployments.wan.memory.host import HostCopies, pin
from deployments.wan.memory.planner import FROM_HOST, STREAM_SLOTS, TEXT_ENCODER
from deployments.wan.memory.streaming import ExpertStream
from serve_app.settings import OffloadMode

_BLOCK_BYTES = 256 * 2**20  # of pinned memory; packs the matrices of Wan A14B (52 and 142 MB) with 5 % waste


class Placement:
    """Where the weights of one pipeline are. LoRA adapters are weights of their expert and go with it."""

    def __init__(self, pipe: Any, device: torch.device, experts: Sequence[str]) -> None:
        """Take the weights of a WanPipeline, wherever they are; `experts` names its experts.

        Nothing moves before `apply`.
        """
        self._pipe = pipe
        self._device = device
        self._expert_names = tuple(experts)
        self._stream: ExpertStream | None = None
        self._mode = OffloadMode.NONE
        self._pinned = False

    def apply(self, mode: OffloadMode, *, pinned: bool = False) -> None:
        """Move weights, or install the hooks that move them, to where `mode` wants them. What is there already stays.

        `pinned`: page-lock experts that wait in host memory.
        """
        self._mode, self._pinned = mode, pinned
        self._unhook()
        match mode:
            case OffloadMode.MODEL:
                self._pipe.enable_model_cpu_offload(device=self._device)
            case OffloadMode.SEQUENTIAL:
                for part in self._modules.values():
                    # As diffusers does, which takes no CPU for the device. A module with weights of its own, which is
                    # no layer, has buffers beside them.
                    cpu_offload(part, self._device, offload_buffers=len(part._parameters) > 0)
            case _:
                self._place_each(mode, pinned)

    def restore(self) -> None:
        """Move every weight back to its place, after an interrupted render or a change of weights."""
        if self._stream is None:
            self.apply(self._mode, pinned=self._pinned)
            return
        self._pipe.remove_all_hooks()  # those of the text encoder
        self._stream_text_encoder()
        # The experts' hooks stay, since compiled blocks would be compiled again for others.
        self._stream.release()
        self._stream.attach()

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Remove the experts' hooks while the block runs, so that weights can be changed; then restore them.

        Under sequential offload the modules hold placeholders without data; and adapters cannot be put around a module
        that has a hook, nor weights be changed that are used from copies.
        """
        if self._mode in (OffloadMode.NONE, OffloadMode.TEXT):  # the experts have no hooks
            yield
            return
        if self._stream is None:
            self._unhook()
        else:
            self._stream.release()
        try:
            yield
        finally:
            if self._stream is None:
                self.restore()
            else:
                self._stream.attach()

    def begin(self, passes: Sequence[int]) -> None:
        """Prepare for a video that takes `passes` forward passes of each expert."""
        if self._stream is not None:
            self._stream.begin(passes)

    @property
    def _modules(self) -> dict[str, torch.nn.Module]:
        return {name: part for name, part in self._pipe.components.items() if isinstance(part, torch.nn.Module)}

    def _unhook(self) -> None:
        if self._stream is not None:
            self._stream.detach()
            self._stream = None
        self._pipe.remove_all_hooks()

    def _place_each(self, mode: OffloadMode, pinned: bool) -> None:
        from_host = self._expert_names if mode in FROM_HOST else ()
        streamed = mode is not OffloadMode.NONE
        moves = {
            part: torch.device("cpu") if name in from_host else self._device
            for name, part in self._modules.items()
            if not (streamed and name == TEXT_ENCODER)
        }
        # At the start weights are memory maps of the checkpoint's files, so this reads the disk: several at a time.
        with ThreadPoolExecutor(len(moves)) as threads:
            list(threads.map(torch.nn.Module.to, moves.keys(), moves.values()))
        if streamed:
            self._stream_text_encoder()
        if from_host:
            self._stream_experts([getattr(self._pipe, name) for name in from_host], mode, pinned)

    def _stream_text_encoder(self) -> None:
        """Stream its layers to the device one after the other while it runs; nothing is copied back after use."""
        cpu_offload(getattr(self._pipe, TEXT_ENCODER), self._device)
        # The pipeline asks the hook of its first component where it computes; without one, it asks for any weights.
        add_hook_to_module(self._pipe.vae, AlignDevicesHook(self._device))

    def _stream_experts(self, experts: Sequence[Any], mode: OffloadMode, pinned: bool) -> None:
        if pinned and self._device.type == "cuda":
            with ThreadPoolExecutor(len(experts)) as threads:
                list(threads.map(_pin, experts))
        slots = STREAM_SLOTS if mode is OffloadMode.GROUPS else len(experts[0].blocks)
        self._stream = ExpertStream(experts, self._device, slots)
        self._stream.attach()


def _pin(expert: torch.nn.Module) -> None:
    pin(expert, HostCopies(pinned=True, block_bytes=_BLOCK_BYTES))
