"""Policy of image sources: which servers may be reached, who gets a token, and how long that may take."""

import os

import httpx2
from pydantic import Field, SecretStr

from serve_app.net import NetPolicy


class ImagePolicy(NetPolicy):
    """What the service's args say of image sources. `_s` is seconds.

    A bucket is written `s3://name` in `hosts`. The Hub may be private, since the operator named it. `hub_token` serves
    requests without one.
    """

    total_timeout_s: float = Field(30, gt=0)  # for all images of a request, retries included; the reference's
    hub_endpoint: str | None = None
    hub_token: SecretStr | None = None

    @property
    def hub(self) -> str:
        """The Hub's address without a slash at its end: the arg, else HF_ENDPOINT, else Hugging Face."""
        return (self.hub_endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    @property
    def trusted(self) -> httpx2.URL:
        """The Hub, the only server that gets to see tokens."""
        return httpx2.URL(self.hub)


class ImageMissing(Exception):
    """Nothing is at that place."""
