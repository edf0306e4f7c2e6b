"""Provenance: what the metadata of a safetensors header says about the training of the file.

Every entry is a claim of the file's author. A malformed entry counts as absent, and no entry makes this module raise.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from packaging.version import InvalidVersion, Version

from serve_app.models.foreign import other_base_model
from serve_app.spec import Sampler

ADAPTER_METADATA = "lora_adapter_metadata"
"""The entry in which diffusers keeps a PEFT `LoraConfig`; `scales` reads it."""

_BASE_VERSION = "ss_base_model_version"  # of kohya's scripts, musubi-tuner and AI Toolkit
_MODEL_SPEC = "modelspec.architecture"  # https://github.com/Stability-AI/ModelSpec
_NAMES = ("ss_output_name", "name")  # kohya's and AI Toolkit's name of the training

_AI_TOOLKIT = "ai-toolkit"
_LONGEST_VERSION = 50
_LONGEST_ENTRY = 100_000  # characters; a longer entry is not parsed
_LONGEST_NAME = 1000  # of a name, from which hints are read
_LONGEST_TEXT = 200  # of a text that is only shown

# AI Toolkit changed the sampler of its previews between these two; copies of 0.9.3 exist with either.
_LAST_WITH_UNIPC = Version("0.9.2")
_FIRST_WITH_EULER = Version("0.9.4")

# How the value of `ss_network_module` begins -> the trainer. In this order: "networks." alone is kohya's.
_TRAINERS = (
    ("networks.lora_wan", "musubi-tuner"),
    ("networks.", "kohya"),
    ("lycoris.", "LyCORIS"),
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a file says about its origin. A field is None if the metadata does not say it.

    It takes at most a few kilobytes, so it can be cached. The metadata itself may hold megabytes, such as kohya's list
    of all tags.
    """

    trainer: str | None = None  # program, with its version if that is AI Toolkit's
    trained_with: str | None = None  # version of AI Toolkit, as `packaging.version` reads it
    step: int | None = None  # training steps done when the file was saved
    epoch: int | None = None  # likewise, epochs
    base_model: str | None = None  # as the file names it
    other_base: str | None = None  # title of the base model, if that is another than the served one
    names: tuple[str, ...] = ()  # what the training was called


class PreviewSampler(NamedTuple):
    """The sampler of AI Toolkit's previews; `assumed` where its version does not tell."""

    sampler: Sampler
    assumed: bool


def read_provenance(metadata: Mapping[str, str], served: str) -> Provenance:
    """Return what the metadata of a header says of the training. `served` is the title of the served model."""
    version = _trained_with(metadata)
    info = _json_object(metadata.get("training_info"))  # AI Toolkit's; kohya's entries begin with "ss_"
    base = metadata.get(_BASE_VERSION) or metadata.get(_MODEL_SPEC)
    base_version, model_spec = (metadata.get(key, "")[:_LONGEST_NAME] for key in (_BASE_VERSION, _MODEL_SPEC))
    return Provenance(
        trainer=_trainer(metadata, version),
        trained_with=version,
        step=_count(info.get("step", metadata.get("ss_steps"))),
        epoch=_count(info.get("epoch", metadata.get("ss_epoch"))),
        base_model=base[:_LONGEST_TEXT] if base else None,
        other_base=other_base_model(base_version, model_spec, served),
        names=tuple(metadata[key][:_LONGEST_NAME] for key in _NAMES if key in metadata),
    )


def preview_sampler(version: str | None) -> PreviewSampler:
    """Return the sampler of the previews that this version of AI Toolkit shows during training."""
    parsed = _parsed(version) if version else None
    if parsed is not None and parsed <= _LAST_WITH_UNIPC:
        return PreviewSampler(Sampler.UNIPC, assumed=False)
    known = parsed is not None and parsed >= _FIRST_WITH_EULER
    return PreviewSampler(Sampler.EULER, assumed=not known)


def _trained_with(metadata: Mapping[str, str]) -> str | None:
    software = _json_object(metadata.get("software"))
    version = software.get("version")
    if software.get("name") != _AI_TOOLKIT or not isinstance(version, str) or len(version) > _LONGEST_VERSION:
        return None
    return version if _parsed(version) else None


def _trainer(metadata: Mapping[str, str], version: str | None) -> str | None:
    if _json_object(metadata.get("software")).get("name") == _AI_TOOLKIT:
        return f"AI Toolkit {version}" if version else "AI Toolkit"
    module = metadata.get("ss_network_module", "")
    known = next((name for start, name in _TRAINERS if module.startswith(start)), None)
    return known or ("diffusers" if ADAPTER_METADATA in metadata else None)


@lru_cache(maxsize=1024)
def _parsed(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:
        return None


def _json_object(text: str | None) -> dict[str, Any]:
    if text is None or len(text) > _LONGEST_ENTRY:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < len(str(2**63)):
        return int(value)
    return value if type(value) is int and 0 <= value < 2**63 else None
