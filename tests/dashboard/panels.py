"""The panels of the dashboard as values, and what a Prometheus answers to their questions.

Example:
    for panel in read_panels():
        lines = answers(prometheus, panel, span)
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from tests.fixtures.prometheus import CONFIGS


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. The place is in Grafana's grid of 24 columns; `queries` are PromQL with the legend of each."""

    title: str
    unit: str
    x: int
    y: int
    width: int
    height: int
    queries: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time, in Unix seconds, and the seconds between two points of a line."""

    start: float
    end: float
    step: float


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its legend, and its points as (Unix seconds, value)."""

    legend: str
    points: Sequence[tuple[float, float]]


def read_panels() -> list[Panel]:
    """Return the panels of configs/observability/dashboard.json."""
    panels = json.loads((CONFIGS / "dashboard.json").read_text())["panels"]
    return [
        Panel(
            title=panel["title"],
            unit=panel["fieldConfig"]["defaults"]["unit"],
            x=panel["gridPos"]["x"],
            y=panel["gridPos"]["y"],
            width=panel["gridPos"]["w"],
            height=panel["gridPos"]["h"],
            queries=[(target["expr"], target["legendFormat"]) for target in panel["targets"]],
        )
        for panel in panels
    ]


def answers(prometheus: httpx.Client, panel: Panel, span: Span) -> list[Line]:
    """Return every series that answers a question of the panel. Raise httpx.HTTPStatusError if one is no PromQL."""
    lines = []
    for expression, legend in panel.queries:
        parameters: dict[str, str | float] = {
            "query": expression,
            "start": span.start,
            "end": span.end,
            "step": span.step,
        }
        found = prometheus.get("/query_range", params=parameters).raise_for_status().json()["data"]["result"]
        for series in found:
            points = [(float(at), float(value)) for at, value in series["values"] if value != "NaN"]
            if points:
                lines.append(Line(legend_of(legend, series["metric"]), points))
    return lines


def legend_of(template: str, labels: Mapping[str, str]) -> str:
    """Return the legend with `{{label}}` filled in, as Grafana does."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), template)
