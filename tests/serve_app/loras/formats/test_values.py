"""Tensor values: the hash of the whole file, NaN and infinity found anywhere, alphas read."""

import hashlib
import sys
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import LoraInvalid
from serve_app.loras.formats.dtypes import FORMATS, WEIGHT_DTYPES, decode
from serve_app.loras.formats.header import SafetensorsHeader, read_header
from serve_app.loras.formats.parser import parse
from serve_app.loras.formats.values import PIECE_BYTES, Scanned, check_file, read_alphas, scan
from tests.loras.layouts import LAYOUTS, write
from tests.serve_app.loras.files import TINY, full, pair, save, typed

INFINITE = {
    "F16": np.array([np.inf], np.float16).tobytes(),
    "BF16": b"\x80\x7f",
    "F32": np.array([-np.inf], np.float32).tobytes(),
    "F64": np.array([np.nan], np.float64).tobytes(),
}
LARGEST = {
    "F16": np.array([65504], np.float16).tobytes(),
    "BF16": b"\x7f\xff",
    "F32": np.array([np.finfo(np.float32).max], np.float32).tobytes(),
    "F64": np.array([np.finfo(np.float32).max], np.float64).tobytes(),
}


def scanned(
    path: Path,
    header: SafetensorsHeader | None = None,
    *,
    unused: Collection[str] = (),
    wanted: Collection[str] = (),
) -> Scanned:
    with path.open("rb") as stream:
        return scan(stream, header or read_header(path, "mine"), "mine", unused=unused, wanted=wanted)


def broken_keys(path: Path) -> list[str]:
    try:
        scanned(path)
    except LoraInvalid as error:
        return list(error.details["keys"])
    return []


