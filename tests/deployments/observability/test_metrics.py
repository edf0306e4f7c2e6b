"""The metrics of this service hear every signal that concerns them."""

import logging

import pytest

from deployments.observability.metrics import service_observers
from serve_app.jobs.endings import RenderEnd
from serve_app.jobs.load import Amount, Load
from serve_app.jobs.outbox import DeliveryState
from serve_app.jobs.records import Claim, Line, Output
from serve_app.jobs.states import RenderState
from serve_app.observers import End, Outcome
from serve_app.results import CacheUse
from serve_app.settings import Settings
from serve_app.spec import Priority
from tests.fixtures.results import make_output
from tests.fixtures.specs import make_spec

CLAIM = Claim(render_id=1, request_id="r", index=0, attempt=1, token="t", spec=make_spec(), cost_s=2.0)


def on_the_next_leaner_plan(output: Output) -> Output:
    """Return an output whose Generator has run out of memory, and has fallen back."""
    leaner = output.metadata.runtime.model_copy(update={"offload": "sequential", "peak_bytes": 2**30})
    return output.model_copy(update={"metadata": output.metadata.model_copy(update={"runtime": leaner})})


def test_they_take_what_the_actors_send(caplog: pytest.LogCaptureFixture) -> None:
    observers = service_observers(Settings())
    with caplog.at_level(logging.ERROR, "ray.serve"):
        observers.load("wan22_14b_t2v", Load(lines={Line("a", Priority.HIGH): Amount(3, 4.5)}, running=Amount(1, 2.0)))
        observers.ended(CLAIM, Outcome(End.SUCCEEDED, replica_s=1.5))
        observers.ended(CLAIM, Outcome(End.CANCELED))  # made no frames: there is nothing to compare
        observers.ended(CLAIM, Outcome(End.SUCCEEDED, replica_s=1.5, embeddings=CacheUse(hits=1, misses=1)))
        observers.oldest("wan22_14b_t2v", {Priority.HIGH: 12.5})
        for output in (make_output(CLAIM), on_the_next_leaner_plan(make_output(CLAIM))):
            observers.published(CLAIM, output)
        observers.finished([RenderEnd("wan22_14b_t2v", RenderState.FAILED, "ATTEMPTS_EXHAUSTED")])
        observers.told(DeliveryState.DELIVERED)
    assert caplog.text == ""
