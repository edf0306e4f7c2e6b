"""Scales: the factor c = alpha / rank of each change, from alpha tensors or from the metadata.

The formulas are those of `changes`. A file without either means c = 1: AI Toolkit trains with alpha = rank where it
saves none, and diffusers and ComfyUI read it so.

**Alpha tensors.** Trainers never save an alpha of 0: kohya, LyCORIS and AI Toolkit replace 0 by the rank when they
start, and save the rank. If a file has an alpha of 0 nevertheless, readers disagree: ComfyUI and diffusers divide it by
the rank, so the LoRA does nothing; LyCORIS' own loader replaces it by the rank again. So it is refused.

**Adapter configs.** See `adapter_config`.

**A flat alpha.** Some tools keep one number in the metadata (`lora_alpha`, `network_alpha`, `alpha`) and save no alpha
tensors: the scale of each change is alpha / its rank. `ss_network_alpha` is not one of these entries: kohya and musubi
save alpha tensors beside it, and converters that remove the tensors multiply them into the weights.

If several of these sources give scales, they must agree.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt

from serve_app.loras.formats.adapter_config import BESIDE, AdapterConfig, AdapterFile, MetadataUnusable
from serve_app.loras.formats.changes import Change, Difference, LoKr, LoraContents, LowRank
from serve_app.loras.formats.metadata import ADAPTER_METADATA
from serve_app.loras.refusals import Fault
from serve_app.models.architecture import Module
from serve_app.spec import Expert

Placed = tuple[Expert | None, Module, Change]
"""A change with the expert and the module that it is for."""


def scale_of(change: LowRank | LoKr, alphas: Mapping[str, float]) -> float:
    """Return c of the change. `alphas` are the values under `alpha_keys`."""
    if change.scale is not None:
        return change.scale
    if change.alpha is None or change.rank is None:
        return 1.0
    return alphas[change.alpha] / change.rank


def alpha_keys(contents: LoraContents) -> tuple[str, ...]:
    """Return the keys of all alphas that count, in the order of the changes."""
    return tuple(
        change.alpha
        for change in contents.changes()
        if isinstance(change, LowRank | LoKr) and change.alpha is not None and change.rank is not None
    )


def unused_keys(contents: LoraContents) -> frozenset[str]:
    """Return the keys whose values nothing reads: tensors left out, and the alphas of LoKrs with two whole factors.

    AI Toolkit saves such a LoKr (`lokr_full_rank`) with an alpha of 9999999999, which is infinite in float16.
    """
    idle = (change.alpha for change in contents.changes() if isinstance(change, LoKr) and change.rank is None)
    return frozenset((*contents.left_out, *(alpha for alpha in idle if alpha is not None)))


def wrong_alphas(alphas: Mapping[str, float]) -> Fault | None:
    """Return the fault of alphas that cannot be applied: 0, negative, or not finite."""
    zero = [key for key, value in alphas.items() if value == 0]
    if zero:
        reason = "an alpha is 0, which some programs read as no effect and others as the rank; export it without alpha"
        return Fault(reason, zero)
    wrong = [key for key, value in alphas.items() if value < 0 or not isfinite(value)]
    if wrong:
        return Fault(f"an alpha is negative or no number ({alphas[wrong[0]]:g}); export it again", wrong)
    return None


_CONFIG_ENTRIES = (ADAPTER_METADATA, "adapter_config", "peft_config", "lora_config")
_FLAT_ALPHAS = frozenset({"loraalpha", "networkalpha", "alpha"})  # without case and separators
_NESTED_ALPHAS = _FLAT_ALPHAS | {"linearalpha", "networklinearalpha"}
_FLAT_SCALES = frozenset(
    {"scale", "scaling", "lorascale", "lorascaling", "multiplier", "loramultiplier", "loraweight", "strength"}
)
_FLAT_RANKS = frozenset({"lorarank", "networkrank", "rank", "loradim", "networkdim", "dim", "r"})
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf)", re.ASCII | re.IGNORECASE)
_LONGEST_JSON = 100_000  # characters of an entry that is searched
_MOST_REMARKS = 3  # on unknown entries
_IDLE_ALPHA = "ss_network_alpha"
_LONGEST_NUMBER = 50  # characters
_LONGEST_NAME = 200  # characters of an entry's name


@dataclass(frozen=True, slots=True)
class Scaled:
    """Changes with the scales that were found for them, and remarks for the user."""

    changes: list[Placed]
    remarks: tuple[str, ...]


def apply_metadata(changes: Iterable[Placed], metadata: Mapping[str, str], beside: AdapterFile | None) -> Scaled:
    """Return `changes` with the scales of the metadata or of the file beside it; unchanged if there are none.

    Raises:
        MetadataUnusable: the scales cannot be applied, or contradict the tensors or each other.
    """
    placed, remarks = list(changes), list[str]()
    sources = [AdapterConfig(f"its metadata entry {name!r}", text) for name, text in _config_entries(metadata)]
    if beside is not None and beside.certain:
        sources.append(AdapterConfig(BESIDE, beside.text))
    flat = _flat_alpha(metadata, remarks)
    has_alphas = any(not isinstance(change, Difference) and change.alpha is not None for _, _, change in placed)
    if flat is not None and has_alphas:
        remarks.append(f"the alpha {flat.alpha:g} in its metadata is not applied, as it has alpha tensors")
        flat = None
    scaled = [(expert, module, _scaled(change, expert, module, sources, flat)) for expert, module, change in placed]
    if beside is not None and not beside.certain:
        remarks.append(f"{BESIDE} is not applied, as it may be another file's; lay the two into a folder of their own")
    if flat is not None:
        remarks.extend(_other_ranks(placed, metadata))
    elif not has_alphas and not sources:
        remarks.extend(_idle_alphas(placed, metadata))
    remarks.extend(_idle_entries(placed, metadata))
    return Scaled(scaled, tuple(remarks))


def _config_entries(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the entries that hold a `LoraConfig`; entries with other names count if they look like one."""
    found = [(name, metadata[name]) for name in _CONFIG_ENTRIES if name in metadata]
    return [(name, text) for name, text in found if _is_config(name, text)]


