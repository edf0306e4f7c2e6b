"""Sample prompts of AI Toolkit: flags at the end of a prompt, and placeholders for the trigger word.

The trainer reads `a fox --seed 7 --w 512 --cfg 4` as a prompt with settings (`_process_prompt_string` in its
toolkit/config_modules.py), and replaces `[name]` as well as `[trigger]` (`inject_trigger_into_prompt`).

Example:
    prompt, multiplier = read_flags(PromptItem(prompt="a fox --seed 7 --m 0.8"), 0)
    prompt.prompt, prompt.seed, multiplier      # ("a fox", 7, 0.8)
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from serve_app.api.schemas.bodies import CONTROL_IMAGES, Multiplier, PromptItem
from serve_app.errors import PromptFlagRefused, PromptTooLong
from serve_app.models import limits
from serve_app.spec import Recipe

_FLAG = re.compile(r"(?<!\S)--([A-Za-z]\w*)(?!\S)")
_MISWRITTEN = re.compile(
    r"(?<!\S)(?:--(?P<joined>[A-Za-z]\w*)[=:]\S*"  # --seed=7
    r"|[\u2012-\u2015](?P<dashed>seed|steps|cfg|[whdslgm])\s+-?\d)"  # an editor made one dash of two hyphens
)
_ANY_PLACEHOLDER = re.compile(r"\[ *(?:trigger|name) *\]", re.IGNORECASE)
_MOST_TOLD = 3  # spellings
_LONGEST = 100  # characters of a value that is shown
_MULTIPLIER = "m"
_PLACEHOLDERS = {Recipe.REFERENCE: ("[trigger]",), Recipe.PREVIEW: ("[trigger]", "[name]")}


@dataclass(frozen=True, slots=True)
class _Flag:
    field: str  # of PromptItem
    read: Callable[[str], object]


_FLAGS = {
    "n": _Flag("neg", str),
    "w": _Flag("width", int),
    "h": _Flag("height", int),
    **dict.fromkeys(("seed", "d"), _Flag("seed", int)),
    **dict.fromkeys(("cfg", "g", "l"), _Flag("guidance_scale", float)),
    **dict.fromkeys(("steps", "s"), _Flag("sample_steps", int)),
}
_KNOWN = ", ".join(f"--{name}" for name in (*_FLAGS, _MULTIPLIER))


def read_flags(prompt: PromptItem, index: int) -> tuple[PromptItem, float | None]:
    """Return the prompt with the settings of its flags, and the LoRA multiplier of the flag `--m`.

    `index` is the number of the prompt in error messages.

    Raises:
        PromptFlagRefused: a flag is unknown, repeated, has a bad value, or contradicts a field of the prompt.
    """
    found = list(_FLAG.finditer(prompt.prompt))
    _check_spelling(prompt.prompt, index)
    if not found:
        return prompt, None
    ends = [match.start() for match in found[1:]] + [len(prompt.prompt)]
    values: dict[str, object] = {"prompt": prompt.prompt[: found[0].start()].strip()}
    multiplier = None
    for match, end in zip(found, ends, strict=True):
        name, text = match[1], prompt.prompt[match.end() : end].strip()
        if name == _MULTIPLIER:
            if multiplier is not None:
                raise _refused(index, name, "it stands there twice")
            multiplier = _multiplier(index, text)
            continue
        flag = _FLAGS.get(name)
        if name in CONTROL_IMAGES:
            raise _refused(index, name, f"its path is one of the trainer's machine; send the image in the field {name}")
        if flag is None:
            raise _refused(index, name, f"it is none of those that are read, {_KNOWN}; remove it")
        if flag.field in values:
            raise _refused(index, name, f"{flag.field} is set twice")
        values[flag.field] = _value(prompt, index, name, text)
    return prompt.model_copy(update=values), multiplier


def _check_spelling(prompt: str, index: int) -> None:
    """Raise PromptFlagRefused for what looks like a flag, and would be left in the prompt as text."""
    wrong = _MISWRITTEN.search(prompt)
    if wrong is not None:
        name = wrong["joined"] or wrong["dashed"]
        raise _refused(index, name, f"{wrong[0][:_LONGEST]!r} is not read; write --{name}, a space, and its value")


def placed(prompt: str, trigger_word: str | None, recipe: Recipe, index: int) -> str:
    """Replace the placeholders of a prompt by the trigger word; without a trigger word, return the text unchanged.

    Raises:
        PromptTooLong: the text would become longer than a prompt may be. `index` is the number of the prompt.
    """
    if not trigger_word:
        return prompt
    for placeholder in _PLACEHOLDERS[recipe.rules]:
        length = len(prompt) + prompt.count(placeholder) * (len(trigger_word) - len(placeholder))
        if length > limits.PROMPT_LENGTH:
            raise PromptTooLong(
                f"prompts[{index}] would have {length} characters with its trigger word in place; at most "
                f"{limits.PROMPT_LENGTH} are read",
                {"prompt_index": index, "length": length, "most": limits.PROMPT_LENGTH},
            )
        prompt = prompt.replace(placeholder, trigger_word)
    return prompt


def unplaced(prompt: str, trigger_word: str | None, recipe: Recipe) -> list[str]:
    """Return that placeholders are left over: there is no trigger word, or they are spelled in another way."""
    known = _PLACEHOLDERS[recipe.rules]
    left = [placeholder for placeholder in known if placeholder in prompt and not trigger_word]
    others = sorted({match[0] for match in _ANY_PLACEHOLDER.finditer(prompt)} - set(known))[:_MOST_TOLD]
    replaced = " and ".join(known)
    return [
        *(f"{placeholder} is left in the prompt as text, as no trigger_word was sent" for placeholder in left),
        *(f"{other[:_LONGEST]} is left in the prompt as text; this recipe replaces {replaced}" for other in others),
    ]


def _value(prompt: PromptItem, index: int, name: str, text: str) -> object:
    flag = _FLAGS[name]
    try:
        value = flag.read(text)
        PromptItem.model_validate({"prompt": "", flag.field: value})
    except ValidationError as error:
        raise _refused(index, name, f"{text[:_LONGEST]!r} is not allowed: {error.errors()[0]['msg']}") from error
    except ValueError as error:
        raise _refused(index, name, f"{text[:_LONGEST]!r} is not a number of its kind") from error
    explicit = getattr(prompt, flag.field)
    if explicit is not None and explicit != value:
        raise _refused(
            index, name, f"it says {str(value)[:_LONGEST]}, and the field {flag.field} {str(explicit)[:_LONGEST]}"
        )
    return value


def _multiplier(index: int, text: str) -> float:
    try:
        return TypeAdapter(Multiplier).validate_python(float(text))
    except ValidationError as error:
        raise _refused(index, _MULTIPLIER, f"{text[:_LONGEST]!r} is not allowed: {error.errors()[0]['msg']}") from error
    except ValueError as error:
        raise _refused(index, _MULTIPLIER, f"{text[:_LONGEST]!r} is not a number of its kind") from error


def _refused(index: int, name: str, reason: str) -> PromptFlagRefused:
    return PromptFlagRefused(
        f"prompts[{index}] has the flag --{name[:_LONGEST]} of a sample prompt: {reason}",
        {"prompt_index": index, "flag": f"--{name[:_LONGEST]}"},
    )
