"""Scheduling: fair queueing between tenants, LoRA affinity within bounds, and late binding.

`policy` chooses, as a pure function. `fair_share` and `overtaking` hold its state between two choices. `residency`
knows which LoRA pairs are ready where. `chooser` applies all of them to the job store.
"""

from deployments.scheduling.fair_share import FairShare
from deployments.scheduling.overtaking import Overtaking, Passing
from deployments.scheduling.policy import MOST_PAIRS, MOST_TENANTS, WINDOW, Fleet, Replica, Rules, pick, rank

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
