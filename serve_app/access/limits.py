"""Quotas of tenants: calls per second, queued renders, GPU seconds a day, and the size of a render.

Example:
    limits = settings.limits_of("team-a")
    check_sizes(specs, limits)  # raises RenderTooLarge
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from serve_app.errors import RenderTooLarge
from serve_app.spec import RenderSpec


class TenantLimits(BaseModel):
    """What one tenant may use; None means no limit of that kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_s: float | None = Field(None, gt=0, description="Calls of the API, on average.")
    burst: int | None = Field(None, ge=1, description="Calls at once; as many as two seconds allow when not given.")
    max_queued: int | None = Field(None, ge=1, description="Renders that wait, of all models.")
    gpu_seconds_per_day: float | None = Field(None, gt=0, description="Seconds of one GPU in a day (UTC).")
    max_pixels: int | None = Field(None, ge=4096, description="Width times height of a render.")
    max_frames: int | None = Field(None, ge=1, description="Frames of a render.")
    max_steps: int | None = Field(None, ge=1, description="Denoising steps of a render.")

    def with_own(self, own: "TenantLimits | None") -> "TenantLimits":
        """Return these limits, overridden by those that are set in `own`."""
        return self if own is None else self.model_copy(update=own.model_dump(exclude_none=True))


def check_sizes(specs: Sequence[RenderSpec], limits: TenantLimits) -> None:
    """Check the size of each render.

    Raises:
        RenderTooLarge: one has more pixels, frames or steps than the tenant may use.
    """
    for index, spec in enumerate(specs):
        asked = {
            "max_pixels": (limits.max_pixels, spec.width * spec.height, "pixels"),
            "max_frames": (limits.max_frames, spec.num_frames, "frames"),
            "max_steps": (limits.max_steps, spec.sample_steps, "steps"),
        }
        for name, (limit, value, what) in asked.items():
            if limit is not None and value > limit:
                raise RenderTooLarge(
                    f"prompts[{index}] asks for {value} {what}, and {limit} is the most for this tenant ({name})",
                    {"prompt_index": index, "limit_name": name, "limit": limit, "asked": value},
                )
