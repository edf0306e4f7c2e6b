"""Submission: a body becomes a durable request, once for each idempotency key, whatever shape of the API it came in.

Example:
    durable = await submitted(body, services, sender=sender, fetcher=fetcher, idempotency_key=None)
"""

import asyncio
import hashlib
import json
from uuid import uuid4

from serve_app.api.acceptance import accept
from serve_app.api.dependencies import Services
from serve_app.api.durable import store_request
from serve_app.api.schemas.bodies import InferenceRequest
from serve_app.images.kept import RequestInputs
from serve_app.jobs.ownership import Sender
from serve_app.jobs.records import Accepted, Idempotency


async def submitted(
    body: InferenceRequest, services: Services, *, sender: Sender, fetcher: str, idempotency_key: str | None
) -> Accepted:
    """Check, resolve and store the request, and announce it; or find the one that came before with the same key.

    Raises:
        RequestError: something stands against the request.
        IdempotencyConflict: the key came before with another body.
        AdmissionError: the queue takes no more.
        ServiceError: a server that is needed does not answer; nothing was accepted.
    """
    # In a thread, because an image has megabytes.
    idempotency = None if idempotency_key is None else await asyncio.to_thread(_idempotency, idempotency_key, body)
    # Before anything is resolved: a LoRA that has gone since the first try must not turn the second into a refusal.
    known = idempotency and await services.store.requests.known(sender.tenant, idempotency)
    if known:
        return known
    inputs = RequestInputs(services.outputs, str(uuid4()))
    try:
        new = await accept(body, sender, idempotency, services, inputs, fetcher=fetcher)
    except BaseException:
        await inputs.discard()
        raise
    durable = await store_request(new, inputs, services)
    if not durable.replayed:
        services.observers.accepted(new)
        services.served(body.model).announcer.queued()
    return durable


def _idempotency(key: str, body: InferenceRequest) -> Idempotency:
    """Return the key with a digest of the body. A token may be renewed between two tries, so it is not part of that."""
    content = json.dumps(body.model_dump(mode="json", exclude={"hf_token"}), sort_keys=True)
    return Idempotency(key=key, digest=hashlib.sha256(content.encode()).hexdigest())
