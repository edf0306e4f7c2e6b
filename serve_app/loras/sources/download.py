"""A whole file into the cache: resumed where it broke off, and never more of it than is allowed."""

from serve_app.loras.cache import Partial
from serve_app.loras.sources.deadline import Deadline
from serve_app.loras.sources.faults import Transient, attempt
from serve_app.loras.sources.located import OpenAt, Part
from serve_app.loras.sources.policy import SourcePolicy
from serve_app.loras.sources.wording import too_large, unavailable


def download(open_at: OpenAt, partial: Partial, policy: SourcePolicy, deadline: Deadline, name: str) -> None:
    """Complete `partial`, which may hold the file's first bytes already.

    Raises:
        LoraSourceUnavailable: it could not be completed in time, or there is no room for it.
        LoraPathRefused: the file is larger than the policy allows.
        Whatever else `open_at` raises.
    """

    def proceed() -> None:
        with open_at(partial.size) as part:
            _receive(part, partial, policy, deadline, name)
        if part.total is not None and partial.size < part.total:
            raise Transient("it ends early")

    attempt(proceed, policy, deadline, name)


def _receive(part: Part, partial: Partial, policy: SourcePolicy, deadline: Deadline, name: str) -> None:
    if part.start != partial.size:
        partial.restart()
    if part.total is not None:
        if part.total > policy.max_bytes:
            raise too_large(name, part.total, policy.max_bytes)
        partial.reserve(part.total - partial.size)
    for chunk in part.chunks:
        size = partial.size + len(chunk)
        if size > policy.max_bytes:
            raise too_large(name, size, policy.max_bytes)
        if part.total is not None and size > part.total:
            raise unavailable(name, "its server sends more than it announced")
        if deadline.left() <= 0:
            raise Transient("the download took too long")
        partial.append(chunk)
