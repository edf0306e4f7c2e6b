"""LoRA files of the server: `GET /v1/loras` lists the files that requests may name by a path."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from serve_app.api.dependencies import SenderDep, Services, ServicesDep
from serve_app.api.schemas.answers import timestamp
from serve_app.api.schemas.errors import refusal
from serve_app.api.schemas.loras import LoraFile, LoraPair, Loras
from serve_app.errors import LoraStorageUnavailable
from serve_app.jobs.ownership import Sender
from serve_app.loras.catalog import ListedFile, LoraCatalog, View
from serve_app.loras.pairs import Pair
from serve_app.loras.paths import Folders
from serve_app.models.card import ModelCard
from serve_app.settings import Settings

router = APIRouter(tags=["loras"])

_MIB = 2**20


def catalog_of(services: Services) -> LoraCatalog:
    """Return the catalog for the models that are served; an application has one."""
    architectures = {model: served.card.architecture for model, served in services.models.items()}
    return LoraCatalog(architectures, int(services.plan.settings.lora_header_max_mib * _MIB))


async def _catalog(request: Request) -> LoraCatalog:
    catalog: LoraCatalog = request.app.state.lora_catalog
    return catalog


CatalogDep = Annotated[LoraCatalog, Depends(_catalog)]


@router.get("/v1/loras", responses=refusal(503, "The folder of the LoRAs cannot be read now."))
async def list_loras(services: ServicesDep, sender: SenderDep, catalog: CatalogDep) -> Loras:
    """Return the LoRA files that requests may name by their path, and which of them are a pair."""
    settings = services.plan.settings
    try:
        found = await catalog.listing(view_of(sender, settings))
    except OSError as error:
        raise LoraStorageUnavailable.of("read", error) from error
    cards = [served.card for served in services.models.values()]
    files = {path: file_answer(file) for path, file in found.files.items()}
    return Loras(
        pairs=[_pair_answer(pair, files, cards) for pair in found.pairs],
        files=[files[path] for path in sorted(files)],
        complete=not found.cut,
        uploads_allowed=settings.uploads,
    )


def view_of(sender: Sender, settings: Settings) -> View:
    """Return the part of `lora_root` that the sender sees: its own folder and shared files; for admins, all."""
    return View(settings.lora_root, Folders(settings.lora_root, sender.owner).own)


def file_answer(file: ListedFile) -> LoraFile:
    """Return one file as clients see it."""
    provenance = file.seen.provenance
    return LoraFile(
        path=file.path,
        name=file.name,
        size=file.size,
        modified_at=timestamp(file.modified_at),
        side=file.side,
        rank=file.seen.rank,
        step=provenance.step,
        trained_with=provenance.trained_with,
        base_model=provenance.base_model,
        models=list(file.seen.models),
        problem=file.seen.problem,
    )


def _pair_answer(pair: Pair, files: dict[str, LoraFile], cards: list[ModelCard]) -> LoraPair:
    halves = [files[path] for path in (pair.high, pair.low) if path is not None]
    return LoraPair(
        name=pair.name,
        step=pair.step,
        models=[card.id for card in cards if card.is_pair and all(card.id in half.models for half in halves)],
        high=None if pair.high is None else files[pair.high],
        low=None if pair.low is None else files[pair.low],
    )
