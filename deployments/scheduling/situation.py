"""What a choice depends on beside the renders that wait."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

from deployments.scheduling.overtaking import Passing
from serve_app.jobs.records import Line


@dataclass(frozen=True)
class Rules:
    """What the operator decided. Seconds."""

    patience_s: float  # after so long a render that younger ones of its line passed goes first; 0: none is passed
    age_bound_s: float  # after so long in the queue a render goes before higher priorities of its tenant


@dataclass(frozen=True)
class Replica:
    """The replica that was won."""

    replica_id: str
    resident: tuple[str, ...]  # pair keys ready in its memory, the loaded one first


@dataclass(frozen=True)
class Fleet:
    """What is known of everything else at that moment."""

    elsewhere: Container[str]  # pair keys ready on other replicas
    turns: Mapping[str, float]  # of each tenant with a candidate, from `FairShare.turns`: smaller is owed more
    overtaken: Mapping[Line, Passing]  # from `Overtaking.before`; of a line that is not in it, nothing has started
    slack: float  # from `FairShare.slack`: a warm pair may be preferred for turns that are at most so much later
