"""Lists of requests: order, pages, filters, and the state of a request as the database computes it."""

from itertools import combinations_with_replacement

import pytest
from sqlalchemy import update

from serve_app.errors import CursorInvalid
from serve_app.jobs import listing
from serve_app.jobs.listing import Cursor, Filter
from serve_app.jobs.states import RenderState, request_state
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import renders
from tests.fixtures.specs import make_spec
from tests.fixtures.store import connect
from tests.serve_app.jobs.helpers import new_request, submit


async def listed(store: JobStore, limit: int = 100, **wanted: object) -> list[str]:
    page = await store.requests.page(Filter(**wanted), limit=limit)  # type: ignore[arg-type]  # a test's own keywords
    return [standing.record.id for standing in page.standings]


async def test_pages_are_newest_first_and_overlap_nowhere(store: JobStore) -> None:
    ids = [await submit(store, created_at=created_at) for created_at in (3.0, 1.0, 2.0, 2.0, 5.5)]
    in_order = sorted(ids, key=lambda each: (dict(zip(ids, (3.0, 1.0, 2.0, 2.0, 5.5), strict=True))[each], each))[::-1]
    found: list[str] = []
    after = None
    while True:
        page = await store.requests.page(Filter(), limit=2, after=after)
        found += [standing.record.id for standing in page.standings]
        if page.next is None:
            break
        after = Cursor.read(page.next.text)
    assert found == in_order


async def test_a_page_continues_after_a_request_that_is_gone(store: JobStore) -> None:
    first, second, third = [await submit(store, created_at=float(time)) for time in (1, 2, 3)]
    page = await store.requests.page(Filter(), limit=2)
    assert page.next is not None
    await store.requests.cancel(second)
    await store.requests.remove(second)
    rest = await store.requests.page(Filter(), limit=2, after=page.next)
    assert [standing.record.id for standing in rest.standings] == [first]
    assert third not in [standing.record.id for standing in rest.standings]


async def test_another_tenants_requests_are_not_listed(store: JobStore) -> None:
    mine = await submit(store, tenant="me")
    await submit(store, tenant="other")
    page = await store.requests.page(Filter(), limit=10, owner="me")
    assert [standing.record.id for standing in page.standings] == [mine]


@pytest.mark.parametrize("text", ["FOX", "straße", "STRASSE", "50%", "a_b", "\u0000"])
async def test_a_search_looks_for_the_text_itself(store: JobStore, text: str) -> None:
    prompt = "a Fox at 50% on the Straße a_b \u0000"
    found = await submit(store, specs=(make_spec(prompt=prompt),))
    await submit(store, specs=(make_spec(prompt="a dog at 500 aXb"),))
    assert found in await listed(store, text=text)
    assert len(await listed(store, text=text)) == (2 if text == "\u0000" else 1)


async def test_filters_hold_together(store: JobStore) -> None:
    one = new_request(pair="one")
    await store.requests.submit(one)
    other = await submit(store, pair="two", model="another")
    key = one.specs[0].pair_key
    assert await listed(store, pair_key=key) == [one.id]
    assert await listed(store, model="another") == [other]
    assert await listed(store, pair_key=key, model="another") == []


async def test_the_state_in_a_list_is_that_of_the_state_machine(store: JobStore, database_url: str) -> None:
    expected: dict[str, RenderState] = {}
    for states in combinations_with_replacement(RenderState, 3):
        request_id = await submit(store, 3)
        expected[request_id] = request_state(states)
        with connect(database_url) as connection:
            for index, state in enumerate(states):
                row = (renders.c.request_id == request_id) & (renders.c.index == index)
                connection.execute(update(renders).where(row).values(state=state.value))
    for state in RenderState:
        found = await listed(store, states=frozenset({state}))
        assert set(found) == {request_id for request_id, is_in in expected.items() if is_in is state}, state


async def test_a_filter_that_nothing_passes_reads_a_bounded_part(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 2)
    ids = [await submit(store, created_at=float(time), specs=(make_spec(prompt=f"n{time}"),)) for time in range(5)]
    found: list[str] = []
    after, calls = None, 0
    while True:
        page = await store.requests.page(Filter(text="n0"), limit=5, after=after)
        found, calls = [*found, *(standing.record.id for standing in page.standings)], calls + 1
        if page.next is None:
            break
        after = page.next
    assert (found, calls) == ([ids[0]], 3)


@pytest.mark.parametrize("text", ["", "x", "bm90IGEgY3Vyc29y", "ä", f"{Cursor(float('nan'), '0' * 32).text}"])
def test_a_cursor_of_no_list_is_refused(text: str) -> None:
    with pytest.raises(CursorInvalid, match="after"):
        Cursor.read(text)
