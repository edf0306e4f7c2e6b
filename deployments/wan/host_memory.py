"""Host memory: how much there is, and copies of tensors that a GPU reads at full speed."""

import os
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_ALIGNMENT = 512  # bytes; any dtype, and whole cache lines


def available_bytes() -> int:
    """What this process could still allocate without swapping, within its container's limit.

    From `/proc/meminfo`, because what sysconf calls available leaves out the page cache, and reading a checkpoint
    fills it. Elsewhere than on Linux, all of the machine's memory.
    """
    try:
        in_kib = dict(line.split()[:2] for line in _MEMINFO.read_text().splitlines())["MemAvailable:"]
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(int(in_kib) * 1024, _container_bytes())


def _container_bytes() -> int:
    """What cgroup v2 leaves to this container; its page cache counts as free. Unlimited: more than any machine has."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())  # ValueError: "max"
        used = int((_CGROUP / "memory.current").read_text())
        cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())["inactive_file"]
    except (OSError, ValueError, KeyError):
        return 2**63
    return max(0, limit - used + int(cache))


class HostCopies:
    """Copies of tensors in host memory, page-locked where asked for and granted.

    Page-locked memory is cut from blocks of a power of two: torch rounds every such allocation up to one, which would
    waste 40 % on the matrices of Wan A14B.
    """

    def __init__(self, *, pinned: bool, block_bytes: int) -> None:
        """`block_bytes`, a power of two, is the size of a block; a larger tensor gets one of its own."""
        self._pinned = pinned
        self._block_bytes = block_bytes
        self._blocks: list[tuple[torch.Tensor, int]] = []  # bytes, and how many of them are taken

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of `tensor`, from any device. Its memory lives as long as a copy from the same block."""
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
        except RuntimeError:  # the system locks no more pages; ordinary memory only is slower
            return None
        self._blocks.append((block, _aligned(size)))
        return block[:size]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()
