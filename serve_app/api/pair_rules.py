"""Which LoRAs a request means for which expert: the reference server's rules, and what goes beyond them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.api.request_schema import InferenceRequest, LoraItem
from serve_app.api.services import Services
from serve_app.errors import (
    LoraFileRequired,
    LoraInvalid,
    LoraNotFound,
    LoraPathRefused,
    MoeFormatRequired,
    SingleMoeConfigOnly,
)
from serve_app.loras.refusals import invalid
from serve_app.loras.resolver import ResolvedLora
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
"""Files that hold both experts, by the index of the item that names them without an expert."""


async def check_pair(body: InferenceRequest, services: Services) -> Combined:
    """The rules on who may stand in `loras`, in the reference server's order.

    Raises:
        LoraFileRequired, MoeFormatRequired, SingleMoeConfigOnly: a rule stands against it.
        LoraInvalid, LoraSourceUnavailable: what an item without an expert names cannot be looked into.
    """
    card = services.plan.card
    if not body.loras:
        raise LoraFileRequired("At least one LoRA is required", _details(body))
    combined = await _combined_files(body, services, card)
    _check_counts(body, combined, card, services.plan.settings.max_loras_per_side)
    return combined


async def choose_loras(body: InferenceRequest, combined: Combined, services: Services) -> list[ChosenLora]:
    """Every LoRA of the request with its expert, in the request's order; the rules have been checked.

    Raises:
        RequestError: a file stands against it.
        LoraSourceUnavailable: the server that a file comes from does not answer as it should.
    """
    resolved = await _resolve_all(body, combined, services)
    return [chosen for item, file in zip(body.loras, resolved, strict=True) for chosen in _for_experts(item, file)]


def _details(body: InferenceRequest) -> dict[str, object]:
    return {"loras": [{**lora.model_dump(mode="json"), "path": shown(lora.path)} for lora in body.loras]}


async def _combined_files(body: InferenceRequest, services: Services, card: ModelCard) -> Combined:
    """The files of the items that name no expert, by index; each must say itself what it has for whom."""
    found = {}
    for index, item in enumerate(body.loras):
        if item.transformer is None:
            file = await _resolve_combined(item, body, services)
            if file is None:
                raise MoeFormatRequired(
                    f"Model '{card.id}' has two experts: each item of `loras` must say `transformer`: \"low\" or "
                    '"high", unless its file holds both experts',
                    _details(body),
                )
            found[index] = file
    return found


async def _resolve_combined(item: LoraItem, body: InferenceRequest, services: Services) -> ResolvedLora | None:
    try:
        file = await _resolve(item, body, services)
    except (LoraNotFound, LoraPathRefused):
        return None  # the missing expert is the fault that the reference server names first
    return file if file.contents.combined else None


def _check_counts(body: InferenceRequest, combined: Combined, card: ModelCard, limit: int) -> None:
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


async def _resolve_all(body: InferenceRequest, combined: Combined, services: Services) -> list[ResolvedLora]:
    """Every file, together; those that are missing are named together, as the reference does."""
    rest = [(index, item) for index, item in enumerate(body.loras) if index not in combined]
    results = await asyncio.gather(*(_resolve(item, body, services) for _, item in rest), return_exceptions=True)
    missing = [name for found in results if isinstance(found, LoraNotFound) for name in found.details["missing_files"]]
    if missing:
        raise LoraNotFound(f"LoRA file(s) not found: {missing}", {"missing_files": missing})
    files = dict(combined)
    for (index, _), found in zip(rest, results, strict=True):
        if isinstance(found, BaseException):
            raise found
        files[index] = found
    return [files[index] for index in range(len(body.loras))]


def _resolve(item: LoraItem, body: InferenceRequest, services: Services) -> asyncio.Future[ResolvedLora]:
    return services.loras.resolve(item.path, token=body.hf_token, expert=item.expert, strict=body.strict)


def _for_experts(item: LoraItem, file: ResolvedLora) -> Sequence[ChosenLora]:
    multiplier = 1.0 if item.network_multiplier is None else item.network_multiplier
    if item.expert is None:
        return [ChosenLora(side, multiplier, file) for side in file.contents.parts if side is not None]
    if not file.contents.changes_for(item.expert):
        raise _nothing_for(item.expert, file)
    return [ChosenLora(item.expert, multiplier, file)]


def _nothing_for(expert: Expert, file: ResolvedLora) -> LoraInvalid:
    other = Expert.LOW if expert is Expert.HIGH else Expert.HIGH
    reason = f"it holds nothing for the {expert.value} noise expert; send it with transformer: {other.value}"
    return invalid(file.reference, reason)
