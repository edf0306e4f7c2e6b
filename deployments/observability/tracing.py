"""Distributed traces (OpenTelemetry): a trace for each render, from its POST through the queue to its upload.

The Ingress opens a span for each POST (`serve_app.api.tracing`). Its context is stored with the renders, as the header
`traceparent`, and the Generator that takes a render, in another process and maybe hours later, goes on with it:

    POST /v1/inference
    ├── queue
    └── render                 one for each attempt
        ├── fetch, lora, text, denoise, decode, encode, store
        └── step 1, step 2 ... below `denoise`

Spans are sent to the OTLP endpoint that the args name; without one there is no tracing. They hold no prompt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import time_ns

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

from serve_app.jobs.records import Claim, Output
from serve_app.observers import End, Observer, Outcome
from serve_app.results import Timings
from serve_app.settings import Settings

_SERVICE = "wan-lora-serve"
_NS = 1_000_000_000
_BEFORE = ("fetch", "lora", "text", "denoise", "decode")  # one after the other from the start of the attempt
_AFTER = ("encode", "store")  # up to its end; the attempt before may be stored in between


def tracer_provider(settings: Settings) -> TracerProvider | None:
    """Return what sends spans to `otlp_endpoint`, in a thread of its own; None if the args name none."""
    if settings.otlp_endpoint is None:
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": _SERVICE}))
    exporter = OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


@dataclass(slots=True)
class _Open:
    """An attempt that runs."""

    span: Span
    started_ns: int
    steps_ns: list[int] = field(default_factory=list)  # when each denoising step was done
    output: Output | None = None


class RenderTraces(Observer):
    """Makes the spans of the attempts of one Generator."""

    def __init__(self, provider: TracerProvider) -> None:
        """Send spans through `provider`."""
        self._tracer: Tracer = provider.get_tracer("deployments")
        self._open: dict[str, _Open] = {}  # by the claims' tokens

    def started(self, claim: Claim) -> None:
        """Open the span of the attempt, below what the claim brings from its POST; the wait before is one beside it."""
        context = extract({} if claim.traceparent is None else {"traceparent": claim.traceparent})
        now = time_ns()
        if claim.attempt == 1:
            waited = self._tracer.start_span("queue", context, start_time=now - int(claim.waited_s * _NS))
            waited.end(now)
        span = self._tracer.start_span("render", context, start_time=now, attributes=_attributes(claim))
        self._open[claim.token] = _Open(span, now)

    def step(self, claim: Claim, steps_done: int) -> None:
        """Record the time of the step."""
        if found := self._open.get(claim.token):
            found.steps_ns.append(time_ns())

    def published(self, claim: Claim, output: Output) -> None:
        """Record the output, whose metadata has the seconds of each phase."""
        if found := self._open.get(claim.token):
            found.output = output

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Close the span, and create the spans of its phases and steps."""
        found = self._open.pop(claim.token, None)
        if found is None:
            return
        now = time_ns()
        if found.output is not None:
            self._phases(found, found.output.metadata.timings, now)
        found.span.set_attribute("wan.end", outcome.end.value)
        if outcome.end is End.FAILED and outcome.error is not None:
            found.span.set_status(Status(StatusCode.ERROR, outcome.error.code))
        found.span.end(now)

    def _phases(self, found: _Open, timings: Timings, end_ns: int) -> None:
        below = set_span_in_context(found.span)
        for name, start, end in _intervals(timings, found.started_ns, end_ns):
            phase = self._tracer.start_span(name, below, start_time=start)
            if name == "denoise":
                self._steps(set_span_in_context(phase), found.steps_ns, start, end)
            phase.end(end)

    def _steps(self, below: Context, steps_ns: list[int], start: int, end: int) -> None:
        for number, done in enumerate(steps_ns, start=1):
            at = min(max(done, start), end)  # its signal comes through the event loop, which may be late
            self._tracer.start_span(f"step {number}", below, start_time=start).end(at)
            start = at


def _intervals(timings: Timings, start_ns: int, end_ns: int) -> Iterator[tuple[str, int, int]]:
    seconds: Mapping[str, float] = timings.model_dump()
    at = start_ns
    for name in _BEFORE:
        yield name, at, at + int(seconds[name] * _NS)
        at += int(seconds[name] * _NS)
    at = end_ns - int(sum(seconds[name] for name in _AFTER) * _NS)
    for name in _AFTER:
        yield name, at, min(at + int(seconds[name] * _NS), end_ns)
        at += int(seconds[name] * _NS)


def _attributes(claim: Claim) -> dict[str, str | int]:
    spec = claim.spec
    return {
        "wan.request": claim.request_id,
        "wan.index": claim.index,
        "wan.render": claim.render_id,
        "wan.attempt": claim.attempt,
        "wan.model": spec.model,
        "wan.pair_key": spec.pair_key,
        "wan.size": f"{spec.width}x{spec.height}x{spec.num_frames}",
        "wan.steps": spec.sample_steps,
        "wan.recipe": spec.recipe.value,
        "wan.speed": spec.speed.value,
    }
