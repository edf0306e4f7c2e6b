"""The job store as a model in plain Python: what its requests and renders should be after each event."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from serve_app.jobs.records import Claim, NewRequest
from serve_app.jobs.states import FINAL, RenderState

MAX_ATTEMPTS = 2


@dataclass
class Render:
    """What one render should be."""

    state: RenderState = RenderState.QUEUED
    attempt: int = 0
    cancel_requested: bool = False
    lease: str | None = None  # token of the claim that counts
    lapsed: bool = False

    def end(self, state: RenderState) -> None:
        assert self.state not in FINAL, "ended twice"
        self.state, self.lease = state, None


@dataclass
class Request:
    """What one request should be."""

    new: NewRequest
    renders: list[Render]

    def cancel(self) -> None:
        for render in self.renders:
            if render.state not in FINAL:
                render.cancel_requested = True
            if render.state is RenderState.QUEUED:
                render.end(RenderState.CANCELED)

    def fail(self, render: Render) -> None:
        render.end(RenderState.FAILED)
        self.cancel()

    def lose(self, lost: Sequence[Render]) -> None:
        """Give each what it would get alone; then a failure cancels what is left."""
        for render in lost:
            if render.cancel_requested:
                render.end(RenderState.CANCELED)
            elif render.attempt >= MAX_ATTEMPTS:
                render.end(RenderState.FAILED)
            else:
                render.state, render.lease = RenderState.QUEUED, None
        if any(render.state is RenderState.FAILED for render in lost):
            self.cancel()

    @property
    def ended(self) -> bool:
        return all(render.state in FINAL for render in self.renders)


def output_name(request_id: str, index: int, render: Render | Claim) -> str:
    return f"{request_id}/{index}-{render.attempt}.mp4"


@dataclass
class Model:
    """What the store should hold."""

    requests: dict[str, Request] = field(default_factory=dict)  # in order of arrival

    def held(self, claim: Claim) -> tuple[Request, Render] | None:
        """Return what the claim is for, where it counts."""
        request = self.requests.get(claim.request_id)
        render = request and request.renders[claim.index]
        return (request, render) if request and render and render.lease == claim.token else None

    def claimed(self, claim: Claim) -> None:
        request = self.requests[claim.request_id]
        render = request.renders[claim.index]
        assert (claim.attempt, claim.hf_token) == (render.attempt + 1, request.new.hf_token)
        render.state, render.attempt, render.lapsed = RenderState.PROCESSING, claim.attempt, False
        render.lease = claim.token

    def rows(self) -> list[tuple[str, int, str, int, str | None, bool]]:
        return [
            (
                *(request_id, index, render.state.value, render.attempt),
                output_name(request_id, index, render) if render.state is RenderState.SUCCEEDED else None,
                render.state in FINAL,
            )
            for request_id, request in self.requests.items()
            for index, render in enumerate(request.renders)
        ]

    def of_state(self, state: RenderState) -> list[tuple[Request, int]]:
        return [
            (request, index)
            for request in self.requests.values()
            for index, render in enumerate(request.renders)
            if render.state is state
        ]
