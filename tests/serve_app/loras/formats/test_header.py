"""The safetensors header: what the library writes is read, and what it refuses is refused."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from serve_app.errors import LoraInvalid
from serve_app.loras.formats.dtypes import BITS
from serve_app.loras.formats.header import (
    SafetensorsHeader,
    TensorInfo,
    header_bytes_needed,
    parse_header,
    read_header,
)
from tests.serve_app.loras.files import METADATA, full, raw, typed
from tests.serve_app.loras.files import save as save_tensors


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(LoraInvalid) as caught:
        read_header(path, "my/lora")
    assert caught.value.details["file"] == "my/lora"
    assert str(path) not in str(caught.value.body())
    return str(caught.value.details["reason"])


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    path = save_tensors(tmp_path / "x", full())
    header = read_header(path, "x")
    assert header.metadata == METADATA
    assert header.file_size == path.stat().st_size
    assert set(header.tensors) == set(full())
    assert header.data_offset + max(info.end for info in header.tensors.values()) == header.file_size


def test_tensors_come_in_the_order_of_their_data(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(raw({"later": entry(data_offsets=[4, 8]), "first": entry()}, bytes(8)))
    assert read_header(path, "x") == SafetensorsHeader(
        {"first": TensorInfo("F32", (1,), 0, 4), "later": TensorInfo("F32", (1,), 4, 8)},
        {},
        path.stat().st_size - 8,
        path.stat().st_size,
    )
    assert list(read_header(path, "x").tensors) == ["first", "later"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty (0 bytes)"),
        (b"\0\1\2", "only 3 bytes"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n <html><body>404", "web page"),
        (b"\xef\xbb\xbf<html>", "web page"),
        (b'{"error": "not found"}', "JSON text"),
        (b"Not Found", "it is text"),
        (b"no", "it is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git-lfs pointer"),
        (b"PK\x03\x04" + bytes(100), "pickle"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
        (b"GGUF\x03\0\0\0" + bytes(100), "GGUF"),
        ((1 << 60).to_bytes(8, "little") + b"{", "header would be"),
        (b"\x00\x00\x00\x00\x00\x00\x00\x00", "no JSON object"),
        ((1000).to_bytes(8, "little") + b'{"a":', "at least 995 bytes are missing"),
        (raw("[1]"), "no JSON object"),
        (raw('{"a": '), "not JSON"),
        (raw(b'{"\xff": 1}'), "not JSON in UTF-8"),
        (raw('{"\\ud800": 1}'), "not JSON in UTF-8"),
        (raw('{"a": ' + "[" * 50_000), "nested too deeply"),
        (raw('{"a": ' + "9" * 5000 + "}"), "not JSON"),
        (raw('{"a": {}, "a": {}}'), "'a' twice"),
        (raw('{"a": {"dtype": "F32", "dtype": "F16"}}'), "'dtype' twice"),
        (raw({"__metadata__": {"step": 1}}), "no object of strings"),
        (raw({"__metadata__": None}), "no object of strings"),
        (raw({"a": 1}), "does not consist of"),
        (raw({"a": {"dtype": "F32", "shape": [1]}}), "does not consist of"),
        (raw({"a": entry(extra=1)}, bytes(4)), "does not consist of"),
        (raw({"a": entry(dtype="F31")}, bytes(4)), "unknown dtype 'F31'"),
        (raw({"a": entry(dtype=["F32"])}, bytes(4)), "unknown dtype"),
        (raw({"a": entry(shape=4)}, bytes(4)), "natural numbers"),
        (raw({"a": entry(shape=[True])}, bytes(4)), "natural numbers"),
        (raw({"a": entry(shape=[1.0])}, bytes(4)), "natural numbers"),
        (raw({"a": entry(shape=[-1])}, bytes(4)), "natural numbers"),
        (raw({"a": entry(data_offsets=[0])}, bytes(4)), "natural numbers"),
        (raw({"a": entry(data_offsets=[-4, 0])}, bytes(4)), "natural numbers"),
        (raw({"a": entry(shape=[2])}, bytes(4)), "gives 4 bytes to F32 of shape [2]"),
        (raw({"a": entry(data_offsets=[4, 0])}, bytes(4)), "gives -4 bytes"),
        (raw({"a": entry(shape=[0, 2**64], data_offsets=[0, 0])}), "2^48"),
        (raw({"a": entry(), "b": entry()}, bytes(4)), "overlaps"),
        (raw({"a": entry(data_offsets=[4, 8])}, bytes(8)), "gap"),
        (raw({"a": entry()}, bytes(1)), "3 bytes at its end are missing"),
        (raw({"a": entry()}, bytes(6)), "2 bytes after its last tensor"),
        (raw({}, b"x"), "1 bytes after its last tensor"),
    ],
)
def test_a_malformed_file_is_refused_with_its_reason(tmp_path: Path, content: bytes, why: str) -> None:
    assert why in refusal(tmp_path / "x", content)


def test_a_length_that_looks_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    header = json.dumps({"a": entry()}).encode()
    (tmp_path / "x").write_bytes(raw(header + b" " * (0x0280 - len(header)), bytes(4)))
    assert list(read_header(tmp_path / "x", "x").tensors) == ["a"]


def test_a_file_of_sparse_gigabytes_is_judged_by_its_header_alone(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as stream:
        stream.write(raw({"a": entry(shape=[2**34], data_offsets=[0, 2**36])}))
        stream.truncate(stream.tell() + 2**36)
    assert read_header(tmp_path / "x", "x").tensors["a"].end == 2**36


@pytest.mark.parametrize("seen", [8, 9, 512])
def test_a_header_is_read_from_the_beginning_of_a_file_alone(tmp_path: Path, seen: int) -> None:
    path = save_tensors(tmp_path / "x", full())
    content = path.read_bytes()
    header = read_header(path, "x")
    assert header_bytes_needed(content[:seen], len(content), "x") == header.data_offset
    assert parse_header(content[: header.data_offset], len(content), "x") == header
    assert parse_header(content, len(content), "x") == header


def test_a_beginning_that_ends_within_the_header_is_refused() -> None:
    with pytest.raises(LoraInvalid, match="not JSON"):
        parse_header(VALID[:20], len(VALID), "x")
    with pytest.raises(LoraInvalid, match="bytes at its end are missing"):
        parse_header(VALID, len(VALID) - 1, "x")
    with pytest.raises(LoraInvalid, match="too few"):
        header_bytes_needed(VALID[:7], 7, "x")


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_knows_no_dtype_that_the_library_does_not(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(typed({"a": (dtype, [3], bytes(3 * BITS[dtype] // 8))}))
    assert read_header(path, "x").tensors["a"].dtype == dtype
    with safe_open(path, "np") as library:
        assert library.get_slice("a").get_dtype() == dtype


def agree(content: bytes) -> None:
    """Check that the reader raises LoraInvalid or sees what the library sees."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(content)
        try:
            header = read_header(path, "x")
        except LoraInvalid:
            return
        with safe_open(path, "np") as library:
            assert set(library.keys()) == set(header.tensors)
            assert (library.metadata() or {}) == header.metadata
            for name, info in header.tensors.items():
                assert tuple(library.get_slice(name).get_shape()) == info.shape
                assert library.get_slice(name).get_dtype() == info.dtype


