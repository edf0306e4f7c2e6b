"""The metrics catalogue: name, labels and meaning of every metric of this service, in Prometheus' base units.

Ray exports them with the prefix `ray_`, counters with the suffix `_total`, and adds labels of its own (`deployment`,
`replica`, `application`). `docs/observability.md` shows this table; a test holds both, and a live scrape, against it.

    METRICS["wan_refusals"].exported  # ray_wan_refusals_total
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How Prometheus reads a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()  # upper bounds, of a histogram

    @property
    def exported(self) -> str:
        """Return the name under which Prometheus finds it."""
        return f"ray_{self.name}_total" if self.kind is Kind.COUNTER else f"ray_{self.name}"


# Seconds. A tiny render takes one, a long video on one GPU an hour.
_LONG = (0.5, 1, 2, 5, 10, 20, 40, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)
_SHORT = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)

_ALL = (
    Metric("wan_accepted_renders", Kind.COUNTER, ("model", "priority"), "Renders that became durable."),
    Metric(
        "wan_ended_renders",
        Kind.COUNTER,
        ("model", "end", "code"),
        "Renders that ended, each once: succeeded, failed (with the error code, also when their replicas died too "
        "often), canceled (also while they waited).",
    ),
    Metric("wan_refusals", Kind.COUNTER, ("code",), "Requests that the API refused, by error code."),
    Metric(
        "wan_webhook_attempts",
        Kind.COUNTER,
        ("state",),
        "Attempts to tell a webhook, by what became of the message: `delivered`, `pending` (again later), `given_up`.",
    ),
    Metric("wan_queued_renders", Kind.GAUGE, ("model", "priority"), "Renders that wait for a Generator."),
    Metric(
        "wan_queued_seconds", Kind.GAUGE, ("model", "priority"), "Predicted seconds of one replica for all that wait."
    ),
    Metric("wan_running_renders", Kind.GAUGE, ("model",), "Renders that a Generator works on."),
    Metric(
        "wan_oldest_wait_seconds", Kind.GAUGE, ("model", "priority"), "How long the oldest queued render has waited."
    ),
    Metric("wan_generators", Kind.GAUGE, ("model",), "Generators that the Dispatcher knows of."),
    Metric(
        "wan_start_seconds",
        Kind.GAUGE,
        ("model", "phase"),
        "Of each part of a Generator's start: imports, load, place, warm_up.",
    ),
    Metric(
        "wan_wait_seconds", Kind.HISTOGRAM, ("model", "priority"), "From the POST to the start of the render.", _LONG
    ),
    Metric(
        "wan_attempts",
        Kind.COUNTER,
        ("model", "end", "code"),
        "Attempts that ended: succeeded, failed (with the error code), canceled, released (its device broke), fenced.",
    ),
    Metric(
        "wan_lost_attempts",
        Kind.COUNTER,
        ("model", "cause"),
        "Attempts without an end of their own: the call was lost with its replica, or the lease ran out.",
    ),
    Metric(
        "wan_render_seconds",
        Kind.HISTOGRAM,
        ("model", "speed"),
        "For which a render kept its replica from the next one.",
        _LONG,
    ),
    Metric(
        "wan_phase_seconds",
        Kind.HISTOGRAM,
        ("model", "phase"),
        "Of each part of a published render: fetch, lora, text, denoise, decode, encode, store.",
        _SHORT,
    ),
    Metric("wan_denoising_steps", Kind.COUNTER, ("model",), "Denoising steps done; its rate is steps a second."),
    Metric("wan_busy_seconds", Kind.COUNTER, ("model",), "For which renders that made frames kept Generators."),
    Metric(
        "wan_predicted_seconds",
        Kind.COUNTER,
        ("model",),
        "Predicted for the renders that `wan_busy_seconds` counts.",
    ),
    Metric(
        "wan_render_cost_error",
        Kind.HISTOGRAM,
        ("model",),
        "Distance of the predicted from the actual seconds of a render, as a share of the actual ones.",
        _SHARES,
    ),
    Metric(
        "wan_gap_seconds",
        Kind.HISTOGRAM,
        ("model",),
        "For which a Generator was idle before a render. While renders wait, this is what scheduling costs.",
        _SHORT,
    ),
    Metric(
        "wan_prepared_seconds",
        Kind.COUNTER,
        ("model",),
        "For which Generators fetched and checked the LoRA files of a next render while the current one ran.",
    ),
    Metric(
        "wan_lora_switches",
        Kind.COUNTER,
        ("model", "source"),
        "Renders by where their LoRAs were: `loaded` (as the render before left them), `memory`, `disk`.",
    ),
    Metric("wan_lora_files", Kind.COUNTER, ("model", "origin"), "LoRA files read: `local`, `cache`, or `download`."),
    Metric("wan_lora_bytes", Kind.COUNTER, ("model", "origin"), "Bytes of these files."),
    Metric(
        "wan_lora_download_seconds",
        Kind.HISTOGRAM,
        ("model",),
        "Of each LoRA file whose download a render waited for, until it lay on the Generator's disk; the others are in "
        "wan_prepared_seconds.",
        _SHORT,
    ),
    Metric(
        "wan_prompt_embeddings",
        Kind.COUNTER,
        ("model", "source"),
        "Texts of renders by where their embeddings came from: `memory`, or `encoder`.",
    ),
    Metric(
        "wan_memory_plan",
        Kind.GAUGE,
        ("model", "offload", "pristine"),
        "1 for the memory plan of a Generator's last render, 0 for those it had before.",
    ),
    Metric(
        "wan_resident_lora_bytes",
        Kind.GAUGE,
        ("model", "memory"),
        "LoRAs that a Generator keeps ready after its last render, in `gpu` or `host` memory.",
    ),
    Metric(
        "wan_device_predicted_bytes",
        Kind.GAUGE,
        ("model", "offload"),
        "GPU memory that the memory plan expected the last render to hold at most.",
    ),
    Metric("wan_device_peak_bytes", Kind.GAUGE, ("model", "offload"), "Most GPU memory that the last render held."),
)

METRICS = {metric.name: metric for metric in _ALL}
