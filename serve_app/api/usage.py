"""Usage: `GET /v1/usage`, what a tenant uses, has used today, and may use."""

from time import time

from fastapi import APIRouter

from serve_app.api.dependencies import SenderDep, ServicesDep
from serve_app.api.schemas.answers import timestamp
from serve_app.api.schemas.errors import UNAVAILABLE, WRONG_HEADER
from serve_app.api.schemas.usage import GpuSeconds, TenantUsage
from serve_app.jobs.usage import DAY_S, day_of

router = APIRouter(tags=["service"], responses=UNAVAILABLE | WRONG_HEADER)


@router.get("/v1/usage")
async def usage(services: ServicesDep, sender: SenderDep) -> TenantUsage:
    """Return what the sender's tenant uses, has used today, and may use."""
    found = await services.store.usage.of(sender.tenant, services.plan.gpus_by_model)
    limits = services.plan.settings.limits_of(sender.tenant)
    left_s = None
    if limits.gpu_seconds_per_day is not None:
        left_s = round(max(0.0, limits.gpu_seconds_per_day - found.gpu_s - found.reserved_s), 2)
    return TenantUsage(
        tenant=sender.tenant,
        queued=found.queued.renders,
        running=found.running.renders,
        renders_today=found.renders,
        gpu_seconds=GpuSeconds(today=round(found.gpu_s, 2), reserved=round(found.reserved_s, 2), left=left_s),
        day_ends_at=timestamp((day_of(time()) + 1) * DAY_S),
        limits=limits,
    )
