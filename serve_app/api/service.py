"""The service itself: which model it runs, and whether it is healthy."""

from fastapi import APIRouter

from serve_app.api.dependencies import ServicesDep
from serve_app.api.schemas.service import Health, Model, Models
from serve_app.models.card import ImageInput
from serve_app.plan import ServicePlan
from serve_app.spec import Recipe

router = APIRouter(tags=["service"])


@router.get("/v1/models")
async def models(services: ServicesDep) -> Models:
    """The model that this service runs, with its defaults."""
    return Models(models=[_model(services.plan)])


@router.get("/health")
async def health(services: ServicesDep) -> Health:
    """The API is up; renders are accepted."""
    plan = services.plan
    return Health(model=plan.card.id, profile=plan.profile.value, demo=plan.demo, notice=plan.notice)


def _model(plan: ServicePlan) -> Model:
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
