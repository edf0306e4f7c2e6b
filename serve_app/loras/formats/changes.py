"""Weight changes: LoRA, DoRA, LoKr and plain differences, in one form for every layout of files.

A parsed file is a list of changes. Each changes one parameter of a diffusers `WanTransformer3DModel`, under its name
in `named_parameters()` of the untouched model. With multiplier s and pristine weight W0, in exact arithmetic:

    LowRank     W0 + s * c * (up @ down), c = alpha / r, or `scale` where that is given, without either c = 1
    LowRank with magnitude (DoRA)
                V = W0 + s * c * (up @ down); W = V * magnitude / |V|, the norm taken per output row, or per input
                column if the magnitude has the shape [1, in]; s = 0 is W0 itself
    LoKr        W0 + s * c * kron(w1, w2), c = alpha / r if a factor is itself low-rank of rank r, else 1
    Difference  W0 + s * difference
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from serve_app.loras.formats.metadata import Provenance
from serve_app.models.architecture import UNTITLED
from serve_app.spec import Expert


class Layout(StrEnum):
    """The convention by which a file names its tensors."""

    AI_TOOLKIT = "ai-toolkit"  # diffusion_model.<original names>; ComfyUI's, too
    KOHYA = "kohya"  # lora_unet_<original names with underscores>; kohya's and musubi's
    LYCORIS = "lycoris"  # lycoris_<names with underscores>
    DIFFUSERS = "diffusers"  # transformer.<diffusers names>
    PEFT = "peft"  # base_model.model.<names>
    BARE = "bare"  # the model's own names with nothing before them


@dataclass(frozen=True, slots=True)
class LowRank:
    """`parameter` [out, in] (or a convolution's [out, in, t, h, w]) changes by `up` [out, r] @ `down` [r, in].

    Of a convolution, `down` is [r, in, t, h, w] and `up` [out, r, 1, 1, 1]. `down`, `up`, `alpha` and `magnitude` are
    keys of the file; `scale` is c itself, if the file's metadata tells it, and then there is no `alpha`.
    """

    parameter: str
    down: str
    up: str
    alpha: str | None
    magnitude: str | None
    rank: int
    scale: float | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Return all keys of the file that the change takes."""
        return tuple(key for key in (self.down, self.up, self.alpha, self.magnitude) if key is not None)


@dataclass(frozen=True, slots=True)
class Factor:
    """A matrix under one key, or the product of two: `keys` is (w,) or (a, b), with w = a @ b of rank `rank`."""

    keys: tuple[str, ...]
    rank: int | None


@dataclass(frozen=True, slots=True)
class LoKr:
    """`parameter` [out, in] changes by the Kronecker product of two factors; `alpha` and `scale` as in `LowRank`."""

    parameter: str
    w1: Factor
    w2: Factor
    alpha: str | None
    scale: float | None = None

    @property
    def rank(self) -> int | None:
        """Return r of the low-rank factors, which agree; None if both factors are whole and alpha does not count."""
        return self.w1.rank or self.w2.rank

    @property
    def keys(self) -> tuple[str, ...]:
        """Return all keys of the file that the change takes."""
        return (*self.w1.keys, *self.w2.keys, *([self.alpha] if self.alpha is not None else []))


@dataclass(frozen=True, slots=True)
class Difference:
    """`parameter` changes by the tensor under `key`, of the same number of elements."""

    parameter: str
    key: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Return all keys of the file that the change takes."""
        return (self.key,)


Change = LowRank | LoKr | Difference


@dataclass(frozen=True, slots=True)
class LoraContents:
    """What a LoRA file holds: the result of `parser.parse`, shared by inspection, submission and the runtime.

    `parts` has one entry under None, or, of a combined file, one for each expert. `left_out` names the tensors that
    have no place in the model, which only a lenient parse lets pass. `provenance` is what the metadata claims.
    `remarks` are what a user should know of the file's scales. `adapter_config` is what the file beside it said, as far
    as it counts (see `scales.AdapterFile`).
    """

    layout: Layout
    parts: Mapping[Expert | None, tuple[Change, ...]]
    left_out: tuple[str, ...]
    provenance: Provenance
    model: str = UNTITLED  # title of the served model
    remarks: tuple[str, ...] = ()
    adapter_config: str | None = None
    idle: tuple[Expert | None, ...] | None = None  # parts that change nothing; None as long as no values were read

    @property
    def is_unscaled_peft(self) -> bool:
        """Return whether nothing in the file scales its changes, and it is PEFT's, which keeps alpha beside it."""
        low_rank = [change for change in self.changes() if isinstance(change, LowRank)]
        unscaled = [change.alpha is None and change.scale is None for change in low_rank]
        return self.layout is Layout.PEFT and bool(unscaled) and all(unscaled)

    @property
    def combined(self) -> bool:
        """Return whether the file tells which expert each of its tensors is for."""
        return None not in self.parts

    def changes_for(self, expert: Expert) -> tuple[Change, ...]:
        """Return what the file changes in `expert`; nothing if a combined file has nothing for it."""
        return self.parts.get(expert, ()) if self.combined else self.parts[None]

    def changes(self) -> Iterator[Change]:
        """Yield all that the file changes, part by part."""
        for part in self.parts.values():
            yield from part
