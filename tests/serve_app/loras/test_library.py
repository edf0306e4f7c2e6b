"""Verdicts on LoRA files: known by content, checked once, shared by threads."""

import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serve_app.errors import LoraInvalid, LoraNotFound, LoraPathRefused
from serve_app.loras.formats import parse, read_header, values
from serve_app.loras.library import LoraLibrary
from tests.serve_app.loras.files import METADATA, TINY, full, pair, save


@pytest.fixture
def library(tmp_path: Path) -> LoraLibrary:
    return LoraLibrary(tmp_path, TINY, at_rest_s=0)


def big(path: Path) -> Path:
    """Return a LoRA of some 20 MB, which takes a while to hash."""
    return save(path, full(rank=8192))


class Reads:
    """How often Python opened files under a folder, by its own audit events (PEP 578); a hook cannot be removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self.count = 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and str(args[0]).startswith(self._folder):
            self.count += 1

    def of(self, library: LoraLibrary, *references: str) -> int:
        """Return files opened by inspecting these, one after another; refusals count as well."""
        before = self.count
        for reference in references:
            with suppress(LoraInvalid):
                library.find(reference)
        return self.count - before


@pytest.fixture
def reads(tmp_path: Path) -> Reads:
    return Reads(tmp_path)


def test_a_good_file_is_identified_by_its_content(library: LoraLibrary, tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", full())
    found = library.find("a.safetensors")
    assert found.reference == "a.safetensors"
    assert found.location == str(path)
    assert found.content == found.sha256
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.size == path.stat().st_size
    assert found.contents.provenance.base_model == METADATA["ss_base_model_version"]
    assert found.file_name == "a.safetensors"
    assert found.contents == replace(parse(read_header(path, "a"), TINY, "a"), idle=())
    assert library.find("a.safetensors") == found


def test_paths_are_checked_first(library: LoraLibrary) -> None:
    with pytest.raises(LoraPathRefused):
        library.find("../a.safetensors")
    with pytest.raises(LoraNotFound):
        library.find("absent.safetensors")


def test_every_check_is_made(library: LoraLibrary, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no")
    save(tmp_path / "layout", {"a": np.array([1], np.float16)})
    save(tmp_path / "nan", full() | {"diffusion_model.blocks.0.ffn.0.lora_A.weight": np.full((4, 24), np.nan)})
    save(tmp_path / "zero", full() | {"diffusion_model.blocks.0.ffn.0.alpha": np.array([0], np.float16)})
    save(tmp_path / "alpha", full() | {"diffusion_model.blocks.0.ffn.0.alpha": np.array([-1], np.float16)})
    for reference, why in {
        "text": "text",
        "layout": "no place",
        "nan": "NaN",
        "alpha": "negative",
        "zero": "alpha is 0",
    }.items():
        with pytest.raises(LoraInvalid, match=why):
            library.find(reference)


def test_tensors_without_a_place_may_be_left_out_whatever_they_hold(library: LoraLibrary, tmp_path: Path) -> None:
    extra = {"text_encoder.x": np.array([np.nan]), "text_encoder.y": np.array([1], np.int8)}
    path = save(tmp_path / "a", full() | extra)
    found = library.find("a", strict=False)
    assert set(found.contents.left_out) == set(extra)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(LoraInvalid, match="no place"):
        library.find("a")  # another question than the one that is answered already
    assert library.find("a", strict=False) == found


def test_the_infinite_alpha_that_a_lokr_does_not_use_is_accepted(library: LoraLibrary, tmp_path: Path) -> None:
    stem = "diffusion_model.blocks.0.ffn.0"
    lokr = {f"{stem}.lokr_w1": np.ones((2, 2)), f"{stem}.lokr_w2": np.ones((24, 12))}
    save(tmp_path / "a", lokr | {f"{stem}.alpha": np.array(np.inf, np.float16)})
    assert [change.parameter for change in library.find("a").contents.changes()] == ["blocks.0.ffn.net.0.proj.weight"]


def test_a_blob_of_the_same_content_shares_the_verdict_under_a_name_of_its_own(
    library: LoraLibrary, tmp_path: Path, reads: Reads
) -> None:
    path = save(tmp_path / "original", full())
    inside = library.find("original")
    blob = tmp_path / "blob"
    shutil.copy(path, blob)
    before = reads.count
    checked = library.check_blob(blob, str(inside.sha256), "https://host/folder/a_high_noise.safetensors")
    assert reads.count == before
    assert (checked.sha256, checked.contents) == (inside.sha256, inside.contents)
    (tmp_path / "bad").write_text("no")
    for _ in range(2):
        with pytest.raises(LoraInvalid) as caught:
            library.check_blob(tmp_path / "bad", "0" * 64, "hf://org/repo")
        assert caught.value.details["file"] == "hf://org/repo"
    with pytest.raises(FileNotFoundError):
        library.check_blob(tmp_path / "gone", "1" * 64, "hf://org/gone")


def test_a_blob_is_read_once_and_never_hashed(
    library: LoraLibrary, tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "blob", full())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(values, "hashlib", SimpleNamespace(sha256=Poisoned))
    checked = library.check_blob(path, digest, "a")
    assert checked.sha256 == digest
    after_one = reads.count
    os.utime(path)
    assert library.check_blob(path, digest, "b") is checked
    assert reads.count == after_one


class Poisoned:
    """A hash that must not be fed."""

    def update(self, _: bytes) -> None:
        raise AssertionError


def test_a_local_file_is_hashed_once_for_both_ways_to_check_it(
    library: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a", full())
    strict = library.find("a")
    monkeypatch.setattr(values, "hashlib", SimpleNamespace(sha256=Poisoned))
    assert library.find("a", strict=False) == strict


def test_what_is_known_of_a_file_costs_no_read(library: LoraLibrary, tmp_path: Path, reads: Reads) -> None:
    path = save(tmp_path / "a", full())
    assert library.known(path) is None
    checked = library.check(path, "a")
    before = reads.count
    assert library.known(path) is checked
    assert reads.count == before
    path.write_text("no")
    assert library.known(path) is None


def test_verdicts_are_remembered_good_and_bad(library: LoraLibrary, tmp_path: Path, reads: Reads) -> None:
    save(tmp_path / "good", full())
    (tmp_path / "bad").write_text("no")
    assert reads.of(library, "good") > 0
    assert reads.of(library, "bad") > 0
    assert reads.of(library, "good", "bad", "good", "bad") == 0


def test_each_caller_gets_a_refusal_of_its_own(library: LoraLibrary, tmp_path: Path) -> None:
    """A shared exception would collect the tracebacks of all who raise it."""
    (tmp_path / "bad").write_text("no")
    errors = []
    for _ in range(2):
        with pytest.raises(LoraInvalid) as caught:
            library.find("bad")
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert errors[0].body() == errors[1].body()


def test_a_remembered_refusal_speaks_of_the_path_that_was_asked_for(library: LoraLibrary, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("no")
    (tmp_path / "two").symlink_to("one")
    for reference in ("one", "two"):
        with pytest.raises(LoraInvalid) as caught:
            library.find(reference)
        assert caught.value.details["file"] == reference
        assert repr(reference) in caught.value.message


def test_an_overwritten_file_is_another(tmp_path: Path) -> None:
    library = LoraLibrary(tmp_path, TINY)
    path = save(tmp_path / "a", full())
    before = library.find("a")
    original = path.read_bytes()
    content = bytearray(original)
    content[-1] ^= 1
    path.write_bytes(content)
    assert library.find("a").sha256 == hashlib.sha256(content).hexdigest() != before.sha256
    path.write_bytes(b"no")
    with pytest.raises(LoraInvalid):
        library.find("a")
    path.write_bytes(original)
    assert library.find("a").sha256 == before.sha256


def test_a_file_not_at_rest_is_read_each_time(tmp_path: Path, reads: Reads) -> None:
    library = LoraLibrary(tmp_path, TINY, at_rest_s=3600)
    save(tmp_path / "a", full())
    assert reads.of(library, "a") == reads.of(library, "a") > 0


def test_callers_of_one_file_share_the_work(library: LoraLibrary, tmp_path: Path, reads: Reads) -> None:
    shutil.copy(big(tmp_path / "a"), tmp_path / "b")
    alone = reads.of(library, "a")

    def inspect_together(_: int) -> int:
        start.wait()
        return reads.of(library, "b")

    start = Barrier(16)
    with ThreadPoolExecutor(16) as threads:
        assert max(threads.map(inspect_together, range(16))) == alone


def test_memory_is_bounded(tmp_path: Path, reads: Reads) -> None:
    library = LoraLibrary(tmp_path, TINY, capacity=2, at_rest_s=0)
    for name in ("old", "x", "y"):
        save(tmp_path / name, pair("blocks.0.ffn.0"))
        library.find(name)
    assert reads.of(library, "x", "y") == 0
    assert reads.of(library, "old") > 0  # forgotten
    assert reads.of(library, "y", "old") == 0


def test_a_file_written_while_it_is_read_is_never_identified_wrongly(library: LoraLibrary, tmp_path: Path) -> None:
    path = big(tmp_path / "a")
    content = path.read_bytes()
    stop = Event()

    def keep_writing() -> None:
        while not stop.is_set():
            with path.open("r+b") as stream:
                stream.seek(-1, os.SEEK_END)
                stream.write(content[-1:])

    writer = Thread(target=keep_writing)
    writer.start()
    try:
        with pytest.raises(LoraInvalid, match="changed while it was read; retry"):
            library.find("a")
    finally:
        stop.set()
        writer.join()
    assert library.find("a").sha256 == hashlib.sha256(content).hexdigest()
