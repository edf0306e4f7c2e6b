"""Prometheus metrics as observers: each actor counts what happens in it, and Ray exports that on each node.

`deployments.observability.catalogue` says what each metric means. Ray Serve's own metrics (replicas, calls, latencies)
need nothing from here.
"""

from collections.abc import Mapping, Sequence
from time import monotonic

from ray.serve import metrics

from deployments.observability.catalogue import METRICS
from deployments.observability.journal import RenderLog
from deployments.observability.tracing import RenderTraces, tracer_provider
from serve_app.jobs.endings import RenderEnd
from serve_app.jobs.load import Amount, Load
from serve_app.jobs.outbox import DeliveryState
from serve_app.jobs.records import Claim, NewRequest, Output
from serve_app.loras.files import LoraOnDisk, Origin
from serve_app.observers import End, Loss, Observer, Observers, Outcome
from serve_app.results import StartSeconds, Timings
from serve_app.settings import Settings
from serve_app.spec import Priority

_NO_CODE = "none"
_PHASES = sorted(set(Timings.model_fields) - {"generate"})  # `generate` is the sum of others


def service_observers(settings: Settings) -> Observers:
    """Return the observers of one actor. A new observer of the service is one entry here."""
    provider = tracer_provider(settings)
    traces = [] if provider is None else [RenderTraces(provider)]
    return Observers(
        RenderLog(),
        ApiMetrics(),
        EndMetrics(),
        QueueMetrics(),
        RenderMetrics(),
        StartMetrics(),
        MemoryMetrics(),
        *traces,
    )


def _counter(name: str) -> metrics.Counter:
    metric = METRICS[name]
    return metrics.Counter(name, metric.meaning, tag_keys=metric.labels)


def _gauge(name: str) -> metrics.Gauge:
    metric = METRICS[name]
    return metrics.Gauge(name, metric.meaning, tag_keys=metric.labels)


def _histogram(name: str) -> metrics.Histogram:
    metric = METRICS[name]
    return metrics.Histogram(name, metric.meaning, boundaries=list(metric.buckets), tag_keys=metric.labels)


class ApiMetrics(Observer):
    """Counts what the API accepts, refuses and tells."""

    def __init__(self) -> None:
        self._accepted = _counter("wan_accepted_renders")
        self._refused = _counter("wan_refusals")
        self._told = _counter("wan_webhook_attempts")

    def accepted(self, request: NewRequest) -> None:
        """Count the request's renders."""
        self._accepted.inc(len(request.specs), {"model": request.model, "priority": request.priority.value})

    def refused(self, code: str) -> None:
        """Count the refusal."""
        self._refused.inc(1, {"code": code or _NO_CODE})

    def told(self, state: DeliveryState) -> None:
        """Count the attempt at a webhook's delivery."""
        self._told.inc(1, {"state": state.value})


class EndMetrics(Observer):
    """Counts the ends of renders, whoever ended them."""

    def __init__(self) -> None:
        self._ended = _counter("wan_ended_renders")

    def finished(self, ends: Sequence[RenderEnd]) -> None:
        """Count them."""
        for end in ends:
            self._ended.inc(1, {"model": end.model, "end": end.state.value, "code": end.code or _NO_CODE})


class QueueMetrics(Observer):
    """Gauges of what waits and what runs, and a count of attempts that were lost."""

    def __init__(self) -> None:
        self._queued = _gauge("wan_queued_renders")
        self._queued_s = _gauge("wan_queued_seconds")
        self._running = _gauge("wan_running_renders")
        self._generators = _gauge("wan_generators")
        self._oldest = _gauge("wan_oldest_wait_seconds")
        self._lost = _counter("wan_lost_attempts")

    def load(self, model: str, load: Load) -> None:
        """Set the gauges of that model."""
        for priority in Priority:
            queued = sum((amount for line, amount in load.lines.items() if line.priority is priority), Amount())
            labels = {"model": model, "priority": priority.value}
            self._queued.set(queued.renders, labels)
            self._queued_s.set(queued.cost_s, labels)
        self._running.set(load.running.renders, {"model": model})
        self._generators.set(load.replicas, {"model": model})

    def oldest(self, model: str, waits: Mapping[Priority, float]) -> None:
        """Set the age of the oldest queued render of each priority; 0 if none is queued."""
        for priority in Priority:
            self._oldest.set(waits.get(priority, 0.0), {"model": model, "priority": priority.value})

    def lost(self, model: str, loss: Loss, attempts: int) -> None:
        """Count the lost attempts."""
        self._lost.inc(attempts, {"model": model, "cause": loss.value})


