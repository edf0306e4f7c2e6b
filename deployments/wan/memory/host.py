"""Host memory: how much is free, and copies of tensors in pinned (page-locked) memory, which a GPU reads faster."""

import os
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_ALIGNMENT = 512  # bytes; any dtype, and whole cache lines


def available_bytes() -> int:
    """Return the bytes that this process can still allocate without swapping, within its container's limit.

    Read from `/proc/meminfo`, because sysconf does not count the page cache as available, and reading a checkpoint
    fills the page cache. On systems other than Linux: all of the machine's memory.
    """
    try:
        in_kib = dict(line.split()[:2] for line in _MEMINFO.read_text().splitlines())["MemAvailable:"]
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(int(in_kib) * 1024, _container_bytes())


def _container_bytes() -> int:
    """Return what cgroup v2 leaves to this container; its page cache counts as free. 2**63 without a limit."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())  # ValueError: "max"
        used = int((_CGROUP / "memory.current").read_text())
        cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())["inactive_file"]
    except (OSError, ValueError, KeyError):
        return 2**63
    return max(0, limit - used + int(cache))


class HostCopies:
    """Make copies of tensors in host memory, pinned if that is asked for and granted.

    Pinned memory is taken in blocks of a power of two and then divided: torch rounds every pinned allocation up to a
    power of two, which would waste 40 % on the matrices of Wan A14B.
    """

    def __init__(self, *, pinned: bool, block_bytes: int) -> None:
        """Take blocks of `block_bytes`, a power of two; a larger tensor gets a block of its own."""
        self._pinned = pinned
        self._block_bytes = block_bytes
        self._blocks: list[tuple[torch.Tensor, int]] = []  # bytes, and how many of them are taken

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy `tensor` from any device. The memory is freed when no copy in the same block is used any more."""
        room = self._room(tensor.nbytes) if self._pinned else None
        if room is None:
            return tensor.detach().to("cpu", copy=True)
        return room.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())

    def _room(self, size: int) -> torch.Tensor | None:
        for index, (block, taken) in enumerate(self._blocks):
            if taken + size <= block.numel():
                self._blocks[index] = (block, taken + _aligned(size))
                return block[taken : taken + size]
        try:
            block = torch.empty(max(self._block_bytes, _power_of_two(size)), dtype=torch.uint8, pin_memory=True)
        except RuntimeError:  # the system pins no more pages; ordinary memory is only slower
            return None
        self._blocks.append((block, _aligned(size)))
        return block[:size]


def pin(module: torch.nn.Module, copies: HostCopies) -> None:
    """Move the weights of a module in host memory to pinned memory; what is there already stays."""
    for tensor in (*module.parameters(), *module.buffers()):
        if not tensor.is_pinned():
            tensor.data = copies.copy(tensor.data)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()
