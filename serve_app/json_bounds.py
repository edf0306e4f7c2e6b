"""Bounds on JSON before it is parsed (resource exhaustion): how many values it holds.

Parsed JSON takes ten times the memory of its text, and the parser holds the global interpreter lock (GIL) until it
ends. Counting separators runs in C, and takes a twentieth of the time.
"""

from typing import NamedTuple

_SEPARATORS = b",[{"


class JsonSize(NamedTuple):
    """Upper bounds for a JSON text: the number of `strings` (with keys), and of `separators` before values and keys."""

    strings: int
    separators: int


def json_size(text: bytes) -> JsonSize:
    """Return the bounds for `text`. For malformed JSON they mean nothing; the parser will report it."""
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(plain.split(b'"')[::2])
    return JsonSize(plain.count(b'"') // 2, _separators(outside))


def has_more_values(text: bytes, most: int) -> bool:
    """Return whether the JSON `text` has more than `most` separators.

    >>> has_more_values(b'[1, 2, "a, b"]', 3)
    False
    """
    return _separators(text) > most and json_size(text).separators > most


class ValueCounter:
    """Counts the separators of a JSON text while it arrives, so that one of too many values is not read to its end.

    Example:
        counter = ValueCounter(1000)
        if counter.exceeds(piece): ...
    """

    def __init__(self, most: int) -> None:
        """Tell when there are more than `most`."""
        self._most = most
        self._rough = self._exact = 0
        self._uncounted: list[bytes] = []
        self._in_text = False
        self._escape = b""

    def exceeds(self, piece: bytes) -> bool:
        """Take the next piece; return whether there are more separators by now, outside of texts."""
        self._rough += _separators(piece)
        self._uncounted.append(piece)
        if self._rough > self._most:
            self._count(self._escape + b"".join(self._uncounted))
            self._uncounted.clear()
        return self._exact > self._most

    def _count(self, text: bytes) -> None:
        is_cut = (len(text) - len(text.rstrip(b"\\"))) % 2  # within an escape
        self._escape = text[len(text) - is_cut :]
        plain = text[: len(text) - is_cut].replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = plain.split(b'"')
        self._exact += _separators(b"".join(parts[self._in_text :: 2]))
        self._in_text ^= len(parts) % 2 == 0


def _separators(text: bytes) -> int:
    return len(text) - len(text.translate(None, _SEPARATORS))  # if there are millions, quicker than `count`
