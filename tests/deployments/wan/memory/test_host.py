"""How much host memory is free, and copies in pinned memory."""

from pathlib import Path

import pytest
import torch

from deployments.wan.memory import host
from deployments.wan.memory.host import HostCopies, available_bytes


def _cgroup(folder: Path, limit: str) -> None:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text("700")
    (folder / "memory.stat").write_text("anon 100\ninactive_file 500\nactive_file 100\n")


@pytest.mark.parametrize(("limit", "available"), [("max\n", 10240), ("1000\n", 800), ("100\n", 0)])
def test_available_memory_counts_the_page_cache_and_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, available: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  99 kB\nMemAvailable:   10 kB\nHugePages_Total:   0\n")
    monkeypatch.setattr(host, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    _cgroup(tmp_path, limit)
    assert available_bytes() == available


def test_without_linux_all_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_MEMINFO", tmp_path / "missing")
    assert available_bytes() > 2**30


def test_copies_are_cut_from_pinned_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    empty, blocks = torch.empty, []

    def unpinned(size: int, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        assert pin_memory
        blocks.append(size)
        return empty(size, dtype=dtype)

    monkeypatch.setattr(torch, "empty", unpinned)
    copies = HostCopies(pinned=True, block_bytes=4096)
    tensors = [torch.randn(3, 7).bfloat16(), torch.randn(1000), torch.randn(2000).double(), torch.tensor(3.0)]
    made = [copies.copy(tensor) for tensor in tensors]
    for tensor, copy in zip(tensors, made, strict=True):
        assert copy.dtype is tensor.dtype
        assert torch.equal(copy, tensor)
        assert copy.data_ptr() != tensor.data_ptr()
    assert blocks == [4096, 4096, 16384]


def test_where_no_page_can_be_locked_copies_are_ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("cudaHostAlloc failed")

    monkeypatch.setattr(torch, "empty", refused)
    tensor = torch.ones(3)
    assert torch.equal(HostCopies(pinned=True, block_bytes=4096).copy(tensor), tensor)
