"""Which expert a file looks like it is for. Nothing inside says it; names do, mostly.

What follows from it are warnings and no refusals: a name may mean something else, and using a LoRA for the other
expert, or one of Wan 2.1, is sometimes what people want.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from serve_app.loras.formats import LoraContents
from serve_app.spec import Expert

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")  # fooBar_12 -> foo, Bar, 12
_SIDES = {"high": Expert.HIGH, "low": Expert.LOW}
_NOISE = re.compile(r"(?<![a-z])(high|low)[^a-z0-9]*noise", re.IGNORECASE)
_LETTERS = {"H": Expert.HIGH, "L": Expert.LOW}
# After "high" or "low" they speak of something else.
_OTHER_SENSES = frozenset(
    {
        *("angle", "contrast", "key", "light", "motion", "detail", "detailed", "details", "def", "definition"),
        *("fps", "frame", "freq", "frequency", "poly", "polygon", "quality", "fidelity", "rank", "speed", "vram"),
        *("res", "resolution", "end", "fantasy", "fashion", "heels", "kick", "rise", "school", "waist"),
    }
)


def likely_side(file_name: str, contents: LoraContents) -> Expert | None:
    """Return the expert that the file's name speaks of, else the names in its metadata; None where none or both do."""
    if contents.combined:
        return None
    names = [file_name, *contents.provenance.names]
    return next((side for name in names if (side := _side_in(name)) is not None), None)


def side_warnings(expert: Expert, file_name: str, contents: LoraContents) -> list[str]:
    """What about using this file for `expert` looks like a mistake."""
    side = likely_side(file_name, contents)
    warnings = []
    if side is not None and side is not expert:
        warnings.append(
            f"{file_name!r} looks like a LoRA for the {side.value} noise expert and is used for the "
            f"{expert.value} noise one; were the two mixed up?"
        )
    return [*warnings, *file_warnings(file_name, contents)]


def file_warnings(file_name: str, contents: LoraContents) -> list[str]:
    """What about this file a client should know, whichever expert it is used for."""
    base = contents.provenance.other_base
    warnings = [f"{file_name!r} names another base model in its metadata: {base}"] if base else []
    if contents.left_out:
        count, first = len(contents.left_out), contents.left_out[0][:200]
        warnings.append(f"{file_name!r}: {count} tensors have no place in the model and are left out, first {first!r}")
    return warnings


def pair_warnings(chosen: Iterable[tuple[Expert, str]]) -> list[str]:
    """What about (expert, identity of a file that is not a combined one) together looks like a mistake."""
    sides: dict[str, set[Expert]] = {}
    for expert, content in chosen:
        sides.setdefault(content, set()).add(expert)
    if any(len(experts) > 1 for experts in sides.values()):
        return ["the same file is used for both experts; is the other half of the pair missing?"]
    return []


@lru_cache(maxsize=4096)  # a pair that is used at all is used often
def _side_in(name: str) -> Expert | None:
    """The strongest kind of hint that is there decides: "high noise", then "high", then a lone "H"."""
    words = _WORD.findall(name)
    lower = [word.lower() for word in words]
    letters = [_LETTERS[word] for word in words if word in _LETTERS]
    for hints in (_noise_hints(name, lower), _word_hints(lower), letters):
        if hints:
            return hints[0] if len(set(hints)) == 1 else None
    return None


def _noise_hints(name: str, words: Sequence[str]) -> list[Expert]:
    """Both in "HIGHnoise", where the case says nothing, and in "MyHighNoise", where it does."""
    pairs = [_SIDES[word] for word, after in pairwise(words) if word in _SIDES and after == "noise"]
    return pairs + [_SIDES[side.lower()] for side in _NOISE.findall(name)]


def _word_hints(words: Sequence[str]) -> list[Expert]:
    return [_SIDES[word] for word, after in pairwise([*words, ""]) if word in _SIDES and after not in _OTHER_SENSES]
