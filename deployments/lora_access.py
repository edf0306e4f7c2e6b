"""Composition of the LoRA parts from a plan: the resolver of the Ingress, the files of the Generators."""

from serve_app.loras.cache import LoraCache
from serve_app.loras.files import LoraFiles
from serve_app.loras.library import LoraLibrary
from serve_app.loras.resolver import LoraResolver
from serve_app.loras.sources import LoraSources, SourcePolicy
from serve_app.plan import ServicePlan

_GIB = 2**30


def lora_resolver(plan: ServicePlan) -> LoraResolver:
    """Return what the Ingress asks about the LoRAs of a request."""
    return LoraResolver(_library(plan), _sources(plan), plan.card)


def lora_files(plan: ServicePlan) -> LoraFiles:
    """Return what a Generator asks for the files of the LoRAs that its pipeline lacks."""
    return LoraFiles(_sources(plan), _library(plan))


def _library(plan: ServicePlan) -> LoraLibrary:
    return LoraLibrary(plan.settings.lora_root, plan.card.architecture)


def _sources(plan: ServicePlan) -> LoraSources:
    settings = plan.settings
    policy = SourcePolicy(
        hosts=settings.lora_hosts,
        private_hosts=settings.lora_private_hosts,
        allow_http=settings.lora_allow_http,
        max_bytes=int(settings.lora_max_gib * _GIB),
        total_timeout_s=settings.lora_download_timeout_s,
        hub_endpoint=settings.hub_endpoint,
        hub_token=settings.hf_token,
    )
    cache = LoraCache(settings.lora_cache_dir, int(settings.lora_cache_gib * _GIB))
    return LoraSources(settings.lora_root, policy, cache)
