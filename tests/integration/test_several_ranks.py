"""A Generator of two processes that share each render: one result, one cancel, one death."""

import time
from collections.abc import Iterator

import psutil
import pytest

from tests.client import Client, body
from tests.service_process import ServiceProcess

LONG = {"sample_steps": 150}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """Yield a service whose one Generator is two processes."""
    process = ServiceProcess(tmp_path_factory.mktemp("shared"), gpus_per_generator=2, lease_s=3, heartbeat_s=0.5)
    process.start()
    yield process
    process.stop()


def further_ranks(service: ServiceProcess) -> list[psutil.Process]:
    return [process for process in service.processes() if "deployments.wan.member" in process.cmdline()]


def test_a_render_ends_once_whatever_becomes_of_one_of_its_processes(shared: ServiceProcess) -> None:
    with Client(shared.url) as client:
        first = client.submit(body({"seed": 1}))
        assert client.wait(first)["status"] == "succeeded"
        (made,) = client.result(first)["metadata"]["prompts"]
        assert made["acceleration"]["parallelism"] == {"guidance": 2, "ulysses": 1, "ring": 1}

        canceled = client.submit(body(LONG))
        client.wait(canceled, "in_progress")
        client.http.post(f"/v1/requests/{canceled}/cancel").raise_for_status()
        assert client.wait(canceled)["status"] == "canceled"

        running = client.submit(body(LONG))
        client.wait(running, "in_progress")
        (rank,) = further_ranks(shared)
        time.sleep(0.3)
        rank.kill()
        assert client.wait(running)["status"] == "succeeded"
        (made,) = client.result(running)["metadata"]["prompts"]
        assert made["attempt"] == 2
        (other,) = further_ranks(shared)
        assert other.pid != rank.pid
