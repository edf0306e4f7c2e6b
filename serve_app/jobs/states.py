"""The state machine of a render, and the state of a request derived from its renders."""

from collections.abc import Iterable
from enum import StrEnum


class RenderState(StrEnum):
    """The state of a render."""

    QUEUED = "queued"  # accepted (durable), waits for a Generator
    PROCESSING = "processing"  # claimed by a Generator that holds a lease on it
    SUCCEEDED = "succeeded"  # its video is published
    FAILED = "failed"  # ended with an error code
    CANCELED = "canceled"  # ended by a client, or because a sibling failed


class RenderEvent(StrEnum):
    """An event that changes the state of a render."""

    CLAIM = "claim"  # a Generator takes it under a lease
    SUCCEED = "succeed"  # the holder of the claim published the video
    FAIL = "fail"  # the holder of the claim reported an error, or no attempt is left
    CANCEL = "cancel"  # a client, or a failed sibling, ended it
    LOSE = "lose"  # the lease expired or its holder died, and an attempt is left


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
    """Return the state that `event` leads to from `state`; None if it may not happen there."""
    return _TRANSITIONS.get((state, event))


def request_state(renders: Iterable[RenderState]) -> RenderState:
    """Return the state of a request, derived from its renders so that the two cannot disagree.

    The first failed render fails the request. It has succeeded when all renders have, and is canceled when all have
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
