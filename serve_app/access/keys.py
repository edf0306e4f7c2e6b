"""API keys (bearer tokens): their form, their scopes, and their hash, which is all that is stored.

Example:
    made = new_key("team-a", "laptop", {Scope.SUBMIT, Scope.READ})
    made.token  # "wan_k3v9..._..." is shown once; only its SHA-256 is kept, in made.key
    presented = Presented.of(token)
    presented == (made.key.id, made.key.secret_sha256)

The secret has 256 random bits, so it cannot be guessed, and a plain SHA-256 is enough. Slow password hashes are for
secrets that people choose.
"""

import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from time import time
from typing import NamedTuple, Self

_PREFIX = "wan"  # lets secret scanners recognise a leaked key
_ID_BYTES = 8
_SECRET_BYTES = 32
_TOKEN = re.compile(rf"{_PREFIX}_([0-9a-f]{{{2 * _ID_BYTES}}})_([A-Za-z0-9_-]{{43}})")


class Scope(StrEnum):
    """What a key may be used for."""

    READ = "read"  # status, results, outputs and lists of its tenant
    SUBMIT = "submit"  # POST, cancel, delete and upload for its tenant
    ADMIN = "admin"  # everything, for every tenant


EVERYTHING = frozenset(Scope)


def allows(scopes: Collection[Scope], wanted: Scope) -> bool:
    """Return whether a key with these scopes may be used for that."""
    return wanted in scopes or Scope.ADMIN in scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is stored. Times are seconds since the epoch (UTC)."""

    id: str
    name: str  # for people
    tenant: str
    scopes: frozenset[Scope]
    secret_sha256: str = field(repr=False)  # hex
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None  # to the minute

    def is_valid(self, now: float) -> bool:
        """Return whether it may be used at that time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def is_admin(self) -> bool:
        """Return whether it may be used for everything, and for every tenant."""
        return Scope.ADMIN in self.scopes


class Presented(NamedTuple):
    """The two parts of a token that a client sent: the id of its key, and the SHA-256 of the secret, hex."""

    key_id: str
    secret_sha256: str

    @classmethod
    def of(cls, token: str) -> Self | None:
        """Return the parts; None if the token has another form."""
        found = _TOKEN.fullmatch(token)
        return None if found is None else cls(found[1], digest(found[2]))


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key with its token, which is not stored and cannot be read later."""

    key: ApiKey
    token: str = field(repr=False)


def new_key(tenant: str, name: str, scopes: Collection[Scope], expires_at: float | None = None) -> NewKey:
    """Return a new key with a random token."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(
        id=key_id,
        name=name,
        tenant=tenant,
        scopes=frozenset(scopes),
        secret_sha256=digest(secret),
        created_at=time(),
        expires_at=expires_at,
    )
    return NewKey(key, f"{_PREFIX}_{key_id}_{secret}")


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret, hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
