"""Resident LoRAs: an LRU cache by size in host and GPU memory; a resident LoRA needs no file.

A file is read only if its LoRA is not resident:

    resident = ResidentLoras(device, host_bytes=8 * 2**30)
    files = {lora.content: ... for lora in resident.lacking(spec.loras, strict=True)}
    resident.get(spec.loras, files, strict=True)[0].tensors
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from cachetools import LRUCache
from safetensors import SafetensorError, safe_open

from deployments.wan.loras.deltas import Tensors
from deployments.wan.memory.host import HostCopies
from serve_app.errors import LoraNotLoaded
from serve_app.loras.files import LoraOnDisk
from serve_app.loras.formats.changes import LoraContents
from serve_app.results import ResidentLora
from serve_app.spec import LoraFile

_BLOCK_BYTES = 32 * 2**20  # of pinned memory; a rank 32 LoRA of Wan A14B has 306 MB
_NAMED_AT_MOST = 16  # in an error; a full-size file has 800 tensors


@dataclass(frozen=True, slots=True)
class LoraKey:
    """The key of a LoRA in memory: its `LoraFile.content`, and whether every tensor must have a place."""

    content: str
    strict: bool


@dataclass(frozen=True, slots=True)
class LoadedLora:
    """A LoRA in memory. `tensors` are in the file's dtypes; those of one element are always in host memory."""

    key: LoraKey
    sha256: str
    contents: LoraContents
    tensors: Tensors

    @property
    def size(self) -> int:
        """Return the bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class ResidentLoras:
    """Keeps the most recently used LoRAs within a budget of host memory, and copies of some on the GPU."""

    def __init__(self, device: torch.device, *, host_bytes: int, gpu_bytes: int = 0) -> None:
        """Keep up to `host_bytes`, pinned where `device`, which computes, is a GPU, and `gpu_bytes` on that GPU."""
        self._device = device
        self._on_host: LRUCache[LoraKey, LoadedLora] = LRUCache(host_bytes, lambda lora: lora.size)
        self._on_gpu = _gpu_cache(gpu_bytes if device.type != "cpu" else 0)

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

    def lacking(self, loras: Iterable[LoraFile], *, strict: bool) -> tuple[LoraFile, ...]:
        """Return those of `loras` that are not resident, each content once."""
        return tuple(
            {lora.content: lora for lora in loras if LoraKey(lora.content, strict) not in self._on_host}.values()
        )

    def get(
        self, loras: Sequence[LoraFile], files: Mapping[str, LoraOnDisk], *, strict: bool
    ) -> tuple[LoadedLora, ...]:
        """Return each of `loras`, reading those that are not resident. One larger than the whole budget is not kept.

        `files`, by `LoraFile.content`, has at least what `lacking` names. A file is neither parsed nor hashed here.

        Raises:
            LoraChanged: a file that had to be read has changed since it was checked.
            LoraNotLoaded: it cannot be read, or not every tensor of it has a place.
        """
        keys = [LoraKey(lora.content, strict) for lora in loras]
        lacking = self.lacking(loras, strict=strict)
        resident = {key: self._on_host[key] for key in keys if key in self._on_host}
        read = {LoraKey(lora.content, strict): self._read(lora, files[lora.content], strict) for lora in lacking}
        # LoRAs that were just read count as used earlier than resident ones. So if the budget is short, they are
        # evicted first: a second attempt at this render has files only for them.
        wanted = read | resident
        for lora in wanted.values():
            self._keep(lora)
        return tuple(self._promoted(wanted[key]) for key in keys)

    def use_gpu(self, size: int) -> bool:
        """Forget the copies on the GPU, and keep up to `size` bytes there from now on; return whether any went."""
        left = bool(self._on_gpu)
        self._on_gpu = _gpu_cache(size if self._device.type != "cpu" else 0)
        return left

    def _keep(self, lora: LoadedLora) -> None:
        """Make `lora` the most recently used, and forget those for which there is no room."""
        self._on_host.pop(lora.key, None)
        if lora.size <= self._on_host.maxsize:
            self._on_host[lora.key] = lora
        for gone in self._on_gpu.keys() - self._on_host.keys():
            del self._on_gpu[gone]

    def _promoted(self, lora: LoadedLora) -> LoadedLora:
        """Return the copy of `lora` on the GPU, if it may have one."""
        if lora.key not in self._on_host or lora.size > self._on_gpu.maxsize:
            return lora
        if lora.key not in self._on_gpu:
            self._on_gpu[lora.key] = replace(lora, tensors=_on_device(lora.tensors, self._device))
        return self._on_gpu[lora.key]

    def _read(self, lora: LoraFile, file: LoraOnDisk, strict: bool) -> LoadedLora:
        _check_complete(lora, file)
        try:
            tensors = self._tensors(file)
        except (OSError, SafetensorError) as error:
            file.check_unchanged()  # if the file changed while it was read, that is the reason of any failure
            raise not_loaded(lora, f"its file cannot be read ({error})") from error
        file.check_unchanged()
        return LoadedLora(LoraKey(lora.content, strict), file.sha256, file.contents, tensors)

    def _tensors(self, file: LoraOnDisk) -> Tensors:
        """Copy all tensors that have a place, because safetensors returns views of the file."""
        copies = HostCopies(pinned=self._device.type == "cuda", block_bytes=_BLOCK_BYTES)
        left_out = set(file.contents.left_out)
        with file.opened() as path, safe_open(path, framework="pt") as opened:
            return {name: copies.copy(opened.get_tensor(name)) for name in file.header.tensors if name not in left_out}


def not_loaded(lora: LoraFile, reason: str, names: Iterable[str] = ()) -> LoraNotLoaded:
    """Return the error for `lora` that gives `reason` and the first of `names`, of tensors or parameters."""
    named = list(names)
    example = f" (first of {len(named)}: {named[0]})" if named else ""
    return LoraNotLoaded(
        f"LoRA '{lora.reference}' cannot be applied to the {lora.expert.label}: {reason}{example}",
        {
            "path": lora.reference,
            "transformer": lora.expert.value,
            "keys": named[:_NAMED_AT_MOST],
            "key_count": len(named),
        },
    )


def _check_complete(lora: LoraFile, file: LoraOnDisk) -> None:
    """Raise LoraNotLoaded if a tensor is neither used nor left out on purpose, or a change lacks one."""
    used = {key for change in file.contents.changes() for key in change.keys}
    odd = (used | set(file.contents.left_out)) ^ file.header.tensors.keys()
    if odd:
        raise not_loaded(lora, "not every tensor of it has exactly one place", sorted(odd))


def _gpu_cache(size: int) -> LRUCache[LoraKey, LoadedLora]:
    return LRUCache(size, lambda lora: lora.size)


def _on_device(tensors: Tensors, device: torch.device) -> Tensors:
    return {
        name: tensor if tensor.numel() == 1 else tensor.to(device, non_blocking=True)
        for name, tensor in tensors.items()
    }
