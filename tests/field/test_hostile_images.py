"""Images made to hurt: bombs, endless animations, cut files, files of another kind, headers that lie.

Each is refused at the POST by its prompt and field, quickly and in little memory, and nothing of it stays.
"""

import base64
import io
import random
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serve_app.images.decoding import inspect, silence_pillow
from serve_app.images.header import ImageLimits, ImageUnusable
from tests.fixtures.images import ServeImages, kept, request
from tests.serve_app.images.files import KINDS, animation, file, picture, saved

LIMITS = ImageLimits()
MOST_S = 20.0  # on a busy machine and under tracemalloc; refused unread it takes milliseconds, else minutes to hours
MOST_BYTES = 100 << 20  # Python's own; the files have up to 20 MiB


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, mode: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND")


def jpeg(width: int, height: int) -> bytes:
    """Return a JPEG whose header announces another size than its picture has."""
    data = bytearray(file("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif(width: int, height: int, body: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + body + b";"


GIF_FRAME = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"


def webp(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes(4) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width: int, height: int, compression: int = 0) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(info), 0, 0, 54) + info


def many_scans() -> bytes:
    """Return a progressive JPEG with its last scan a thousand times: each is a pass over the whole picture."""
    data = saved(picture("RGB", 64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 1000 + data[-2:]


def zip_bomb_text() -> bytes:
    """Return a PNG with compressed texts that unfold to gigabytes."""
    bomb = zlib.compress(bytes(64 << 20), 9)
    texts = [chunk(b"zTXt", b"a\0\0" + bomb)] * 20
    return png(1, 1, *texts, chunk(b"IDAT", zlib.compress(b"\0\1\2\3")))


def two_sizes() -> bytes:
    """Return a JPEG that announces its frame twice."""
    data = file("JPEG")
    at = data.index(b"\xff\xc0")
    return data[:at] + data[at : at + 19] + data[at:]


# What it is, the file, and words of the refusal.
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG of 65,535 x 65,535": (lambda: png(65535, 65535, chunk(b"IDAT", zlib.compress(bytes(1000)))), "16384"),
    "PNG of 2^31 x 2^31": (lambda: png(2**31 - 1, 2**31 - 1, chunk(b"IDAT")), "16384"),
    "PNG of no pixels": (lambda: png(0, 0, chunk(b"IDAT")), "no picture"),
    "PNG bomb": (lambda: png(16000, 16000, chunk(b"IDAT", zlib.compress(bytes(10 << 20), 9))), "40000000"),
    "PNG without data": (lambda: png(10, 10), "without a picture"),
    "PNG with too little data": (lambda: png(900, 900, chunk(b"IDAT", zlib.compress(bytes(9)))), "damaged"),
    "PNG of a million chunks": (lambda: png(1, 1, chunk(b"tEXt") * 1_000_000), "50000 chunks"),
    "PNG of texts that unfold": (zip_bomb_text, "damaged"),
    "APNG of 10,000 frames": (lambda: png(9, 9, chunk(b"acTL", struct.pack(">II", 10_000, 0)), chunk(b"IDAT")), "1000"),
    "JPEG of 65,535 x 65,535": (lambda: jpeg(65535, 65535), "16384"),
    "JPEG of 16,000 x 16,000": (lambda: jpeg(16000, 16000), "40000000"),
    "JPEG of no pixels": (lambda: jpeg(0, 0), "no picture"),
    "JPEG of a thousand scans": (many_scans, "100 scans"),
    "JPEG of fill bytes in its scan": (lambda: jpeg(90, 60)[:-2] + b"\xff" * (10 << 20), "damaged"),
    "JPEG of a million segments behind its scan": (
        lambda: jpeg(90, 60)[:-2] + b"\xff\xfe\0\2" * 1_000_000,
        "100 scans",
    ),
    "JPEG of a million segments": (lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000, "1000 segments"),
    "JPEG of fill bytes": (lambda: b"\xff\xd8" + b"\xff" * (10 << 20), "segments do not follow"),
    "JPEG of two sizes": (two_sizes, "twice"),
    "GIF of 65,535 x 65,535": (lambda: gif(65535, 65535, GIF_FRAME), "16384"),
    "GIF whose frame stands out of it": (
        lambda: gif(1, 1, b"," + struct.pack("<HHHHB", 60000, 60000, 5000, 5000, 0) + b"\2\0"),
        "16384",
    ),
    "GIF of 10,000 frames": (lambda: gif(1, 1, GIF_FRAME * 10_000), "1000 frames"),
    "GIF of endless comments": (lambda: gif(1, 1, b"!\xfe" + b"\1x" * (5 << 20) + b"\0" + GIF_FRAME), "small blocks"),
    "GIF of junk": (lambda: gif(1, 1, b"x" * (10 << 20)), "small blocks"),
    "GIF of tiny blocks": (lambda: gif(1, 1, GIF_FRAME[:-4] + b"\1x" * (5 << 20) + b"\0"), "small blocks"),
    "GIF without a picture": (lambda: gif(1, 1, b""), "without a picture"),
    "WebP of 16,777,216 x 16,777,216": (lambda: webp(1 << 24, 1 << 24), "16384"),
    "WebP of 16,383 x 16,383": (lambda: webp(16383, 16383), "40000000"),
    "WebP without a picture": (lambda: webp(10, 10), "damaged"),
    "BMP of 2^31": (lambda: bmp(2**31 - 1, -(2**31 - 1)), "16384"),
    "BMP, compressed": (lambda: bmp(10, 10, compression=1), "compressed BMP"),
    "BMP that promises more than it has": (lambda: bmp(5000, 5000), "damaged"),
    "SVG": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG"),
    "HTML": (lambda: b"<!DOCTYPE html><html></html>", "a web page"),
    "PDF": (lambda: b"%PDF-1.7\n" + file("JPEG"), "a PDF"),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    "TIFF": (lambda: saved(picture("RGB", 9, 9), "TIFF"), "a TIFF"),
    "ICO": (lambda: saved(picture("RGBA", 32, 32), "ICO"), "an icon"),
    "AVIF": (lambda: b"\0\0\0\x20ftypavif" + bytes(20), "an AVIF"),
    "HEIC": (lambda: b"\0\0\0\x20ftypheic" + bytes(20), "a HEIC"),
    "MP4": (lambda: b"\0\0\0\x20ftypisom" + bytes(20), "a video"),
    "font": (lambda: b"\0\1\0\0\0\x0c" + bytes(90), "a font"),
    "ZIP": (lambda: b"PK\3\4" + bytes(90), "a ZIP archive"),
    "LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "PPM": (lambda: saved(picture("RGB", 9, 9), "PPM"), "no format"),
    "text": (lambda: b"hello", "no format"),
    "magic of a PNG alone": (lambda: b"\x89PNG\r\n\x1a\n", "ends early"),
    "magic of a JPEG alone": (lambda: b"\xff\xd8\xff", "ends early"),
    "magic of a GIF alone": (lambda: b"GIF89a", "ends early"),
    "magic of a WebP alone": (lambda: b"RIFF\0\0\0\0WEBP", "without a picture"),
    "magic of a BMP alone": (lambda: b"BM", "ends early"),
    "more bytes than allowed": (lambda: file("PNG") + bytes(LIMITS.max_bytes), "bytes that this service takes"),
}


def refusal(data: bytes) -> str:
    with pytest.raises(ImageUnusable) as caught:
        inspect(data, LIMITS)
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_quickly_and_in_little_memory(name: str) -> None:
    make, words = HOSTILE[name]
    data = make()
    tracemalloc.start()
    started = time.perf_counter()
    try:
        assert words in refusal(data)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < MOST_S


def exif(tags: int, claimed: int, size: int) -> bytes:
    """Return an EXIF block of that size, each of whose tags claims to have so many bytes, all in the same place."""
    entries = b"".join(struct.pack("<HHII", tag, 7, claimed + tag, 8) for tag in range(tags))
    return (b"II*\0" + struct.pack("<IH", 8, tags) + entries).ljust(size, b"x")


@pytest.mark.parametrize(("form", "claimed"), [("PNG", 1 << 19), ("JPEG", 1 << 19), ("JPEG", 1 << 30)])
def test_a_huge_exif_block_takes_little_memory_and_is_not_warned_of(form: str, claimed: int) -> None:
    data, block = file(form), exif(5_000, claimed, 1 << 20)
    if form == "PNG":
        data = data[:33] + chunk(b"eXIf", block) + data[33:]
    else:
        parts = [b"Exif\0\0" + block[at : at + 65_000] for at in range(0, len(block), 65_000)]
        segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
        data = data[:2] + segments + data[20:]  # without JFIF's, so that Pillow looks for a resolution
    tracemalloc.start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silence_pillow()
        assert inspect(data, LIMITS).orientation == 1
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()
    assert caught == []


@pytest.mark.parametrize("name", ["PNG of 65,535 x 65,535", "GIF of 10,000 frames", "SVG", "PDF", "text"])
async def test_it_is_refused_over_http_and_nothing_stays(serve_images: ServeImages, name: str) -> None:
    make, words = HOSTILE[name]
    async with serve_images("required") as api:
        good, bad = (base64.b64encode(data).decode() for data in (file("PNG"), make()))
        error = await api.refused(request({"ctrl_img": good}, {"ctrl_img": bad}), "CONTROL_IMAGE_INVALID")
        assert words in error["message"]
        assert error["details"] == {"prompt_index": 1, "field": "ctrl_img"}
        assert len(error["message"]) < 300
        assert kept(api) == []


@pytest.mark.parametrize(("form", "mode"), KINDS)
def test_a_file_that_is_cut_off_is_refused(form: str, mode: str) -> None:
    data = file(form, mode, 40, 30)
    for share in (0.3, 0.6, 0.9):
        refusal(data[: int(len(data) * share)])


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000), flips=st.integers(1, 30))
def test_damaged_files_are_decoded_or_refused_and_nothing_else(kind: tuple[str, str], seed: int, flips: int) -> None:
    data, chance = bytearray(file(*kind, 24, 16)), random.Random(seed)
    for _ in range(flips):
        data[chance.randrange(len(data))] = chance.randrange(256)
    _decoded_or_refused(bytes(data))


