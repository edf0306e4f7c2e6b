"""From where LoRAs may come, and how long and how large a download may be."""

import os
from fnmatch import fnmatchcase

import httpx2
from pydantic import BaseModel, ConfigDict, Field, SecretStr

_GIB = 2**30


class SourcePolicy(BaseModel):
    """What the service's args say about sources. Sizes are bytes, `_s` is seconds.

    `hosts` are patterns with `*` over host names; a bucket is written `s3://name`. The Hub and the hosts that it
    redirects downloads to are no exception. `private_hosts` (`name` or `name:port`) may be reached although their
    addresses are private; so may the Hub's own, which the operator named. `hub_token` serves requests without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[str, ...] = ("*",)
    private_hosts: tuple[str, ...] = ()
    allow_http: bool = False
    max_bytes: int = Field(8 * _GIB, gt=0)
    max_redirects: int = Field(5, ge=0)
    connect_timeout_s: float = Field(10, gt=0)
    read_timeout_s: float = Field(30, gt=0)  # without a single byte
    locate_timeout_s: float = Field(60, gt=0)  # to identify a file or read its header, retries included
    total_timeout_s: float = Field(600, gt=0)  # to download a file, retries included
    attempts: int = Field(4, ge=1)
    backoff_s: float = Field(0.5, ge=0)  # before the first retry; doubled before each further one
    max_backoff_s: float = Field(20, ge=0)  # also where a server's Retry-After asks for more
    hub_endpoint: str | None = None
    hub_token: SecretStr | None = None

    @property
    def hub(self) -> str:
        """The Hub's address without a slash at its end: the arg, else HF_ENDPOINT, else Hugging Face."""
        return (self.hub_endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    def allows(self, place: str) -> bool:
        """Whether LoRAs may come from `place`: a host name, or a bucket as `s3://name`."""
        return any(fnmatchcase(place.lower(), pattern.lower()) for pattern in self.hosts)

    def allows_private(self, host: str, port: int) -> bool:
        """Whether that server may be reached although its address is private."""
        name = f"[{host}]" if ":" in host else host
        hub = httpx2.URL(self.hub)
        is_hub = (hub.host, port_of(hub)) == (host, port)
        return is_hub or not {name, f"{name}:{port}"}.isdisjoint(known.lower() for known in self.private_hosts)

    def allows_scheme(self, url: httpx2.URL) -> bool:
        """Whether `url` may be fetched as it is: https, or http where the operator said so."""
        return url.scheme == "https" or (url.scheme == "http" and (self.allow_http or self.is_hub(url)))

    def is_hub(self, url: httpx2.URL) -> bool:
        """Whether `url` has the Hub's origin, the only one that gets to see tokens."""
        hub = httpx2.URL(self.hub)
        return (url.scheme, url.host, port_of(url)) == (hub.scheme, hub.host, port_of(hub))


def port_of(url: httpx2.URL) -> int:
    """The TCP port of an http or https URL."""
    return url.port or {"http": 80}.get(url.scheme, 443)
