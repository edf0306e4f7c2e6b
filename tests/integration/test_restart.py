"""Nothing that was accepted is lost, whatever dies."""

from pathlib import Path

from tests.client import Client, body
from tests.service_process import ServiceProcess


def test_a_render_whose_generator_is_killed_is_made_by_the_next_one(service: ServiceProcess, client: Client) -> None:
    request_id = client.submit(body({"sample_steps": 150, "output_format": "png"}))
    client.wait(request_id, "in_progress")
    (generator,) = service.replicas("Generator")
    generator.kill()
    assert client.wait(request_id)["status"] == "succeeded"
    (used,) = client.result(request_id)["metadata"]["prompts"]
    assert used["attempt"] == 2


def test_everything_accepted_survives_the_death_of_the_whole_cluster(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path, lease_s=5)
    service.start()
    with Client(service.url) as client:
        ids = [client.submit(body({"sample_steps": 20}, {"seed": 7})) for _ in range(6)]
        client.wait(ids[0], "in_progress", "succeeded")
        service.kill()
        service.start()
        for request_id in ids:
            assert client.wait(request_id)["status"] == "succeeded"
            assert len(client.result(request_id)["outputs"]["videos"]) == 2
    service.stop()
