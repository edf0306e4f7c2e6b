"""Admission control (back-pressure): limits of the queue, and the refusal of requests that would exceed them.

Example:
    load = admit(request, load, Limits(max_queued=1000))  # raises QueueFull with a Retry-After
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time

from serve_app.access.limits import TenantLimits
from serve_app.errors import AdmissionError, GpuTimeExhausted, QueueFull, TenantQueueFull, WaitTooLong
from serve_app.jobs.load import Amount, Load, ahead_of, wait_s
from serve_app.jobs.records import NewRequest
from serve_app.jobs.usage import Usage, until_tomorrow_s


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the queue; None means no limit. A request is accepted or refused as a whole."""

    max_queued: int | None = None  # renders
    max_queued_per_tenant: int | None = None  # renders
    max_wait_s: float | None = None  # predicted seconds until the request's last render starts
    weights: Mapping[str, float] = field(default_factory=dict)  # of tenants
    gpus: Mapping[str, int] = field(default_factory=dict)  # GPUs of a Generator, by model; 1 for models not named
    tenant: TenantLimits = field(default_factory=TenantLimits)  # of the tenant that sends the request

    @property
    def count_usage(self) -> bool:
        """Return whether a limit needs the usage of the tenant, which takes further statements to read."""
        return self.tenant.max_queued is not None or self.tenant.gpu_seconds_per_day is not None


def admit(request: NewRequest, load: Load, limits: Limits) -> Load:
    """Return the load with the request added.

    Raises:
        QueueFull, TenantQueueFull, WaitTooLong: a limit would be exceeded; `retry_after_s` predicts when there is room.
    """
    asked = Amount(len(request.specs), sum(request.costs))
    if limits.max_queued is not None:
        _check_count(QueueFull, asked, load.queued, limits.max_queued, load.capacity, name="max_queued")
    if limits.max_queued_per_tenant is not None:
        of_tenant = load.of_tenant(request.tenant)
        most = limits.max_queued_per_tenant
        _check_count(TenantQueueFull, asked, of_tenant, most, load.capacity, name="max_queued_per_tenant")
    _check_wait(request, asked, load, limits)
    return load.plus(request.line, asked)


def admit_tenant(request: NewRequest, usage: Usage, limits: Limits) -> Usage:
    """Return the tenant's usage with the request added.

    Raises:
        TenantQueueFull, GpuTimeExhausted: a limit of the tenant would be exceeded.
    """
    of_tenant = limits.tenant
    asked = Amount(len(request.specs), sum(request.costs) * limits.gpus.get(request.model, 1))
    if of_tenant.max_queued is not None:
        _check_count(TenantQueueFull, asked, usage.queued, of_tenant.max_queued, 1, name="max_queued")
    if of_tenant.gpu_seconds_per_day is not None:
        _check_gpu_time(asked, usage, of_tenant.gpu_seconds_per_day)
    return usage.plus(asked)


def _check_gpu_time(asked: Amount, usage: Usage, limit_s: float) -> None:
    if usage.gpu_s + usage.reserved_s + asked.cost_s <= limit_s:
        return
    details = {
        "limit_name": "gpu_seconds_per_day",
        "limit": limit_s,
        "used_s": round(usage.gpu_s, 1),
        "reserved_s": round(usage.reserved_s, 1),
        "asked_s": round(asked.cost_s, 1),
    }
    if asked.cost_s > limit_s:
        message = f"this would take {asked.cost_s:.0f} GPU seconds, and {limit_s:g} a day are the most; send less"
        raise GpuTimeExhausted(message, details, retry_after_s=None)
    retry_after_s = until_tomorrow_s(time())
    raise GpuTimeExhausted(
        f"of {limit_s:g} GPU seconds a day, {usage.gpu_s:.0f} are used and {usage.reserved_s:.0f} reserved by what has "
        f"not ended; this would take {asked.cost_s:.0f}. The day (UTC) ends in {retry_after_s} s",
        {**details, "retry_after_s": retry_after_s},
        retry_after_s=retry_after_s,
    )


def _check_count(
    refusal: type[AdmissionError], asked: Amount, queued: Amount, limit: int, capacity: int, *, name: str
) -> None:
    excess = queued.renders + asked.renders - limit
    if excess <= 0:
        return
    details = {"queued": queued.renders, "limit": limit, "limit_name": name}
    if asked.renders > limit:
        message = f"{asked.renders} prompts are more than the queue takes at all ({limit}); send fewer in one request"
        raise refusal(message, details, retry_after_s=None)
    retry_after_s = _seconds(excess * queued.cost_s / queued.renders / capacity)
    message = f"{queued.renders} renders wait already and the limit is {limit}; try again in {retry_after_s} s"
    raise refusal(message, {**details, "retry_after_s": retry_after_s}, retry_after_s=retry_after_s)


def _check_wait(request: NewRequest, asked: Amount, load: Load, limits: Limits) -> None:
    if limits.max_wait_s is None:
        return
    last = Amount(asked.renders - 1, asked.cost_s - request.costs[-1])
    in_line = load.lines.get(request.line, Amount()) + last
    expected_s = wait_s(load, ahead_of(load, request.line, in_line, limits.weights))
    if expected_s <= limits.max_wait_s:
        return
    retry_after_s = _seconds(expected_s - limits.max_wait_s)
    raise WaitTooLong(
        f"the last of these renders would wait {expected_s:.0f} s and the limit is {limits.max_wait_s:g} s; try again "
        f"in {retry_after_s} s",
        {
            "expected_wait_s": round(expected_s, 1),
            "limit_s": limits.max_wait_s,
            "retry_after_s": retry_after_s,
        },
        retry_after_s=retry_after_s,
    )


def _seconds(value: float) -> int:
    return max(1, math.ceil(value))
