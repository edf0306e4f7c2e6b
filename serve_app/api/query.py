"""Refusal of query parameters that an endpoint does not have, as a body's unknown fields are refused.

A filter that is spelt wrong would list everything, and who asked may delete what is listed.

    @router.get("/v1/requests", dependencies=[KNOWN_ONLY])
"""

from collections.abc import Iterator

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute


async def _refuse_unknown(request: Request) -> None:
    """Raise RequestValidationError if the URL has a query parameter that its endpoint does not document."""
    route: APIRoute = request.scope["route"]
    known = frozenset(_names(route.dependant))
    unknown = [(name, value) for name, value in request.query_params.multi_items() if name not in known]
    if unknown:
        accepted = ", ".join(sorted(known))
        raise RequestValidationError(
            [
                {
                    "type": "extra_forbidden",
                    "loc": ("query", name),
                    "msg": f"Extra inputs are not permitted; this endpoint has {accepted}",
                    "input": value,
                }
                for name, value in unknown
            ]
        )


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _names(dependency)


KNOWN_ONLY = Depends(_refuse_unknown)
