"""Explanation of the difference between two clips: one finding for each setting to change."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.videos.comparison import SAME_DB, Difference

_RATE_TOLERANCE = 0.02  # of a rate: WebP keeps whole milliseconds, so 16 fps come back as 15.9


@dataclass(frozen=True)
class Finding:
    """One setting that differs, and what to do."""

    setting: str  # size, frames, fps, start, mirrored, reversed, settings, pictures
    text: str


Differing = Mapping[str, tuple[object, object]]
"""Embedded settings that differ, by name, with the value of either clip."""

# The options of `wan-lora generate` for each setting. Other settings, such as the file format, do not change pictures,
# or are found in the clips themselves.
_OPTIONS = {
    "model": "--model",
    "trigger_word": "--trigger",
    "prompt": "the prompt",
    "neg": "--neg",
    "seed": "--seed",
    "sample_steps": "--steps",
    "guidance_scale": "--guidance",
    "recipe": "--recipe",
    "sampler": "--sampler",
    "shift": "--shift",
    "speed": "--speed",
}
_OF_LORAS = {"path": "--high or --low", "network_multiplier": "--strength", "transformer": "--high and --low"}


def explain(difference: Difference, differing: Differing | None = None) -> list[Finding]:
    """Return what explains the difference between the clips; empty if they show the same."""
    arranged = _arrangement(difference)
    found = [_size(difference), _length(difference), _rate(difference), *arranged]
    findings = [finding for finding in found if finding is not None]
    if arranged or difference.mean_psnr >= SAME_DB:
        return findings
    settings = _settings(differing or {})
    return [*findings, _pictures(difference) if settings is None else settings]


def _settings(differing: Differing) -> Finding | None:
    """Return the finding of the embedded settings, which explain differences that the pictures cannot."""
    told = [
        f"{option} {first} (and not {second})"
        for name, (first, second) in differing.items()
        if (option := _OPTIONS.get(name) or _OF_LORAS.get(name.rpartition(".")[2])) is not None
    ]
    return Finding("settings", f"render with {', '.join(dict.fromkeys(told))}") if told else None


def _size(difference: Difference) -> Finding | None:
    (width, height), (other_width, other_height) = difference.sizes
    if (width, height) == (other_width, other_height):
        return None
    same_shape = abs(width * other_height - height * other_width) <= max(width, height)
    shape = "the same shape" if same_shape else "another shape, so other noise: no other setting can make them alike"
    return Finding(
        "size", f"{width}x{height} against {other_width}x{other_height}, {shape}: render with --size {width}x{height}"
    )


def _length(difference: Difference) -> Finding | None:
    first, second = difference.lengths
    if first == second:
        return None
    return Finding(
        "frames",
        f"{first} frames against {second}: render with --frames {first}; another length is other noise in every frame",
    )


def _rate(difference: Difference) -> Finding | None:
    first, second = difference.rates
    if first is None or second is None or abs(first - second) <= _RATE_TOLERANCE * first:
        return None
    return Finding(
        "fps", f"{first:.4g} frames a second against {second:.4g}: write --fps {first:.0f}; only the speed is another"
    )


def _arrangement(difference: Difference) -> list[Finding]:
    found = []
    if difference.shift:
        late = "later" if difference.shift > 0 else "earlier"
        found.append(
            Finding(
                "start", f"the second one starts {abs(difference.shift)} frames {late}: frames were cut off or added"
            )
        )
    if difference.mirrored:
        found.append(
            Finding("mirrored", f"the second one is mirrored {difference.mirrored}: an editor or a player did it")
        )
    if difference.reversed_in_time:
        found.append(Finding("reversed", "the second one runs backwards"))
    return found


def _pictures(difference: Difference) -> Finding:
    mean, alike, count = difference.mean_psnr, difference.alike_until, len(difference.psnr)
    if 0 < alike < count:
        text = f"alike for {alike} of {count} frames, then apart: another sampler, speed profile or precision"
    elif alike:
        text = (
            f"the same scene, made otherwise ({mean:.1f} dB): another recipe, sampler, strength, checkpoint or number "
            "of steps; --try renders with each recipe and sampler"
        )
    else:
        text = (
            f"other pictures ({mean:.1f} dB): another seed, prompt, trigger word or guidance, or another LoRA; with "
            "all these equal, another recipe: --try renders with the others"
        )
    return Finding("pictures", text)
