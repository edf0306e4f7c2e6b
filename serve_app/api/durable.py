"""Durability of a submission: a request and its images are stored together, or not at all.

Example:
    durable = await store_request(new, inputs, services)   # completes even if the client disconnects
"""

import asyncio
import logging
from dataclasses import replace

from serve_app.api.dependencies import Services
from serve_app.errors import RequestNotFound, ServiceError, StoreUnavailable
from serve_app.images.stored import RequestInputs
from serve_app.jobs.records import Accepted, NewRequest
from serve_app.tasks import detached

logger = logging.getLogger("ray.serve.wan")

# A transaction whose answer was lost has ended by then, one way or the other.
SETTLES_AFTER_S = 60.0

_settling: set[asyncio.Task[None]] = set()  # the event loop holds tasks only weakly


async def store_request(new: NewRequest, inputs: RequestInputs, services: Services) -> Accepted:
    """Store the request, whose images are stored already. A client that disconnects does not interrupt it.

    Raises:
        StoreUnavailable: it is unknown whether it was stored. Its images stay until the store says that it was not.
        ServiceError: it was not stored, and its images are gone.
    """
    return await asyncio.shield(detached(_store(new, inputs, services)))


async def _store(new: NewRequest, inputs: RequestInputs, services: Services) -> Accepted:
    try:
        of_tenant = services.plan.settings.limits_of(new.tenant)
        limits = replace(services.served(new.model).limits, tenant=of_tenant, gpus=services.plan.gpus_by_model)
        durable = await services.store.requests.submit(new, limits)
    except StoreUnavailable:
        if inputs.names:
            logger.warning("request %s may have been stored; its images stay until that is known", new.id)
            task = detached(_settle(inputs, services))
            _settling.add(task)
            task.add_done_callback(_settling.discard)
        raise
    except ServiceError:
        await inputs.discard()
        raise
    if durable.request_id != new.id:  # another POST with the same idempotency key was faster
        await inputs.discard()
    return durable


async def _settle(inputs: RequestInputs, services: Services) -> None:
    """Ask the store, once it answers again, whether it has the request; if not, remove the images."""
    while True:
        await asyncio.sleep(SETTLES_AFTER_S)
        try:
            await services.store.requests.get(inputs.request_id)
        except StoreUnavailable:
            continue
        except RequestNotFound:
            await inputs.discard()
        return
