"""Magic numbers: recognise the format of a file that is no safetensors file, and say what to do.

Example:
    >>> describe_wrong_format(b"GGUF...")
    'it is a GGUF file; save it as .safetensors'
"""

import codecs
import string

_AGAIN = "download the file itself"
_CONVERT = "save it as .safetensors"
_UNPACK = "unpack it and use the .safetensors file in it"
_PICKLE = f"it is a PyTorch pickle (.pt, .ckpt, .bin), which can run code when loaded; {_CONVERT}"
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # a first entry, an empty archive, a spanned one
_TAR_MAGIC_AT = 257
_TAR_BLOCK = 512
_LONGEST_ENTRY = 100  # characters of a name that is shown
_NO_LORA = "use the .safetensors file of the LoRA"
# Sources: the formats' own specifications, as collected in the `magic` files of file(1).
_MAGIC_NUMBERS = {
    b"GGUF": f"it is a GGUF file; {_CONVERT}",
    b"\x1f\x8b": f"it is compressed with gzip; {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"it is a 7z archive; {_UNPACK}",
    b"Rar!\x1a\x07": f"it is a RAR archive; {_UNPACK}",
    b"\xfd7zXZ\x00": f"it is compressed with xz; {_UNPACK}",
    b"BZh": f"it is compressed with bzip2; {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"it is compressed with Zstandard; {_UNPACK}",
    b"\x04\x22\x4d\x18": f"it is compressed with LZ4; {_UNPACK}",
    b"LZIP": f"it is compressed with lzip; {_UNPACK}",
    b"\x1f\x9d": f"it is compressed with compress (.Z); {_UNPACK}",
    b"MSCF": f"it is a cabinet archive; {_UNPACK}",
    b"!<arch>": f"it is an ar archive; {_UNPACK}",
    b"lmgg": f"it is a GGML file; {_CONVERT}",
    b"fmgg": f"it is a GGML file; {_CONVERT}",
    b"tjgg": f"it is a GGML file; {_CONVERT}",
    b"PAR1": f"it is a Parquet file; {_NO_LORA}",
    b"ARROW1": f"it is an Arrow file; {_NO_LORA}",
    b"SQLite format 3": f"it is an SQLite database; {_NO_LORA}",
    b"\x7fELF": f"it is a program; {_NO_LORA}",
    b"OggS": f"it is an Ogg media file; {_NO_LORA}",
    b"\x1a\x45\xdf\xa3": f"it is a Matroska or WebM video; {_NO_LORA}",
    b"II*\0": f"it is a TIFF image; {_NO_LORA}",
    b"MM\0*": f"it is a TIFF image; {_NO_LORA}",
    b"\x93NUMPY": f"it is a NumPy array (.npy); {_CONVERT}",
    b"\x89HDF\r\n": f"it is an HDF5 file (.h5, Keras); {_CONVERT}",
    b"\x89PNG": f"it is a PNG image; {_NO_LORA}",
    b"\xff\xd8\xff": f"it is a JPEG image; {_NO_LORA}",
    b"GIF8": f"it is a GIF image; {_NO_LORA}",
    b"RIFF": f"it is a WebP image, an AVI video or a WAV sound; {_NO_LORA}",
    b"BM": f"it is a BMP image; {_NO_LORA}",
    b"ID3": f"it is an MP3 sound; {_NO_LORA}",
    b"fLaC": f"it is a FLAC sound; {_NO_LORA}",
    b"MZ": f"it is a program; {_NO_LORA}",
    b"\0\x05\x16\x07": "it is what macOS keeps beside a file (its name begins with ._); use the file itself",
    codecs.BOM_UTF16_LE: f"it is text in UTF-16; {_AGAIN}",
    codecs.BOM_UTF16_BE: f"it is text in UTF-16; {_AGAIN}",
    **{bytes([0x78, level]): f"it is compressed with zlib; {_UNPACK}" for level in (0x01, 0x5E, 0x9C, 0xDA)},
    **{bytes([kind, 0x2A, 0x4D, 0x18]): f"it is compressed with Zstandard; {_UNPACK}" for kind in range(0x50, 0x60)},
    b"ftyp": f"it is an MP4 video; {_NO_LORA}",
    b"%PDF": f"it is a PDF document; {_NO_LORA}",
}
_PICKLES = (
    *(bytes([0x80, protocol]) for protocol in range(2, 6)),
    *(b"(dp", b"(lp", b"}q", b"]q", b"ccollections\n", b"ctorch"),  # protocols 0 and 1, which have no magic number
)
_PRINTABLE = frozenset(string.printable.encode())


def describe_wrong_format(head: bytes) -> str | None:
    """Return why a file that begins with `head` (a few hundred bytes) is refused, with its format if known."""
    if not head:
        return "it is empty (0 bytes); download or copy it again"
    if head.startswith(_PICKLES):
        return _PICKLE
    if head.startswith(_ZIPS):
        return _describe_zip(head)
    if head[_TAR_MAGIC_AT:].startswith(b"ustar") or _is_old_tar(head):
        return f"it is a tar archive; {_UNPACK}"
    found = next((what for magic, what in _MAGIC_NUMBERS.items() if head[_offset(magic) :].startswith(magic)), None)
    return found or _describe_text(head)


def _is_old_tar(head: bytes) -> bool:
    """Return whether this is the header of an entry of a tar archive of before 1988, which has no magic number."""
    block, written = head[:_TAR_BLOCK], head[148:156].strip(b" \0")
    if len(block) < _TAR_BLOCK or not written.isdigit() or b"8" in written or b"9" in written:
        return False
    return int(written, 8) == sum(block[:148] + b" " * 8 + block[156:])


def _offset(magic: bytes) -> int:
    return 4 if magic == b"ftyp" else 0  # MP4 begins with the length of its first box


def _describe_zip(head: bytes) -> str:
    """Tell a PyTorch file from an archive of files by the name of its first entry (APPNOTE 4.3.7)."""
    name = (
        head[30 : 30 + int.from_bytes(head[26:28], "little")].decode(errors="replace") if head[:4] == _ZIPS[0] else ""
    )
    if name.endswith((".pkl", "/.format_version", "/byteorder", "/version")):
        return _PICKLE
    if name.endswith(".npy"):
        return f"it is an archive of NumPy arrays (.npz); {_CONVERT}"
    if not name.strip("\0"):
        return f"it is a ZIP archive, perhaps a PyTorch pickle (.pt); {_UNPACK}, or {_CONVERT}"
    return f"it is a ZIP archive of files, the first of which is {name[:_LONGEST_ENTRY]!r}; {_UNPACK}"


def _describe_text(head: bytes) -> str | None:
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file that it points to; run `git lfs pull`"
    if text.startswith(b"/annex/objects/") or b"/.git/annex/objects/" in text:
        return "it is a git-annex pointer, not the file that it points to; run `git annex get`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<!--", b"<script", b"<meta")):
        return f"it is a web page, probably an error or log-in page; {_AGAIN}"
    if text.startswith((b"{", b"[")):
        return f"it is JSON text, probably an error answer; {_AGAIN}"
    if _PRINTABLE.issuperset(head):
        return f"it is text; {_AGAIN}"
    return None
