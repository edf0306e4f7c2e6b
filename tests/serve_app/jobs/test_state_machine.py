"""Any order of submissions, claims, ends, losses, cancellations and late writers, against a model in plain Python.

The renders are of two generative models, which share the store and nothing of their queues.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from time import time
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from pydantic import SecretStr
from sqlalchemy import delete, select, update

from serve_app.errors import RenderFailed, RequestNotEnded, RequestNotFound
from serve_app.jobs.endings import RenderEnd
from serve_app.jobs.records import Claim, Idempotency, NewRequest, Output
from serve_app.jobs.states import FINAL, RenderState
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import queue_totals, renders, request_tokens, requests
from serve_app.spec import Priority
from tests.fixtures.specs import MODEL, make_spec
from tests.fixtures.store import connect, queued
from tests.serve_app.jobs.helpers import output
from tests.serve_app.jobs.plain_model import MAX_ATTEMPTS, Model, Render, Request

OTHER = "lantern_1b"
SERVED = (MODEL, OTHER)
LEASE_S = 600.0
TOKEN = "hf_token"  # noqa: S105 - of nobody
SETTINGS = settings(
    max_examples=12,
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.reuse, Phase.generate),  # on a real database, shrinking takes minutes
    suppress_health_check=list(HealthCheck),  # a step is as slow as the disk
)

Result = TypeVar("Result")
End = Callable[[JobStore, Claim], Awaitable[bool]]


ENDS: dict[str, End] = {
    "succeed": lambda store, claim: store.claims.succeed(claim, output(claim)),
    "fail": lambda store, claim: store.claims.fail(claim, RenderFailed("no luck")),
    "cancel": lambda store, claim: store.claims.cancel(claim),
    "release": lambda store, claim: store.claims.release(claim, MAX_ATTEMPTS),
}


class Store(RuleBasedStateMachine):
    """Drives two job stores, as of two processes, on one database; which of them does what changes with every step."""

    known = Bundle[str]("known")  # ids of requests
    claims = Bundle[Claim]("claims")  # also those that no longer count

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._model = Model()
        self._exit = ExitStack()
        self._connection = self._exit.enter_context(connect(self.url))
        self._runner = self._exit.enter_context(asyncio.Runner())
        self._told: list[RenderEnd] = []
        self._removed: list[RenderState] = []  # states of renders whose rows are gone
        self._stores = [self._run(self._open()) for _ in range(2)]

    async def _open(self) -> JobStore:
        store = JobStore(self.url, self._told.extend)
        self._exit.callback(lambda: self._run(store.close()))
        return store

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(coroutine)

    @property
    def _store(self) -> JobStore:
        self._stores.reverse()
        return self._stores[0]

    @rule(
        target=known,
        model=st.sampled_from(SERVED),
        count=st.integers(1, 3),
        tenant=st.sampled_from(["us", "them"]),
        priority=st.sampled_from(Priority),
        token=st.booleans(),
    )
    def submit(self, model: str, count: int, tenant: str, priority: Priority, token: bool) -> str:
        request_id = str(uuid4())
        new = NewRequest(
            id=request_id,
            model=model,
            created_at=time(),
            specs=tuple(make_spec(model=model, seed=seed) for seed in range(count)),
            costs=(1.5,) * count,
            tenant=tenant,
            priority=priority,
            hf_token=SecretStr(TOKEN) if token else None,
            idempotency=Idempotency(key=request_id, digest="of the body"),
        )
        accepted = self._run(self._store.requests.submit(new))
        assert (accepted.request_id, accepted.replayed) == (request_id, False)
        self._model.requests[request_id] = Request(new, [Render() for _ in range(count)])
        return request_id

    @rule(request_id=known)
    def submit_again(self, request_id: str) -> None:
        if request := self._model.requests.get(request_id):
            again = NewRequest(**{**vars(request.new), "id": str(uuid4())})
            accepted = self._run(self._store.requests.submit(again))
            assert (accepted.request_id, accepted.replayed) == (request_id, True)

    @rule(target=claims, place=st.integers(0, 9), rivals=st.integers(1, 3))
    def claim(self, place: int, rivals: int) -> MultipleResults[Claim]:
        """Claim a render in any state, by several workers at once."""
        places = self._render_ids()
        if not places:
            return multiple()
        render_id, request_id, index = places[place % len(places)]
        won = self._run(self._claim_at_once(render_id, rivals))
        assert len(won) == (self._model.requests[request_id].renders[index].state is RenderState.QUEUED)
        for claim in won:
            assert (claim.request_id, claim.index) == (request_id, index)
            self._model.claimed(claim)
        return multiple(*won)

    @rule(target=claims, model=st.sampled_from(SERVED))
    def claim_everything(self, model: str) -> MultipleResults[Claim]:
        """As a model's fleet does that is large enough."""
        waiting = self._run(queued(self._store, model))
        won = [claim for one in waiting for claim in self._run(self._claim_at_once(one.render_id, rivals=1))]
        assert len(won) == len(waiting)
        for claim in won:
            self._model.claimed(claim)
        return multiple(*won)

    async def _claim_at_once(self, render_id: int, rivals: int) -> list[Claim]:
        claims = await asyncio.gather(*(self._store.claims.claim(render_id, f"{n}", LEASE_S) for n in range(rivals)))
        return [claim for claim in claims if claim is not None]

    @rule(place=st.integers(0, 9))
    def foresee(self, place: int) -> None:
        """Look at a render in any state, as a replica does that prepares for it; the invariants say that it stays."""
        places = self._render_ids()
        if not places:
            return
        render_id, request_id, index = places[place % len(places)]
        request = self._model.requests[request_id]
        coming = self._run(self._store.claims.foresee(render_id))
        assert (coming is not None) == (request.renders[index].state is RenderState.QUEUED)
        if coming is not None:
            told = (coming.render_id, coming.spec, coming.hf_token)
            assert told == (render_id, request.new.specs[index], request.new.hf_token)

    @rule(claim=claims, steps=st.integers(0, 4), lapses=st.booleans())
    def renew(self, claim: Claim, steps: int, lapses: bool) -> None:
        held = self._model.held(claim)
        told = self._run(self._store.claims.renew(claim, steps, -1.0 if lapses else LEASE_S))
        assert told == (held[1].cancel_requested if held else None)
        if held:
            held[1].lapsed = lapses

    @rule(claim=claims, end=st.sampled_from(sorted(ENDS)), times=st.integers(1, 3))
    def end(self, claim: Claim, end: str, times: int) -> None:
        """End a claim several times at once: one of them counts, if the claim is valid."""
        held = self._model.held(claim)
        assert sum(self._run(self._end_at_once(claim, end, times))) == (held is not None)
        if held:
            self._follow(end, *held)

    async def _end_at_once(self, claim: Claim, end: str, times: int) -> list[bool]:
        return await asyncio.gather(*(ENDS[end](self._store, claim) for _ in range(times)))

    @staticmethod
    def _follow(end: str, request: Request, render: Render) -> None:
        if end == "succeed":
            render.end(RenderState.SUCCEEDED)
        elif end == "fail":
            request.fail(render)
        elif end == "cancel":
            render.end(RenderState.CANCELED)
        else:
            request.lose([render])

    @rule(silent=st.booleans(), model=st.sampled_from(SERVED))
    def expire_leases(self, silent: bool, model: str) -> None:
        """`silent`: after every holder of that model's renders fell silent. The other model's are left alone."""
        if silent:
            with connect(self.url) as connection:
                connection.execute(update(renders).where(renders.c.model == model).values(lease_expires_at=0.0))
        lost = {
            request_id: [r for r in request.renders if r.state is RenderState.PROCESSING and (silent or r.lapsed)]
            for request_id, request in self._model.requests.items()
            if request.new.model == model
        }
        assert self._run(self._store.claims.expire_leases(model, MAX_ATTEMPTS)) == sum(map(len, lost.values()))
        for request_id, renders_of_it in lost.items():
            self._model.requests[request_id].lose(renders_of_it)

    @rule(request_id=known)
    def cancel(self, request_id: str) -> None:
        request = self._model.requests.get(request_id)
        try:
            record = self._run(self._store.requests.cancel(request_id))
        except RequestNotFound:
            assert request is None
            return
        assert request is not None
        request.cancel()
        assert [render.state for render in record.renders] == [render.state for render in request.renders]

    @rule(request_id=known)
    def remove(self, request_id: str) -> None:
        request = self._model.requests.get(request_id)
        try:
            self._run(self._store.requests.remove(request_id))
        except RequestNotFound:
            assert request is None
        except RequestNotEnded:
            assert request is not None
            assert not request.ended
        else:
            removed = self._model.requests.pop(request_id)
            assert removed.ended
            self._removed += [render.state for render in removed.renders]

    @invariant()
    def every_render_is_what_it_should_be(self) -> None:
        of_render = (renders.c.request_id, renders.c.index, renders.c.state, renders.c.attempt)
        query = select(*of_render, renders.c.output, renders.c.finished_at.is_not(None)).order_by(renders.c.id)
        found = [
            (*of_render, output and Output.model_validate_json(output).name, finished)
            for *of_render, output, finished in self._connection.execute(query)
        ]
        assert found == self._model.rows()

    @invariant()
    def every_end_was_told_once_whoever_decided_it(self) -> None:
        ended = [render.state for request in self._model.requests.values() for render in request.renders]
        assert Counter(end.state for end in self._told) == Counter(
            state for state in (*ended, *self._removed) if state in FINAL
        )
        assert all((end.code is not None) == (end.state is RenderState.FAILED) for end in self._told)

    @invariant()
    def each_queue_holds_what_is_queued_for_its_model(self) -> None:
        for model in SERVED:
            waiting, running = (
                [request for request, _ in self._model.of_state(state) if request.new.model == model]
                for state in (RenderState.QUEUED, RenderState.PROCESSING)
            )
            found = self._run(queued(self._store, model))
            assert [one.line for one in found] == [(request.new.tenant, request.new.priority) for request in waiting]
            load = self._run(self._store.queue(model).load())
            assert load.queued.renders == len(waiting)
            assert load.queued.cost_s == 1.5 * len(waiting)
            assert load.running.renders == len(running)

    @invariant()
    def tokens_are_kept_while_they_are_needed(self) -> None:
        needed = {
            request_id
            for request_id, request in self._model.requests.items()
            if request.new.hf_token and not request.ended
        }
        assert set(self._connection.execute(select(request_tokens.c.request_id)).scalars()) == needed

    def _render_ids(self) -> list[tuple[int, str, int]]:
        query = select(renders.c.id, renders.c.request_id, renders.c.index).order_by(renders.c.id)
        return [(row[0], row[1], row[2]) for row in self._connection.execute(query)]

    def teardown(self) -> None:
        """Leave an empty database to the next example; totals of what was queued go with it."""
        with self._exit, connect(self.url) as connection:
            for table in (renders, request_tokens, requests):
                connection.execute(delete(table))
            assert connection.execute(select(queue_totals)).all() == []


@pytest.mark.slow
def test_any_order_of_events_leaves_what_the_model_says(database_url: str) -> None:
    class StoreOnDatabase(Store):
        url = database_url

    run_state_machine_as_test(StoreOnDatabase, settings=SETTINGS)
