"""Signed links (HMAC-SHA256): a URL that opens one path without an API key, until it expires.

Example:
    signer = LinkSigner(secret)
    query = signer.query("/v1/requests/3a9c.../outputs/0", lifetime_s=3600)  # {"expires": ..., "signature": ...}
    signer.accepts("/v1/requests/3a9c.../outputs/0", query["expires"], query["signature"])

They exist because a browser sends no Authorization header for `<video src>`. Other query parameters are not signed:
they choose between forms of the same output.
"""

import hashlib
import hmac
import math
from dataclasses import dataclass, field
from time import time

EXPIRES, SIGNATURE = "expires", "signature"  # parameters of the query

# Links that are made within five minutes are equal, so that browsers and caches recognise the file.
_ROUND_S = 300
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class LinkSigner:
    """Signs and verifies paths with a secret that all Ingress replicas share."""

    secret: bytes = field(repr=False)

    def query(self, path: str, lifetime_s: float) -> dict[str, str]:
        """Return the parameters that open `path` for at least `lifetime_s` seconds, and up to five minutes more."""
        expires = str(math.ceil((time() + lifetime_s) / _ROUND_S) * _ROUND_S)
        return {EXPIRES: expires, SIGNATURE: self._signature(path, expires)}

    def accepts(self, path: str, expires: str, signature: str) -> bool:
        """Return whether these are the parameters of a link to `path` that has not expired."""
        known = hmac.compare_digest(self._signature(path, expires).encode(), signature.encode())
        is_time = expires.isascii() and expires.isdigit() and len(expires) <= _DIGITS
        return known and is_time and time() < int(expires)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self.secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
