"""What a file is that is not a safetensors file, told from its first bytes."""

import codecs
import string

_AGAIN = "download the file itself"
_CONVERT = "save it as .safetensors"
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_TEXT = frozenset(string.printable.encode())


def describe_foreign(head: bytes) -> str | None:
    """A reason that names the format of a file beginning with `head` (some hundred bytes), or None if unknown."""
    if not head:
        return "it is empty (0 bytes); download or copy it again"
    if head.startswith((b"PK\x03\x04", *_PICKLES)):
        return f"it is a PyTorch pickle (.pt, .ckpt, .bin), which can run code when loaded; {_CONVERT}"
    if head.startswith(b"GGUF"):
        return f"it is a GGUF file; {_CONVERT}"
    return _describe_text(head)


def _describe_text(head: bytes) -> str | None:
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file that it points to; run `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"it is a web page, probably an error or log-in page; {_AGAIN}"
    if text.startswith((b"{", b"[")):
        return f"it is JSON text, probably an error answer; {_AGAIN}"
    if _TEXT.issuperset(head):
        return f"it is text; {_AGAIN}"
    return None
