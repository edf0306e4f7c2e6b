"""A real Prometheus scrapes a service, and evaluates the alert rules. Collected where Prometheus is installed."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deployments.observability.catalogue import METRICS
from tests.client import Client, body
from tests.fixtures.prometheus import CONFIGS, running_prometheus
from tests.service_process import ServiceProcess

PROMTOOL = str(shutil.which("promtool"))
WITHIN_S = 60


@pytest.fixture(scope="module")
def prometheus(service: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Yield a client of a Prometheus that scrapes the service as docs/observability.md says."""
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), service.url) as http:
        yield http


def test_the_rules_are_valid() -> None:
    command = [PROMTOOL, "check", "rules", str(CONFIGS / "alerts.yaml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_reads_the_service_and_every_question_of_the_dashboard(
    client: Client, prometheus: httpx.Client
) -> None:
    client.render(body({"seed": 8}))
    steps = METRICS["wan_denoising_steps"].exported
    assert until(lambda: answer(prometheus, "query", query=steps)["result"]), "the metrics were not scraped"
    (target,) = answer(prometheus, "targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    panels = json.loads((CONFIGS / "dashboard.json").read_text())["panels"]
    for expression in [target["expr"] for panel in panels for target in panel["targets"]]:
        assert prometheus.get("/query", params={"query": expression}).json()["status"] == "success", expression


def test_no_alert_fires_while_all_is_well(client: Client, prometheus: httpx.Client) -> None:
    def evaluated() -> list[dict[str, Any]]:
        rules = [rule for group in answer(prometheus, "rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] == "ok" for rule in rules) else []

    rules = until(evaluated)
    assert rules, answer(prometheus, "rules")
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def answer(prometheus: httpx.Client, path: str, **parameters: str) -> Any:
    found = until(lambda: _asked(prometheus, path, parameters))
    assert found is not None, path
    return found["data"]


def _asked(prometheus: httpx.Client, path: str, parameters: dict[str, str]) -> dict[str, Any] | None:
    try:
        reply = prometheus.get(f"/{path}", params=parameters)
    except httpx.TransportError:  # it starts
        return None
    found: dict[str, Any] = reply.json() if reply.is_success else {}
    return found or None


def until(look: Any) -> Any:
    """Return the first true answer of `look`, or the last one."""
    end = time.monotonic() + WITHIN_S
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.3)
    return found
