"""Composition of LoRA resolvers (Ingress) and LoRA files (Generators) from a plan."""

from serve_app.loras.cache import LoraCache
from serve_app.loras.files import LoraFiles
from serve_app.loras.library import LoraLibrary
from serve_app.loras.resolver import LoraResolver
from serve_app.loras.siblings import Siblings
from serve_app.loras.sources import LoraSources, SourcePolicy
from serve_app.net import Bulkhead, ShareLimits
from serve_app.plan import ModelPlan, ServicePlan
from serve_app.settings import Settings

_DAY_S = 86_400
_GIB = 2**30
_MIB = 2**20
_KIB = 2**10


def lora_resolvers(plan: ServicePlan, bulkhead: Bulkhead) -> dict[str, LoraResolver]:
    """Return the LoRA resolvers of the Ingress, by the ids of the models."""
    sources = _sources(plan.settings)
    cards = [model.card for model in plan.models]
    most = _header_bytes(plan.settings)
    siblings = {card.id: Siblings([other for other in cards if other is not card], most) for card in cards}
    return {
        model.card.id: LoraResolver(lora_library(model), sources, model.card, bulkhead, siblings[model.card.id])
        for model in plan.models
    }


def bulkhead(settings: Settings) -> Bulkhead:
    """Return the bulkhead in which a process fetches from clients' addresses; each process has one."""
    return Bulkhead(
        ShareLimits(
            threads=settings.fetch_threads, per_host=settings.fetch_per_host, per_sender=settings.fetch_per_sender
        )
    )


def lora_files(plan: ModelPlan) -> LoraFiles:
    """Return the LoRA files for a Generator of that model."""
    return LoraFiles(_sources(plan.settings), lora_library(plan))


def lora_library(plan: ModelPlan) -> LoraLibrary:
    """Return what checks the files in `lora_root` for one model."""
    return LoraLibrary(plan.settings.lora_root, plan.card.architecture, most_header_bytes=_header_bytes(plan.settings))


def _sources(settings: Settings) -> LoraSources:
    policy = SourcePolicy(
        hosts=settings.lora_hosts,
        private_hosts=settings.lora_private_hosts,
        allow_http=settings.lora_allow_http,
        max_bytes=int(settings.lora_max_gib * _GIB),
        max_header_bytes=_header_bytes(settings),
        min_bytes_per_s=settings.lora_min_kib_per_s * _KIB,
        total_timeout_s=settings.lora_download_timeout_s,
        hub_endpoint=settings.hub_endpoint,
        hub_token=settings.hf_token,
    )
    longest_s = None if settings.lora_cache_days is None else settings.lora_cache_days * _DAY_S
    cache = LoraCache(settings.lora_cache_dir, int(settings.lora_cache_gib * _GIB), longest_s=longest_s)
    return LoraSources(settings.lora_root, policy, cache)


def _header_bytes(settings: Settings) -> int:
    return int(settings.lora_header_max_mib * _MIB)
