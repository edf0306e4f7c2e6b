"""Policy of image sources: which servers may be reached, which one gets a token, and the timeout."""

from pydantic import Field

from serve_app.net.hub import HubPolicy


class ImagePolicy(HubPolicy):
    """What the service's args say of image sources. `_s` is seconds.

    A bucket is written `s3://name` in `hosts`. The Hub may be private, since the operator named it. `hub_token` serves
    requests without one.
    """

    total_timeout_s: float = Field(30, gt=0)  # for all images of a request, retries included; the reference's


class ImageMissing(Exception):
    """Nothing is at that place."""
