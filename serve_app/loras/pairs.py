"""Pairs among the files of a folder: a high and a low noise half whose names differ only in the side.

Example:
    halves = [Half("job/hero_000000500_high_noise.safetensors", Expert.HIGH, step=500), ...]
    pairs(halves)  # [Pair("job/hero", step=500, high=halves[0], low=halves[1])]

`sides` decides which side a name means.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from serve_app.loras.sides import without_side
from serve_app.spec import Expert

_STEP_DIGITS = 9  # AI Toolkit writes the step of a checkpoint into its name with this many digits


@dataclass(frozen=True, slots=True)
class Half:
    """A file for one side or, with `expert` None, for both. `step` is the training step in its metadata."""

    path: str  # under the root, as requests name it
    expert: Expert | None
    step: int | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two files for one request: the high and the low half. A missing half is None."""

    name: str
    step: int | None
    high: str | None  # paths
    low: str | None


def pairs(halves: Iterable[Half]) -> list[Pair]:
    """Return the pairs among these files, by name and step; each file is in exactly one.

    If several files have the same name and side, none of them is paired.
    """
    by_name: defaultdict[str, list[Half]] = defaultdict(list)
    for half in halves:
        by_name[without_side(half.path) if half.expert else half.path].append(half)
    found = [pair for alike in by_name.values() for pair in _paired(alike)]
    return sorted(found, key=lambda pair: (pair.name.casefold(), pair.step is None, pair.step or 0))


def _paired(alike: list[Half]) -> list[Pair]:
    high = [half for half in alike if half.expert is Expert.HIGH]
    low = [half for half in alike if half.expert is Expert.LOW]
    if len(high) == len(low) == 1:
        return [_pair(high[0], high[0], low[0])]
    return [
        _pair(half, None if half.expert is Expert.LOW else half, None if half.expert is Expert.HIGH else half)
        for half in alike
    ]


def _pair(named: Half, high: Half | None, low: Half | None) -> Pair:
    """Return the pair of these halves, with the name of one of them."""
    words = without_side(named.path) if named.expert else named.path
    step = next((half.step for half in (high, low) if half is not None and half.step is not None), None)
    name, written = _without_step(words.removesuffix(".safetensors"), step)
    return Pair(
        name,
        written if step is None else step,
        None if high is None else high.path,
        None if low is None else low.path,
    )


def _without_step(name: str, step: int | None) -> tuple[str, int | None]:
    """Return a name without the step at its end, and the step that it says."""
    start, mark, last = name.rpartition("_")
    if mark and last.isascii() and last.isdigit() and (len(last) == _STEP_DIGITS or int(last) == step):
        return start, int(last)
    return name, None
