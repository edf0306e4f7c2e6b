"""A Generator of two processes that share each render: one result, one cancel, one death."""

import time

import psutil

from tests.client import Client, body
from tests.service_process import ServiceProcess

LONG = {"sample_steps": 150}


def further_ranks(service: ServiceProcess) -> list[psutil.Process]:
    return [process for process in service.processes() if "deployments.wan.member" in process.cmdline()]


def test_a_render_ends_once_whatever_becomes_of_one_of_its_processes(fleet: ServiceProcess) -> None:
    with Client(fleet.url) as client:
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
        (rank,) = further_ranks(fleet)
        time.sleep(0.3)
        rank.kill()
        assert client.wait(running)["status"] == "succeeded"
        (made,) = client.result(running)["metadata"]["prompts"]
        assert made["attempt"] == 2
        (other,) = further_ranks(fleet)
        assert other.pid != rank.pid
