"""What befalls a fleet, one thing after another on the same one: nothing accepted is lost, nothing is made twice."""

import httpx

from tests.chaos.clients import Load
from tests.client import Client
from tests.cluster.fleet import FRONT, GPUS, Fleet, wait

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
    assert all(made[fleet.replica_on(node)] >= RENDERS // 4 for node in GPUS)
    assert fleet.nodes_of("Generator") == sorted(GPUS)
    assert fleet.nodes_of("Ingress") == sorted(FRONT)
    assert set(fleet.nodes_of("Dispatcher")) < set(FRONT)


def test_a_render_on_a_node_that_dies_is_made_on_another_one(fleet: Fleet) -> None:
    doomed = fleet.replica_on("gpu-2")
    load = fleet.load("node-dies", RENDERS // 2, steps=LONG // 2)
    wait(lambda: doomed in fleet.rendering(), fleet.rendering)
    fleet.cluster.nodes["gpu-2"].kill()
    assert all_right(fleet, "node-dies", load, RENDERS // 2) >= 1
    assert doomed not in fleet.rendering()


def test_a_node_that_joins_gets_work(fleet: Fleet) -> None:
    fleet.join("gpu-3")
    wait(lambda: "gpu-3" in fleet.nodes_of("Generator"), fleet.cluster.application)
    assert all_right(fleet, "joins", fleet.load("joins", RENDERS), RENDERS) == 0
    assert fleet.rendered()[fleet.replica_on("gpu-3")] > 0


def test_while_there_is_no_head_running_renders_end_and_new_ones_are_made(fleet: Fleet) -> None:
    """Must come last: the head stays away."""
    load = fleet.load("head-dies", RENDERS // 4, steps=LONG)
    wait(lambda: len(fleet.rendering()) == len(GPUS), fleet.rendering)
    fleet.cluster.nodes["head"].kill()
    with Client(fleet.url) as client:
        assert client.http.get("/health").status_code == httpx.codes.OK
    assert all_right(fleet, "no-head", fleet.load("no-head", 2, steps=1), 2) == 0
    assert all_right(fleet, "head-dies", load, RENDERS // 4) == 0
