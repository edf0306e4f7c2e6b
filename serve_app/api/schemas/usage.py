"""Answers about the usage of a tenant."""

from pydantic import BaseModel, Field

from serve_app.access.limits import TenantLimits


class GpuSeconds(BaseModel):
    """Seconds of one GPU (or CPU, where a service has none)."""

    today: float = Field(description="Measured, of renders that ended since the day (UTC) began.", examples=[812.5])
    reserved: float = Field(description="Predicted, of renders that have not ended.", examples=[64.0])
    left: float | None = Field(description="Of the day's; null without a limit.", examples=[2723.5])


class TenantUsage(BaseModel):
    """What a tenant uses now, has used today, and may use."""

    tenant: str = Field(examples=["team-a"])
    queued: int = Field(description="Renders that wait.", examples=[3])
    running: int = Field(description="Renders that a Generator works on.", examples=[1])
    renders_today: int = Field(description="Renders that ended since the day (UTC) began.", examples=[40])
    gpu_seconds: GpuSeconds = Field(description="GPU time of the day.")
    day_ends_at: str = Field(description="When the day's GPU time begins anew.", examples=["2026-01-02T00:00:00Z"])
    limits: TenantLimits = Field(description="What it may use; null is no limit of that kind.")