@given(
    start=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X", b"BM"]),
    rest=st.binary(),
)
def test_any_bytes_behind_a_magic_number_are_decoded_or_refused(start: bytes, rest: bytes) -> None:
    _decoded_or_refused(start + rest)


def _decoded_or_refused(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            facts = inspect(data, LIMITS)
        except ImageUnusable as error:
            assert str(error)
            return
    assert facts.width * facts.height <= LIMITS.max_pixels


def scans_in_a_film() -> bytes:
    """Return what a phone puts behind its picture, with the bytes of a JPEG's scans in it by chance."""
    return b"\0\0\0\x18ftypmp42" + random.Random(1).randbytes(1 << 20) + b"\xff\xda" * 200


@pytest.mark.parametrize("behind", [scans_in_a_film(), bytes(2 << 20)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_a_photo_with_a_film_behind_it_is_a_photo(form: str, behind: bytes) -> None:
    data = animation(form, 3) if form in ("PNG", "GIF", "WEBP") else file(form)
    assert inspect(data + behind, LIMITS) == inspect(data, LIMITS)


def test_the_end_of_a_picture_hides_no_scans_behind_it_in_a_comment() -> None:
    data = many_scans()
    first = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    assert "100 scans" in refusal(data[:first] + b"\xff\xfe\0\4\xff\xd9" + data[first:])


@pytest.mark.parametrize("behind", [b"PK\3\4 a ZIP behind it", b"<script>alert(1)</script>", b"%PDF-1.7", bytes(5000)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_of_a_polyglot_only_the_image_in_front_is_seen(form: str, behind: bytes) -> None:
    data = file(form)
    assert inspect(data + behind, LIMITS) == inspect(data, LIMITS)


def test_no_other_decoder_sees_what_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = Image.open

    def open_(stream: io.BytesIO, **options: Any) -> Image.Image:
        opened.append(options["formats"])
        return real(stream, **options)

    monkeypatch.setattr(Image, "open", open_)
    inspect(file("GIF"), LIMITS)
    refusal(HOSTILE["TIFF"][0]())
    assert opened == [("gif",)]


def test_an_animation_within_the_limit_is_taken() -> None:
    assert inspect(animation("GIF", 40), LIMITS).frames == 40
