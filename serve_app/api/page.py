"""The web page (static files): `/`, and its modules and styles under `/page/{digest}/`, which browsers cache forever.

The page is a client of the API like any other. The digest of all its files stands in their addresses: a browser loads
each version once, and never mixes two of them.
"""

import gzip
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Self

from fastapi import APIRouter, Request, Response

from serve_app.api.dependencies import Services, ServicesDep
from serve_app.errors import PathNotFound

logger = logging.getLogger("ray.serve.wan")

_DOCUMENT = "index.html"
_PLACE_OF_DIGEST = b"@digest"  # in the document
_DIGEST_LENGTH = 16
_KEPT_FOR_GOOD = "public, max-age=31536000, immutable"  # a year is the most that caches honour (RFC 9111, 5.2.2.1)
# Named here and not asked of the machine, whose table may say otherwise of JavaScript; browsers then run no module.
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = {
    "default-src": "'self'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page, compressed once."""

    content: bytes
    compressed: bytes  # gzip, which every browser reads: less than a third
    etag: str  # of the content; weak, as both forms have it (RFC 9110, 8.8.1)
    media_type: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Self:
        """Return the asset with that content."""
        digest = hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]
        return cls(content, gzip.compress(content, mtime=0), f'W/"{digest}"', media_type)


def _read(folder: Traversable, prefix: str = "") -> dict[str, Asset]:
    """Return the files below `folder` by their paths in it, in the order of their names."""
    assets: dict[str, Asset] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            assets |= _read(entry, f"{prefix}{entry.name}/")
        else:
            suffix = entry.name[entry.name.rindex(".") :]
            assets[prefix + entry.name] = Asset.of(entry.read_bytes(), _MEDIA_TYPES[suffix])
    return assets


def _digest(assets: Mapping[str, Asset]) -> str:
    named = "".join(f"{name} {asset.etag}\n" for name, asset in assets.items())
    return hashlib.sha256(named.encode()).hexdigest()[:_DIGEST_LENGTH]


_ASSETS = _read(resources.files("serve_app") / "page")
_DIGEST = _digest(_ASSETS)
_HOME = Asset.of(_ASSETS[_DOCUMENT].content.replace(_PLACE_OF_DIGEST, _DIGEST.encode()), _MEDIA_TYPES[".html"])


@router.get("/")
async def home(request: Request, services: ServicesDep) -> Response:
    """Return the page's document, which is never cached and names the files of this version."""
    return await _answer(_HOME, request, services, "no-cache")


@router.get("/page/{digest}/{name:path}")
async def asset(digest: str, name: str, request: Request, services: ServicesDep) -> Response:
    """Return one of the page's files."""
    found = _ASSETS.get(name)
    if found is None or digest != _DIGEST or name == _DOCUMENT:
        raise PathNotFound("This version of the page has no such file; load / again", {"path": request.url.path})
    return await _answer(found, request, services, _KEPT_FOR_GOOD)


async def _answer(asset: Asset, request: Request, services: Services, caching: str) -> Response:
    headers = {
        "ETag": asset.etag,
        "Cache-Control": caching,
        "Vary": "Accept-Encoding",
        "Content-Security-Policy": await _policy(services),
        **_SECURITY_HEADERS,
    }
    if asset.etag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(asset.compressed, media_type=asset.media_type, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


async def _policy(services: Services) -> str:
    """Return the content security policy: nothing from elsewhere, but for videos that lie in a bucket."""
    try:
        origin = await services.outputs.origin()
    except OSError as error:  # nor can a video be opened, and whoever asks for one is told
        logger.warning("the page is served without the origin of its videos: %s", error)
        origin = None
    elsewhere = "" if origin is None else f" {origin}"
    return "; ".join(
        f"{kind} {sources}{elsewhere if kind in ('img-src', 'media-src') else ''}" for kind, sources in _POLICY.items()
    )
