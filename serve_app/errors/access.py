"""Errors of access: who sends the request is not known (401), or may not do that (403)."""

from serve_app.errors.base import ServiceError


class AuthenticationError(ServiceError):
    """The sender of the request is unknown; nothing was done."""

    status = 401


class KeyRequired(AuthenticationError):
    """The request has no API key."""


class KeyInvalid(AuthenticationError):
    """The API key is unknown, revoked or expired."""


class ForbiddenError(ServiceError):
    """The sender is known, but not allowed to do this."""

    status = 403


class UploadsOff(ForbiddenError):
    """The service accepts no uploads."""


class ScopeRequired(ForbiddenError):
    """The API key lacks a scope."""


class LinkInvalid(ForbiddenError):
    """The signature of a link is wrong, or the link has expired."""
