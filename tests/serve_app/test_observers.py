"""Observers hear every signal, and none can disturb what they observe."""

import inspect
import logging
from typing import Any

import pytest

from serve_app.jobs.endings import RenderEnd
from serve_app.jobs.load import Load
from serve_app.jobs.outbox import DeliveryState
from serve_app.jobs.records import Claim
from serve_app.jobs.states import RenderState
from serve_app.observers import End, Loss, Observer, Observers, Outcome
from serve_app.results import StartSeconds
from serve_app.spec import Priority
from tests.fixtures.results import make_output
from tests.fixtures.specs import make_spec
from tests.serve_app.jobs.helpers import new_request

CLAIM = Claim(render_id=1, request_id="r", index=0, attempt=1, token="t", spec=make_spec())
SIGNALS: dict[str, tuple[Any, ...]] = {
    "accepted": (new_request(),),
    "refused": ("LORA_NOT_FOUND",),
    "load": ("wan22_14b_t2v", Load()),
    "oldest": ("wan22_14b_t2v", {Priority.HIGH: 12.5}),
    "lost": ("wan22_14b_t2v", Loss.LEASE, 2),
    "ready": ("wan22_14b_t2v", StartSeconds(load=41.0)),
    "alive": (),
    "started": (CLAIM,),
    "read": ("wan22_14b_t2v", ()),
    "step": (CLAIM, 3),
    "prepared": ("wan22_14b_t2v", 0.7),
    "published": (CLAIM, make_output(CLAIM)),
    "ended": (CLAIM, Outcome(End.SUCCEEDED, replica_s=1.5)),
    "finished": ([RenderEnd("wan22_14b_t2v", RenderState.CANCELED, None)],),
    "told": (DeliveryState.DELIVERED,),
}


def recorder(heard: list[tuple[Any, ...]], *, raises: bool = False) -> Observer:
    """Return an observer that writes down every signal, and may then raise."""

    def record(name: str) -> Any:
        def signal(_self: Observer, *arguments: Any) -> None:
            heard.append((name, *arguments))
            if raises:
                raise ValueError("an observer's own trouble")

        return signal

    observer: Observer = type("Recorder", (Observer,), {name: record(name) for name in SIGNALS})()
    return observer


def test_these_are_all_signals() -> None:
    assert {name for name, _ in inspect.getmembers(Observer, inspect.isfunction)} == SIGNALS.keys()


@pytest.mark.parametrize("name", SIGNALS)
def test_every_observer_hears_every_signal_in_order(name: str) -> None:
    first: list[tuple[Any, ...]] = []
    second: list[tuple[Any, ...]] = []
    getattr(Observers(recorder(first), Observer(), recorder(second)), name)(*SIGNALS[name])
    assert first == second == [(name, *SIGNALS[name])]


@pytest.mark.parametrize("name", SIGNALS)
def test_an_observer_that_raises_is_logged_and_changes_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[tuple[Any, ...]] = []
    with caplog.at_level(logging.ERROR, "ray.serve"):
        getattr(Observers(recorder([], raises=True), recorder(heard)), name)(*SIGNALS[name])
    assert heard == [(name, *SIGNALS[name])]
    assert f"the observer Recorder failed at `{name}`" in caplog.text
    assert "an observer's own trouble" in caplog.text
