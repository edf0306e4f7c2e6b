"""Service description: `GET /v1/models` and `GET /health`."""

import asyncio

from fastapi import APIRouter, Response

from serve_app.api.dependencies import KernelsDep, ModelsHealthDep, ReadinessDep, ServicesDep
from serve_app.api.model_health import LiveModel
from serve_app.api.schemas.errors import ErrorBody
from serve_app.api.schemas.service import DraftDefaults, Health, Model, ModelHealth, Models, NamedModel
from serve_app.drafts import Sampling
from serve_app.models.card import ImageInput, ModelCard
from serve_app.plan import ModelPlan
from serve_app.results import Kernels
from serve_app.spec import Recipe

router = APIRouter(tags=["service"])


@router.get("/v1/models")
async def models(services: ServicesDep) -> Models:
    """Return the models that this service runs, with their defaults; in `data`, also the aliases."""
    plans, aliases = services.plan.models, services.plan.settings.aliases
    names = [NamedModel(id=name, owned_by=alias.model) for name, alias in aliases.items()]
    names += [NamedModel(id=plan.card.id, owned_by=plan.base_model) for plan in plans]
    return Models(models=[_model(plan) for plan in plans], data=names)


@router.get("/health", responses={503: {"model": Health, "description": "The API is up, but no render starts now."}})
async def health(
    services: ServicesDep,
    readiness: ReadinessDep,
    models_health: ModelsHealthDep,
    kernels: KernelsDep,
    response: Response,
) -> Health:
    """Return 200 while renders start; 503 while none does, with the reason."""
    first, *_ = models = services.plan.models
    problem, live, found = await asyncio.gather(readiness.problem(), models_health.now(), kernels.now())
    if problem is not None:
        response.status_code = problem.status
    return Health(
        status="healthy" if problem is None else "unhealthy",
        model=first.card.id,
        profile=first.profile.value,
        demo=first.demo,
        notice=first.notice,
        models=[_health(plan, live[plan.card.id], found[plan.card.id]) for plan in models],
        problem=None if problem is None else ErrorBody(**problem.body()["error"]),
    )


def _health(plan: ModelPlan, live: LiveModel | None, kernels: list[Kernels]) -> ModelHealth:
    return ModelHealth(
        model=plan.card.id,
        status="unknown" if live is None else "healthy" if live.dispatches else "unhealthy",
        queued=None if live is None else live.load.queued.renders,
        running=None if live is None else live.load.running.renders,
        kernels=kernels,
        demo=plan.demo,
        notice=plan.notice,
    )


def _draft(draft: Sampling, card: ModelCard) -> DraftDefaults:
    shift = card.default_shift(draft.sampler) if draft.shift is None else draft.shift
    return DraftDefaults(sample_steps=draft.sample_steps, sampler=draft.sampler, shift=shift)


def _model(plan: ModelPlan) -> Model:
    card, defaults = plan.card, plan.card.defaults
    return Model(
        id=card.id,
        title=card.title,
        experts=list(card.experts),
        control_image=card.image_input,
        speeds=list(plan.settings.speeds),
        default_speed=plan.settings.speed,
        draft=None if plan.draft is None else _draft(plan.draft, card),
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