def _is_config(name: str, text: str) -> bool:
    return name == ADAPTER_METADATA or '"lora_alpha"' in text


def _idle_entries(placed: Iterable[Placed], metadata: Mapping[str, str]) -> Iterable[str]:
    """Yield a remark on each entry that says how the file acts, other than by an alpha, and is not followed."""
    for name in _CONFIG_ENTRIES:
        if metadata.get(name, "").strip() and not _is_config(name, metadata[name]):
            yield f"its metadata entry {name!r} is not applied: it holds no lora_alpha"
    decomposed = metadata.get("use_dora", "").strip().lower() in ("true", "1")
    if decomposed and not any(isinstance(change, LowRank) and change.magnitude for _, _, change in placed):
        yield "its metadata says use_dora, and it has no magnitudes: it is applied as a LoRA"
    scales = ((name, text.strip()) for name, text in metadata.items() if _plain(name) in _FLAT_SCALES)
    said = [f"{name[:_LONGEST_NAME]!r} ({text})" for name, text in scales if _is_number(text) and float(text) != 1]
    if said:
        yield f"its metadata entry {said[0]} is not applied: it may be a scale, which the request's multiplier can give"


@dataclass(frozen=True, slots=True)
class _Flat:
    """One alpha for all changes."""

    alpha: float
    rank_stabilised: bool

    def scale(self, rank: int) -> float:
        return self.alpha / (sqrt(rank) if self.rank_stabilised else rank)


def _flat_alpha(metadata: Mapping[str, str], remarks: list[str]) -> _Flat | None:
    found = {}
    for name, text in ((name, text.strip()) for name, text in metadata.items() if _plain(name) in _FLAT_ALPHAS):
        if not text:
            continue
        if not _NUMBER.fullmatch(text):
            remarks.append(f"its metadata entry {name!r} is no number ({text[:_LONGEST_NUMBER]!r}) and is not applied")
            continue
        found[name] = float(text) if len(text) <= _LONGEST_NUMBER else float("nan")
        if not 0 < found[name] < inf:
            raise MetadataUnusable(f"its metadata entry {name!r} is no number above 0")
    if len(set(found.values())) > 1:
        values = ", ".join(f"{name} {value:g}" for name, value in found.items())
        raise MetadataUnusable(f"its metadata gives several alphas ({values})")
    stabilised = metadata.get("use_rslora", "").strip().lower() in ("true", "1")
    return _Flat(next(iter(found.values())), stabilised) if found else None