def accepted_by_library(content: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(content)
        try:
            with safe_open(path, "np"):
                return True
        except SafetensorError:
            return False


VALID = save({"b": np.zeros((2, 3), np.float16), "a": np.ones((), np.float32)}, metadata={"k": "v"})
SHAPES = st.lists(st.integers(0, 3), max_size=3)


@pytest.mark.slow
@given(
    st.dictionaries(st.text(max_size=4).filter(lambda name: name != "__metadata__"), SHAPES, max_size=4),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
def test_valid_files_read_as_the_library_reads_them(shapes: dict[str, list[int]], metadata: dict[str, str]) -> None:
    content = save({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, metadata=metadata or None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(content)
        header = read_header(path, "x")
    assert {name: list(info.shape) for name, info in header.tensors.items()} == shapes
    agree(content)


@given(st.data())
def test_mutated_files_are_refused_or_read_as_the_library_reads_them(data: st.DataObject) -> None:
    content = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.integers(0, 3))
        content[at : at + cut] = data.draw(st.binary(max_size=3))
    agree(bytes(content))


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused_or_read_as_the_library_reads_them(content: bytes) -> None:
    agree(content)


NUMBERS = st.integers(0, 8) | st.sampled_from([-1, 2**31, 2**62, 2**63, 2**64, 1.0, True, None, "4"])
ENTRIES = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "F16", "BF16", "U8"]), "shape": st.lists(NUMBERS, max_size=3)},
    optional={"data_offsets": st.lists(NUMBERS, min_size=1, max_size=3)},
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES | st.text(max_size=2)), st.binary(max_size=16)
)
def test_arbitrary_headers_are_refused_or_read_as_the_library_reads_them(header: dict[str, Any], data: bytes) -> None:
    agree(raw(header, data))


def test_the_library_refuses_what_the_properties_rely_on() -> None:
    assert accepted_by_library(VALID)
    assert not accepted_by_library(VALID + b"x")
