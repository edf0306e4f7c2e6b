"""Transfers: download the first bytes of a file, for its header, or a whole file, resumable and bounded in size."""

from serve_app.loras.cache import Partial
from serve_app.loras.formats.header import header_bytes_needed
from serve_app.loras.sources.base import OpenAt, Part, SourcePolicy
from serve_app.loras.sources.wording import attempt, too_large, unavailable
from serve_app.net import Deadline, Transient

FIRST_GUESS = 256 << 10  # bytes; the headers of most LoRAs fit


def read_up_to(part: Part, stop: int) -> bytes:
    """Return the bytes of `part` before the offset `stop`, which counts from the start of the file.

    Raises:
        Transient: the bytes end before `stop`, and before the file does.
    """
    wanted = (stop if part.total is None else min(stop, part.total)) - part.start
    head = bytearray()
    for chunk in part.chunks:
        head += chunk
        if len(head) >= wanted:
            break
    if part.total is not None and len(head) < wanted:
        raise Transient("it ends early")
    return bytes(head[: max(wanted, 0)])


def refuse_foreign(head: bytes, total: int | None, policy: SourcePolicy, name: str) -> None:
    """Raise LoraInvalid if no safetensors file of `total` bytes (None: unknown) begins with `head`."""
    size = len(head) + (1 << 62) if total is None else total
    header_bytes_needed(head, size, name, policy.max_header_bytes)


def download(open_at: OpenAt, partial: Partial, policy: SourcePolicy, deadline: Deadline, name: str) -> None:
    """Complete `partial`, which may hold the file's first bytes already: resume the download after them.

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
