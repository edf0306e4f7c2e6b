"""The first bytes of a file, in which its header lies."""

from serve_app.loras.formats.header import header_bytes_needed
from serve_app.loras.sources.faults import Transient
from serve_app.loras.sources.located import Part

FIRST_GUESS = 256 << 10  # bytes; the headers of most LoRAs fit


def read_up_to(part: Part, stop: int) -> bytes:
    """The bytes of `part` that lie before `stop`, counted from the start of the file.

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


def refuse_foreign(head: bytes, total: int | None, name: str) -> None:
    """Raise LoraInvalid if no safetensors file begins with `head`. A `total` (bytes) that is not known fits any."""
    header_bytes_needed(head, len(head) + (1 << 62) if total is None else total, name)
