"""Settings embedded in video files: the request that made a file, read from MP4, animated WebP and ZIPs of PNG.

The text is JSON, {"wan_lora_serve": 1, "request": <a body of POST /v1/inference>}. It lies in an MP4's comment tag, in
a WebP's XMP within <wan:settings>, and in an iTXt chunk of each PNG.
"""

import html
import re
import subprocess
from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

import imageio_ffmpeg
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, Field, ValidationError

from serve_app.api.schemas.bodies import InferenceRequest

_KEYWORD = "wan_lora_serve"
_XMP = re.compile(r"<wan:settings>(.*?)</wan:settings>", re.DOTALL)
_COMMENT = re.compile(r"^comment=((?:\\.|[^\\\n])*)", re.MULTILINE | re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class _Embedded(BaseModel):
    version: int = Field(alias=_KEYWORD)
    request: InferenceRequest


def read_settings(path: Path) -> InferenceRequest | None:
    """Return the request that made a file; None if none is in it, or one that this version does not know."""
    text = _from_zip(path) if is_zipfile(path) else _from_picture(path) or _from_film(path)
    if not text:
        return None
    try:
        return _Embedded.model_validate_json(text).request
    except ValidationError:
        return None


def _from_film(path: Path) -> str | None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", f"file:{path}", "-f", "ffmetadata", "-"]
    said = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  every argument is ours
    found = _COMMENT.search(said.stdout.decode(errors="replace"))
    return None if found is None else _ESCAPED.sub(r"\1", found[1])


def _from_picture(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            xmp = image.info.get("xmp", b"")
            text = image.info.get(_KEYWORD)
    except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError):
        return None
    found = _XMP.search(xmp.decode(errors="replace") if isinstance(xmp, bytes) else str(xmp))
    return html.unescape(found[1]) if found else text


def _from_zip(path: Path) -> str | None:
    try:
        with ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.lower().endswith(".png")), None)
            if name is None:
                return None
            with archive.open(name) as file, Image.open(file) as image:
                return image.info.get(_KEYWORD)
    except (BadZipFile, UnidentifiedImageError, SyntaxError):
        return None


def differing(first: InferenceRequest, second: InferenceRequest) -> dict[str, tuple[object, object]]:
    """Return the settings of the first prompts that differ, by name, with both values.

    For example `{"seed": (42, 43), "loras[0].network_multiplier": (1.0, 0.8)}`.
    """
    one, other = _flat(first), _flat(second)
    names = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    return {name: (one.get(name), other.get(name)) for name in names}


def _flat(request: InferenceRequest) -> dict[str, object]:
    whole = request.model_dump(mode="json", exclude={"prompts", "loras", "hf_token", "priority"})
    loras = {
        f"loras[{number}].{name}": value
        for number, lora in enumerate(request.loras)
        for name, value in lora.model_dump(mode="json").items()
    }
    return whole | request.prompts[0].model_dump(mode="json") | loras
