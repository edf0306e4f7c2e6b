"""What an operator sees of a running service: every metric of the catalogue, probes, and what the Generators do."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deployments.observability.catalogue import METRICS, Kind
from tests.client import Client, body, pair
from tests.fixtures.collector import Collector
from tests.fixtures.web_server import web_server
from tests.loras.layouts import write
from tests.loras.model import DEMO
from tests.serve_app.loras.sources.servers import HUB_TOKEN, HubStandIn
from tests.serve_app.webhooks.receiver import Receiver

# Only a GPU has a peak, a predicted one too, and only a replica that dies loses an attempt.
ELSEWHERE = {"wan_device_peak_bytes", "wan_device_predicted_bytes", "wan_lost_attempts"}
WITHIN_S = 180  # Ray's processes report every 10 s


def test_a_scrape_finds_every_metric_of_the_catalogue(client: Client, lora_hub: HubStandIn, tmp_path: Path) -> None:
    names = ["measured_high_noise.safetensors", "prepared_high_noise.safetensors"]
    for seed, name in enumerate(names, 70):
        lora_hub.files[name] = write("ai-toolkit", tmp_path, sizes=DEMO, seed=seed).path.read_bytes()
    lora_hub.publish()
    measured, prepared = ([{"path": f"hf://me/pair/{name}", "transformer": "high"}] for name in names)
    with web_server() as server:
        receiver = server.pages["/hook"] = Receiver()
        client.render(body({"seed": 5}, loras=measured, hf_token=HUB_TOKEN, webhook_url=f"{server.url}/hook"))
        for _ in range(3):  # while the last of them run, the next one is queued, and is prepared
            client.submit(body({"sample_steps": 150}))
        next_one = client.submit(body({"seed": 5}, loras=prepared, hf_token=HUB_TOKEN))
        client.wait(next_one, "succeeded")
        wait_until(lambda: bool(receiver.messages))
    refused = client.http.post("/v1/inference", json=body({}, loras=[]))
    assert refused.status_code == httpx.codes.BAD_REQUEST
    wanted = {metric.exported for metric in METRICS.values() if metric.name not in ELSEWHERE}
    end = time.monotonic() + WITHIN_S
    while (missing := wanted - (found := scraped(client)).keys()) or not said_no(found):
        assert time.monotonic() < end, missing
        time.sleep(1)
    for metric in METRICS.values():
        for sample in found.get(metric.exported, []):
            assert set(metric.labels) <= set(sample.labels), sample
    ends = found["ray_wan_attempts_total"]
    assert any(sample.labels["end"] == "succeeded" and sample.value >= 1 for sample in ends)
    assert said_no(found)
    steps = sum(sample.value for sample in found["ray_wan_denoising_steps_total"])
    assert steps >= body({})["prompts"][0]["sample_steps"]


def test_the_probes_say_alive_and_ready(client: Client) -> None:
    for path, status in (("/health/live", "alive"), ("/health/ready", "ready")):
        answer = client.http.get(path)
        assert (answer.status_code, answer.json()["status"]) == (httpx.codes.OK, status)
        assert client.http.head(path).status_code == httpx.codes.OK


def test_the_cluster_shows_a_generator_with_its_pair_and_its_render(client: Client) -> None:
    client.render(body({"seed": 6}))
    running = client.submit(body({"sample_steps": 120}, loras=pair()))
    client.wait(running, "in_progress")
    end = time.monotonic() + WITHIN_S
    while True:
        (model,) = client.http.get("/v1/cluster").json()["models"]
        at_work = [one for one in model["generators"] if one["renders"]]
        if at_work and at_work[0]["device"]:
            break
        assert time.monotonic() < end, model
        time.sleep(0.2)
    client.http.post(f"/v1/requests/{running}/cancel").raise_for_status()
    (generator,) = at_work
    assert model["dispatcher"] == "alive"
    assert (generator["device"], generator["offload"]) == ("cpu", "none")
    assert generator["pairs"]
    (render,) = generator["renders"]
    assert (render["request_id"], render["attempt"], render["steps"]) == (running, 1, 120)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(1)


def said_no(found: Mapping[str, list[Sample]]) -> bool:
    """Return whether the refusal of this test was counted."""
    return any(sample.labels["code"] == "LORA_FILE_REQUIRED" for sample in found.get("ray_wan_refusals_total", []))


def scraped(client: Client) -> Mapping[str, list[Sample]]:
    """Return the samples of a scrape by the name of their metric, without the suffixes of histograms."""
    answer = client.http.get("/metrics")
    assert answer.status_code == httpx.codes.OK
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, list[Sample]] = {}
    histograms = {metric.exported for metric in METRICS.values() if metric.kind is Kind.HISTOGRAM}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            name = family.name if family.name in histograms else sample.name
            found.setdefault(name, []).append(sample)
    return found


def test_a_render_is_one_trace_from_its_post_to_its_upload(client: Client, collector: Collector) -> None:
    trace_id, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    steps = 3
    posted = client.http.post(
        "/v1/inference",
        json=body({"sample_steps": steps, "prompt": "a purple kangaroo"}),
        headers={"traceparent": f"00-{trace_id}-{caller}-01"},
    )
    request_id = posted.raise_for_status().json()["request_id"]
    client.wait(request_id)
    end = time.monotonic() + WITHIN_S
    wanted = {"POST /v1/inference", "queue", "render", "denoise", "decode", "encode", "store"}
    while not wanted <= {span.name for span in collector.of_trace(trace_id)}:
        assert time.monotonic() < end, [span.name for span in collector.of_trace(trace_id)]
        time.sleep(0.2)
    spans = {span.name: span for span in collector.of_trace(trace_id)}
    parents = {name: span.parent_span_id for name, span in spans.items()}
    assert parents["POST /v1/inference"].hex() == caller
    assert parents["queue"] == parents["render"] == spans["POST /v1/inference"].span_id
    assert parents["denoise"] == parents["store"] == spans["render"].span_id
    assert [parents[f"step {number}"] for number in range(1, steps + 1)] == [spans["denoise"].span_id] * steps
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans.values())
    assert spans["render"].end_time_unix_nano >= spans["store"].end_time_unix_nano
    attributes = {one.key: one.value.string_value for one in spans["render"].attributes}
    assert (attributes["wan.request"], attributes["wan.end"]) == (request_id, "succeeded")
    assert "kangaroo" not in str(collector.spans)
