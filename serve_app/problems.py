"""Problems of a value: the first of several that it has."""

from collections.abc import Mapping


def first_problem(problems: Mapping[str, bool]) -> str | None:
    """Return the first text of `problems` whose condition holds; all conditions are evaluated.

    >>> first_problem({"it is empty": False, "it is too long": True})
    'it is too long'
    """
    return next((problem for problem, found in problems.items() if found), None)
