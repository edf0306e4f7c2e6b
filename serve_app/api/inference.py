"""Submission: `POST /v1/inference` makes a request durable; `POST /v1/forecast` only says what it would cost."""

from uuid import uuid4

from fastapi import APIRouter, Request, Response

from serve_app.access.keys import Scope
from serve_app.api.acceptance import accept
from serve_app.api.access_log import entry_of
from serve_app.api.answers import result_answer
from serve_app.api.dependencies import IdempotencyKeyDep, SenderDep, ServicesDep, fetcher_of
from serve_app.api.events.dependencies import Listening, ListeningDep
from serve_app.api.forecast import forecast_of_new
from serve_app.api.guard import needs
from serve_app.api.json_body import JsonRoute
from serve_app.api.links import OutputLinksDep
from serve_app.api.preferences import APPLIED, WaitDep
from serve_app.api.schemas.answers import API_STATUS, Accepted, RequestResult, timestamp
from serve_app.api.schemas.bodies import InferenceRequest
from serve_app.api.schemas.errors import UNREADABLE_BODY, Responses, refusal
from serve_app.api.schemas.listing import PromptForecast, RequestForecast
from serve_app.api.submission import submitted
from serve_app.errors import RequestNotFound, StoreUnavailable, TooManyListeners, TooManyOwnListeners
from serve_app.images.stored import RequestInputs
from serve_app.jobs.records import Accepted as DurableRequest
from serve_app.jobs.records import RequestRecord
from serve_app.jobs.states import RenderState
from serve_app.settings import Settings

_REFUSALS: Responses = {
    **refusal(400, "The model, a LoRA file, a control image or a header stands against the request."),
    **UNREADABLE_BODY,
    **refusal(503, "The job store, or the server of a LoRA or an image, does not answer; nothing was accepted."),
}

router = APIRouter(tags=["inference"], route_class=JsonRoute)


@router.post(
    "/v1/inference",
    responses={
        **_REFUSALS,
        **refusal(409, "The Idempotency-Key was used with another body."),
        **refusal(429, "The queue takes no more just now; Retry-After says when it will."),
    },
)
async def submit(
    body: InferenceRequest,
    request: Request,
    response: Response,
    *,
    services: ServicesDep,
    sender: SenderDep,
    idempotency_key: IdempotencyKeyDep,
    links: OutputLinksDep,
    wait_s: WaitDep,
    listening: ListeningDep,
) -> Accepted | RequestResult:
    """Queue one video per prompt. Once answered, the request outlives a restart of any part of the service."""
    fetcher = fetcher_of(request, sender)
    durable = await submitted(body, services, sender=sender, fetcher=fetcher, idempotency_key=idempotency_key)
    entry_of(request.scope).request_id = durable.request_id
    if durable.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    if wait_s and (record := await _ended(durable, wait_s, listening, fetcher, services.plan.settings)):
        response.headers[APPLIED] = f"wait={wait_s}"
        return result_answer(record, links, services)
    state = (await services.store.requests.get(durable.request_id)).state if durable.replayed else RenderState.QUEUED
    return _answer(durable, state, links.root)


async def _ended(
    durable: DurableRequest, within_s: float, listening: Listening, fetcher: str, settings: Settings
) -> RequestRecord | None:
    """Return the request if it ends in that time. It is accepted in any case, so nothing here is an error."""
    try:
        with listening.listeners.place(fetcher, settings):
            async with listening.hub.watching(durable.request_id, owner=None) as watch:
                snapshot = await watch.ended(within_s)
    except (StoreUnavailable, RequestNotFound, TooManyListeners, TooManyOwnListeners):
        return None
    return None if snapshot is None else snapshot.record


@router.post("/v1/forecast", responses=_REFUSALS)
@needs(Scope.READ)
async def forecast(
    body: InferenceRequest, request: Request, services: ServicesDep, sender: SenderDep
) -> RequestForecast:
    """Return what a request would cost and when it would end, with all its warnings; nothing is accepted."""
    inputs = RequestInputs(services.outputs, str(uuid4()))
    try:
        new = await accept(body, sender, None, services, inputs, fetcher=fetcher_of(request, sender))
    finally:
        await inputs.discard()
    load = await services.store.queue(new.model).load()
    predicted = forecast_of_new(new, load, services.plan.settings.tenant_weights)
    return RequestForecast(
        seconds=round(sum(new.costs), 2),
        eta_seconds=None if predicted.eta_s is None else round(predicted.eta_s, 2),
        queue_position=predicted.queue_position,
        prompts=[
            PromptForecast(
                index=index,
                width=spec.width,
                height=spec.height,
                num_frames=spec.num_frames,
                seconds=round(cost, 2),
                warnings=list(spec.warnings),
            )
            for index, (spec, cost) in enumerate(zip(new.specs, new.costs, strict=True))
        ],
    )


def _answer(durable: DurableRequest, state: RenderState, root: str) -> Accepted:
    url = f"{root}/v1/requests/{durable.request_id}"
    return Accepted(
        request_id=durable.request_id,
        status=API_STATUS[state],
        status_url=f"{url}/status",
        result_url=f"{url}/result",
        cancel_url=f"{url}/cancel",
        created_at=timestamp(durable.created_at),
    )