def test_the_hash_is_the_whole_file_s(tmp_path: Path) -> None:
    path = save(tmp_path / "x", full())
    assert scanned(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_of_many_pieces_with_odd_boundaries(tmp_path: Path) -> None:
    path = tmp_path / "x"
    sizes = [PIECE_BYTES - 2, 2, 0, PIECE_BYTES, 6, 3 * PIECE_BYTES + 2]
    path.write_bytes(typed({str(size): ("F16", [size // 2], bytes(size)) for size in sizes}))
    assert scanned(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", INFINITE)
@pytest.mark.parametrize("at", [0, 1, PIECE_BYTES // 8 - 1, PIECE_BYTES // 8, -1])
def test_one_bad_value_anywhere_is_found_after_an_unaligned_start(tmp_path: Path, dtype: str, at: int) -> None:
    count = PIECE_BYTES // 8 + 3
    values = [LARGEST[dtype]] * count
    path = tmp_path / "x"
    before = ("F16", [1], bytes(2))
    path.write_bytes(typed({"odd": before, "weights": (dtype, [count], b"".join(values)), "after": before}))
    assert broken_keys(path) == []
    values[at] = INFINITE[dtype]
    path.write_bytes(typed({"odd": before, "weights": (dtype, [count], b"".join(values)), "after": before}))
    assert broken_keys(path) == ["weights"]


def test_every_broken_tensor_is_named(tmp_path: Path) -> None:
    bad = np.array([1, np.nan], np.float16)
    assert broken_keys(save(tmp_path / "x", {"a": bad, "b": np.array([1], np.float16), "c": bad})) == ["a", "c"]


def test_unused_tensors_may_hold_anything_and_belong_to_the_hash(tmp_path: Path) -> None:
    bad = np.array([np.nan] * 3, np.float16).tobytes()
    path = tmp_path / "x"
    path.write_bytes(typed({"a": ("F8_E4M3", [3], b"\x7f" * 3), "b": ("F16", [3], bad), "c": ("F16", [3], bad)}))
    assert scanned(path, unused={"a", "b", "c"}).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(LoraInvalid) as caught:
        scanned(path, unused={"a", "b"})
    assert caught.value.details["keys"] == ["c"]


def test_a_float64_that_float32_cannot_hold_is_refused(tmp_path: Path) -> None:
    assert broken_keys(save(tmp_path / "x", {"a": np.array([1e300], np.float64)})) == ["a"]


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x", full())
    header = read_header(path, "mine")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LoraInvalid, match="shorter while it was read"):
        scanned(path, header)


def finite(dtype: str, content: bytes) -> bool:
    """By numpy alone, in float32, the widest type the experts run in."""
    if dtype == "BF16":
        values = (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
    else:
        values = np.frombuffer(content, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype])
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.astype(np.float32)).all())


# Bytes of 0x7F and 0xFF make exponents of ones likely.
CONTENT = st.lists(st.integers(0, 255) | st.sampled_from([0x7C, 0x7F, 0x80, 0xF0, 0xFF]), max_size=6).map(bytes)


@given(st.lists(st.tuples(st.sampled_from(sorted(FORMATS)), CONTENT), min_size=1, max_size=4))
def test_finiteness_agrees_with_numpy(parts: list[tuple[str, bytes]]) -> None:
    tensors = {}
    for number, (dtype, content) in enumerate(parts):
        count = len(content)  # elements
        width = FORMATS[dtype].bits.itemsize
        tensors[str(number)] = (dtype, [count], (content * width)[: count * width])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(typed(tensors))
        expected = [name for name, (dtype, _, content) in tensors.items() if not finite(dtype, content)]
        assert broken_keys(path) == expected


def test_every_dtype_that_weights_may_have_is_understood() -> None:
    assert tuple(FORMATS) == WEIGHT_DTYPES


@given(st.floats(width=16, allow_nan=False))
def test_decodes_float16_exactly(value: float) -> None:
    assert decode(np.array([value], np.float16).tobytes(), "F16") == [value]


@given(st.floats(width=32, allow_nan=False))
def test_bfloat16_is_the_upper_half_of_float32(value: float) -> None:
    upper = np.array([value], np.float32).tobytes()[2:]
    assert decode(upper, "BF16") == np.frombuffer(b"\0\0" + upper, "<f4")


def test_decodes_the_wide_formats() -> None:
    assert list(decode(np.array([1.5, -2], np.float32).tobytes(), "F32")) == [1.5, -2]
    assert list(decode(np.array([1e-300], np.float64).tobytes(), "F64")) == [1e-300]
    assert decode(b"\x7f\x7f", "BF16") == float.fromhex("0x1.fep127")


def test_a_signalling_nan_is_decoded_as_any_other() -> None:
    assert np.isnan(decode(bytes.fromhex("0100807f"), "F32")).all()
    assert np.isnan(decode(bytes.fromhex("817f"), "BF16")).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_pass_finds_what_its_parts_find(layout: str, tmp_path: Path) -> None:
    path = write(layout, tmp_path).path
    checked = check_file(path, TINY, layout)
    header = read_header(path, layout)
    assert (checked.header.tensors, checked.header.metadata) == (header.tensors, {})
    assert checked.contents == replace(parse(header, TINY, layout), idle=())
    assert checked.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as stream:
        alphas = read_alphas(stream, checked.header, checked.contents)
    assert list(checked.alphas.items()) == list(alphas.items())


def test_a_file_is_opened_once(tmp_path: Path) -> None:
    path = save(tmp_path / "x", full() | {"diffusion_model.blocks.0.ffn.0.alpha": np.array(4.0)})
    opened = []
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and args[0] == str(path) else None)
    check_file(path, TINY, "mine")
    assert len(opened) == 1


@pytest.mark.parametrize(("alpha", "why"), [(0, "alpha is 0"), (-1, "negative"), (np.nan, "NaN")])
def test_a_whole_check_looks_at_the_alphas(alpha: float, why: str, tmp_path: Path) -> None:
    key = "diffusion_model.blocks.0.ffn.0.alpha"
    path = save(tmp_path / "x", pair("blocks.0.ffn.0") | {key: np.array([alpha], np.float16)})
    with pytest.raises(LoraInvalid, match=why) as caught:
        check_file(path, TINY, "mine")
    assert caught.value.details["keys"] == [key]
