"""What the headers of a request say about who sends it and how often."""

import hashlib
import json
import re
from dataclasses import dataclass

from pydantic import JsonValue
from starlette.datastructures import Headers

from serve_app.api.request_schema import InferenceRequest
from serve_app.errors import HeaderInvalid
from serve_app.jobs.records import DEFAULT_TENANT, Idempotency
from serve_app.settings import Settings

_TENANT = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class SenderHeaders:
    """Whose request it is, and the key under which it is the same request if it is sent again."""

    tenant: str
    idempotency_key: str | None

    def idempotency(self, body: InferenceRequest) -> Idempotency | None:
        """The key with what it stands for. A token may be renewed between two tries, so it is no part of that."""
        if self.idempotency_key is None:
            return None
        content = json.dumps(body.model_dump(mode="json", exclude={"hf_token"}), sort_keys=True)
        return Idempotency(key=self.idempotency_key, digest=hashlib.sha256(content.encode()).hexdigest())


def _header(name: str, description: str) -> JsonValue:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}


# For the endpoint's `openapi_extra`: as FastAPI's parameters of a dependency, they would cost 0.05 ms a request.
SENDER_HEADERS: dict[str, JsonValue] = {
    "parameters": [
        _header("X-Tenant", "Whose share of the GPUs this uses; counts where the arg `trust_tenant_header` is on."),
        _header(
            "Idempotency-Key",
            "Requests with the same key and body are one, however often sent; another body is a 409.",
        ),
    ]
}


def sender_headers(headers: Headers, settings: Settings) -> SenderHeaders:
    """What these headers say.

    Raises:
        HeaderInvalid: one of them has a value that it cannot have.
    """
    tenant = headers.get("x-tenant") if settings.trust_tenant_header else None
    if tenant is not None and not _TENANT.fullmatch(tenant):
        raise HeaderInvalid("X-Tenant must be 1 to 64 letters, digits or . _ : -", {"header": "X-Tenant"})
    key = headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise HeaderInvalid(
            "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces",
            {"header": "Idempotency-Key"},
        )
    return SenderHeaders(tenant or DEFAULT_TENANT, key)
