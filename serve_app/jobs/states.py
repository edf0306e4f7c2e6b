"""The one state machine of the service: what may happen to a render, and what a request makes of its renders."""

from collections.abc import Iterable
from enum import StrEnum


class RenderState(StrEnum):
    """Where a render is."""

    QUEUED = "queued"  # accepted and durable, waiting for a Generator
    PROCESSING = "processing"  # claimed by a Generator that holds a lease on it
    SUCCEEDED = "succeeded"  # its video is published
    FAILED = "failed"  # ended with an error code
    CANCELED = "canceled"  # ended by a client, or because a sibling failed


class RenderEvent(StrEnum):
    """What happens to a render."""

    CLAIM = "claim"  # a Generator was won for it
    SUCCEED = "succeed"  # the claim's holder published the video
    FAIL = "fail"  # the claim's holder reported an error, or no attempt is left
    CANCEL = "cancel"  # a client, or a failed sibling, ended it
    LOSE = "lose"  # the claim's holder is gone and an attempt is left


_TRANSITIONS: dict[tuple[RenderState, RenderEvent], RenderState] = {
    (RenderState.QUEUED, RenderEvent.CLAIM): RenderState.PROCESSING,
    (RenderState.QUEUED, RenderEvent.CANCEL): RenderState.CANCELED,
    (RenderState.PROCESSING, RenderEvent.SUCCEED): RenderState.SUCCEEDED,
    (RenderState.PROCESSING, RenderEvent.FAIL): RenderState.FAILED,
    (RenderState.PROCESSING, RenderEvent.CANCEL): RenderState.CANCELED,
    (RenderState.PROCESSING, RenderEvent.LOSE): RenderState.QUEUED,
}

FINAL = frozenset({RenderState.SUCCEEDED, RenderState.FAILED, RenderState.CANCELED})


def after(state: RenderState, event: RenderEvent) -> RenderState | None:
    """The state that `event` leads to from `state`, or None where it may not happen."""
    return _TRANSITIONS.get((state, event))


def request_state(renders: Iterable[RenderState]) -> RenderState:
    """The state of a request, derived from its renders so that the two cannot disagree.

    The first failure fails the request at once. It succeeds when all its renders do, and is canceled when all have
    ended and at least one was canceled.
    """
    states = set(renders)
    if RenderState.FAILED in states:
        return RenderState.FAILED
    if states == {RenderState.QUEUED}:
        return RenderState.QUEUED
    if not states <= FINAL:
        return RenderState.QUEUED if states == {RenderState.QUEUED, RenderState.CANCELED} else RenderState.PROCESSING
    return RenderState.CANCELED if RenderState.CANCELED in states else RenderState.SUCCEEDED
