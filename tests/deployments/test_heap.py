"""Memory that was freed goes back to the system, once in a while."""

from pathlib import Path

from deployments.heap import HeapTrimmer

MIB = 2**20


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_what_lies_before_a_kept_piece_is_given_back() -> None:
    pieces = [bytearray(MIB // 16) for _ in range(1024)]  # 64 KiB each: from the heap, not from pages of their own
    kept = pieces[-1]
    held = resident()
    del pieces
    assert HeapTrimmer(every_s=0).trim()
    assert held - resident() > 32 * MIB
    assert len(kept) == MIB // 16


def test_it_waits_between_two_trims() -> None:
    now = [0.0]
    trimmer = HeapTrimmer(every_s=60, clock=lambda: now[0])
    assert not trimmer.trim()
    now[0] = 60.0
    assert trimmer.trim()
    assert not trimmer.trim()
    now[0] = 120.0
    assert trimmer.trim()
