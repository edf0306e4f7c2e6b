"""Files on this machine: LoRAs are uploaded (content-addressed), images travel in the request, videos get a place."""

import base64
import hashlib
import mimetypes
import os
from pathlib import Path

from serve_app.cli.console import UsageError, say
from serve_app.client import Client

FOLDER = "uploads"  # within the service's lora_root
_ADDRESS = "://"


def lora_path(client: Client, text: str) -> str:
    """Return how the service names a LoRA: a file here is uploaded first, unless the same one lies there already.

    Everything that is no file here is a path or an address for the service to read.
    """
    path = Path(text).expanduser()
    if _ADDRESS in text or not path.is_file():
        return text
    name = f"{FOLDER}/{_digest(path)}/{path.name}"
    if name in {file.path for file in client.loras().files}:
        return name
    say(f"uploading {path.name} ({path.stat().st_size / 1e6:.1f} MB)")
    return client.upload(path, name).path


def image(text: str) -> str:
    """Return an image for a request: a file here as a data URL, anything else as it is.

    Raises:
        UsageError: it looks like a file here, and is none.
    """
    path = Path(text).expanduser()
    if path.is_file():
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    if text.startswith(("~", "./", "../")):
        raise UsageError(f"--image {text}: there is no such file")
    return text


def prepare(out: Path) -> None:
    """Make the folder of a file that is to be written, before anything is rendered for it.

    Raises:
        UsageError: no such file can be written.
        OSError: its folder cannot be made.
    """
    if out.is_dir():
        raise UsageError(f"-o {out}: that is a folder; name a file in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise UsageError(f"-o {out}: you may not write into that folder")


def _digest(path: Path) -> str:
    """Return what tells files of one name apart; 64 bits of their SHA-256 are enough for that."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
