"""Prometheus metrics of the queue and of the cost model, as observers; Ray exports them on each node.

Ray Serve's own metrics (replicas, calls, latencies) need nothing from here. Every name below gets the prefix `ray_`.
"""

from ray.serve import metrics

from serve_app.jobs.load import Load
from serve_app.jobs.records import Claim
from serve_app.observers import Observer, Observers, Outcome

_MODEL = ("model",)  # the label of every metric
_ERRORS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0]


def service_observers() -> Observers:
    """Return the observers of one actor. A new observer of the service is one entry here."""
    return Observers(QueueMetrics(), CostMetrics())


class QueueMetrics(Observer):
    """Gauges of what waits and what runs."""

    def __init__(self) -> None:
        self._queued = metrics.Gauge("wan_queued_renders", "Renders that wait for a Generator.", tag_keys=_MODEL)
        self._queued_s = metrics.Gauge(
            "wan_queued_seconds", "Predicted seconds of one replica for all that wait.", tag_keys=_MODEL
        )
        self._running = metrics.Gauge("wan_running_renders", "Renders that a Generator works on.", tag_keys=_MODEL)

    def load(self, model: str, load: Load) -> None:
        """Set the gauges of that model."""
        tags = {"model": model}
        self._queued.set(load.queued.renders, tags)
        self._queued_s.set(load.queued.cost_s, tags)
        self._running.set(load.running.renders, tags)


class CostMetrics(Observer):
    """A histogram of how far the cost model is off."""

    def __init__(self) -> None:
        self._error = metrics.Histogram(
            "wan_render_cost_error",
            "Distance of the predicted from the actual seconds of a render, as a share of the actual ones.",
            boundaries=_ERRORS,
            tag_keys=_MODEL,
        )

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Compare the prediction with the seconds that a render took, where it made frames."""
        if outcome.replica_s:
            error = abs(claim.cost_s - outcome.replica_s) / outcome.replica_s
            self._error.observe(error, {"model": claim.spec.model})
