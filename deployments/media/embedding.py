"""Metadata in containers (ISO BMFF comment, XMP, iTXt): a text that is embedded in the file of a video.

| mp4 | the tag `comment` of iTunes' list (moov/udta/meta/ilst/©cmt), through ffmpeg's metadata file |
| webp | a chunk `XMP ` with the property `wan:settings` |
| png | a chunk iTXt in each frame, under the keyword `wan_lora_serve` |

serve_app/page/dropped.js reads them in the browser. The text is JSON without line breaks; see `serve_app.embedded`.
"""

import re
from xml.sax.saxutils import escape

from PIL.PngImagePlugin import PngInfo

from serve_app.embedded import NAME

_NAMESPACE = "https://github.com/wan-lora-serve/settings/"  # only a name; the page need not exist
# ffmpeg's documentation, "Metadata": these are escaped with a backslash in values.
_SPECIAL = re.compile(r"[=;#\\\n]")


def ffmpeg_metadata(text: str) -> str:
    """Return ffmpeg's metadata file with the tag `comment`. A file, because a command's argument may be too short."""
    return ";FFMETADATA1\ncomment=" + _SPECIAL.sub(r"\\\g<0>", text) + "\n"


def xmp(text: str) -> bytes:
    """Return the XMP packet (ISO 16684-1) with the property `wan:settings`."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:wan="{_NAMESPACE}">'
        f"<wan:settings>{escape(text)}</wan:settings>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def png_text(text: str) -> PngInfo:
    """Return the chunk iTXt, uncompressed UTF-8 (PNG, 11.3.3.4)."""
    chunks = PngInfo()
    chunks.add_itxt(NAME, text)
    return chunks
