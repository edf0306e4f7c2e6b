"""Autoscaling of the Generators: as many as the accepted work needs, and never fewer than are at work.

The Dispatcher turns work into open slots (`wanted_slots`), which Ray Serve counts as load; Serve's controller turns
this load into replicas (`BacklogPolicy`):

    AutoscalingPolicy(policy_function="deployments.autoscaling:BacklogPolicy")

Serve pickles this module by value and calls the policy in its controller, so it imports nothing of the service.
"""

import math
from typing import Any

from ray.serve.config import AutoscalingContext

# Between two renders, Serve counts a slot twice for a moment. So a mean of slots is rounded down up to this fraction.
# On a new replica the mean begins with that moment, and is 2 for one slot until Serve's next report, within a second.
# So `upscale_delay_s` is longer than that.
_FLICKER = 0.25

BUSY = "busy"  # the metric of a Generator: 1 while it renders, encodes or stores


class BacklogPolicy:
    """Follows the Dispatcher, whose slots are the replicas that the work needs; see `wanted_slots`.

    The Generators themselves report the number at work, so it stays true if the Dispatcher and its slots are gone.
    Serve applies the bounds and the delays. If it stops a replica that is at work, the replica finishes first.
    """

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas, and no state."""
        slots = math.ceil(max(0.0, context.total_num_requests - _FLICKER))
        return max(slots, busy_replicas(context)), {}


def busy_replicas(context: AutoscalingContext) -> int:
    """Return how many of the running replicas last said that they are at work."""
    reports = (context.raw_metrics or {}).get(BUSY, {})
    running = set(context.running_replicas)
    return sum(series[-1].value > 0 for replica, series in reports.items() if series and replica in running)


def wanted_slots(*, busy: int, queued: int, cost_s: float, target_wait_s: float, alive: int, most: int) -> int:
    """Return how many slots the Dispatcher should hold open at the Generators' handle.

    Args:
        busy: slots that render now.
        queued: renders that wait.
        cost_s: predicted seconds of everything that waits or runs.
        target_wait_s: within which all of it should be done.
        alive: existing replicas; each of them must have work while there is any.
        most: the largest number of replicas.
    """
    needed = max(math.ceil(cost_s / target_wait_s), alive)
    return min(most, busy + queued, max(needed, busy))
