"""Autoscaling: replicas for the slots that the work needs, and none stopped that is at work."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingContext

from deployments.autoscaling import BUSY, BacklogPolicy, wanted_slots

DEPLOYMENT = DeploymentID(name="Generator", app_name="wan")
counts = st.integers(0, 50)


def replica(name: str) -> ReplicaID:
    return ReplicaID(unique_id=name, deployment_id=DEPLOYMENT)


def context(*, requests: float, busy: dict[str, float], gone: tuple[str, ...] = ()) -> AutoscalingContext:
    reports = {
        replica(name): [TimeStampedValue(1.0, 0.0), TimeStampedValue(2.0, value)] for name, value in busy.items()
    }
    unknown: dict[str, Any] = dict.fromkeys(
        ("app_name", "total_queued_requests", "aggregated_metrics", "last_scale_up_time", "last_scale_down_time")
    )
    return AutoscalingContext(
        deployment_id=DEPLOYMENT,
        deployment_name="Generator",
        current_num_replicas=len(busy),
        target_num_replicas=len(busy),
        running_replicas=[replica(name) for name in busy if name not in gone],
        total_num_requests=requests,
        raw_metrics={BUSY: reports} if reports else {},
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=100,
        policy_state={},
        current_time=3.0,
        config=None,
        **unknown,
    )


def replicas(**kind: Any) -> int:
    count, state = BacklogPolicy()(context(**kind))
    assert state == {}
    return count


def test_there_is_a_replica_for_each_slot() -> None:
    assert replicas(requests=0, busy={}) == 0
    assert replicas(requests=2.5, busy={"a": 1.0}) == 3


def test_a_slot_that_is_counted_twice_for_a_moment_brings_no_replica() -> None:
    assert replicas(requests=1.1, busy={"a": 1.0}) == 1


def test_what_is_at_work_stays_although_the_dispatcher_with_its_slots_is_gone() -> None:
    assert replicas(requests=0, busy={"a": 1.0, "b": 0.0, "c": 1.0}) == 2


def test_what_a_replica_last_said_before_it_went_does_not_count() -> None:
    assert replicas(requests=0, busy={"a": 1.0, "b": 1.0}, gone=("b",)) == 1


works = st.fixed_dictionaries(
    {
        "busy": counts,
        "queued": counts,
        "cost_s": st.floats(0, 1e6),
        "target_wait_s": st.floats(1, 600),
        "alive": counts,
    }
)


@given(works, st.integers(1, 60))
def test_slots_are_what_the_work_needs(work: dict[str, Any], most: int) -> None:
    work["busy"] = min(work["busy"], most)
    busy, queued = work["busy"], work["queued"]
    slots = wanted_slots(**work, most=most)
    assert busy <= slots <= most  # what renders keeps its slot, and the bound holds
    assert slots - busy <= queued  # nobody wins a replica for nothing
    # No replica is idle while a render waits, and together they would do the work in time.
    assert slots >= min(most, busy + queued, work["alive"])
    assert slots in (most, busy + queued) or slots * work["target_wait_s"] >= work["cost_s"]
