"""LoRA rules: which LoRA of a request is for which expert, by the reference server's rules and this service's own.

Example:
    combined = await check_loras(body, looks, served)         # may these items be combined?
    chosen = await choose_loras(body, combined, looks, served)  # the files, checked, each with its expert

A model with a pair of experts takes items that name one of them, or a file that holds both. A model with one expert
takes items that name none.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from serve_app.api.schemas.bodies import InferenceRequest, LoraItem
from serve_app.api.served import ServedModel
from serve_app.errors import (
    LoraFileRequired,
    LoraInvalid,
    LoraNotFound,
    LoraPathRefused,
    MoeFormatNotSupported,
    MoeFormatRequired,
    SingleLoraOnly,
    SingleMoeConfigOnly,
)
from serve_app.loras.library import ResolvedLora
from serve_app.loras.paths import not_found
from serve_app.loras.refusals import invalid
from serve_app.loras.resolver import Looks
from serve_app.loras.sources import shown
from serve_app.models.card import ModelCard
from serve_app.spec import PAIR, Expert


@dataclass(frozen=True, slots=True)
class ChosenLora:
    """One LoRA for one expert."""

    expert: Expert
    multiplier: float
    file: ResolvedLora


Combined = dict[int, ResolvedLora]
"""Files that hold both experts of a pair, by the index of the item that names them without an expert."""


async def check_loras(body: InferenceRequest, looks: Looks, served: ServedModel) -> Combined:
    """Check whether the items of `loras` may be combined, in the reference server's order; return the combined files.

    Raises:
        LoraFileRequired: there is none.
        MoeFormatRequired, SingleMoeConfigOnly: an item against the rules for a pair of experts.
        MoeFormatNotSupported, SingleLoraOnly: an item against the rules for one expert.
        LoraInvalid, LoraSourceUnavailable, TooManyFetches: what an item without an expert names cannot be looked into.
    """
    card, limit = served.card, served.plan.settings.max_loras_per_side
    if not body.loras:
        raise LoraFileRequired("At least one LoRA is required", _details(body))
    if not card.is_pair:
        _check_for_one_expert(body, card, limit)
        return {}
    combined = await _combined_files(body, looks, card)
    _check_sides(body, combined, card, limit)
    return combined


async def choose_loras(
    body: InferenceRequest, combined: Combined, looks: Looks, served: ServedModel
) -> list[ChosenLora]:
    """Return every LoRA of the request with its expert, in the request's order; `check_loras` has passed.

    Raises:
        RequestError: a file cannot be used.
        LoraSourceUnavailable, TooManyFetches: the server of a file does not deliver it, or too many are being read.
    """
    resolved = await _resolve_all(body, combined, looks)
    choose = _for_pair if served.card.is_pair else _for_only_expert
    return [chosen for item, file in zip(body.loras, resolved, strict=True) for chosen in choose(item, file)]


def _details(body: InferenceRequest) -> dict[str, object]:
    return {"loras": [{**lora.model_dump(mode="json"), "path": shown(lora.path)} for lora in body.loras]}


def _check_for_one_expert(body: InferenceRequest, card: ModelCard, limit: int) -> None:
    if any(item.transformer is not None for item in body.loras):
        raise MoeFormatNotSupported(
            f"Model '{card.id}' has one expert: remove `transformer` from each item of `loras`", _details(body)
        )
    if len(body.loras) > limit:
        takes = "one LoRA" if limit == 1 else f"up to {limit} LoRAs"
        raise SingleLoraOnly(f"Model '{card.id}' takes {takes}", _details(body))


async def _combined_files(body: InferenceRequest, looks: Looks, card: ModelCard) -> Combined:
    """Return the files of the items that name no expert, by index; each must hold both."""
    found = {}
    for index, item in enumerate(body.loras):
        if item.transformer is None:
            file = await _resolve_combined(item, body, looks)
            if file is None:
                raise MoeFormatRequired(
                    f"Model '{card.id}' has two experts: each item of `loras` must say `transformer`: \"low\" or "
                    '"high", unless its file holds both experts',
                    _details(body),
                )
            found[index] = file
    return found


async def _resolve_combined(item: LoraItem, body: InferenceRequest, looks: Looks) -> ResolvedLora | None:
    try:
        file = await _resolve(item, body, looks)
    except (LoraNotFound, LoraPathRefused):
        return None  # the reference server reports the missing expert first
    return file if file.contents.combined else None


def _check_sides(body: InferenceRequest, combined: Combined, card: ModelCard, limit: int) -> None:
    sides = [
        side
        for index, item in enumerate(body.loras)
        for side in ([item.expert] if item.expert else combined[index].contents.parts)
    ]
    if all(sides.count(expert) <= limit for expert in PAIR):
        return
    takes = "one low/high LoRA pair" if limit == 1 else f"up to {limit} LoRAs for each expert"
    at_most = "once" if limit == 1 else f"{limit} times"
    raise SingleMoeConfigOnly(
        f"Model '{card.id}' takes {takes}: each of `transformer` low and high at most {at_most}", _details(body)
    )


async def _resolve_all(body: InferenceRequest, combined: Combined, looks: Looks) -> list[ResolvedLora]:
    """Return every file, looked up together; those that are missing are named together, as in the reference."""
    rest = [(index, item) for index, item in enumerate(body.loras) if index not in combined]
    results = await asyncio.gather(*(_resolve(item, body, looks) for _, item in rest), return_exceptions=True)
    absent = [found.details for found in results if isinstance(found, LoraNotFound)]
    if absent:
        near = {name: path for details in absent for name, path in details.get("did_you_mean", {}).items()}
        raise not_found([name for details in absent for name in details["missing_files"]], near)
    files = dict(combined)
    for (index, _), found in zip(rest, results, strict=True):
        if isinstance(found, BaseException):
            raise found
        files[index] = found
    return [files[index] for index in range(len(body.loras))]


def _resolve(item: LoraItem, body: InferenceRequest, looks: Looks) -> Awaitable[ResolvedLora]:
    return looks.resolve(item.path, item.expert, strict=body.strict)


def _for_pair(item: LoraItem, file: ResolvedLora) -> Sequence[ChosenLora]:
    if item.expert is None:
        return [ChosenLora(side, _multiplier(item), file) for side in file.contents.parts if side is not None]
    if not file.contents.changes_for(item.expert):
        raise _nothing_for(item.expert, file)
    return [ChosenLora(item.expert, _multiplier(item), file)]


def _for_only_expert(item: LoraItem, file: ResolvedLora) -> Sequence[ChosenLora]:
    if None not in file.contents.parts:
        raise invalid(file.reference, "it is for a model with two experts, high and low noise; this model has one")
    return [ChosenLora(Expert.ONLY, _multiplier(item), file)]


def _multiplier(item: LoraItem) -> float:
    return 1.0 if item.network_multiplier is None else item.network_multiplier


def _nothing_for(expert: Expert, file: ResolvedLora) -> LoraInvalid:
    other = Expert.LOW if expert is Expert.HIGH else Expert.HIGH
    reason = f"it holds nothing for the {expert.value} noise expert; send it with transformer: {other.value}"
    return invalid(file.reference, reason)
