"""Side rule: which expert of a pair, high or low noise, the name of a LoRA file means.

The content of an ordinary file does not say which expert it is for, but its name usually does. The warnings about a
file and the choice among the files of a repository use this one rule. Hints, the strongest first:

1. "noise" beside the word, or HN and LN: `hero_high_noise`, `LowNoise_v2`, `HIGHnoise`, `wan22_HN`.
2. The word, or its letter, at the end of the name; numbers, versions and the like may follow: `hero_high_v2`, `hero_L`.
3. Either of these in the name of a folder, the innermost first: `low_noise/hero`.
4. The word, or its capital letter, inside the name: `high_hero`, `H_hero`.

A stronger hint in the name beats every weaker one: `low_poly_high_noise` is high. A word with another meaning is no
hint: `low_poly`, `high_quality`. A name that says both says nothing: `high_and_low`.

Example:
    likely_side("low_poly_high_noise.safetensors", contents)      # Expert.HIGH
    files_for(Expert.LOW, ["hero_H.safetensors", "hero_L.safetensors"])      # ["hero_L.safetensors"]
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from serve_app.loras.formats import LoraContents
from serve_app.spec import Expert

_EXTENSION = ".safetensors"

# "fooBar_12" has the words foo, Bar, 12. "noise" is a word of its own in "highnoise" and "HIGHnoise", too.
_WORD = re.compile(r"(?i:high|low)(?=(?i:noise))|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SEPARATORS = re.compile(r"([_\-. ])[_\-. ]+")  # what is left where a word was
_NOISE = "noise"
_PHRASES = {"hn": Expert.HIGH, "ln": Expert.LOW}
_LETTERS = {"h": Expert.HIGH, "l": Expert.LOW}
_SIDES = {"high": Expert.HIGH, "low": Expert.LOW, **_PHRASES, **_LETTERS}
_OTHER_SIDE = {Expert.HIGH: Expert.LOW, Expert.LOW: Expert.HIGH}

# Before one of these words, "high" and "low" mean something else than noise.
_OTHER_SENSES = frozenset(
    {
        *("angle", "contrast", "key", "light", "motion", "detail", "detailed", "details", "def", "definition"),
        *("fps", "frame", "freq", "frequency", "poly", "polygon", "quality", "fidelity", "rank", "speed", "vram"),
        *("res", "resolution", "end", "fantasy", "fashion", "heels", "kick", "rise", "school", "waist"),
        *(
            "altitude",
            "cut",
            "fi",
            "five",
            "ground",
            "hat",
            "jump",
            "neck",
            "noon",
            "saturation",
            "sun",
            "tech",
            "tide",
        ),
    }
)
# Words that may follow the side at the end of a name, beside numbers: training progress, and file format.
_TRAILING = frozenset(
    {
        *("v", "ver", "version", "e", "ep", "epoch", "epochs", "s", "step", "steps", "k", "final", "last"),
        *("lora", "lokr", "dora", "model", "rank", "r", "dim", "fp", "bf", "f"),
    }
)
_JOINING = frozenset({"and", "or", "to", "plus", "vs"})


class _Strength(IntEnum):
    INSIDE = 1
    END = 2
    NOISE = 3


@dataclass(frozen=True, slots=True)
class _Hint:
    """What a name says: a side, or None if it says both."""

    side: Expert | None
    strength: _Strength


def likely_side(file_name: str, contents: LoraContents) -> Expert | None:
    """Return the expert that the file's name means, else the names in its metadata; None if none says it.

    None also for a combined file, which is for both.
    """
    if contents.combined:
        return None
    names = (file_name, *contents.provenance.names)
    return next((side for name in names if (side := side_of(name)) is not None), None)


def side_of(path: str) -> Expert | None:
    """Return the expert that a path or name means; None if it says none or both."""
    hint = _hint(path)
    return hint.side if hint else None


def files_for(expert: Expert, paths: Sequence[str]) -> list[str]:
    """Return those of `paths` that are for `expert` by their names; the caller refuses to choose among several.

    A word inside a name counts only where another of the paths has the same name with the other side's word in its
    place; numbers may differ. So `low_hero` beside `high_hero` is for the low expert, `low_rider` beside `high_noise`
    is not.
    """
    hints = {path: hint for path in paths if (hint := _hint(path)) is not None and hint.side is not None}
    named = [path for path, hint in hints.items() if hint.side is expert]
    certain = [path for path in named if hints[path].strength > _Strength.INSIDE]
    others = {_sideless(path) for path, hint in hints.items() if hint.side is not expert}
    return certain or [path for path in named if _sideless(path) in others]


def without_side(path: str) -> str:
    """Return a path without the words for a side: it is the same for both halves of a pair.

    >>> without_side("low_noise/hero_v2.safetensors"), without_side("low_poly_high_noise_000000500.safetensors")
    ('hero_v2.safetensors', 'low_poly_000000500.safetensors')
    """
    return "/".join(part for name in path.split("/") if (part := _name_without_side(name)))


def _name_without_side(name: str) -> str:
    text = name[: -len(_EXTENSION)] if name.lower().endswith(_EXTENSION) else name
    found, words = list(_WORD.finditer(text)), _words(text)
    hints = {at for at in range(len(words)) if _strength(words, at) is not None}
    noises = {at for hint in hints for at in (hint - 1, hint + 1) if _text(words, at) == _NOISE}
    kept, end = "", 0
    for at in sorted(hints | noises):
        kept, end = kept + text[end : found[at].start()], found[at].end()
    kept += text[end:]
    return _SEPARATORS.sub(r"\1", kept).strip("_-. ") + name[len(text) :]


@dataclass(frozen=True, slots=True)
class _Word:
    text: str  # in lower case
    capital: bool  # written in capitals
    numbered: bool  # a digit follows directly, as in H264

    @property
    def is_filler(self) -> bool:
        """Return whether the word may follow the side at the end of a name."""
        return self.text.isdigit() or self.text in _TRAILING


@lru_cache(maxsize=4096)  # most pairs are used many times
def _hint(path: str) -> _Hint | None:
    """Return the strongest hint in the path's name and folders; the name's own beats a folder's, but for weak ones."""
    *folders, name = path.split("/")
    if name.lower().endswith(_EXTENSION):
        name = name[: -len(_EXTENSION)]
    hints = [hint for text in (name, *reversed(folders)) if (hint := _hint_in(_words(text))) is not None]
    certain = (hint for hint in hints if hint.strength > _Strength.INSIDE)
    return next(certain, hints[0] if hints else None)


