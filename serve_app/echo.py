"""Bounded echoes (no response amplification): values of a request that an answer repeats are truncated.

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
    """Return `text` with at most `most` characters; if it is truncated, it ends with dots."""
    return text if len(text) <= most else text[: most - len(_MARK)] + _MARK


def bounded(value: Any) -> Any:
    """Return a JSON value with truncated texts and lists; a list of over 20 items ends with the count of the rest."""
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
