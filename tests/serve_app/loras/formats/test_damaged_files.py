"""Whatever a file holds: its contents account for every key exactly once, or it is refused. Nothing else comes out."""

import json
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.errors import LoraInvalid
from serve_app.loras.formats.changes import LoraContents
from serve_app.loras.formats.header import SafetensorsHeader, TensorInfo, read_header
from serve_app.loras.formats.parser import parse
from serve_app.loras.inspection import inspect_file
from serve_app.loras.library import LoraLibrary
from tests.loras.layouts import LAYOUTS, write
from tests.serve_app.loras.files import CARD, TINY, raw

FUZZ = settings(deadline=timedelta(seconds=2), suppress_health_check=[HealthCheck.too_slow])


def _seeds() -> dict[str, tuple[dict[str, TensorInfo], bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: write(name, Path(folder)).path for name in LAYOUTS}
        return {name: (read_header(path, name).tensors, path.read_bytes()) for name, path in paths.items()}


SEEDS = _seeds()
NAMES = st.sampled_from(sorted(SEEDS))
KEYS = sorted({key for tensors, _ in SEEDS.values() for key in tensors})
DTYPES = st.sampled_from(["F16", "BF16", "F32", "F64", "F8_E4M3", "I8", "BOOL", "C64"])
DIMENSIONS = st.sampled_from([0, 1, 2, 3, 4, 16, 23, 24, 36, 48, 1536, 2**40])
SHAPES = st.lists(DIMENSIONS, max_size=6).map(tuple)
PREFIXES = ["diffusion_model.", "model.", "transformer.", "transformer_1.", "transformer_2.", "base_model.model."]
NAME_PIECES = ["lora_unet_", "lycoris_", "blocks.", "blocks_", "0.", "1.", "0_", "self_attn.", "attn1.", "q", "to_q"]
MORE_PIECES = ["norm3", "modulation", "head.head", ".", "_", ".lora_A.weight", ".lora_B.weight", ".lora_B.bias"]
ENDINGS = [".alpha", ".dora_scale", ".lokr_w1", ".lokr_w2_a", ".diff", ".diff_b", ".weight", ".lora_mid.weight"]
PIECES = st.sampled_from([*PREFIXES, *NAME_PIECES, *MORE_PIECES, *ENDINGS, ".lora_A.default.weight"])
NEW_KEYS = st.sampled_from(KEYS) | st.lists(PIECES, max_size=6).map("".join) | st.text(max_size=20)


def accounted(contents: LoraContents, keys: list[str]) -> None:
    used = Counter(key for change in contents.changes() for key in change.keys)
    assert used + Counter(contents.left_out) == Counter(keys)
    assert all(changes for changes in contents.parts.values())


def outcome(tensors: dict[str, TensorInfo], metadata: dict[str, str], *, strict: bool) -> None:
    try:
        contents = parse(SafetensorsHeader(tensors, metadata, 8, 8), TINY, "mine", strict=strict)
    except LoraInvalid as error:
        json.dumps(error.body())
        assert error.details["reason"]
        assert error.details["count"] >= len(error.details["keys"])
    else:
        accounted(contents, list(tensors))
        assert not (strict and contents.left_out)


Items = list[tuple[str, TensorInfo]]


def rename(draw: st.DrawFn, items: Items, at: int) -> None:
    items[at] = (draw(NEW_KEYS), items[at][1])


def edit(draw: st.DrawFn, items: Items, at: int) -> None:
    key, info = items[at]
    cut, length = draw(st.integers(0, len(key))), draw(st.integers(0, 3))
    items[at] = (key[:cut] + draw(PIECES) + key[cut + length :], info)


def drop(_: st.DrawFn, items: Items, at: int) -> None:
    del items[at]


def reshape(draw: st.DrawFn, items: Items, at: int) -> None:
    items[at] = (items[at][0], TensorInfo(items[at][1].dtype, draw(SHAPES), 0, 0))


def retype(draw: st.DrawFn, items: Items, at: int) -> None:
    items[at] = (items[at][0], TensorInfo(draw(DTYPES), items[at][1].shape, 0, 0))


def add(draw: st.DrawFn, items: Items, at: int) -> None:
    items.insert(at, (draw(NEW_KEYS), TensorInfo(draw(DTYPES), draw(SHAPES), 0, 0)))


def merge(draw: st.DrawFn, items: Items, _: int) -> None:
    items.extend(SEEDS[draw(NAMES)][0].items())


MUTATIONS = st.sampled_from([rename, edit, drop, reshape, retype, add, merge])


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, TensorInfo]:
    """Return a good header with keys renamed, dropped, added or from another layout, or other shapes and dtypes."""
    items = list(SEEDS[draw(NAMES)][0].items())
    for mutate in draw(st.lists(MUTATIONS, min_size=1, max_size=4)):
        if items:
            mutate(draw, items, draw(st.integers(0, len(items) - 1)))
    return dict(items)


