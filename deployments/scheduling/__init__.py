"""The scheduling policy: pure functions that choose, and what they need remembered between two choices."""

from deployments.scheduling.fair_share import FairShare
from deployments.scheduling.fronts import WINDOW
from deployments.scheduling.overtaking import Overtaking, Passing
from deployments.scheduling.policy import MOST_PAIRS, MOST_TENANTS, pick, rank
from deployments.scheduling.situation import Fleet, Replica, Rules

__all__ = [
    "MOST_PAIRS",
    "MOST_TENANTS",
    "WINDOW",
    "FairShare",
    "Fleet",
    "Overtaking",
    "Passing",
    "Replica",
    "Rules",
    "pick",
    "rank",
]
