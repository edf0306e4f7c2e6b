"""Heap trimming (glibc's `malloc_trim`): memory that renders have freed goes back to the system.

A prompt embedding that is kept may lie behind large tensors that are long freed. The heap then cannot shrink by itself,
and the process grew by 0.1 MiB a render under a load of ever new prompts.

Example:
    trimmer = HeapTrimmer()
    trimmer.trim()   # after a render; does something once a minute
"""

import ctypes
from collections.abc import Callable
from time import monotonic

_EVERY_S = 60.0  # a trim takes some milliseconds, and as long again to get the memory back for the next render


class HeapTrimmer:
    """Trims the heap of this process at most once in `every_s` seconds; without glibc it does nothing."""

    def __init__(self, every_s: float = _EVERY_S, clock: Callable[[], float] = monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._trimmed = clock()
        self._malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def trim(self) -> bool:
        """Trim if it is time; return whether the heap was trimmed. Blocking."""
        if self._malloc_trim is None or self._clock() - self._trimmed < self._every_s:
            return False
        self._malloc_trim(0)
        self._trimmed = self._clock()
        return True
