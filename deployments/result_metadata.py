"""What a result says about how its video was made."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from serve_app.jobs.records import Claim
from serve_app.spec import RenderSpec


@dataclass(frozen=True)
class Used:
    """What a render was made with: the pipeline's summary then, its report, and the seconds of each part."""

    runtime: dict[str, Any]
    report: dict[str, Any]
    seconds: dict[str, float]


def result_metadata(claim: Claim, used: Used) -> dict[str, Any]:
    """What a user needs to make the same video again, and how long each part took in seconds. In JSON's types."""
    spec = claim.spec
    report = {key: value for key, value in used.report.items() if key not in ("loras", "resident")}
    return {
        **report,
        "sampler_assumed": spec.sampler_assumed,
        "sample_steps": spec.sample_steps,
        "guidance_scale": spec.guidance_scale,
        "width": spec.width,
        "height": spec.height,
        "num_frames": spec.num_frames,
        "trained_with": spec.trained_with,
        "loras": _loras(spec, used.report["loras"]),
        "pair_key": spec.pair_key,
        "warnings": list(spec.warnings),
        "attempt": claim.attempt,
        "runtime": {**used.runtime, "resident_loras": used.report["resident"]},
        "timings": {part: round(value, 4) for part, value in used.seconds.items()},
    }


def _loras(spec: RenderSpec, applied: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each LoRA in the request's order; `applied` has them side by side, in the order within each."""
    by_side = {side: deque(one for one in applied if one["transformer"] == side) for side in ("high", "low")}
    return [{"path": lora.reference, **by_side[lora.expert.value].popleft()} for lora in spec.loras]
