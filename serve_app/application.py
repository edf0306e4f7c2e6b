"""Composition root: args in, a Serve application out. The only module that imports every part.

Ray Serve calls it through `serve_app.build`:

    serve run serve_config.yaml  # calls serve_app:build, which calls application(args)
"""

import logging
import textwrap
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import ray
from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from deployments.dispatcher import Dispatcher
from deployments.generator import Generator
from deployments.ingress import Ingress
from deployments.lora_access import lora_library
from deployments.preparation import DispatcherForesight
from serve_app.api.videos.aliases import check_aliases
from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.schema import migrate
from serve_app.launch.exposure import check_exposure, serves_at
from serve_app.logs import is_quiet
from serve_app.loras.drafts import check_draft
from serve_app.models.card import ModelCard
from serve_app.models.served import Served, served_models
from serve_app.plan import ModelPlan, ServicePlan
from serve_app.secret_args import refuse_secrets
from serve_app.settings import STATE_DIRECTORY, OffloadMode, PristineMode, Profile, Settings

logger = logging.getLogger("ray.serve.wan")

_BANNER_COLUMNS = 88
# The Ingress never blocks its event loop, so it runs on Serve's own: no request changes threads twice.
_ONE_LOOP = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}
_MANY = 1000  # concurrent calls: these replicas only wait for the store and for each other
_DRAIN_MARGIN_S = 60  # beyond the longest render: encoding, upload, the last write
_DRAIN_POLL_S = 2
_HEALTH_PERIOD_S = 5  # three failed checks in a row replace a replica
_LOOK_BACK_S = 3  # `downscale_delay_s` is longer: else Serve counts finished work and starts a replica again
_METRICS_INTERVAL_S = 1

DemoBuilder = Callable[[Path, Path], tuple[str, str]]  # (directory, lora_root) -> base_model, transformer_model


def application(args: dict[str, Any]) -> Application:
    """Build the Serve application for these args.

    Raises:
        ConfigurationInvalid: an arg is unknown or has a wrong value; the message names it.
    """
    refuse_secrets(args)
    plan = _plan(Settings.from_args(args))
    plan.settings.lora_root.mkdir(parents=True, exist_ok=True)
    migrate(plan.settings.database_url)
    if (host := serves_at()) is not None:
        check_exposure(host, plan.settings)
    if not is_quiet():  # then `wan-lora serve` says it itself, once all is up
        logger.warning(_banner(plan))
    return bind(plan)


def _plan(settings: Settings) -> ServicePlan:
    found = served_models(settings)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    profile = _profile(settings, gpus)
    models = []
    for served in found:
        with served.named():
            models.append(_model_plan(served, profile, gpus))
    plan = ServicePlan(settings=settings, models=tuple(models))
    _check_room(plan, gpus)
    drafted = {model.card.id for model in models if model.draft is not None}
    check_aliases(settings, [model.card for model in models], drafted=drafted)
    return plan


def _model_plan(served: Served, profile: Profile, gpus: int) -> ModelPlan:
    settings, card = served.settings, served.card
    _check_modes(settings, profile)
    _check_group(settings, profile, gpus)
    demo = card.demo if profile is Profile.CPU and settings.base_model is None else None
    base_model, transformer_model = _demo(demo, card, settings) if demo else _checkpoint(card, settings)
    plan = ModelPlan(
        settings=settings,
        card=_divisible(card.of_checkpoint(transformer_model), settings),
        profile=profile,
        base_model=base_model,
        transformer_model=transformer_model,
        max_generators=settings.max_generators or _most_generators(settings, profile, gpus),
        demo=demo is not None,
        draft=settings.draft or (card.demo_draft if demo else None),
    )
    if plan.draft is not None:
        check_draft(plan.draft, plan.card, lora_library(plan))
    return plan


