"""Query parameters of lists (keyset pagination): which requests, how many, behind which.

async def list_requests(wanted: FilterDep, paging: PagingDep) -> RequestList: ...
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query

from serve_app.api.schemas.answers import API_STATUS, Status
from serve_app.jobs.listing import Cursor, Filter
from serve_app.models import limits

_STATES = {word: state for state, word in API_STATUS.items()}
_MOST = 100


@dataclass(frozen=True, slots=True)
class Paging:
    """The page that is asked for."""

    limit: int
    after: Cursor | None


async def _filter(
    status: Annotated[
        list[Status] | None, Query(max_length=len(_STATES), description="With this status; may be repeated.")
    ] = None,
    pair: Annotated[
        str | None,
        Query(pattern="^[0-9a-f]{16}$", description="With these LoRAs: the `pair_key` of another request."),
    ] = None,
    text: Annotated[
        str | None,
        Query(max_length=limits.TRIGGER_LENGTH, description="In a prompt; upper and lower case are one."),
    ] = None,
    model: Annotated[
        str | None, Query(max_length=limits.NAME_LENGTH, pattern=r"^[^\x00]*$", description="Of this model.")
    ] = None,
) -> Filter:
    return Filter(
        states=frozenset(_STATES[word] for word in status or ()), pair_key=pair, text=text or None, model=model
    )


async def _paging(
    limit: Annotated[int, Query(ge=1, le=_MOST, description="Requests on a page.")] = 20,
    after: Annotated[
        str | None, Query(max_length=limits.NAME_LENGTH, description="The `next` of the page before.")
    ] = None,
) -> Paging:
    """Return the page that is asked for.

    Raises:
        CursorInvalid: `after` is none of the values that `next` had.
    """
    return Paging(limit, None if after is None else Cursor.read(after))


FilterDep = Annotated[Filter, Depends(_filter)]
PagingDep = Annotated[Paging, Depends(_paging)]
