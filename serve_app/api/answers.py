"""Answers about a request, built from its record: its status, its result, its summary.

Example:
    standing = await services.store.requests.standing(request_id, owner=sender.owner)
    status_answer(standing, services).queue_position
    summary_answer(standing, links, services).prompts[0].url
"""

from serve_app.api.dependencies import Services
from serve_app.api.forecast import Forecast, forecast
from serve_app.api.links import OutputLinks
from serve_app.api.schemas.answers import (
    API_STATUS,
    Outputs,
    PromptMetadata,
    RequestResult,
    RequestStatus,
    ResultMetadata,
    Video,
    timestamp,
)
from serve_app.api.schemas.bodies import Side
from serve_app.api.schemas.listing import LoraSummary, PromptSummary, RequestSummary
from serve_app.jobs.records import Output, RenderRecord, RequestRecord
from serve_app.jobs.standings import Standing
from serve_app.jobs.states import FINAL
from serve_app.retention.rules import RetentionRules
from serve_app.spec import Expert, LoraFile, Variant


def status_answer(standing: Standing, services: Services) -> RequestStatus:
    """Return the status of a request: its state, progress, position and predicted end."""
    record, failure = standing.record, standing.record.failure
    predicted = forecast(standing, services.plan.settings.tenant_weights)
    return RequestStatus(
        request_id=record.id,
        model=record.model,
        status=API_STATUS[record.state],
        progress=record.progress,
        queue_position=predicted.queue_position,
        eta_seconds=_eta_seconds(record, predicted),
        created_at=timestamp(record.created_at),
        started_at=timestamp(record.started_at),
        finished_at=timestamp(record.finished_at),
        expires_at=_expires_at(record, services),
        error=failure.error_message if failure else None,
        error_code=failure.error_code if failure else None,
    )


def _expires_at(record: RequestRecord, services: Services) -> str | None:
    return timestamp(RetentionRules.of(services.plan.settings).expires_at(record.finished_at))


def _eta_seconds(record: RequestRecord, predicted: Forecast) -> float | None:
    return None if predicted.eta_s is None or record.state in FINAL else round(predicted.eta_s, 2)


def result_answer(record: RequestRecord, links: OutputLinks, services: Services) -> RequestResult:
    """Return the outputs of a request. A failed or canceled request keeps the outputs that were finished before."""
    failure = record.failure
    finished = [(render.index, render.output) for render in record.renders if render.output is not None]
    videos = [video_answer(record, index, made, links, services) for index, made in finished]
    prompts = [PromptMetadata(index=index, **dict(made.metadata)) for index, made in finished]
    return RequestResult(
        request_id=record.id,
        model=record.model,
        status=API_STATUS[record.state],
        outputs=Outputs(videos=videos) if finished or record.state in FINAL else None,
        error=failure.error_message if failure else None,
        error_code=failure.error_code if failure else None,
        created_at=timestamp(record.created_at),
        finished_at=timestamp(record.finished_at),
        expires_at=_expires_at(record, services),
        metadata=ResultMetadata(prompts=prompts) if finished else None,
    )


def video_answer(record: RequestRecord, index: int, made: Output, links: OutputLinks, services: Services) -> Video:
    """Return one finished video of a request."""
    return Video(
        format=made.format,
        width=made.width,
        height=made.height,
        num_frames=made.num_frames,
        fps=made.fps,
        seed=made.seed,
        file_path=services.outputs.location(made.name),
        url=links.output(record.id, index),
        index=index,
        size=made.size,
        sha256=made.sha256,
    )


def summary_answer(standing: Standing, links: OutputLinks, services: Services) -> RequestSummary:
    """Return a request as lists show it."""
    record = standing.record
    spec = record.renders[0].spec
    return RequestSummary(
        **dict(status_answer(standing, services)),
        pair_key=spec.pair_key,
        prompts=[_prompt(record, render, links) for render in record.renders],
        loras=[lora_summary(lora) for lora in spec.loras],
        recipe=spec.recipe,
        speed=spec.speed,
    )


def lora_summary(lora: LoraFile) -> LoraSummary:
    """Return a LoRA of a request as requests name it."""
    return LoraSummary(
        path=lora.reference,
        transformer=None if lora.expert is Expert.ONLY else Side(lora.expert),
        network_multiplier=lora.multiplier,
    )


def _prompt(record: RequestRecord, render: RenderRecord, links: OutputLinks) -> PromptSummary:
    spec = render.spec
    return PromptSummary(
        index=render.index,
        prompt=spec.prompt,
        width=spec.width,
        height=spec.height,
        num_frames=spec.num_frames,
        fps=spec.fps,
        seed=spec.seed,
        url=None if render.output is None else links.output(record.id, render.index),
        thumbnail_url=None
        if render.output is None
        else links.output(record.id, render.index, variant=Variant.THUMBNAIL.value),
    )
