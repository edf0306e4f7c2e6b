"""What the job store takes in and gives out. Times are seconds since the epoch, UTC."""

from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, SecretStr

from serve_app.jobs.states import RenderState, request_state
from serve_app.results import RenderMetadata
from serve_app.spec import OutputFormat, Priority, RenderSpec


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


DEFAULT_TENANT = "default"


class Line(NamedTuple):
    """The queued renders of one tenant with one priority, in order of arrival."""

    tenant: str
    priority: Priority


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """A client's word that all requests with this key are one, and a digest of the body that came with it."""

    key: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class NewRequest:
    """A validated request, one spec per prompt, ready to be made durable."""

    id: str
    model: str
    created_at: float
    specs: tuple[RenderSpec, ...]
    costs: tuple[float, ...]  # predicted seconds of one replica, of each spec
    tenant: str = DEFAULT_TENANT
    priority: Priority = Priority.NORMAL
    hf_token: SecretStr | None = None  # kept until the request ends, for the LoRAs that are still to be downloaded
    idempotency: Idempotency | None = None

    @property
    def line(self) -> Line:
        """The line that its renders will stand in."""
        return Line(self.tenant, self.priority)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A durable request, as the answer to its POST names it."""

    request_id: str
    created_at: float
    replayed: bool = False  # it was accepted before, under the same idempotency key


class Waiting(NamedTuple):
    """A queued render, as far as the scheduling policy needs to know it; a tuple, as a decision makes a hundred."""

    render_id: int  # grows in order of arrival
    tenant: str
    priority: Priority
    pair_key: str
    created_at: float
    cost_s: float  # predicted seconds of one replica

    @property
    def line(self) -> Line:
        """The line it stands in."""
        return Line(self.tenant, self.priority)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to run one attempt of one render; `token` fences off every other holder's writes."""

    render_id: int
    request_id: str
    index: int  # of the prompt within its request
    attempt: int  # from 1
    token: str
    spec: RenderSpec
    tenant: str = DEFAULT_TENANT
    cost_s: float = 0.0  # predicted seconds of one replica
    hf_token: SecretStr | None = None


@dataclass(frozen=True, kw_only=True)
class RenderRecord:
    """One render as stored."""

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
    """Name in the output store of what one attempt makes: its own, so that no other attempt can overwrite it."""
    return f"{request_id}/{index}-{attempt}.{output_format.extension}"


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request with its renders, in the order of its prompts."""

    id: str
    model: str
    created_at: float
    line: Line
    renders: tuple[RenderRecord, ...]

    @property
    def state(self) -> RenderState:
        """Derived from the renders; see `serve_app.jobs.states.request_state`."""
        return request_state(render.state for render in self.renders)

    @property
    def started_at(self) -> float | None:
        """When the first render started."""
        return min((r.started_at for r in self.renders if r.started_at is not None), default=None)

    @property
    def finished_at(self) -> float | None:
        """When the request reached its final state."""
        ends = [r.finished_at for r in self.renders if r.finished_at is not None]
        if self.state is RenderState.FAILED:
            return min(
                r.finished_at for r in self.renders if r.finished_at is not None and r.state is RenderState.FAILED
            )
        return max(ends) if len(ends) == len(self.renders) else None

    @property
    def progress(self) -> float:
        """Denoising steps done of all, 0 to 1; a succeeded render counts whole."""
        total = sum(r.spec.sample_steps for r in self.renders)
        done = sum(r.spec.sample_steps if r.state is RenderState.SUCCEEDED else r.steps_done for r in self.renders)
        return done / total

    @property
    def output_names(self) -> list[str]:
        """Every file that any attempt of its renders may have left in the output store."""
        return [
            output_name(self.id, render.index, attempt, render.spec.output_format)
            for render in self.renders
            for attempt in range(1, render.attempt + 1)
        ]

    @property
    def failure(self) -> RenderRecord | None:
        """The render that failed the request."""
        return next((r for r in self.renders if r.state is RenderState.FAILED), None)
