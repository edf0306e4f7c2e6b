"""Composition of the image resolver of the Ingress from a plan."""

from serve_app.images.header import ImageLimits
from serve_app.images.resolver import ImageResolver
from serve_app.images.sources.policy import ImagePolicy
from serve_app.net import Bulkhead
from serve_app.plan import ServicePlan

_MIB = 2**20
_MEGAPIXEL = 1_000_000


def image_resolver(plan: ServicePlan, bulkhead: Bulkhead) -> ImageResolver:
    """Return the resolver for the control images of requests; `bulkhead` is the one of the process."""
    settings = plan.settings
    limits = ImageLimits(
        max_bytes=int(settings.image_max_mib * _MIB),
        max_pixels=int(settings.image_max_megapixels * _MEGAPIXEL),
        max_frames=settings.image_max_frames,
    )
    policy = ImagePolicy(
        hosts=settings.image_hosts,
        private_hosts=settings.image_private_hosts,
        allow_http=settings.image_allow_http,
        total_timeout_s=settings.image_timeout_s,
        hub_endpoint=settings.hub_endpoint,
        hub_token=settings.hf_token,
    )
    return ImageResolver(settings.image_root, policy, limits, bulkhead)
