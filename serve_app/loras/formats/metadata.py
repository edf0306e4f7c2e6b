"""What a file's metadata tells of its training. All of it is a claim: malformed entries count as absent."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from packaging.version import InvalidVersion, Version

from serve_app.loras.formats.adapter_metadata import METADATA_KEY
from serve_app.spec import Sampler

_AI_TOOLKIT = "ai-toolkit"
_LONGEST_VERSION = 50
_LONGEST_ENTRY = 100_000  # characters; above, an entry is not worth parsing

# AI Toolkit's previews changed their scheduler between these two; 0.9.3 was built with either.
_LAST_WITH_UNIPC = Version("0.9.2")
_FIRST_WITH_EULER = Version("0.9.4")

# How the network module that kohya's scripts write begins.
_TRAINERS = (
    ("networks.lora_wan", "musubi-tuner"),
    ("networks.", "kohya"),
    ("lycoris.", "LyCORIS"),
)


class PreviewSampler(NamedTuple):
    """The scheduler of AI Toolkit's previews; `assumed` where its version does not tell."""

    sampler: Sampler
    shift: float
    assumed: bool


class Training(NamedTuple):
    """How far the training was when the file was saved."""

    step: int | None
    epoch: int | None


def trained_with(metadata: Mapping[str, str]) -> str | None:
    """The version of AI Toolkit that trained the file, as `packaging.version` reads it; None if another did."""
    software = _json_object(metadata.get("software"))
    version = software.get("version")
    if software.get("name") != _AI_TOOLKIT or not isinstance(version, str) or len(version) > _LONGEST_VERSION:
        return None
    return version if _parsed(version) else None


def trainer(metadata: Mapping[str, str]) -> str | None:
    """The program that trained the file, where its metadata shows that."""
    software = _json_object(metadata.get("software")).get("name")
    if software == _AI_TOOLKIT:
        version = trained_with(metadata)
        return f"AI Toolkit {version}" if version else "AI Toolkit"
    module = metadata.get("ss_network_module", "")
    known = next((name for start, name in _TRAINERS if module.startswith(start)), None)
    return known or ("diffusers" if METADATA_KEY in metadata else None)


def preview_sampler(version: str | None) -> PreviewSampler:
    """The scheduler of the previews that this version of AI Toolkit shows during training."""
    parsed = _parsed(version) if version else None
    if parsed is not None and parsed <= _LAST_WITH_UNIPC:
        return PreviewSampler(Sampler.UNIPC, 3.0, assumed=False)
    known = parsed is not None and parsed >= _FIRST_WITH_EULER
    return PreviewSampler(Sampler.EULER, 5.0, assumed=not known)


def training(metadata: Mapping[str, str]) -> Training:
    """Step and epoch, as AI Toolkit (`training_info`) or kohya (`ss_steps`, `ss_epoch`) writes them."""
    info = _json_object(metadata.get("training_info"))
    return Training(
        _count(info.get("step", metadata.get("ss_steps"))), _count(info.get("epoch", metadata.get("ss_epoch")))
    )


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
