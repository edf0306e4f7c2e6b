"""What LoRA files hold, told without rendering anything."""

import asyncio
from collections.abc import Sequence

from pydantic import BaseModel, Field

from serve_app.api.request_schema import Body, LoraItem, Side, Token
from serve_app.api.response_schema import ErrorBody
from serve_app.api.services import Services
from serve_app.errors import ServiceError
from serve_app.loras.report import FileReport, warnings_of_pair
from serve_app.loras.resolver import InspectedLora
from serve_app.loras.sides import pair_warnings
from serve_app.loras.sources import shown
from serve_app.spec import PAIR, Expert

_MOST_FILES = 16


class InspectionRequest(Body):
    """Body of `POST /v1/loras/inspect`."""

    loras: list[LoraItem] = Field(
        min_length=1,
        max_length=_MOST_FILES,
        description="The files, written as in a request for videos; `network_multiplier` plays no part.",
    )
    hf_token: Token | None = Field(None, description="For private or gated Hugging Face repositories; not kept.")
    norms: bool = Field(
        False,
        description="Also how strongly each layer is changed. Reads the whole file; only for files in `lora_root`.",
    )


class InspectedFile(BaseModel):
    """One file: a report on it, or why it cannot be used."""

    path: str = Field(description="As it was sent, without secrets.")
    transformer: Side | None = Field(description="As it was sent.")
    report: FileReport | None = Field(None, description="What the file holds; null where it cannot be used.")
    error: ErrorBody | None = Field(None, description="Why the file cannot be used.")


class Inspection(BaseModel):
    """Reports in the order of the request."""

    files: list[InspectedFile] = Field(description="One for each item of `loras`.")
    warnings: list[str] = Field(description="What looks like a mistake about the files together.")


async def inspect(body: InspectionRequest, services: Services) -> Inspection:
    """Look into every file; one that cannot be used does not hide the others."""
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
    return InspectedFile(path=shown(item.path), transformer=item.transformer, error=error)


def _warnings(found: Sequence[InspectedLora]) -> list[str]:
    separate = [lora for lora in found if lora.expert is not None and not lora.report.combined]
    same = pair_warnings((lora.expert, lora.identity) for lora in separate if lora.expert is not None)
    by_side = {lora.expert: lora.report for lora in separate}
    if len(separate) != len(PAIR) or len(by_side) != len(PAIR):
        return same
    return [*same, *warnings_of_pair(by_side[Expert.HIGH], by_side[Expert.LOW])]
