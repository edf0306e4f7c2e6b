"""Bounded echoes (no response amplification): what an answer repeats of its request is cut to a length that helps.

Example:
    >>> cut("a" * 1000, 10)
    'aaaaaaa...'
    >>> bounded({"files": ["a"] * 100_000})["files"][-1]
    '... and 99980 more'
"""

from typing import Any

ITEMS = 20  # of a list: enough to see the pattern
MESSAGE_LENGTH = 2000
TEXT_LENGTH = 500
_MARK = "..."


def cut(text: str, most: int = TEXT_LENGTH) -> str:
    """Return `text` with at most `most` characters; dots at its end say that there was more."""
    return text if len(text) <= most else text[: most - len(_MARK)] + _MARK


def bounded(value: Any) -> Any:
    """Return a JSON value whose texts are cut and whose lists end, after 20 items, with a count of the others."""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, dict):
        return {cut(str(key)): bounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [*map(bounded, value[:ITEMS]), *remainder(len(value))]
    return value


def remainder(count: int) -> list[str]:
    """Return the line that counts the items of a list beyond those that are shown; empty if all are.

    >>> remainder(25)
    ['... and 5 more']
    """
    return [f"{_MARK} and {count - ITEMS} more"] if count > ITEMS else []
