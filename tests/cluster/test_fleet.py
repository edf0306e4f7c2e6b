"""What befalls a fleet of two models, one thing after another: nothing accepted is lost, nothing is made twice."""

import httpx

from tests.chaos.clients import Load
from tests.client import Client
from tests.cluster.fleet import FRONT, GPUS, MODELS, Fleet, wait

RENDERS = 16
LONG = 100  # steps: ten seconds


def all_right(fleet: Fleet, name: str, load: Load, count: int) -> int:
    """Check that each was made once for its client, with the right frames; return how many took several attempts."""
    outcome, _ = fleet.outcome(name, load)
    told = (outcome.accepted, outcome.succeeded_once, outcome.lost, outcome.doubled, outcome.different)
    assert told == (count, count, 0, 0, 0)
    return outcome.repeated


def test_renders_are_spread_over_the_gpu_nodes_and_the_api_over_the_others(fleet: Fleet) -> None:
    assert all_right(fleet, "spread", fleet.load("spread", RENDERS), RENDERS) == 0
    made = fleet.rendered()
    replicas = [replica for node in GPUS for replica in fleet.generators_on(node)]
    assert all(made[replica] >= RENDERS // len(replicas) // 2 for replica in replicas)
    assert fleet.nodes_of("Generator") == sorted(GPUS * len(MODELS))
    assert fleet.nodes_of("Ingress") == sorted(FRONT)
    assert set(fleet.nodes_of("Dispatcher")) < set(FRONT)


def test_a_render_on_a_node_that_dies_is_made_on_another_one(fleet: Fleet) -> None:
    doomed = fleet.generators_on("gpu-2")
    load = fleet.load("node-dies", RENDERS // 2, steps=LONG // 2)
    wait(lambda: doomed <= fleet.rendering(), fleet.rendering)
    fleet.cluster.nodes["gpu-2"].kill()
    assert all_right(fleet, "node-dies", load, RENDERS // 2) >= len(MODELS)
    assert not doomed & fleet.rendering()


def test_a_node_that_joins_gets_work(fleet: Fleet) -> None:
    fleet.join("gpu-3")
    wait(lambda: fleet.nodes_of("Generator").count("gpu-3") == len(MODELS), fleet.cluster.application)
    assert all_right(fleet, "joins", fleet.load("joins", RENDERS), RENDERS) == 0
    assert all(fleet.rendered()[replica] > 0 for replica in fleet.generators_on("gpu-3"))


def test_the_head_dies_and_comes_back_and_renders_go_on(fleet: Fleet) -> None:
    before = fleet.replica_ids()
    load = fleet.load("head-dies", RENDERS // 4, steps=LONG)
    wait(lambda: len(fleet.rendering()) == len(GPUS) * len(MODELS), fleet.rendering)
    fleet.cluster.nodes["head"].kill()
    with Client(fleet.url) as client:  # the API answers, and new renders are made, while there is no head
        assert client.http.get("/health").status_code == httpx.codes.OK
    assert all_right(fleet, "no-head", fleet.load("no-head", 2, steps=1), 2) == 0
    fleet.revive_head()
    assert all_right(fleet, "head-dies", load, RENDERS // 4) == 0
    assert fleet.replica_ids() == before
    assert all_right(fleet, "after", fleet.load("after", RENDERS // 2), RENDERS // 2) == 0


def test_a_rolling_update_of_every_part_under_load_loses_nothing(fleet: Fleet) -> None:
    before = fleet.replica_ids()
    load = fleet.load("update", 2 * RENDERS, steps=LONG // 4)
    wait(lambda: bool(fleet.rendering()), fleet.rendering)
    fleet.deploy(max_queued=500)
    assert not before & fleet.replica_ids()
    all_right(fleet, "update", load, 2 * RENDERS)


def test_a_drained_node_ends_its_render_and_gets_no_other(fleet: Fleet) -> None:
    node = next(name for name in fleet.nodes_of("Generator") if name not in FRONT)
    leaving = fleet.generators_on(node)
    load = fleet.load("drained", RENDERS // 2, steps=LONG // 2)
    wait(lambda: leaving <= fleet.rendering(), fleet.rendering)
    fleet.cluster.drain(node, deadline_s=600)
    wait(lambda: node not in fleet.nodes_of("Generator"), fleet.cluster.application)
    assert all_right(fleet, "drained", load, RENDERS // 2) == 0
