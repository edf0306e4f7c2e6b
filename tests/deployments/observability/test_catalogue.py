"""The catalogue, its documentation, the alert rules and the dashboard name the same metrics."""

import json
import re
from pathlib import Path

import yaml

from deployments.observability.catalogue import METRICS, Kind
from deployments.observability.metrics import service_observers
from serve_app.settings import Settings

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "observability.md"
RUNBOOK = ROOT / "docs" / "operations.md"
ALERTS = ROOT / "configs" / "observability" / "alerts.yaml"
DASHBOARD = ROOT / "configs" / "observability" / "dashboard.json"

NAMES = {metric.exported: metric for metric in METRICS.values()}


def test_the_docs_show_every_metric_as_it_is() -> None:
    rows = re.findall(r"^\| `(ray_wan_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE)
    shown = [
        (metric.exported, metric.kind.value, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning)
        for metric in METRICS.values()
    ]
    assert rows == shown


def test_every_metric_of_the_catalogue_is_made_by_an_observer() -> None:
    made = {
        metric._name  # Ray gives a metric no public name
        for observer in service_observers(Settings())._observers
        for metric in vars(observer).values()
        if hasattr(metric, "_name")
    }
    assert made == set(METRICS)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {base_name(name) for name in re.findall(r"ray_wan_\w+", DASHBOARD.read_text())}
    assert shown == NAMES.keys()


def test_every_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    _, incidents = RUNBOOK.read_text().split("## Incidents")
    assert re.findall(r"^### (\w+)$", incidents, re.MULTILINE) == [rule["alert"] for rule in rules]
    for rule in rules:
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (ROOT / path, anchor) == (RUNBOOK, rule["alert"].lower())


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    rules = [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    panels = [
        target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel.get("targets", [])
    ]
    assert rules
    assert panels
    for expression in [*rules, *panels]:
        for name in re.findall(r"ray_wan_\w+", expression):
            assert base_name(name) in NAMES, expression
        assert re.search(r"ray_\w+", expression), expression


def test_labels_that_rules_and_dashboard_group_by_exist() -> None:
    text = ALERTS.read_text() + DASHBOARD.read_text()
    known = {label for metric in METRICS.values() for label in metric.labels} | {"le"}
    for labels in re.findall(r"by \(([^)]*)\)", text):
        assert {label.strip() for label in labels.split(",")} <= known, labels


def base_name(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        found = NAMES.get(name.removesuffix(suffix))
        if found is not None and found.kind is Kind.HISTOGRAM:
            return found.exported
    return name