def _most_generators(settings: Settings, profile: Profile, gpus: int) -> int:
    return max(1, gpus // settings.gpus_per_generator) if profile is Profile.GPU else 1


def _check_group(settings: Settings, profile: Profile, gpus: int) -> None:
    """Refuse a Generator that would wait forever for GPUs: all GPUs of one Generator must be on one node."""
    wanted = settings.gpus_per_generator
    if wanted > 1 and settings.offload not in (OffloadMode.AUTO, OffloadMode.NONE, OffloadMode.TEXT):
        raise ConfigurationInvalid(
            f"gpus_per_generator: {wanted} needs the experts on every GPU; use offload: auto, none or text with it"
        )
    if profile is Profile.GPU and settings.max_generators is None and wanted > gpus:
        raise ConfigurationInvalid(
            f"gpus_per_generator: {wanted}, and the Ray cluster has {gpus} GPUs now; use fewer, or set max_generators "
            "where nodes come and go"
        )


def _divisible(card: ModelCard, settings: Settings) -> ModelCard:
    """Return the card of a model whose attention heads the GPUs of a Generator can share."""
    heads, gpus = card.architecture.num_attention_heads, settings.gpus_per_generator
    if heads % gpus:
        raise ConfigurationInvalid(
            f"gpus_per_generator: {gpus} does not divide the {heads} attention heads of {card.title}; use a number "
            "that does"
        )
    return card


def _check_room(plan: ServicePlan, gpus: int) -> None:
    """Refuse models that would wait forever, because other models keep all GPUs."""
    kept = sum(model.gpus_kept for model in plan.models)
    on_gpu = plan.models[0].profile is Profile.GPU
    if len(plan.models) > 1 and on_gpu and kept > gpus and not _grows(plan.settings):
        raise ConfigurationInvalid(
            f"models: they keep {kept} GPUs when idle, and the Ray cluster has {gpus}; set min_generators: "
            "0 for those that may give their GPU to another, or max_generators where nodes come later"
        )


def _profile(settings: Settings, gpus: int) -> Profile:
    """Return the profile. A cluster that scales GPU nodes from zero has none now; then the args say how many come."""
    if settings.profile is Profile.GPU and not gpus and not _grows(settings):
        raise ConfigurationInvalid(
            "profile: gpu, but the Ray cluster has no GPU now; start a GPU node first, set max_generators where GPU "
            "nodes come and go, or use profile: auto or cpu"
        )
    if settings.profile is Profile.AUTO:
        return Profile.GPU if gpus else Profile.CPU
    return settings.profile


def _grows(settings: Settings) -> bool:
    """Return whether GPU nodes are added on demand, so that the args must say the number of Generators."""
    return any(model.max_generators is not None for model in settings.each_model())


def _check_modes(settings: Settings, profile: Profile) -> None:
    """Refuse args that no Generator could carry out, before one is started."""
    if profile is not Profile.CPU:
        return
    if settings.offload not in (OffloadMode.AUTO, OffloadMode.NONE):
        raise ConfigurationInvalid(f"offload: {settings.offload.value} needs a GPU; use auto or none on a CPU")
    if settings.pristine is PristineMode.GPU:
        raise ConfigurationInvalid("pristine: gpu needs a GPU; use auto, host or checkpoint on a CPU")


def _checkpoint(card: ModelCard, settings: Settings) -> tuple[str, str]:
    base_model = settings.base_model or card.base_model
    return base_model, settings.transformer_model or card.transformer_model or base_model


def _demo(function: str, card: ModelCard, settings: Settings) -> tuple[str, str]:
    """Build the demo checkpoint, and LoRAs for it, by the function that the card names.

    It is resolved here and not imported above: it needs the model stack, which takes seconds to import.
    """
    build: DemoBuilder = resolve_name(function)
    return build(STATE_DIRECTORY.absolute() / "demo" / card.id, settings.lora_root)


def _banner(plan: ServicePlan) -> str:
    rule = "=" * _BANNER_COLUMNS
    models = [line for model in plan.models for line in [*_lines(model), rule]]
    return "\n".join(["", rule, *models[:-1], f"LoRA root     {plan.settings.lora_root}", rule])


def _lines(model: ModelPlan) -> list[str]:
    return [
        f"{model.card.title} ({model.card.id}) on {model.profile.value}",
        f"base model    {model.base_model}",
        f"experts       {model.transformer_model}",
        *textwrap.wrap(model.notice or "", _BANNER_COLUMNS),
    ]


def bind(plan: ServicePlan) -> Application:
    """Return the Ingress, and for each model Dispatcher <-> Generator, sized by the plan.

    Fractions of CPUs let all of them share one core. With several models, a name of theirs ends with the model's id.
    """
    dispatchers = [
        _dispatcher(name := f"Dispatcher{suffix}", plan.settings).bind(
            model, _generator(f"Generator{suffix}", model).bind(model, foresee=DispatcherForesight(name))
        )
        for model in plan.models
        for suffix in [f"-{model.card.id}" if len(plan.models) > 1 else ""]
    ]
    app: Application = _ingress(plan).bind(plan, *dispatchers)
    return app


def _generator(name: str, plan: ModelPlan) -> Deployment:
    settings = plan.settings
    # An actor's resources are always of one node, and come all at once: what a placement group of several bundles with
    # STRICT_PACK would give, whose further bundles nobody would use, since the ranks are this actor's own processes.
    gpus = settings.gpus_per_generator
    device = {"num_cpus": 0.5 * gpus} if plan.profile is Profile.CPU else {"num_cpus": gpus, "num_gpus": gpus}
    return serve.deployment(
        Generator,
        name=name,
        max_ongoing_requests=1,
        ray_actor_options={**device, "resources": settings.generator_resources},
        # Scale-in must wait longer than a running render takes, else Serve kills it.
        graceful_shutdown_timeout_s=settings.render_timeout_s + _DRAIN_MARGIN_S,
        graceful_shutdown_wait_loop_s=_DRAIN_POLL_S,
        health_check_period_s=_HEALTH_PERIOD_S,
        logging_config=_logging(settings),
        request_router_config=RequestRouterConfig(
            request_router_class="deployments.routing:WarmFirstRouter",
            request_routing_stats_period_s=_HEALTH_PERIOD_S,
        ),
        autoscaling_config=AutoscalingConfig(
            min_replicas=plan.least_generators,
            max_replicas=plan.max_generators,
            policy=AutoscalingPolicy(policy_function="deployments.autoscaling:BacklogPolicy"),
            # Short: slots already are what the work needs, and the delays smooth enough.
            look_back_period_s=_LOOK_BACK_S,
            metrics_interval_s=_METRICS_INTERVAL_S,
            upscale_delay_s=settings.upscale_delay_s,
            downscale_delay_s=settings.downscale_delay_s,
        ),
    )


def _dispatcher(name: str, settings: Settings) -> Deployment:
    return serve.deployment(
        Dispatcher,
        name=name,
        logging_config=_logging(settings),
        num_replicas=1,
        max_ongoing_requests=_MANY,
        ray_actor_options={"num_cpus": 0.1, "resources": settings.service_resources},
        health_check_period_s=_HEALTH_PERIOD_S,
    )


def _ingress(plan: ServicePlan) -> Deployment:
    return serve.deployment(
        Ingress,
        name="Ingress",
        num_replicas=plan.settings.ingress_replicas,
        max_ongoing_requests=_MANY + plan.settings.max_listeners,  # who listens takes no place from other calls
        ray_actor_options={
            "num_cpus": 0.2,
            "resources": plan.settings.service_resources,
            "runtime_env": {"env_vars": _ONE_LOOP},
        },
        # Clients poll, so a line per request would hide every other one, and costs as much as the answer. The level
        # is set too: Serve formats the access line, and drops it later, wherever the level lets it through.
        logging_config=_logging(plan.settings, enable_access_log=False, log_level="WARNING"),
    )


def _logging(settings: Settings, **more: Any) -> LoggingConfig:
    return LoggingConfig(encoding=settings.log_format.name, **more)
