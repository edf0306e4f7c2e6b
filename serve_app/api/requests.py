"""Accepted requests: list, effective values, status, result, cancel, delete. Downloads: `api.outputs`.

An id that another tenant owns is answered exactly as one that was never given out; see `jobs.ownership`.
"""

import logging
import re
from typing import Annotated

from fastapi import APIRouter, Path

from serve_app.api.answers import result_answer, status_answer, summary_answer
from serve_app.api.dependencies import SenderDep, ServicesDep
from serve_app.api.effective import effective_request, is_whole
from serve_app.api.links import OutputLinksDep
from serve_app.api.paging import FilterDep, PagingDep
from serve_app.api.query import KNOWN_ONLY
from serve_app.api.schemas.answers import Deleted, RequestResult, RequestStatus
from serve_app.api.schemas.errors import NO_SUCH_REQUEST, OUTPUTS_UNAVAILABLE, UNAVAILABLE, WRONG_HEADER, refusal
from serve_app.api.schemas.listing import RequestDetails, RequestList
from serve_app.errors import OutputStorageUnavailable
from serve_app.jobs.requests import check_ended
from serve_app.jobs.rows import not_found
from serve_app.jobs.standings import Standing
from serve_app.jobs.states import FINAL

logger = logging.getLogger("ray.serve.wan")

router = APIRouter(tags=["requests"], responses=UNAVAILABLE | WRONG_HEADER)

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
RequestId = Annotated[str, Path(description="Id from the answer to the POST.")]


@router.get(
    "/v1/requests",
    responses=refusal(400, "`after` or a header has a value that it cannot have."),
    dependencies=[KNOWN_ONLY],
)
async def list_requests(
    services: ServicesDep, sender: SenderDep, links: OutputLinksDep, wanted: FilterDep, paging: PagingDep
) -> RequestList:
    """Return requests, the newest first, a page at a time."""
    page = await services.store.requests.page(wanted, limit=paging.limit, after=paging.after, owner=sender.owner)
    return RequestList(
        requests=[summary_answer(standing, links, services) for standing in page.standings],
        next=None if page.next is None else page.next.text,
    )


@router.get("/v1/requests/{request_id}", responses=NO_SUCH_REQUEST | OUTPUTS_UNAVAILABLE)
async def details(
    request_id: RequestId, services: ServicesDep, sender: SenderDep, links: OutputLinksDep
) -> RequestDetails:
    """Return a request with all values in effect, as a body that gives the same frames when it is posted again."""
    standing = await services.store.requests.standing(known_form(request_id), owner=sender.owner)
    request = await effective_request(standing.record, services)
    return RequestDetails(
        **dict(summary_answer(standing, links, services)),
        request=request,
        replayable=is_whole(request, standing.record),
    )


@router.get("/v1/requests/{request_id}/status", responses=NO_SUCH_REQUEST)
async def status(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> RequestStatus:
    """Return where the request is, and how far."""
    return status_answer(await services.store.requests.standing(known_form(request_id), owner=sender.owner), services)


@router.get("/v1/requests/{request_id}/result", responses=NO_SUCH_REQUEST)
async def result(
    request_id: RequestId, services: ServicesDep, sender: SenderDep, links: OutputLinksDep
) -> RequestResult:
    """Return the finished videos; before the end, those that are finished so far."""
    return result_answer(await services.store.requests.get(known_form(request_id), owner=sender.owner), links, services)


@router.post("/v1/requests/{request_id}/cancel", responses=NO_SUCH_REQUEST)
async def cancel(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> RequestStatus:
    """End the request: queued renders now, running ones at the next step or before storing. Idempotent."""
    record = await services.store.requests.cancel(known_form(request_id), owner=sender.owner)
    served = services.models.get(record.model)  # None if it is no longer served, and has no Generator at work
    if served is not None and record.state not in FINAL:
        served.announcer.canceled(record.id)
    return status_answer(Standing(record), services)  # without a place: nothing of it waits any more


@router.delete(
    "/v1/requests/{request_id}",
    responses={
        **NO_SUCH_REQUEST,
        **refusal(409, "The request has not ended; cancel it first."),
        **refusal(503, "A file cannot be removed now, or the job store does not answer; the request is still there."),
    },
)
async def delete(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> Deleted:
    """Remove a request that has ended: its renders and its files. Its idempotency key is free again."""
    record = await services.store.requests.get(known_form(request_id), owner=sender.owner)
    check_ended(record)
    # Files first: if that fails, the request is still there and can be deleted again.
    try:
        await services.outputs.delete([*record.output_names, *record.input_names])
    except OSError as error:
        logger.warning("request %s is not deleted: a file cannot be removed: %s", record.id, error)
        raise OutputStorageUnavailable.of("removed", error) from error
    await services.store.requests.remove(record.id, owner=sender.owner)
    return Deleted(request_id=record.id)


def known_form(request_id: str) -> str:
    """Return the id in the form in which ids are given out; in any other but in capitals, it names no request."""
    if not _ID.fullmatch(request_id):
        raise not_found(request_id)
    return request_id.lower()
