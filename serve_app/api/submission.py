"""Submission: make a body a durable request, once for each idempotency key; shared by both shapes of the API.

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
from serve_app.images.stored import RequestInputs
from serve_app.jobs.ownership import Sender
from serve_app.jobs.records import Accepted, Idempotency


async def submitted(
    body: InferenceRequest, services: Services, *, sender: Sender, fetcher: str, idempotency_key: str | None
) -> Accepted:
    """Check, resolve, store and announce the request, or return the earlier request with the same idempotency key.

    Raises:
        RequestError: the request is not valid.
        IdempotencyConflict: the key was used with another body.
        AdmissionError: a limit of the queue would be exceeded.
        ServiceError: a needed server does not answer; nothing was accepted.
    """
    # In a thread, because an image has megabytes.
    idempotency = None if idempotency_key is None else await asyncio.to_thread(_idempotency, idempotency_key, body)
    # Before anything is resolved: if a LoRA was removed since the first POST, the repeated POST must still succeed.
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
    """Return the key with a digest of the body, without its token, because a client may renew it before a retry."""
    content = json.dumps(body.model_dump(mode="json", exclude={"hf_token"}), sort_keys=True)
    return Idempotency(key=key, digest=hashlib.sha256(content.encode()).hexdigest())
