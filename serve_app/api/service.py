"""The service itself: which models it runs, and whether it is healthy."""

from fastapi import APIRouter

from serve_app.api.dependencies import ServicesDep
from serve_app.api.schemas.service import Health, Model, ModelHealth, Models
from serve_app.models.card import ImageInput
from serve_app.plan import ModelPlan
from serve_app.spec import Recipe

router = APIRouter(tags=["service"])


@router.get("/v1/models")
async def models(services: ServicesDep) -> Models:
    """The models that this service runs, with their defaults."""
    return Models(models=[_model(plan) for plan in services.plan.models])


@router.get("/health")
async def health(services: ServicesDep) -> Health:
    """The API is up; renders are accepted."""
    first, *_ = models = services.plan.models
    return Health(
        model=first.card.id,
        profile=first.profile.value,
        demo=first.demo,
        notice=first.notice,
        models=[ModelHealth(model=plan.card.id, demo=plan.demo, notice=plan.notice) for plan in models],
    )


def _model(plan: ModelPlan) -> Model:
    card, defaults = plan.card, plan.card.defaults
    return Model(
        id=card.id,
        base_model=plan.base_model,
        transformer_model=plan.transformer_model,
        resolution_divisor=card.size_divisors[Recipe.REFERENCE],
        default_steps=defaults.sample_steps,
        default_guidance_scale=defaults.guidance_scale,
        default_seed=defaults.seed,
        default_width=defaults.width,
        default_height=defaults.height,
        requires_control_image=card.image_input is ImageInput.REQUIRED,
        is_video_model=True,
        default_num_frames=defaults.num_frames,
        default_fps=defaults.fps,
        demo=plan.demo,
        notice=plan.notice,
    )
