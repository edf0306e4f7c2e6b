"""What a result says about how its video was made."""

from serve_app.jobs.records import Claim
from serve_app.results import LoraUse, MadeWith, RenderMetadata, Timings


def result_metadata(claim: Claim, made_with: MadeWith, timings: Timings) -> RenderMetadata:
    """Join what the request asked for, what its pipeline did, and how long each part took in this attempt."""
    spec = claim.spec
    return RenderMetadata(
        recipe=made_with.recipe,
        sampler=made_with.sampler,
        shift=made_with.shift,
        boundary_step=made_with.boundary_step,
        sampler_assumed=spec.sampler_assumed,
        sample_steps=spec.sample_steps,
        guidance_scale=spec.guidance_scale,
        width=spec.width,
        height=spec.height,
        num_frames=spec.num_frames,
        trained_with=spec.trained_with,
        loras=tuple(
            LoraUse(path=lora.reference, **applied.model_dump())
            for lora, applied in zip(spec.loras, made_with.loras, strict=True)
        ),
        pair_key=spec.pair_key,
        warnings=spec.warnings,
        attempt=claim.attempt,
        runtime=made_with.runtime,
        timings=timings,
    )
