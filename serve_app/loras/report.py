"""LoRA inspection report: its fields, typed, as the API and the command line show them.

The docstrings of the fields are their descriptions in the OpenAPI document. `inspection` makes reports.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, WithJsonSchema

from serve_app.loras.formats import Layout
from serve_app.loras.formats.norms import NormSummary
from serve_app.models.families import Family
from serve_app.spec import PAIR, Expert, Recipe, Sampler

# The documentation names the experts of a pair: no file says that it is for a model's only expert.
_PairExpert = Annotated[Expert, WithJsonSchema({"type": "string", "enum": [expert.value for expert in PAIR]})]


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class RankSummary(_Report):
    """Ranks of all low-rank changes and factors."""

    min: int
    """The smallest."""
    max: int
    """The largest."""
    distinct: tuple[int, ...]
    """All that occur, ascending."""


class ScaleSummary(_Report):
    """The factors alpha / rank of all changes that have one; see `changes`, which calls them c."""

    min: float
    """The smallest."""
    max: float
    """The largest."""
    with_alpha: int
    """Changes whose alpha is in the file."""
    from_metadata: int
    """Changes whose factor is in the metadata, or in the adapter_config.json beside the file."""
    implied: int
    """Changes for which nothing is said, and the factor is 1."""


class RecipeAdvice(_Report):
    """The recipe in which the file shows what its training showed."""

    recipe: Recipe
    """For the request's `recipe`."""
    sampler: Sampler
    """What that recipe takes for this file."""
    shift: float | None
    """The sampler's flow shift; null is the base checkpoint's own."""


class PartReport(_Report):
    """What is changed in one expert."""

    expert: _PairExpert | None
    """Null where the file does not say which."""
    kinds: dict[str, int]
    """How many changes are lora, dora, lokr, difference."""
    families: dict[Family, int]
    """How many parameters are changed in each part of the model."""
    blocks: str
    """Which transformer blocks are changed, as in "0-39"."""
    ranks: RankSummary | None
    """Null where nothing is low-rank."""
    elements: int
    """Numbers in its tensors."""


class FileReport(_Report):
    """All of a file, mostly from its header."""

    file_name: str
    """Its last part."""
    layout: Layout
    """The convention by which it names its tensors."""
    combined: bool
    """Whether it holds both experts' changes, told apart by name."""
    parts: tuple[PartReport, ...]
    """One, or one for each expert of a combined file."""
    dtypes: dict[str, int]
    """How many tensors have each."""
    tensors: int
    """How many there are."""
    size: int
    """Bytes."""
    scales: ScaleSummary | None
    """Null where only the header was at hand, or nothing has a scale."""
    norms: dict[Family, NormSummary] | None
    """How strongly each part of the model is changed; on request, and for local files only."""
    trainer: str | None
    """The program that trained it, where its metadata shows that."""
    trained_with: str | None
    """The version of AI Toolkit that trained it."""
    trained_step: int | None
    """Training steps done when it was saved."""
    trained_epoch: int | None
    """Training epochs done when it was saved."""
    base_model: str | None
    """The model that it was trained on, as its metadata names it."""
    likely_side: _PairExpert | None
    """The expert that its name, or a name in its metadata, speaks of."""
    recommended: RecipeAdvice
    """The recipe in which it shows what its training showed."""
    left_out: tuple[str, ...]
    """Tensors that the model has no place for."""
    warnings: tuple[str, ...]
    """What looks like a mistake, or should be known."""