class RenderMetrics(Observer):
    """Counts the work of a Generator, and the seconds of each phase."""

    def __init__(self) -> None:
        self._wait = _histogram("wan_wait_seconds")
        self._gap = _histogram("wan_gap_seconds")
        self._attempts = _counter("wan_attempts")
        self._render = _histogram("wan_render_seconds")
        self._phase = _histogram("wan_phase_seconds")
        self._steps = _counter("wan_denoising_steps")
        self._busy = _counter("wan_busy_seconds")
        self._predicted = _counter("wan_predicted_seconds")
        self._error = _histogram("wan_render_cost_error")
        self._switches = _counter("wan_lora_switches")
        self._files = _counter("wan_lora_files")
        self._bytes = _counter("wan_lora_bytes")
        self._downloads = _histogram("wan_lora_download_seconds")
        self._embeddings = _counter("wan_prompt_embeddings")
        self._prepared = _counter("wan_prepared_seconds")
        self._free_since = monotonic()

    def started(self, claim: Claim) -> None:
        """Count how long the render waited, and the replica for it."""
        model = claim.spec.model
        self._gap.observe(max(0.0, monotonic() - self._free_since), {"model": model})
        if claim.attempt == 1:  # later ones have waited for the attempts before, too
            self._wait.observe(claim.waited_s, {"model": model, "priority": claim.priority.value})

    def read(self, model: str, files: Sequence[LoraOnDisk]) -> None:
        """Count the files and their bytes."""
        for file in files:
            labels = {"model": model, "origin": file.origin.value}
            self._files.inc(1, labels)
            self._bytes.inc(file.header.file_size, labels)
            if file.origin is Origin.DOWNLOAD:
                self._downloads.observe(file.fetch_s, {"model": model})

    def step(self, claim: Claim, steps_done: int) -> None:
        """Count a denoising step. Encoding and storing follow the last one, while the device takes the next render."""
        self._steps.inc(1, {"model": claim.spec.model})
        self._free_since = monotonic()

    def prepared(self, model: str, seconds: float) -> None:
        """Count the seconds."""
        self._prepared.inc(seconds, {"model": model})

    def published(self, claim: Claim, output: Output) -> None:
        """Count the seconds of each phase."""
        for phase in _PHASES:
            self._phase.observe(getattr(output.metadata.timings, phase), {"model": claim.spec.model, "phase": phase})

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Count the end and, if frames were made, the measured and the predicted cost."""
        spec = claim.spec
        code = _NO_CODE if outcome.error is None else outcome.error.code
        self._attempts.inc(1, {"model": spec.model, "end": outcome.end.value, "code": code})
        if not outcome.replica_s:
            return
        self._render.observe(outcome.replica_s, {"model": spec.model, "speed": spec.speed.value})
        self._busy.inc(outcome.replica_s, {"model": spec.model})
        if claim.cost_s:
            self._predicted.inc(claim.cost_s, {"model": spec.model})
        error = abs(claim.cost_s - outcome.replica_s) / outcome.replica_s
        self._error.observe(error, {"model": spec.model})
        for source, texts in (("memory", outcome.embeddings.hits), ("encoder", outcome.embeddings.misses)):
            if texts:
                self._embeddings.inc(texts, {"model": spec.model, "source": source})
        if outcome.loras is not None and outcome.end is End.SUCCEEDED:
            self._switches.inc(1, {"model": spec.model, "source": outcome.loras.value})


class _KeptGauge(metrics.Gauge):
    """A gauge that is shown for as long as its values are true: Ray shows a value until it was read once."""

    def __init__(self, name: str) -> None:
        metric = METRICS[name]
        super().__init__(name, metric.meaning, tag_keys=metric.labels)
        self._values: dict[tuple[tuple[str, str], ...], float] = {}  # by labels

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._values[tuple((tags or {}).items())] = value
        super().set(value, tags)

    def show_again(self) -> None:
        for labels, value in self._values.items():
            super().set(value, dict(labels))


class StartMetrics(Observer):
    """Gauges of the seconds that the start of a Generator took."""

    def __init__(self) -> None:
        self._start = _KeptGauge("wan_start_seconds")

    def ready(self, model: str, start: StartSeconds) -> None:
        """Set the seconds of each part."""
        for phase, seconds in start.model_dump().items():
            self._start.set(seconds, {"model": model, "phase": phase})

    def alive(self) -> None:
        """Show them again."""
        self._start.show_again()


class MemoryMetrics(Observer):
    """Gauges of a Generator's memory, from its last render."""

    def __init__(self) -> None:
        self._plan = _KeptGauge("wan_memory_plan")
        self._resident = _KeptGauge("wan_resident_lora_bytes")
        self._predicted = _KeptGauge("wan_device_predicted_bytes")
        self._peak = _KeptGauge("wan_device_peak_bytes")
        self._planned: dict[str, str] = {}  # labels of the plan that is shown as 1

    def alive(self) -> None:
        """Show them again."""
        for gauge in (self._plan, self._resident, self._predicted, self._peak):
            gauge.show_again()

    def published(self, claim: Claim, output: Output) -> None:
        """Set the gauges."""
        model, runtime = claim.spec.model, output.metadata.runtime
        planned = {"model": model, "offload": runtime.offload, "pristine": runtime.pristine}
        if self._planned and self._planned != planned:  # it follows the size of renders
            self._plan.set(0, self._planned)
        self._planned = planned
        self._plan.set(1, planned)
        for memory in ("gpu", "host"):
            held = sum(lora.bytes for lora in runtime.resident_loras if lora.memory == memory)
            self._resident.set(held, {"model": model, "memory": memory})
        if runtime.predicted_bytes is not None:
            self._predicted.set(runtime.predicted_bytes, {"model": model, "offload": runtime.offload})
        if runtime.peak_bytes is not None:
            self._peak.set(runtime.peak_bytes, {"model": model, "offload": runtime.offload})
