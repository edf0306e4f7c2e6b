"""What became of the renders of a run: what database, output store and clients agree on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from tests.chaos.clients import Result


@dataclass(frozen=True)
class Outcome:
    """What the database, the output store and the clients agree on."""

    accepted: int  # requests that a client holds an answer for
    succeeded_once: int
    lost: int  # accepted, and without a video at the end
    doubled: int  # rows or files beyond one for each
    repeated: int  # renders that took more than one attempt
    different: int  # videos whose frames are not those of the undisturbed run

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted}, succeeded once {self.succeeded_once}, lost {self.lost}, doubled {self.doubled}"
        )


def outcome_of(
    results: Sequence[Result], expected: Mapping[str, str | None], *, url: str, prefix: str, files: Mapping[str, int]
) -> Outcome:
    """Compare what clients saw with what the database at `url` and the output store hold.

    `files` has the number of stored videos by request, `expected` the frames of each kind. The idempotency keys of the
    jobs begin with `prefix` and a hyphen.
    """
    ids = {result.request_id for result in results}
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT r.id, r.idempotency_key, v.state FROM requests r JOIN renders v ON v.request_id = r.id "
                "WHERE r.idempotency_key LIKE :keys"
            ),
            {"keys": f"{prefix}-%"},
        ).all()
    engine.dispose()
    per_key = Counter(row.idempotency_key for row in rows)
    once = {row.id for row in rows if row.state == "succeeded" and files.get(row.id) == 1}
    return Outcome(
        accepted=len(ids),
        succeeded_once=len(once & ids),
        lost=sum(result.frames is None for result in results) + len({row.id for row in rows} - ids),
        doubled=sum(count - 1 for count in per_key.values()) + sum(max(0, files.get(i, 0) - 1) for i in ids),
        repeated=sum((result.attempt or 0) > 1 for result in results),
        different=sum(result.frames != expected[result.job.spec] for result in results),
    )
