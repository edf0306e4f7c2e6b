"""Weights as they were loaded, from which every merge starts and to which every expert returns."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

from deployments.wan.host_memory import HostCopies, available_bytes
from serve_app.errors import ConfigurationInvalid
from serve_app.settings import PristineMode

_HOST_SHARE = 0.8  # of the available memory; encoding and the page cache need some, too
_BLOCK_BYTES = 256 * 2**20  # packs the matrices of Wan A14B (52 and 142 MB) with 5 % waste


def choose_mode(
    mode: PristineMode, *, device_type: str, needed_bytes: int, gpu_bytes: int, host_bytes: int
) -> PristineMode:
    """The fastest place that holds `needed_bytes`, never AUTO; a mode other than AUTO is taken as it is.

    Args:
        mode: what the operator asked for.
        device_type: "cpu", "cuda", ...
        needed_bytes: all that LoRAs may change.
        gpu_bytes: GPU memory that neither weights nor a render need.
        host_bytes: available host memory.

    Raises:
        ConfigurationInvalid: GPU where there is none.
    """
    if mode is PristineMode.GPU and device_type == "cpu":
        raise ConfigurationInvalid("pristine: gpu needs a GPU; use auto, host or checkpoint on a CPU")
    if mode is not PristineMode.AUTO:
        return mode
    if device_type != "cpu" and needed_bytes <= gpu_bytes:
        return PristineMode.GPU
    return PristineMode.HOST if needed_bytes <= host_bytes * _HOST_SHARE else PristineMode.CHECKPOINT


class Pristine:
    """The original values of one expert's tensors that LoRAs or a recipe have changed."""

    def __init__(self, mode: PristineMode, device: torch.device, files: Callable[[], Mapping[str, Path]]) -> None:
        """`mode` is not AUTO; `device` computes; `files` finds the safetensors file of every parameter by name.

        Raises:
            ConfigurationInvalid: CHECKPOINT, and the expert has no such files.
        """
        self._device = device
        self._files = files
        self._mode = mode
        self._keeper = self._make(mode)

    @property
    def mode(self) -> PristineMode:
        """Where they are."""
        return self._mode

    def keep(self, name: str, tensor: torch.Tensor) -> None:
        """Remember `tensor`, which is still untouched, before it changes. For each name, the first time counts."""
        self._keeper.keep(name, tensor)

    def get(self, name: str) -> torch.Tensor:
        """The original under that name, in its own dtype, on some device; not to be written to."""
        return self._keeper.get(name)

    def leave_gpu(self) -> bool:
        """Move to the host for good, where there is memory, else to the checkpoint; whether anything was moved."""
        if self._mode is not PristineMode.GPU or not isinstance(self._keeper, _InMemory):
            return False
        size = self._keeper.size
        self._mode = choose_mode(
            PristineMode.AUTO, device_type="cpu", needed_bytes=size, gpu_bytes=0, host_bytes=available_bytes()
        )
        successor = self._make(self._mode)
        self._keeper.hand_over(successor)
        self._keeper = successor
        return size > 0

    def _make(self, mode: PristineMode) -> "_Keeper":
        if mode is PristineMode.CHECKPOINT:
            return _FromCheckpoint(self._files())
        place = self._device if mode is PristineMode.GPU else torch.device("cpu")
        return _InMemory(place, pinned=self._device.type == "cuda")


class _Keeper(Protocol):
    def keep(self, name: str, tensor: torch.Tensor) -> None: ...

    def get(self, name: str) -> torch.Tensor: ...


class _InMemory:
    """Copies on a GPU or in host memory."""

    def __init__(self, device: torch.device, *, pinned: bool) -> None:
        """`pinned` counts on a CPU only: page-lock the memory, because a GPU reads it."""
        self._device = device
        self._host = HostCopies(pinned=pinned, block_bytes=_BLOCK_BYTES)
        self._kept: dict[str, torch.Tensor] = {}

    def keep(self, name: str, tensor: torch.Tensor) -> None:
        if name not in self._kept:
            self._kept[name] = self._copy(tensor)

    def get(self, name: str) -> torch.Tensor:
        return self._kept[name]

    @property
    def size(self) -> int:
        """Bytes of the copies."""
        return sum(tensor.nbytes for tensor in self._kept.values())

    def hand_over(self, to: _Keeper) -> None:
        """Give everything to `to`, one tensor at a time, and forget it here."""
        for name in list(self._kept):
            to.keep(name, self._kept[name])
            del self._kept[name]

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cpu":
            return self._host.copy(tensor)
        return tensor.detach().to(self._device, copy=True)


class _FromCheckpoint:
    """No copies: what the checkpoint's files hold is read again, through memory maps that stay open.

    Only tensors that no file holds, such as buffers that are computed at loading, are kept in host memory.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        """`files` has the safetensors file of every parameter of the expert, by name.

        Raises:
            ConfigurationInvalid: a file cannot be opened.
        """
        with ExitStack() as opening:
            try:
                opened = {path: opening.enter_context(safe_open(path, framework="pt")) for path in set(files.values())}
            except (OSError, ValueError) as error:
                raise ConfigurationInvalid(f"pristine: checkpoint cannot read the experts' files: {error}") from error
            opening.pop_all()  # for the life of the process: a checkpoint replaced on disk must not be mixed in
        self._files: dict[str, Any] = {name: opened[path] for name, path in files.items()}
        self._dtypes: dict[str, torch.dtype] = {}
        self._without_file: dict[str, torch.Tensor] = {}

    def keep(self, name: str, tensor: torch.Tensor) -> None:
        self._dtypes[name] = tensor.dtype
        if name not in self._files and name not in self._without_file:
            self._without_file[name] = tensor.detach().to("cpu", copy=True)

    def get(self, name: str) -> torch.Tensor:
        """Loading cast the file's value to the same dtype, so that this is the same number."""
        if name in self._without_file:
            return self._without_file[name]
        original: torch.Tensor = self._files[name].get_tensor(name)
        return original.to(self._dtypes[name])
