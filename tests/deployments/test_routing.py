"""The request router, as Ray Serve constructs and asks it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID, RequestMetadata
from ray.serve.request_router import PendingRequest

from deployments.routing import WarmFirstRouter
from deployments.scheduling.residency import FleetMemory

GENERATOR = DeploymentID(name="Generator", app_name="wan")


@dataclass
class Candidate:
    """A replica, as far as a router looks at it."""

    name: str
    routing_stats: Mapping[str, Any] = field(default_factory=dict)
    max_ongoing_requests: int = 1

    @property
    def replica_id(self) -> ReplicaID:
        return ReplicaID(unique_id=self.name, deployment_id=GENERATOR)


@pytest.fixture
def router() -> WarmFirstRouter:
    return WarmFirstRouter(GENERATOR, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True)


def pending(fleet: FleetMemory) -> PendingRequest:
    metadata = RequestMetadata(request_id="1", internal_request_id="1")
    return PendingRequest(args=[fleet], kwargs={}, metadata=metadata)


async def names(router: WarmFirstRouter, fleet: FleetMemory, *candidates: Candidate) -> list[list[str]]:
    chosen = await router.choose_replicas(list(candidates), pending(fleet))
    return [[replica.name for replica in group] for group in chosen]


async def test_a_wanted_pair_comes_first_then_empty_replicas_then_the_others(router: WarmFirstRouter) -> None:
    fleet = FleetMemory()
    fleet.want(["a"])
    found = await names(
        router,
        fleet,
        Candidate("other", {"resident": ["x"]}),
        Candidate("empty"),
        Candidate("warm", {"resident": ["y", "a"]}),
        Candidate("warm too", {"resident": ["a"]}),
    )
    assert found == [["warm", "warm too"], ["empty"], ["other"]]


async def test_busy_replicas_are_left_out_but_seen(router: WarmFirstRouter) -> None:
    fleet = FleetMemory()
    busy, free = Candidate("busy", {"resident": ["a"]}), Candidate("free")
    router.on_new_queue_len_info(busy.replica_id, 1)
    assert await names(router, fleet, busy, free) == [["free"]]
    assert (fleet.size, fleet.resident("busy")) == (2, ("a",))


async def test_while_all_are_busy_serve_is_told_to_wait_before_it_asks_again(router: WarmFirstRouter) -> None:
    busy = Candidate("busy")
    router.on_new_queue_len_info(busy.replica_id, 1)
    request = pending(FleetMemory())
    assert await router.choose_replicas([busy], request) == []
    assert request.routing_context.should_backoff


async def test_what_the_dispatcher_learned_counts_more_than_what_was_published(router: WarmFirstRouter) -> None:
    fleet = FleetMemory()
    fleet.want(["a"])
    fleet.learned("r1", ["b"])
    assert await names(router, fleet, Candidate("r1", {"resident": ["a"]}), Candidate("r2")) == [["r2"], ["r1"]]


async def test_without_a_request_every_replica_will_do(router: WarmFirstRouter) -> None:
    candidates = [Candidate("r1"), Candidate("r2")]
    assert await router.choose_replicas(candidates) == [candidates]
