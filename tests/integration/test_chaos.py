"""The chaos script in a short form: every part dies once while renders are under way."""

from pathlib import Path

from tests.chaos.run import run

RENDERS = 60


def test_nothing_is_lost_or_doubled_and_every_frame_is_right(tmp_path: Path) -> None:
    outcome = run(tmp_path, renders=RENDERS, clients=16, every_s=2)
    assert (outcome.accepted, outcome.succeeded_once, outcome.lost, outcome.doubled, outcome.different) == (
        RENDERS,
        RENDERS,
        0,
        0,
        0,
    )
