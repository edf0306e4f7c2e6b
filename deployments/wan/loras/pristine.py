"""Pristine weights: copies of the original weights that LoRAs change; every merge starts from them (no drift)."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

from deployments.wan.memory.host import HostCopies
from serve_app.errors import ConfigurationInvalid
from serve_app.settings import PristineMode

_BLOCK_BYTES = 256 * 2**20  # packs the matrices of Wan A14B (52 and 142 MB) with 5 % waste


class Pristine:
    """Keeps the original values of one expert's tensors that LoRAs or a recipe have changed."""

    def __init__(self, mode: PristineMode, device: torch.device, files: Callable[[], Mapping[str, Path]]) -> None:
        """Keep originals where `mode` (not AUTO) says.

        `device` computes; `files` finds the safetensors file of every parameter by name.

        Raises:
            ConfigurationInvalid: CHECKPOINT, and the expert has no such files.
        """
        self._device = device
        self._files = files
        self._keeper = self._make(mode)

    @property
    def gpu_bytes(self) -> int:
        """Return the bytes of the copies that are on the GPU now."""
        return self._keeper.gpu_bytes

    def keep(self, name: str, tensor: torch.Tensor) -> None:
        """Save `tensor`, which is still unchanged, before it is changed. Only the first call for a name counts."""
        self._keeper.keep(name, tensor)

    def get(self, name: str) -> torch.Tensor:
        """Return the original under that name, in its own dtype, on some device; not to be written to."""
        return self._keeper.get(name)

    def move(self, mode: PristineMode) -> None:
        """Keep everything where `mode` says from now on. Moves one tensor at a time."""
        successor = self._make(mode)
        self._keeper.hand_over(successor)
        self._keeper = successor

    def _make(self, mode: PristineMode) -> "_Keeper":
        if mode is PristineMode.CHECKPOINT:
            return _FromCheckpoint(self._files())
        place = self._device if mode is PristineMode.GPU else torch.device("cpu")
        return _InMemory(place, pinned=self._device.type == "cuda")


class _Keeper(Protocol):
    @property
    def gpu_bytes(self) -> int: ...

    def keep(self, name: str, tensor: torch.Tensor) -> None: ...

    def get(self, name: str) -> torch.Tensor: ...

    def hand_over(self, to: "_Keeper") -> None: ...


class _InMemory:
    """Keeps copies on a GPU or in host memory."""

    def __init__(self, device: torch.device, *, pinned: bool) -> None:
        """Copy to `device`. With `pinned`, copies in host memory are pinned, because a GPU reads them."""
        self._device = device
        self._host = HostCopies(pinned=pinned, block_bytes=_BLOCK_BYTES)
        self._kept: dict[str, torch.Tensor] = {}

    def keep(self, name: str, tensor: torch.Tensor) -> None:
        if name not in self._kept:
            self._kept[name] = self._copy(tensor)

    def get(self, name: str) -> torch.Tensor:
        return self._kept[name]

    @property
    def gpu_bytes(self) -> int:
        """Return the bytes of the copies if they are on a GPU."""
        return 0 if self._device.type == "cpu" else sum(tensor.nbytes for tensor in self._kept.values())

    def hand_over(self, to: _Keeper) -> None:
        """Move everything to `to`, one tensor at a time."""
        for name in list(self._kept):
            to.keep(name, self._kept[name])
            del self._kept[name]

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cpu":
            return self._host.copy(tensor)
        return tensor.detach().to(self._device, copy=True)


class _FromCheckpoint:
    """Keeps no copies: reads originals from the checkpoint's files again, through memory maps that stay open.

    Only tensors that no file holds, such as buffers that are computed at loading, are copied to host memory.
    """

    gpu_bytes = 0

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Open `files`: the safetensors file of every parameter of the expert, by the parameter's name.

        Raises:
            ConfigurationInvalid: a file cannot be opened.
        """
        with ExitStack() as opening:
            try:
                opened = {path: opening.enter_context(safe_open(path, framework="pt")) for path in set(files.values())}
            except (OSError, ValueError) as error:
                raise ConfigurationInvalid(f"pristine: checkpoint cannot read the experts' files: {error}") from error
            opening.pop_all()  # stays open for the life of the process: a replaced checkpoint must not be mixed in
        self._files: dict[str, Any] = {name: opened[path] for name, path in files.items()}
        self._dtypes: dict[str, torch.dtype] = {}
        self._without_file: dict[str, torch.Tensor] = {}

    def keep(self, name: str, tensor: torch.Tensor) -> None:
        self._dtypes[name] = tensor.dtype
        if name not in self._files and name not in self._without_file:
            self._without_file[name] = tensor.detach().to("cpu", copy=True)

    def hand_over(self, to: _Keeper) -> None:
        """Give everything to `to`."""
        for name in self._dtypes:
            to.keep(name, self.get(name))

    def get(self, name: str) -> torch.Tensor:
        """Return the file's value, cast to its dtype in memory as loading did: the same number."""
        if name in self._without_file:
            return self._without_file[name]
        original: torch.Tensor = self._files[name].get_tensor(name)
        return original.to(self._dtypes[name])
