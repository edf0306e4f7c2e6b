"""The metrics of this service hear every signal that concerns them."""

import logging

import pytest

from deployments.observability.metrics import service_observers
from serve_app.jobs.load import Amount, Load
from serve_app.jobs.outbox import DeliveryState
from serve_app.jobs.records import Claim, Line
from serve_app.observers import End, Outcome
from serve_app.settings import Settings
from serve_app.spec import Priority
from tests.fixtures.specs import make_spec

CLAIM = Claim(render_id=1, request_id="r", index=0, attempt=1, token="t", spec=make_spec(), cost_s=2.0)


def test_they_take_what_the_actors_send(caplog: pytest.LogCaptureFixture) -> None:
    observers = service_observers(Settings())
    with caplog.at_level(logging.ERROR, "ray.serve"):
        observers.load("wan22_14b_t2v", Load(lines={Line("a", Priority.HIGH): Amount(3, 4.5)}, running=Amount(1, 2.0)))
        observers.ended(CLAIM, Outcome(End.SUCCEEDED, replica_s=1.5))
        observers.ended(CLAIM, Outcome(End.CANCELED))  # made no frames: there is nothing to compare
        observers.told(DeliveryState.DELIVERED)
    assert caplog.text == ""
