"""`build`: settings in, a Serve application out. The only module that knows every part."""

import json
import logging
import textwrap
from pathlib import Path
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

from deployments.dispatcher import Dispatcher
from deployments.generator import Generator
from deployments.ingress import Ingress
from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.database import migrate
from serve_app.models.architecture import WanArchitecture
from serve_app.models.card import ModelCard, load_card
from serve_app.plan import ServicePlan
from serve_app.settings import STATE_DIRECTORY, Profile, Settings, wrong_values

logger = logging.getLogger("ray.serve")

_BANNER_COLUMNS = 88
# The Ingress never blocks its loop, so it may be Serve's own: no request crosses to another thread and back.
_ONE_LOOP = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}
_MANY = 1000  # calls at once; these replicas only wait for the store and for each other
_DRAIN_MARGIN_S = 60  # beyond the longest render: encoding, upload, the last write
_DRAIN_POLL_S = 2
_HEALTH_PERIOD_S = 5  # three failed checks in a row replace a replica
_LOOK_BACK_S = 3  # `downscale_delay_s` is longer: else Serve takes old work for new, and brings back what just went
_METRICS_INTERVAL_S = 1


def application(args: dict[str, Any]) -> Application:
    """The Serve application for these args.

    Raises:
        ConfigurationInvalid: an arg is unknown or has a wrong value; the message names it.
    """
    plan = _plan(_settings(args))
    plan.settings.lora_root.mkdir(parents=True, exist_ok=True)
    migrate(plan.settings.database_url)
    logger.warning(_banner(plan))
    return bind(plan)


def bind(plan: ServicePlan) -> Application:
    """Ingress -> Dispatcher -> Generator, sized by the plan. Fractions of CPUs let all three share one core."""
    settings = plan.settings
    generator = serve.deployment(
        Generator,
        name="Generator",
        max_ongoing_requests=1,
        ray_actor_options={"num_cpus": 0.5} if plan.profile is Profile.CPU else {"num_cpus": 1, "num_gpus": 1},
        # Scale-in must outwait a running render, else Serve kills it half-way.
        graceful_shutdown_timeout_s=settings.render_timeout_s + _DRAIN_MARGIN_S,
        graceful_shutdown_wait_loop_s=_DRAIN_POLL_S,
        health_check_period_s=_HEALTH_PERIOD_S,
        request_router_config=RequestRouterConfig(
            request_router_class="deployments.routing:WarmFirstRouter",
            request_routing_stats_period_s=_HEALTH_PERIOD_S,
        ),
        autoscaling_config=AutoscalingConfig(
            min_replicas=min(settings.min_generators, plan.max_generators),
            max_replicas=plan.max_generators,
            policy=AutoscalingPolicy(policy_function="deployments.autoscaling:BacklogPolicy"),
            # Short: slots already are what the work needs, and the delays smooth enough.
            look_back_period_s=_LOOK_BACK_S,
            metrics_interval_s=_METRICS_INTERVAL_S,
            upscale_delay_s=settings.upscale_delay_s,
            downscale_delay_s=settings.downscale_delay_s,
        ),
    )
    dispatcher = serve.deployment(
        Dispatcher,
        name="Dispatcher",
        num_replicas=1,
        max_ongoing_requests=_MANY,
        ray_actor_options={"num_cpus": 0.1},
        health_check_period_s=_HEALTH_PERIOD_S,
    )
    ingress = serve.deployment(
        Ingress,
        name="Ingress",
        num_replicas=settings.ingress_replicas,
        max_ongoing_requests=_MANY,
        ray_actor_options={"num_cpus": 0.2, "runtime_env": {"env_vars": _ONE_LOOP}},
        # Clients poll: a line per request would bury everything else, and costs as much as answering does. Where its
        # level is let through, Serve makes the line all the same, and only then drops it.
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    app: Application = ingress.bind(plan, dispatcher.bind(plan, generator.bind(plan)))
    return app


def _settings(args: dict[str, Any]) -> Settings:
    try:
        return Settings(**args)
    except ValidationError as error:
        raise ConfigurationInvalid(f"args of serve_config.yaml: {wrong_values(error)}") from None


def _plan(settings: Settings) -> ServicePlan:
    card = load_card(settings.model)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    profile = _profile(settings.profile, gpus)
    demo = profile is Profile.CPU and settings.base_model is None
    base_model, transformer_model = (
        _demo(settings)
        if demo
        else (settings.base_model or card.base_model, settings.transformer_model or card.transformer_model)
    )
    return ServicePlan(
        settings=settings,
        card=card,
        profile=profile,
        base_model=base_model,
        transformer_model=transformer_model,
        architecture=_architecture(transformer_model, card),
        max_generators=settings.max_generators or (max(1, gpus) if profile is Profile.GPU else 1),
        demo=demo,
    )


def _profile(wanted: Profile, gpus: int) -> Profile:
    if wanted is Profile.GPU and not gpus:
        raise ConfigurationInvalid(
            "profile: gpu, but the Ray cluster has no GPU now; start a GPU node first, or use profile: auto or cpu"
        )
    if wanted is Profile.AUTO:
        return Profile.GPU if gpus else Profile.CPU
    return wanted


def _demo(settings: Settings) -> tuple[str, str]:
    """Build the demo checkpoint and its LoRA pair where they are missing; their base and expert directories."""
    # Only the demo needs the model stack at this point, and it takes seconds to import.
    from deployments.wan.demo import ensure_demo_checkpoint, ensure_demo_loras  # noqa: PLC0415

    checkpoint = ensure_demo_checkpoint(STATE_DIRECTORY.absolute() / "demo")
    ensure_demo_loras(settings.lora_root)
    return str(checkpoint.base), str(checkpoint.transformers)


def _architecture(transformer_model: str, card: ModelCard) -> WanArchitecture:
    """Of a checkpoint on disk: its own config; of one on the hub: what the card says."""
    config = Path(transformer_model, "transformer", "config.json")
    if config.is_file():
        return WanArchitecture.from_config(json.loads(config.read_text()), card.title)
    if Path(transformer_model).is_absolute():
        raise ConfigurationInvalid(f"transformer_model: {config} does not exist")
    return WanArchitecture.from_config(card.architecture, card.title)


def _banner(plan: ServicePlan) -> str:
    lines = [
        f"{plan.card.title} ({plan.card.id}) on {plan.profile.value}",
        f"base model    {plan.base_model}",
        f"experts       {plan.transformer_model}",
        f"LoRA root     {plan.settings.lora_root}",
        *textwrap.wrap(plan.notice or "", _BANNER_COLUMNS),
    ]
    rule = "=" * _BANNER_COLUMNS
    return "\n".join(["", rule, *lines, rule])
