"""Records: the values that the job store takes and returns. Times are seconds since the epoch (UTC)."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, SecretStr

from serve_app.files import Fingerprint
from serve_app.jobs.ownership import DEFAULT_TENANT
from serve_app.jobs.states import RenderState, request_state
from serve_app.results import RenderMetadata
from serve_app.spec import OutputFormat, Priority, RenderSpec, Variant

DRAWN = (Variant.THUMBNAIL, Variant.SPRITESHEET)
"""Variants that are files of their own, beside the video's."""


class Output(BaseModel):
    """A published video. `name` is its name in the output store; sizes are pixels."""

    model_config = ConfigDict(frozen=True)

    name: str
    format: OutputFormat
    width: int
    height: int
    num_frames: int
    fps: int
    seed: int
    metadata: RenderMetadata  # what was used to make it
    size: int | None = None  # bytes; None if it was published by a version that did not record it
    sha256: str | None = None  # of the bytes, hex; likewise

    @property
    def fingerprint(self) -> Fingerprint | None:
        """Return the size and hash of the stored bytes; None if they were not recorded."""
        return None if self.size is None or self.sha256 is None else Fingerprint(self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class Preview:
    """A small animated WebP of the latents of a running render, after `step` denoising steps."""

    step: int
    image: bytes


class Line(NamedTuple):
    """The queued renders of one tenant with one priority, in order of arrival."""

    tenant: str
    priority: Priority


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """An idempotency key of a client, and the digest of the body that was sent with it."""

    key: str
    digest: str


class WebhookEvent(StrEnum):
    """An event of a request that a client can subscribe to."""

    STARTED = "started"  # the first of its renders was claimed
    OUTPUT = "output"  # one of its videos can be downloaded
    ENDED = "ended"  # all of its renders have ended


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where the events of a request are sent, and which ones."""

    url: str = field(repr=False)  # may hold a token
    host: str  # scheme, name and port of the URL
    events: tuple[WebhookEvent, ...]


@dataclass(frozen=True, kw_only=True)
class NewRequest:
    """A validated request with one spec per prompt, to be inserted."""

    id: str
    model: str
    created_at: float
    specs: tuple[RenderSpec, ...]
    costs: tuple[float, ...]  # predicted seconds of one replica for each spec
    tenant: str = DEFAULT_TENANT
    priority: Priority = Priority.NORMAL
    hf_token: SecretStr | None = None  # stored until the request ends, to download its LoRAs
    idempotency: Idempotency | None = None
    webhook: Webhook | None = None
    traceparent: str | None = None  # W3C Trace Context of the POST

    @property
    def line(self) -> Line:
        """Return the line that its renders will join."""
        return Line(self.tenant, self.priority)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """An accepted (durable) request."""

    request_id: str
    created_at: float
    replayed: bool = False  # accepted by an earlier POST with the same idempotency key


class Waiting(NamedTuple):
    """What the scheduling policy knows of a queued render. A tuple, because a decision builds hundreds of them."""

    render_id: int  # ascending in order of arrival
    tenant: str
    priority: Priority
    pair_key: str
    created_at: float
    cost_s: float  # predicted seconds of one replica

    @property
    def line(self) -> Line:
        """Return the line it is queued in."""
        return Line(self.tenant, self.priority)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A lease on one attempt at one render. `token` is the fencing token that each write of its holder names."""

    render_id: int
    request_id: str
    index: int  # of the prompt within its request
    attempt: int  # from 1
    token: str
    spec: RenderSpec
    replica: str = ""  # that holds it
    tenant: str = DEFAULT_TENANT
    cost_s: float = 0.0  # predicted seconds of one replica
    priority: Priority = Priority.NORMAL
    claimed_at: float = 0.0
    gpus: int = 1  # that its replica renders on; set there
    waited_s: float = 0.0  # from its POST to this claim
    traceparent: str | None = None  # W3C Trace Context of its POST
    hf_token: SecretStr | None = None


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """A queued render that a busy replica would get if it were free now. Nobody has claimed it."""

    render_id: int
    spec: RenderSpec
    hf_token: SecretStr | None = None


@dataclass(frozen=True, kw_only=True)
class RenderRecord:
    """A render as it is stored."""

    id: int
    index: int
    state: RenderState
    spec: RenderSpec
    cost_s: float  # predicted seconds of one replica
    steps_done: int
    attempt: int
    started_at: float | None
    finished_at: float | None
    output: Output | None
    error_code: str | None
    error_message: str | None


def output_name(request_id: str, index: int, attempt: int, output_format: OutputFormat) -> str:
    """Return the name of one attempt's output: each attempt has its own, so that none overwrites another's."""
    return f"{request_id}/{index}-{attempt}.{output_format.extension}"


def variant_name(name: str, variant: Variant) -> str:
    """Return the name of a variant, a WebP, of the output of that name."""
    return f"{name}.{variant.value}.webp"


def input_name(request_id: str, sha256: str) -> str:
    """Return the name, in the output store, of a file that came with a request."""
    return f"{request_id}/inputs/{sha256}"


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """A request with its renders, in the order of its prompts."""

    id: str
    model: str
    created_at: float
    line: Line
    renders: tuple[RenderRecord, ...]

    @property
    def state(self) -> RenderState:
        """Return the state that follows from its renders; see `serve_app.jobs.states.request_state`."""
        return request_state(render.state for render in self.renders)

    @property
    def started_at(self) -> float | None:
        """Return when the first render started."""
        return min((r.started_at for r in self.renders if r.started_at is not None), default=None)

    @property
    def finished_at(self) -> float | None:
        """Return when the request reached its final state; None before."""
        ends = [r.finished_at for r in self.renders if r.finished_at is not None]
        if self.state is RenderState.FAILED:
            return min(
                r.finished_at for r in self.renders if r.finished_at is not None and r.state is RenderState.FAILED
            )
        return max(ends) if len(ends) == len(self.renders) else None

    @property
    def progress(self) -> float:
        """Return the share of denoising steps done, 0 to 1. A succeeded render counts as a whole."""
        total = sum(r.spec.sample_steps for r in self.renders)
        done = sum(r.spec.sample_steps if r.state is RenderState.SUCCEEDED else r.steps_done for r in self.renders)
        return done / total

    @property
    def output_names(self) -> list[str]:
        """Return the names of all outputs that attempts at its renders may have written, and of their variants."""
        written = [
            output_name(self.id, render.index, attempt, render.spec.output_format)
            for render in self.renders
            for attempt in range(1, render.attempt + 1)
        ]
        published = [render.output.name for render in self.renders if render.output is not None]
        return [*written, *(variant_name(name, variant) for name in published for variant in DRAWN)]

    @property
    def input_names(self) -> list[str]:
        """Return the names of the files that came with it, each once."""
        images = [render.spec.image for render in self.renders]
        return list(dict.fromkeys(input_name(self.id, image.sha256) for image in images if image is not None))

    @property
    def failure(self) -> RenderRecord | None:
        """Return the first failed render; None if there is none."""
        return next((r for r in self.renders if r.state is RenderState.FAILED), None)