def _plain(name: str) -> str:
    """Return a name without case and separators: `network_alpha` and `networkAlpha` are one."""
    return re.sub("[^a-z]", "", name[:_LONGEST_NAME].lower())


def _idle_alphas(placed: Iterable[Placed], metadata: Mapping[str, str]) -> Iterable[str]:
    """Yield a remark on each entry that gives an alpha other than the rank, and whose meaning is not certain."""
    ranks = {change.rank for _, _, change in placed if not isinstance(change, Difference) and change.rank}
    unknown = []
    for name, text in metadata.items():
        alpha = None if name == ADAPTER_METADATA else _nested_alpha(text)
        if alpha is not None and any(_differs(str(alpha), rank) for rank in ranks) and _is_number(str(alpha)):
            shown = str(alpha)[:_LONGEST_NUMBER]
            unknown.append(f"its metadata entry {name[:_LONGEST_NAME]!r} has an alpha ({shown}), which is not applied")
    for name, text in ((name, text.strip()) for name, text in metadata.items() if "alpha" in _plain(name)):
        if not text or text == "None" or not any(_differs(text, rank) for rank in ranks):
            continue
        shown = text[:_LONGEST_NUMBER]
        if name == _IDLE_ALPHA:
            yield (
                f"its {name} {shown} is not applied: it has no alpha tensors, and programs that remove them multiply "
                "them into the weights"
            )
        elif _plain(name) not in _FLAT_ALPHAS and _is_number(text):
            unknown.append(f"its metadata entry {name[:_LONGEST_NAME]!r} ({shown}) is not applied: it may be an alpha")
    yield from unknown[:_MOST_REMARKS]


def _other_ranks(placed: Iterable[Placed], metadata: Mapping[str, str]) -> Iterable[str]:
    """Yield a remark where a flat alpha stands beside a rank that the tensors do not have, as after a resize."""
    ranks = {change.rank for _, _, change in placed if not isinstance(change, Difference) and change.rank}
    for name, text in ((name, text.strip()) for name, text in metadata.items() if _plain(name) in _FLAT_RANKS):
        other = next((rank for rank in sorted(ranks) if _is_number(text) and _differs(text, rank)), None)
        if other is not None:
            yield (
                f"its alpha is divided by the rank of its tensors ({other}), and its metadata entry "
                f"{name[:_LONGEST_NAME]!r} says {text}"
            )


def _nested_alpha(text: str) -> object:
    """Return the alpha that an entry of JSON holds at any depth; None if it holds none."""
    if not text.startswith("{") or len(text) > _LONGEST_JSON or "alpha" not in text.lower():
        return None
    try:
        waiting: list[object] = [json.loads(text)]
    except (ValueError, RecursionError):
        return None
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found = (each for key, each in value.items() if _plain(key) in _NESTED_ALPHAS)
            alpha = next((each for each in found if isinstance(each, int | float | str)), None)
            if alpha is not None:
                return alpha
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return None


def _is_number(text: str) -> bool:
    return len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text) is not None and isfinite(float(text))


def _differs(text: str, rank: int) -> bool:
    return not _is_number(text) or float(text) != rank


def _scaled(
    change: Change, expert: Expert | None, module: Module, configs: Iterable[AdapterConfig], flat: _Flat | None
) -> Change:
    if isinstance(change, Difference) or change.rank is None:
        return change
    scales = {}
    if isinstance(change, LowRank):
        scales = {config.source: config.scale(change, expert, module) for config in configs}
    if flat is not None:
        scales["the alpha in its metadata"] = flat.scale(change.rank)
    if len(set(scales.values())) > 1:
        values = ", ".join(f"{source}: {scale:g}" for source, scale in scales.items())
        raise MetadataUnusable(f"what it says of the scale of {module.name} differs ({values})")
    return replace(change, scale=next(iter(scales.values()))) if scales else change
