"""LoRA inspection: what files hold, told without rendering anything."""

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter

from serve_app.api.dependencies import Services, ServicesDep
from serve_app.api.json_body import JsonRoute
from serve_app.api.schemas.bodies import LoraItem
from serve_app.api.schemas.errors import UNREADABLE_BODY, ErrorBody, refusal
from serve_app.api.schemas.inspection import InspectedFile, Inspection, InspectionRequest
from serve_app.echo import cut
from serve_app.errors import ServiceError
from serve_app.loras.report import warnings_of_pair
from serve_app.loras.resolver import InspectedLora
from serve_app.loras.sources import shown
from serve_app.loras.warnings import of_pair
from serve_app.spec import PAIR, Expert

router = APIRouter(tags=["loras"], route_class=JsonRoute)


@router.post("/v1/loras/inspect", responses=refusal(400, "The body is damaged.") | UNREADABLE_BODY)
async def inspect_loras(body: InspectionRequest, services: ServicesDep) -> Inspection:
    """Return what LoRA files hold, their likely expert, the recipe that shows them as their previews did, warnings.

    A file that cannot be used has an error in its place, and does not hide the others.
    """
    found = await asyncio.gather(*(_inspect(item, body, services) for item in body.loras))
    return Inspection(
        files=[_file(item, result) for item, result in zip(body.loras, found, strict=True)],
        warnings=_warnings([result for result in found if isinstance(result, InspectedLora)]),
    )


async def _inspect(item: LoraItem, body: InspectionRequest, services: Services) -> InspectedLora | ServiceError:
    try:
        return await services.loras.inspect(item.path, token=body.hf_token, expert=item.expert, norms=body.norms)
    except ServiceError as error:
        return error


def _file(item: LoraItem, result: InspectedLora | ServiceError) -> InspectedFile:
    if isinstance(result, InspectedLora):
        return InspectedFile(path=result.reference, transformer=item.transformer, report=result.report)
    error = ErrorBody.model_validate(result.body()["error"])
    return InspectedFile(path=cut(shown(item.path)), transformer=item.transformer, error=error)


def _warnings(found: Sequence[InspectedLora]) -> list[str]:
    separate = [lora for lora in found if lora.expert is not None and not lora.report.combined]
    same = of_pair((lora.expert, lora.identity) for lora in separate if lora.expert is not None)
    by_side = {lora.expert: lora.report for lora in separate}
    if len(separate) != len(PAIR) or len(by_side) != len(PAIR):
        return same
    return [*same, *warnings_of_pair(by_side[Expert.HIGH], by_side[Expert.LOW])]