@pytest.mark.slow
@FUZZ
@given(mutated(), st.booleans())
def test_mutated_headers(tensors: dict[str, TensorInfo], strict: bool) -> None:
    outcome(tensors, {}, strict=strict)


@FUZZ
@given(
    st.dictionaries(NEW_KEYS, st.builds(TensorInfo, DTYPES, SHAPES, st.just(0), st.just(0)), max_size=8), st.booleans()
)
def test_arbitrary_headers(tensors: dict[str, TensorInfo], strict: bool) -> None:
    outcome(tensors, {}, strict=strict)


CONFIGS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["to_q", "a.b", "(a*)*", ""]), inner),
    max_leaves=4,
)
CONFIG_KEYS = st.sampled_from(["r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias"])


@FUZZ
@given(st.sampled_from(["diffusers", "combined-diffusers", "dora-peft", "lokr"]), st.dictionaries(CONFIG_KEYS, CONFIGS))
def test_arbitrary_adapter_metadata(layout: str, config: dict[str, Any]) -> None:
    outcome(SEEDS[layout][0], {"lora_adapter_metadata": json.dumps(config)}, strict=True)


@FUZZ
@given(NAMES, st.data())
def test_mutated_bytes_of_whole_files(name: str, data: st.DataObject) -> None:
    content = bytearray(SEEDS[name][1])
    body = len(content) - sum(info.end - info.start for info in SEEDS[name][0].values())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, body) | st.integers(0, len(content)))
        cut = data.draw(st.integers(0, 3))
        content[at : at + cut] = data.draw(st.binary(min_size=cut, max_size=cut) | st.binary(max_size=3))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    whole_file(bytes(content), strict=data.draw(st.booleans()))


@FUZZ
@given(NAMES, st.data())
def test_bodies_of_any_bits(name: str, data: st.DataObject) -> None:
    tensors, content = SEEDS[name]
    size = sum(info.end - info.start for info in tensors.values())
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    whole_file(content[: len(content) - size] + random.bytes(size), strict=True)


@FUZZ
@given(st.dictionaries(NEW_KEYS, st.tuples(SHAPES, DTYPES, st.integers(0, 64)), max_size=4), st.binary(max_size=64))
def test_headers_whose_offsets_lie(entries: dict[str, tuple[Any, str, int]], body: bytes) -> None:
    header = {
        key: {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + len(body)]}
        for key, (shape, dtype, start) in entries.items()
    }
    whole_file(raw(json.dumps(header), body), strict=False)


def whole_file(content: bytes, *, strict: bool) -> None:
    """By the library, which reads all of it, and by the inspection, which does not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(content)
        try:
            found = LoraLibrary(Path(folder), TINY, at_rest_s=0).find("x", strict=strict)
        except LoraInvalid as error:
            json.dumps(error.body())
        else:
            accounted(found.contents, list(read_header(path, "x").tensors))
            report = inspect_file(path, "x", CARD, strict=strict, norms=True)
            assert type(report).model_validate_json(report.model_dump_json()) == report
