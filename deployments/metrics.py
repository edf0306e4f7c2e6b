"""The queue and the cost model as metrics, on each node's Prometheus endpoint."""

from ray.serve import metrics

from serve_app.jobs.load import Load

_ERRORS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0]


class QueueMetrics:
    """Gauges of what waits and what runs; written by the Dispatcher."""

    def __init__(self) -> None:
        self._queued = metrics.Gauge("wan_queued_renders", "Renders that wait for a Generator.")
        self._queued_s = metrics.Gauge("wan_queued_seconds", "Predicted seconds of one replica for all that wait.")
        self._running = metrics.Gauge("wan_running_renders", "Renders that a Generator works on.")

    def show(self, load: Load) -> None:
        """Set the gauges."""
        self._queued.set(load.queued.renders)
        self._queued_s.set(load.queued.cost_s)
        self._running.set(load.running.renders)


class CostMetrics:
    """How far the cost model is off; written by each Generator."""

    def __init__(self) -> None:
        self._error = metrics.Histogram(
            "wan_render_cost_error",
            "Distance of the predicted from the actual seconds of a render, as a share of the actual ones.",
            boundaries=_ERRORS,
        )

    def predicted(self, predicted_s: float, actual_s: float) -> None:
        """One render is done."""
        self._error.observe(abs(predicted_s - actual_s) / actual_s)
