"""An attempt: its steps are counted, a stop ends it at the next one, a deadline fails it."""

import pytest

from deployments.attempt import Attempt, AttemptAborted
from serve_app.errors import DeadlineExceeded
from serve_app.jobs.records import Claim
from tests.fixtures.specs import make_spec

CLAIM = Claim(render_id=1, request_id="r", index=0, attempt=1, token="t", spec=make_spec(sample_steps=4))


def test_an_undisturbed_attempt_counts_its_steps() -> None:
    attempt = Attempt(CLAIM, timeout_s=60)
    for step in (1, 2, 3):
        attempt.on_step(step)
        attempt.check()
    assert attempt.steps_done == 3


@pytest.mark.parametrize("lease_lost", [False, True])
def test_a_stopped_attempt_ends_at_its_next_step(lease_lost: bool) -> None:
    attempt = Attempt(CLAIM, timeout_s=60)
    attempt.stop(lease_lost=lease_lost)
    with pytest.raises(AttemptAborted):
        attempt.on_step(1)
    with pytest.raises(AttemptAborted):
        attempt.check()
    assert attempt.lease_lost is lease_lost


def test_an_attempt_past_its_deadline_says_how_far_it_came() -> None:
    attempt = Attempt(CLAIM, timeout_s=0)
    with pytest.raises(DeadlineExceeded, match="after 0 s at step 2 of 4"):
        attempt.on_step(2)
