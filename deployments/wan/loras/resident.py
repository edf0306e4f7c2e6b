"""LoRAs that are ready in memory: parsed, checked, and no longer in need of their files."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from deployments.wan.loras.deltas import Tensors
from deployments.wan.loras.fitting import check_complete, not_loaded
from deployments.wan.loras.pinned_files import PinnedFiles
from deployments.wan.memory.host import HostCopies
from serve_app.errors import LoraInvalid
from serve_app.loras.formats import LoraContents, SafetensorsHeader, read_header
from serve_app.loras.formats import parser as layout
from serve_app.models.architecture import WanArchitecture
from serve_app.results import ResidentLora
from serve_app.spec import LoraFile

_BLOCK_BYTES = 32 * 2**20  # of page-locked memory; a rank 32 LoRA of Wan A14B has 306 MB


@dataclass(frozen=True, slots=True)
class LoraKey:
    """What a parsed file depends on: its `LoraFile.content`, and whether every tensor must have a place."""

    content: str
    strict: bool


@dataclass(frozen=True, slots=True)
class LoadedLora:
    """A parsed LoRA file. `tensors` are in its own dtypes; those of one element are always in host memory."""

    key: LoraKey
    sha256: str | None
    contents: LoraContents
    tensors: Tensors

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class ResidentLoras:
    """Keeps the most recently used LoRAs within a budget of host memory, and copies of some on the GPU."""

    def __init__(
        self, architecture: WanArchitecture, device: torch.device, *, host_bytes: int, gpu_bytes: int = 0
    ) -> None:
        """`device` computes; on a GPU, host memory is page-locked. `gpu_bytes` is the budget of its own memory."""
        self._architecture = architecture
        self._device = device
        self._host_bytes = host_bytes
        self._gpu_bytes = gpu_bytes if device.type != "cpu" else 0
        self._files = PinnedFiles()
        self._on_host: OrderedDict[LoraKey, LoadedLora] = OrderedDict()
        self._on_gpu: OrderedDict[LoraKey, LoadedLora] = OrderedDict()

    def get(self, lora: LoraFile, *, strict: bool) -> LoadedLora:
        """The LoRA, read from its file if it is not resident. One larger than the whole budget is not kept.

        Raises:
            LoraChanged: the file had to be read, and is gone or has another content.
            LoraNotLoaded: not every tensor of it can be applied.
        """
        key = LoraKey(lora.content, strict)
        found = self._on_host.pop(key, None) or self._read(lora, key)
        if found.size <= self._host_bytes:
            self._on_host[key] = found
            _shrink(self._on_host, self._host_bytes)
            for gone in self._on_gpu.keys() - self._on_host.keys():
                del self._on_gpu[gone]
        return self._promoted(found)

    @property
    def listing(self) -> tuple[ResidentLora, ...]:
        """Return what is resident, the least recently used first."""
        return tuple(
            ResidentLora(sha256=lora.sha256, bytes=lora.size, memory="gpu" if key in self._on_gpu else "host")
            for key, lora in self._on_host.items()
        )

    @property
    def content_ids(self) -> frozenset[str]:
        """Return the `LoraFile.content` of everything that is resident."""
        return frozenset(key.content for key in self._on_host)

    def leave_gpu(self) -> bool:
        """Give up the GPU's memory for good; whether there was any to give up."""
        self._gpu_bytes = 0
        left = bool(self._on_gpu)
        self._on_gpu.clear()
        return left

    def _promoted(self, lora: LoadedLora) -> LoadedLora:
        if lora.key not in self._on_host or lora.size > self._gpu_bytes:
            return lora
        if lora.key not in self._on_gpu:
            self._on_gpu[lora.key] = replace(lora, tensors=_on_device(lora.tensors, self._device))
        self._on_gpu.move_to_end(lora.key)
        _shrink(self._on_gpu, self._gpu_bytes)
        return self._on_gpu[lora.key]

    def _read(self, lora: LoraFile, key: LoraKey) -> LoadedLora:
        self._files.verify(lora)
        try:
            path = Path(lora.location)
            header = read_header(path, lora.reference)
            contents = layout.parse(header, self._architecture, lora.reference, strict=key.strict)
            check_complete(lora, contents, header.tensors)
            tensors = self._tensors(path, header, contents)
        except LoraInvalid as error:
            self._files.verify(lora)  # a file that changed while it was read explains any failure
            raise not_loaded(lora, error.details["reason"], error.details["keys"]) from error
        except (OSError, SafetensorError) as error:
            self._files.verify(lora)
            raise not_loaded(lora, f"its file cannot be read ({error})") from error
        self._files.verify(lora)
        return LoadedLora(key, lora.sha256, contents, tensors)

    def _tensors(self, path: Path, header: SafetensorsHeader, contents: LoraContents) -> Tensors:
        """Copies of all tensors that have a place: what safetensors gives is a view of the file."""
        copies = HostCopies(pinned=self._device.type == "cuda", block_bytes=_BLOCK_BYTES)
        wanted = header.tensors.keys() - set(contents.left_out)
        with safe_open(path, framework="pt") as file:
            return {name: copies.copy(file.get_tensor(name)) for name in header.tensors if name in wanted}


def _on_device(tensors: Tensors, device: torch.device) -> Tensors:
    return {
        name: tensor if tensor.numel() == 1 else tensor.to(device, non_blocking=True)
        for name, tensor in tensors.items()
    }


def _shrink(loras: OrderedDict[LoraKey, LoadedLora], budget: int) -> None:
    """Forget the least recently used until the rest fits."""
    size = sum(lora.size for lora in loras.values())
    while size > budget:
        _, gone = loras.popitem(last=False)
        size -= gone.size
