"""Gives the LoRAs of a file the scales that its metadata says, where it says any."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from serve_app.loras.formats.adapter_metadata import METADATA_KEY, PARTS, AdapterConfig, Unusable, parse
from serve_app.loras.formats.changes import Change, LowRank
from serve_app.models.architecture import Module
from serve_app.spec import Expert

Placed = tuple[Expert | None, Module, Change]


def apply_metadata(changes: Iterable[Placed], metadata: Mapping[str, str]) -> list[Placed]:
    """`changes` with the scales of the metadata, if it has any.

    Raises:
        Unusable: the metadata cannot be followed, or contradicts the tensors.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        return list(changes)
    configs: dict[Expert | None, AdapterConfig] = {}
    scaled: list[Placed] = []
    for expert, module, change in changes:
        if not isinstance(change, LowRank):
            scaled.append((expert, module, change))
            continue
        if expert not in configs:
            configs[expert] = parse(text, PARTS[1] if expert is Expert.LOW else PARTS[0])
        scaled.append((expert, module, _scaled(change, module, configs[expert])))
    return scaled


def _scaled(change: LowRank, module: Module, config: AdapterConfig) -> LowRank:
    if change.alpha is not None:
        raise Unusable("gives scales, and the file has alpha tensors, too")
    if config.decomposed != (change.magnitude is not None):
        raise Unusable(f"says use_dora: {str(config.decomposed).lower()}, and the tensors say otherwise")
    return replace(change, scale=config.scale(module.name, change.rank))
