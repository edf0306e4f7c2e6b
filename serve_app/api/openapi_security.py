"""API keys in the OpenAPI document: the security scheme, and the scope and errors of each operation."""

from collections.abc import Sequence
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from serve_app.api.guard import is_public, needed_scope

_SCHEME = "ApiKey"
_DESCRIPTION = "A key that `wan-lora keys make` has made. Needed where the service has keys."
_REFUSED = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}


def with_keys(document: dict[str, Any], routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI document with the scope of each operation; `routes` are the routes that it describes."""
    scheme = {"type": "http", "scheme": "bearer", "description": _DESCRIPTION}
    document["components"]["securitySchemes"] = {_SCHEME: scheme}
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema and not is_public(route.path):
            for method in route.methods or ():
                _describe(document["paths"][route.path_format][method.lower()], needed_scope(route, method).value)
    return document


def _describe(operation: dict[str, Any], scope: str) -> None:
    operation["security"] = [{_SCHEME: []}, {}]  # {}: or none, if the service has no keys
    refusals = {
        "401": "The API key is missing, unknown, revoked or expired, and the service has keys.",
        "403": f"The API key lacks the scope `{scope}`, or a signed link has expired.",
        "429": "The tenant calls more often than it may; Retry-After says when to try again.",
    }
    for status, description in refusals.items():
        operation["responses"].setdefault(status, {"description": description, "content": _REFUSED})
