"""A file that is no safetensors file is called by its format, told from its first bytes, with what to do about it."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.client import body
from tests.fixtures.api import Api

LORA = b"no matter"


def zipped(*names: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name in names:
            archive.writestr(name, LORA)
    return stream.getvalue()


def tarred(mode: Any) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        entry = tarfile.TarInfo("hero/high.safetensors")
        entry.size = len(LORA)
        archive.addfile(entry, io.BytesIO(LORA))
    return stream.getvalue()


def old_tar() -> bytes:
    """Make an archive as tar wrote it before POSIX: without a magic number."""
    head = b"hero/high.safetensors".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"00000000011\0" * 2
    checksum = sum(head) + 8 * ord(" ")
    return (head + b"%06o\0 " % checksum).ljust(512, b"\0") + LORA.ljust(512, b"\0")


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


FILES: dict[str, tuple[bytes, str, str]] = {
    "zip": (
        zipped("high.safetensors", "low.safetensors"),
        "ZIP archive of files, the first of which is 'high",
        "unpack",
    ),
    "deflated": (zipped("a/high.safetensors", compression=zipfile.ZIP_DEFLATED), "ZIP archive of files", "unpack"),
    "empty-zip": (zipped(), "ZIP archive", "unpack"),
    "torch": (written(lambda stream: torch.save({"a": torch.ones(2)}, stream)), "PyTorch pickle", "save it as"),
    "npz": (written(lambda stream: np.savez(stream, a=np.ones(2))), "NumPy arrays", "save it as"),
    "npy": (written(lambda stream: np.save(stream, np.ones(2))), "NumPy array", "save it as"),
    **{f"pickle-{n}": (pickle.dumps({"a": 1}, n), "PyTorch pickle", "save it as") for n in range(6)},
    "tar": (tarred("w"), "tar archive", "unpack"),
    "old-tar": (old_tar(), "tar archive", "unpack"),
    "torch-constants": (zipped("archive/constants.pkl", "archive/data.pkl"), "PyTorch pickle", "save it as"),
    "zlib": (zlib.compress(LORA * 50), "zlib", "unpack"),
    "zstd-skippable": (b"\x50\x2a\x4d\x18" + bytes(100), "Zstandard", "unpack"),
    "utf-16": ("<!DOCTYPE html>".encode("utf-16"), "UTF-16", "download"),
    "apple-double": (b"\x00\x05\x16\x07" + bytes(100), "macOS", "the file itself"),
    "program": (b"MZ\x90\x00" + bytes(100), "program", ".safetensors"),
    "bmp": (b"BM" + bytes(100), "BMP image", ".safetensors"),
    "wav": (b"RIFF\0\0\0\0WAVE" + bytes(100), "WAV", ".safetensors"),
    "tar.gz": (tarred("w:gz"), "gzip", "unpack"),
    "gzip": (gzip.compress(LORA), "gzip", "unpack"),
    "bzip2": (bz2.compress(LORA), "bzip2", "unpack"),
    "xz": (lzma.compress(LORA), "xz", "unpack"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(100), "7z", "unpack"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(100), "RAR", "unpack"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(100), "LZ4", "unpack"),
    "lzip": (b"LZIP\x01" + bytes(100), "lzip", "unpack"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), "Zstandard", "unpack"),
    "compress": (b"\x1f\x9d\x90" + bytes(100), "(.Z)", "unpack"),
    "cabinet": (b"MSCF" + bytes(100), "cabinet", "unpack"),
    "ggml": (b"tjgg\x03" + bytes(100), "GGML", "save it as"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "save it as"),
    "sqlite": (b"SQLite format 3\0" + bytes(100), "SQLite", ".safetensors"),
    "parquet": (b"PAR1" + bytes(100), "Parquet", ".safetensors"),
    "webm": (b"\x1a\x45\xdf\xa3" + bytes(100), "WebM", ".safetensors"),
    "tiff": (b"II*\0" + bytes(100), "TIFF", ".safetensors"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(100), "GGUF", "save it as"),
    "html": (b"\n<!DOCTYPE html><html>", "web page", "download"),
    "html-without-doctype": (b"<head><title>404</title>", "web page", "download"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git-lfs pointer", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s9--00.safetensors\n", "git-annex pointer", "git annex get"),
    "json": (b'{"error": "gone"}', "JSON", "download"),
    "text": (b"gone\n" * 9, "text", "download"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG image", ".safetensors"),
    "mp4": (b"\x00\x00\x00\x20ftypisom" + bytes(100), "MP4 video", ".safetensors"),
}


@pytest.mark.parametrize("kind", FILES)
async def test_is_said_with_what_to_do(kind: str, api: Api) -> None:
    content, what, advice = FILES[kind]
    (api.lora_root / "mine.safetensors").write_bytes(content)
    error = await api.refused(body(loras=[{"path": "mine.safetensors", "transformer": "high"}]), "LORA_INVALID")
    assert what in error["message"]
    assert advice in error["message"]
    if "ickle" not in what:
        assert "can run code" not in error["message"]
