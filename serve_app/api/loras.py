"""LoRA inspection: `POST /v1/loras/inspect` reports what files contain, without rendering anything."""

import asyncio
from collections.abc import Mapping, Sequence

from fastapi import APIRouter, Request

from serve_app.access.keys import Scope
from serve_app.api.dependencies import SenderDep, ServicesDep, fetcher_of
from serve_app.api.guard import needs
from serve_app.api.json_body import JsonRoute
from serve_app.api.schemas.bodies import LoraItem
from serve_app.api.schemas.errors import UNREADABLE_BODY, ErrorBody, refusal
from serve_app.api.schemas.inspection import InspectedFile, Inspection, InspectionRequest
from serve_app.echo import cut
from serve_app.errors import ServiceError
from serve_app.loras.inspection import warnings_of_pair
from serve_app.loras.resolver import InspectedLora, Looks
from serve_app.loras.sources import shown
from serve_app.loras.warnings import of_pair
from serve_app.spec import PAIR, Expert

router = APIRouter(tags=["loras"], route_class=JsonRoute)


@router.post(
    "/v1/loras/inspect",
    responses=refusal(400, "The body is damaged, or names a model that is not served.") | UNREADABLE_BODY,
)
@needs(Scope.READ)
async def inspect_loras(
    body: InspectionRequest, request: Request, services: ServicesDep, sender: SenderDep
) -> Inspection:
    """Return what LoRA files hold, their likely expert, the recipe that shows them as their previews did, warnings.

    A file that cannot be used has an error in its place, and does not hide the others.
    """
    models = list(services.models.values()) if body.model is None else [services.served(body.model)]
    looks = {
        model.card.id: model.loras.looks(sender=fetcher_of(request, sender), token=body.hf_token, owner=sender.owner)
        for model in models
    }
    found = await asyncio.gather(*(_inspect(item, body, looks) for item in body.loras))
    return Inspection(
        files=[_file(item, results) for item, results in zip(body.loras, found, strict=True)],
        warnings=_warnings([result for results in found if isinstance(result := _best(results), InspectedLora)]),
    )


Results = Mapping[str, InspectedLora | ServiceError]
"""The report on one file, or the error, for each model by its id."""


async def _inspect(item: LoraItem, body: InspectionRequest, looks: Mapping[str, Looks]) -> Results:
    return {model: await _inspect_for(of_model, item, body) for model, of_model in looks.items()}


async def _inspect_for(looks: Looks, item: LoraItem, body: InspectionRequest) -> InspectedLora | ServiceError:
    try:
        return await looks.inspect(item.path, item.expert, norms=body.norms)
    except ServiceError as error:
        return error


def _best(results: Results) -> InspectedLora | ServiceError:
    """Return the report for the first model that can use the file, or else why the first of all cannot."""
    first = next(iter(results.values()))
    return next((result for result in results.values() if isinstance(result, InspectedLora)), first)


def _file(item: LoraItem, results: Results) -> InspectedFile:
    best = _best(results)
    fits = [model for model, result in results.items() if isinstance(result, InspectedLora)]
    if isinstance(best, InspectedLora):
        return InspectedFile(path=best.reference, transformer=item.transformer, models=fits, report=best.report)
    error = ErrorBody.model_validate(best.body()["error"])
    return InspectedFile(path=cut(shown(item.path)), transformer=item.transformer, models=fits, error=error)


def _warnings(found: Sequence[InspectedLora]) -> list[str]:
    separate = [lora for lora in found if lora.expert is not None and not lora.report.combined]
    same = of_pair((lora.expert, lora.identity) for lora in separate if lora.expert is not None)
    by_side = {lora.expert: lora.report for lora in separate}
    if len(separate) != len(PAIR) or len(by_side) != len(PAIR):
        return same
    return [*same, *warnings_of_pair(by_side[Expert.HIGH], by_side[Expert.LOW])]
