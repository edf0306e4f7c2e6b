"""Ownership (multi-tenant isolation): which tenant sends a request, and whose requests it may see.

Example:
    sender = sender_of("team-a", trusted=True)
    record = await store.requests.get(request_id, owner=sender.owner)

A request that the owner may not see is answered like an unknown id (404), so that ids cannot be probed.
"""

import re
from dataclasses import dataclass, replace

from serve_app.access.keys import EVERYTHING, Scope
from serve_app.errors import HeaderInvalid

TENANT_HEADER = "X-Tenant"
DEFAULT_TENANT = "default"  # of clients that name none

_TENANT = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._:-]{1,64}")  # also the name of a folder, so neither . nor ..

Wanted = tuple[str, str | None]
"""The id of a request, and its `owner`: the tenant that must own it, or None for any."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends a request.

    Args:
        tenant: whose share of the GPUs the request uses.
        owner: whose requests the sender may see. It is the tenant if keys are on or the tenant header is trusted. It
            is None, which means all requests, in every other case and for admins.
        scopes: what its API key allows.
        key_id: of its API key.
    """

    tenant: str
    owner: str | None
    scopes: frozenset[Scope] = EVERYTHING
    key_id: str | None = None


def sender_of(header: str | None, *, trusted: bool) -> Sender:
    """Return the sender of a request with that X-Tenant header, which is ignored unless the service trusts it.

    Raises:
        HeaderInvalid: the header is trusted, and is no valid name of a tenant.
    """
    if not trusted:
        return Sender(DEFAULT_TENANT, owner=None)
    tenant = DEFAULT_TENANT if header is None else checked_tenant(header)
    return Sender(tenant, owner=tenant)


def sender_with_key(sender: Sender, header: str | None) -> Sender:
    """Return the sender of a request with a key and that X-Tenant header: an admin may act as any tenant.

    Raises:
        HeaderInvalid: the header is no valid name of a tenant, or names another tenant than the key's.
    """
    if header is None:
        return sender
    tenant = checked_tenant(header)
    if sender.owner is None:
        return replace(sender, tenant=tenant, owner=tenant)
    if tenant != sender.tenant:
        raise HeaderInvalid(
            f"{TENANT_HEADER} names another tenant than that of the API key; leave it out", {"header": TENANT_HEADER}
        )
    return sender


def checked_tenant(name: str) -> str:
    """Return `name` if it is a valid name of a tenant, else raise HeaderInvalid."""
    if not _TENANT.fullmatch(name):
        raise HeaderInvalid(
            f"{TENANT_HEADER} must be 1 to 64 letters, digits or . _ : -, and not . or ..", {"header": TENANT_HEADER}
        )
    return name


def may_see(owner: str | None, tenant: str) -> bool:
    """Return whether `owner` may see the requests of `tenant`."""
    return owner is None or owner == tenant
