"""Every part may die: what runs goes on and counts, what waits is made."""

import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.client import Client, body
from tests.postgres_server import PostgresServer
from tests.service_process import ServiceProcess

LONG = {"sample_steps": 150}


def controller(service: ServiceProcess) -> psutil.Process:
    return next(process for process in service.processes() if "ServeController" in " ".join(process.cmdline()))


def patient_status(client: Client, request_id: str) -> str:
    """Wait for the end of a request whose service is in trouble meanwhile."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            answer = client.http.get(f"/v1/requests/{request_id}/status")
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.status_code == httpx.codes.OK and answer.json()["status"] in ("succeeded", "failed", "canceled"):
            status: str = answer.json()["status"]
            return status
        time.sleep(0.2)
    raise TimeoutError(request_id)


@pytest.mark.parametrize("part", ["Dispatcher", "Ingress", "controller"])
def test_what_runs_and_what_waits_outlives_the_death_of(service: ServiceProcess, client: Client, part: str) -> None:
    running = client.submit(body(LONG))
    client.wait(running, "in_progress")
    waiting = [client.submit(body({"seed": seed})) for seed in range(3)]
    victim = controller(service) if part == "controller" else service.replicas(part)[0]
    victim.kill()
    assert [patient_status(client, request_id) for request_id in [running, *waiting]] == ["succeeded"] * 4
    (used,) = client.result(running)["metadata"]["prompts"]
    assert used["attempt"] == 1


def test_an_output_that_cannot_be_stored_fails_its_render_and_no_other(service: ServiceProcess, client: Client) -> None:
    doomed = client.submit(body(LONG))
    client.wait(doomed, "in_progress")
    in_the_way = service.directory / "var" / "outputs" / doomed
    in_the_way.write_bytes(b"a file where the request's folder should be")
    status = client.wait(doomed)
    assert (status["status"], status["error_code"]) == ("failed", "OUTPUT_NOT_WRITTEN")
    in_the_way.unlink()
    assert client.wait(client.submit(body()))["status"] == "succeeded"


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServiceProcess, PostgresServer]]:
    """Yield a service with a PostgreSQL server of its own, which tests may stop, and two replicas of the API."""
    directory = tmp_path_factory.mktemp("on_postgres")
    server = PostgresServer(directory / "postgres")
    server.start()
    service = ServiceProcess(
        directory,
        database_url=server.create_database("wan"),
        ingress_replicas=2,
        trust_tenant_header=True,
        render_timeout_s=3,
    )
    service.start()
    yield service, server
    service.kill()
    server.stop()


def test_a_running_render_counts_although_the_store_was_away_when_it_ended(
    on_postgres: tuple[ServiceProcess, PostgresServer],
) -> None:
    service, server = on_postgres
    with Client(service.url) as client:
        running = client.submit(body({"sample_steps": 60}))
        client.wait(running, "in_progress")
        server.kill()
        refused = client.http.post("/v1/inference", json=body())
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert refused.json()["detail"]["error"]["code"] == "STORE_UNAVAILABLE"
        assert int(refused.headers["retry-after"]) > 0
        time.sleep(3)
        server.start()
        assert patient_status(client, running) == "succeeded"
        (used,) = client.result(running)["metadata"]["prompts"]
        assert used["attempt"] == 1
        assert client.wait(client.submit(body()))["status"] == "succeeded"


def test_a_deadline_that_passed_stays_passed(on_postgres: tuple[ServiceProcess, PostgresServer]) -> None:
    service, _ = on_postgres
    with Client(service.url) as client:
        late = client.submit(body({"sample_steps": 150, "width": 256, "height": 256}))
        status = client.wait(late)
        assert (status["status"], status["error_code"]) == ("failed", "DEADLINE_EXCEEDED")
        assert client.wait(client.submit(body()))["status"] == "succeeded"
        assert client.status(late)["status"] == "failed"


def test_one_key_is_one_request_whichever_replica_hears_it(on_postgres: tuple[ServiceProcess, PostgresServer]) -> None:
    service, _ = on_postgres
    answers: list[httpx.Response] = []

    def post() -> None:
        with Client(service.url) as client:
            answers.append(client.http.post("/v1/inference", json=body(), headers={"Idempotency-Key": "once"}))

    posts = [threading.Thread(target=post) for _ in range(12)]
    for thread in posts:
        thread.start()
    for thread in posts:
        thread.join()
    assert {answer.status_code for answer in answers} == {httpx.codes.OK}
    assert len({answer.json()["request_id"] for answer in answers}) == 1
    with Client(service.url) as client:
        other = client.http.post("/v1/inference", json=body({"seed": 9}), headers={"Idempotency-Key": "once"})
        assert other.status_code == httpx.codes.CONFLICT
        mine = client.http.post(
            "/v1/inference", json=body({"seed": 9}), headers={"Idempotency-Key": "once", "X-Tenant": "me"}
        )
        assert mine.status_code == httpx.codes.OK