def _words(text: str) -> list[_Word]:
    return [
        _Word(found[0].lower(), found[0].isupper(), text[found.end() : found.end() + 1].isdigit())
        for found in _WORD.finditer(text)
    ]


def _sideless(path: str) -> tuple[str, ...]:
    """Return the words of a path without numbers and with a gap for each side, in which the halves of a pair agree."""
    return tuple("" if word.text in _SIDES else word.text for word in _words(path) if not word.text.isdigit())


def _hint_in(words: Sequence[_Word]) -> _Hint | None:
    strengths = {at: strength for at in range(len(words)) if (strength := _strength(words, at)) is not None}
    if not strengths:
        return None
    strongest = max(strengths.values())
    hints = [at for at, strength in strengths.items() if strength is strongest]
    sides = {_SIDES[words[at].text] for at in hints}
    last = hints[-1]
    side = _SIDES[words[last].text]
    if strongest > _Strength.INSIDE and _ends(words, last):
        return _Hint(None if _is_joined(words, last) else side, strongest)
    return _Hint(side if len(sides) == 1 else None, strongest)


def _strength(words: Sequence[_Word], at: int) -> _Strength | None:
    """Return how strong a hint the word is; None if it is no hint."""
    word = words[at]
    if word.text not in _SIDES:
        return None
    if word.text in _PHRASES or _is_beside_noise(words, at):
        return _Strength.NOISE
    if word.text in _LETTERS:
        return _letter_strength(words, at)
    if _has_other_sense(words, at):
        return None
    return _Strength.END if _ends(words, at) else _Strength.INSIDE


def _letter_strength(words: Sequence[_Word], at: int) -> _Strength | None:
    word = words[at]
    if word.numbered:  # a codec or a GPU: H264, L40
        return None
    if _ends(words, at) and (word.capital or at > 0):
        return _Strength.END
    return _Strength.INSIDE if word.capital else None


def _is_beside_noise(words: Sequence[_Word], at: int) -> bool:
    if _text(words, at + 1) == _NOISE:
        return True
    if _text(words, at - 1) != _NOISE or _has_other_sense(words, at):
        return False
    return _text(words, at - 2) not in _SIDES  # else the noise is that word's


def _has_other_sense(words: Sequence[_Word], at: int) -> bool:
    after = _text(words, at + 1)
    if after == "rank" and _text(words, at + 2).isdigit():
        return at == 0  # `low-rank64` is a kind of LoRA; `hero_low_rank64` is the low half of a pair, and its rank
    return after in _OTHER_SENSES


def _ends(words: Sequence[_Word], at: int) -> bool:
    """Return whether only fillers follow the word."""
    rest = words[at + 2 :] if _text(words, at + 1) == _NOISE else words[at + 1 :]
    return all(word.is_filler for word in rest)


def _is_joined(words: Sequence[_Word], at: int) -> bool:
    """Return whether the name joins both sides, as in `high_low` and `high_noise_and_low_noise`."""
    before = at - 1
    while before >= 0 and (words[before].is_filler or words[before].text in (_NOISE, *_JOINING)):
        before -= 1
    return _SIDES.get(_text(words, before)) is _OTHER_SIDE[_SIDES[words[at].text]]


def _text(words: Sequence[_Word], at: int) -> str:
    return words[at].text if 0 <= at < len(words) else ""
