"""Warnings about LoRA files: the one list that inspection and the result of a render both show.

Example:
    of_file("hero_low_noise.safetensors", contents, Expert.HIGH)     # "... were the two mixed up?"
    of_pair([(Expert.HIGH, high.content), (Expert.LOW, low.content)])
"""

from collections.abc import Iterable

from serve_app.loras.formats import LoraContents, LowRank
from serve_app.loras.sides import likely_side
from serve_app.models.foreign import other_task
from serve_app.spec import Expert

_LEAST_MULTIPLIER = 1e-6  # a smaller one leaves nothing of a LoRA in 16 bits


def of_file(
    file_name: str, contents: LoraContents, expert: Expert | None = None, multiplier: float | None = None
) -> list[str]:
    """Return warnings about this file, or about its use for `expert` with `multiplier`: possible mistakes.

    They do not refuse the file: its name may mean something else, and a user may want a LoRA of the other expert or of
    Wan 2.1. A model with one expert has no sides.
    """
    return [
        *_side(expert, file_name, contents),
        *_other_model(file_name, contents),
        *_left_out(file_name, contents),
        *(f"{file_name!r}: {remark}" for remark in contents.remarks),
        *without_effect(file_name, contents, expert, multiplier),
    ]


def without_effect(
    file_name: str, contents: LoraContents, expert: Expert | None = None, multiplier: float | None = None
) -> list[str]:
    """Return a warning if the file has no effect: all values that were read are zero, or its multiplier is 0."""
    if multiplier is not None and abs(multiplier) < _LEAST_MULTIPLIER:
        return [f"{file_name!r}: all changes of this file are zero, as its network_multiplier is {multiplier:g}"]
    idle = contents.idle or ()
    if idle and set(idle) == contents.parts.keys():
        decomposed = any(isinstance(change, LowRank) and change.magnitude for change in contents.changes())
        what = " but for the magnitudes of its DoRA" if decomposed else ", so it does nothing"
        return [f"{file_name!r}: all changes of this file are zero{what}"]
    return [
        f"{file_name!r}: all changes of this file for the {part.label} are zero, so it does nothing there"
        for part in idle
        if part is not None and expert in (None, part)
    ]


def of_pair(chosen: Iterable[tuple[Expert, str]]) -> list[str]:
    """Return warnings about the files together: the same content for both experts is a possible mistake.

    `chosen` are (expert, identity of the content) of every file that is no combined one.
    """
    sides: dict[str, set[Expert]] = {}
    for expert, content in chosen:
        sides.setdefault(content, set()).add(expert)
    if any(len(experts) > 1 for experts in sides.values()):
        return ["the same file is used for both experts; is the other half of the pair missing?"]
    return []


def _side(expert: Expert | None, file_name: str, contents: LoraContents) -> list[str]:
    side = None if expert in (None, Expert.ONLY) else likely_side(file_name, contents)
    if expert is None or side in (None, expert):
        return []
    return [
        f"{file_name!r} looks like a LoRA for the {side} noise expert and is used for the {expert} noise one; "
        "were the two mixed up?"
    ]


def _other_model(file_name: str, contents: LoraContents) -> list[str]:
    base = contents.provenance.other_base
    if base is not None:
        return [f"{file_name!r} names another base model in its metadata: {base}"]
    task = other_task((file_name, *contents.provenance.names), contents.model)
    if task is None:
        return []
    return [f"{file_name!r} looks by its name like a LoRA for {task}, and this server runs {contents.model}"]


def _left_out(file_name: str, contents: LoraContents) -> list[str]:
    if not contents.left_out:
        return []
    count, first = len(contents.left_out), contents.left_out[0][:200]
    return [f"{file_name!r}: {count} tensors have no place in the model and are left out, first {first!r}"]
