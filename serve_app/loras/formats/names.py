"""Which module of the model a name in a file means, whatever stands before it and whichever names it uses."""

from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from serve_app.loras.formats.changes import Layout
from serve_app.models.architecture import Module, WanArchitecture


class Side(Enum):
    """Which expert a name speaks of."""

    UNSAID = auto()
    TRANSFORMER = auto()  # `transformer.`: the high-noise expert where the file has a `transformer_2.`, else unsaid
    HIGH = auto()
    LOW = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """What a name means."""

    module: Module
    side: Side
    layout: Layout


# In order, each at most once: what PEFT puts before a model's names, what a checkpoint does, and the pipeline's parts.
_PREFIXES = (
    {"base_model.model.": Layout.PEFT},
    {"model.diffusion_model.": Layout.AI_TOOLKIT, "diffusion_model.": Layout.AI_TOOLKIT},
)
_PARTS = {"transformer.": Side.TRANSFORMER, "transformer_1.": Side.HIGH, "transformer_2.": Side.LOW}
_UNDERSCORED = {"lora_unet_": Layout.KOHYA, "lycoris_": Layout.LYCORIS}
# Without "transformer_": "lora_unet_transformer_blocks_..." belongs to other models.
_UNDERSCORED_PARTS = {"transformer_1_": Side.HIGH, "transformer_2_": Side.LOW}


def find(stem: str, architecture: WanArchitecture) -> Place | None:
    """What `stem` (a tensor's name without its ending) means in a model of `architecture`; None if it means nothing."""
    for prefix, layout in _UNDERSCORED.items():
        if stem.startswith(prefix):
            return _find_underscored(stem.removeprefix(prefix), layout, architecture)
    return _find_dotted(stem, architecture)


def _find_underscored(rest: str, layout: Layout, architecture: WanArchitecture) -> Place | None:
    part = next((part for part in _UNDERSCORED_PARTS if rest.startswith(part)), "")
    module = _names(architecture).underscored.get(rest.removeprefix(part).replace(".", "_"))
    return Place(module, _UNDERSCORED_PARTS.get(part, Side.UNSAID), layout) if module else None


def _find_dotted(stem: str, architecture: WanArchitecture) -> Place | None:
    layout = None
    for prefixes in _PREFIXES:
        prefix = next((prefix for prefix in prefixes if stem.startswith(prefix)), "")
        stem = stem.removeprefix(prefix)
        layout = layout or prefixes.get(prefix)
    part = next((part for part in _PARTS if stem.startswith(part)), "")
    module = _names(architecture).dotted.get(stem.removeprefix(part))
    if module is None:
        return None
    return Place(module, _PARTS.get(part, Side.UNSAID), layout or (Layout.DIFFUSERS if part else Layout.BARE))


@dataclass(frozen=True, slots=True)
class _Names:
    dotted: dict[str, Module]
    underscored: dict[str, Module]


@lru_cache(maxsize=4)
def _names(architecture: WanArchitecture) -> _Names:
    """Every module under both of its names. Norms answer to either number, because only one of them has parameters."""
    dotted = {name: module for module in architecture.modules for name in (module.name, module.original)}
    return _Names(dotted, {name.replace(".", "_"): module for name, module in dotted.items()})
