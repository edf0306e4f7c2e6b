"""LoRA inspection: look into a file, and report what it holds in words and numbers for a person.

Everything but the norms comes from the header and the alphas, so a report on a full-size file takes milliseconds.

Example:
    report = inspect_file(path, "my_lora_high_noise.safetensors", card, expert=Expert.HIGH)
    report.layout, report.parts[0].ranks, report.recommended.recipe, report.warnings
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from serve_app.files import open_regular
from serve_app.loras.formats import Change, Difference, LoKr, LoraContents, LowRank, SafetensorsHeader, parse
from serve_app.loras.formats.adapter_config import AdapterFile
from serve_app.loras.formats.bounds import DEFAULT_HEADER_BYTES
from serve_app.loras.formats.header import read_header_of
from serve_app.loras.formats.metadata import preview_sampler
from serve_app.loras.formats.norms import NormSummary, summarise
from serve_app.loras.formats.scales import scale_of, wrong_alphas
from serve_app.loras.formats.values import idle_parts, read_alphas
from serve_app.loras.refusals import refuse
from serve_app.loras.report import FileReport, PartReport, RankSummary, RecipeAdvice, ScaleSummary
from serve_app.loras.sides import likely_side
from serve_app.loras.warnings import of_file
from serve_app.models.card import ModelCard
from serve_app.models.families import Family, block, family, ranges
from serve_app.spec import Expert, Recipe, Sampler


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look into a file showed: what a report on it is made of, for any expert."""

    file_name: str
    header: SafetensorsHeader
    contents: LoraContents
    alphas: Mapping[str, float] | None = None  # None if only the header was at hand
    norms: dict[Family, NormSummary] | None = None

    def report(self, card: ModelCard, expert: Expert | None) -> FileReport:
        """Return the report on the file, and on its use for `expert` where that is given."""
        return describe(
            self.header,
            self.contents,
            self.file_name,
            card,
            expert=expert,
            alphas=self.alphas,
            norms=self.norms,
        )


def inspect_file(
    path: Path,
    name: str,
    card: ModelCard,
    *,
    strict: bool = True,
    expert: Expert | None = None,
    norms: bool = False,
    beside: AdapterFile | None = None,
) -> FileReport:
    """Return the report on the file at `path`; see `look_into`, whose errors it raises."""
    return look_into(path, name, card, strict=strict, norms=norms, beside=beside).report(card, expert)


def look_into(
    path: Path,
    name: str,
    card: ModelCard,
    *,
    strict: bool = True,
    norms: bool = False,
    beside: AdapterFile | None = None,
    most_header_bytes: int = DEFAULT_HEADER_BYTES,
) -> Seen:
    """Look into the file at `path`, which is `name` in errors. Reads its header, and some bytes an alpha.

    `beside` is the `adapter_config.json` in its folder. Tensors are read until one is not zero. With `norms`, all of
    them are; without, only `formats.check_file` finds NaN in them.

    Raises:
        LoraInvalid: the file is no LoRA that can be applied; `strict` is explained at `formats.parse`.
        OSError: the file cannot be opened or read.
    """
    with open_regular(path) as stream:
        header = read_header_of(stream, name, most_header_bytes)
        contents = parse(header, card.architecture, name, strict=strict, beside=beside)
        alphas = read_alphas(stream, header, contents)
        refuse(name, wrong_alphas(alphas))
        contents = replace(contents, idle=idle_parts(stream, header, contents, alphas))
        found = summarise(stream, header, contents, alphas, name) if norms else None
    return Seen(name.rsplit("/", 1)[-1], header, contents, alphas, found)


def describe(
    header: SafetensorsHeader,
    contents: LoraContents,
    file_name: str,
    card: ModelCard,
    *,
    expert: Expert | None = None,
    alphas: Mapping[str, float] | None = None,
    norms: dict[Family, NormSummary] | None = None,
) -> FileReport:
    """Return the report on a file with this header and contents, and on its use for `expert` where that is given.

    `alphas` are those of `formats.values.read_alphas`; without them, as where only the header is at hand, `scales` is
    None.
    """
    provenance = contents.provenance
    return FileReport(
        file_name=file_name,
        layout=contents.layout,
        combined=contents.combined,
        parts=tuple(_part(expert, changes, header) for expert, changes in contents.parts.items()),
        dtypes=Counter(info.dtype for info in header.tensors.values()),
        tensors=len(header.tensors),
        size=header.file_size,
        scales=None if alphas is None else _scales(contents, alphas),
        norms=norms,
        trainer=provenance.trainer,
        trained_with=provenance.trained_with,
        trained_step=provenance.step,
        trained_epoch=provenance.epoch,
        base_model=provenance.base_model,
        likely_side=likely_side(file_name, contents) if card.is_pair else None,
        recommended=_advice(provenance.trained_with, card),
        left_out=contents.left_out,
        warnings=tuple(of_file(file_name, contents, expert)),
    )


def warnings_of_pair(high: FileReport, low: FileReport) -> list[str]:
    """Return what differs between the halves of a pair and should not.

    A file on the wrong side is a warning of its own report, and equal content is one of `warnings.of_pair`.
    """
    warnings = []
    for what, one, other in (
        ("AI Toolkit versions", high.trained_with, low.trained_with),
        ("training steps", high.trained_step, low.trained_step),
    ):
        if one is not None and other is not None and one != other:
            warnings.append(f"the two files name different {what}: {one} (high) and {other} (low)")
    return warnings


def _advice(version: str | None, card: ModelCard) -> RecipeAdvice:
    sampler, assumed = preview_sampler(version)
    if version is None or assumed:
        return RecipeAdvice(recipe=Recipe.REFERENCE, sampler=Sampler.UNIPC, shift=None)
    return RecipeAdvice(recipe=Recipe.PREVIEW, sampler=sampler, shift=card.default_shift(sampler))


def _part(expert: Expert | None, changes: Iterable[Change], header: SafetensorsHeader) -> PartReport:
    found = list(changes)
    parameters = {change.parameter for change in found}
    keys = [key for change in found for key in change.keys]
    return PartReport(
        expert=expert,
        kinds=Counter(_kind(change) for change in found),
        families=Counter(family(parameter) for parameter in parameters),
        blocks=ranges({number for parameter in parameters if (number := block(parameter)) is not None}),
        ranks=_ranks(found),
        elements=sum(prod(header.tensors[key].shape) for key in keys),
    )


def _kind(change: Change) -> str:
    match change:
        case LowRank():
            return "lora" if change.magnitude is None else "dora"
        case LoKr():
            return "lokr"
        case Difference():
            return "difference"


def _ranks(changes: Iterable[Change]) -> RankSummary | None:
    ranks = sorted({change.rank for change in changes if not isinstance(change, Difference) and change.rank})
    return RankSummary(min=ranks[0], max=ranks[-1], distinct=tuple(ranks)) if ranks else None


def _scales(contents: LoraContents, alphas: Mapping[str, float]) -> ScaleSummary | None:
    scaled = [change for change in contents.changes() if not isinstance(change, Difference)]
    if not scaled:
        return None
    values = [scale_of(change, alphas) for change in scaled]
    with_alpha = sum(change.alpha in alphas for change in scaled)
    from_metadata = sum(change.scale is not None for change in scaled)
    return ScaleSummary(
        min=min(values),
        max=max(values),
        with_alpha=with_alpha,
        from_metadata=from_metadata,
        implied=len(scaled) - with_alpha - from_metadata,
    )
