"""Paths inside lora_root: what resolves, what is refused, and how it is worded."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import LoraNotFound, LoraPathRefused
from serve_app.loras.paths import resolve, unreadable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a lora_root with a file, a folder, and links that stay inside and that leave."""
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.safetensors").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "a.safetensors").write_bytes(b"a")
    (root / "folder" / "b.safetensors").write_bytes(b"b")
    (root / "~").mkdir()
    (root / "~" / "c.safetensors").write_bytes(b"c")
    (root / "link.safetensors").symlink_to("folder/b.safetensors")
    (root / "folder_link").symlink_to("folder")
    (root / "leaves.safetensors").symlink_to("../secret.safetensors")
    (root / "leaves").symlink_to(tmp_path / "outside")
    (root / "dangling").symlink_to(tmp_path / "nothing")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    return root


@pytest.mark.parametrize(
    ("reference", "file"),
    [
        ("a.safetensors", "a.safetensors"),
        ("./folder//b.safetensors", "folder/b.safetensors"),
        ("link.safetensors", "folder/b.safetensors"),
        ("folder_link/b.safetensors", "folder/b.safetensors"),
        ("~/c.safetensors", "~/c.safetensors"),
    ],
)
def test_paths_inside_are_resolved(root: Path, reference: str, file: str) -> None:
    assert resolve(reference, root) == root / file


def test_root_may_itself_be_a_symlink(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert resolve("a.safetensors", tmp_path / "alias") == root / "a.safetensors"


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("", "is empty"),
        ("  \t", "is empty"),
        ("a\0.safetensors", "NUL"),
        ("\ud800", "not valid Unicode"),
        ("/etc/passwd", "is absolute"),
        ("//a.safetensors", "is absolute"),
        ("..", "contains '..'"),
        ("../secret.safetensors", "contains '..'"),
        ("folder/../a.safetensors", "contains '..'"),
        ("folder\\b.safetensors", "backslash"),
        ("leaves.safetensors", "symlink"),
        ("leaves/x.safetensors", "symlink"),
        ("leaves/absent", "symlink"),
        ("dangling", "symlink"),
        ("loop", "loop"),
        (".", "directory"),
        ("folder", "directory"),
        ("folder_link", "directory"),
        ("fifo", "regular file"),
    ],
)
def test_everything_else_is_refused_by_name(root: Path, reference: str, why: str) -> None:
    with pytest.raises(LoraPathRefused) as caught:
        resolve(reference, root)
    assert why in caught.value.message
    assert repr(reference) in caught.value.message
    json.dumps(caught.value.body(), ensure_ascii=False).encode()  # can be sent
    assert str(root.parent) not in str(caught.value.body())


@pytest.mark.parametrize("reference", ["absent.safetensors", "folder/absent", "a.safetensors/x", "n" * 5000])
def test_a_missing_file_is_worded_as_the_reference_server_does(root: Path, reference: str) -> None:
    with pytest.raises(LoraNotFound) as caught:
        resolve(reference, root)
    assert caught.value.message == f"LoRA file(s) not found: ['{reference}']"
    assert caught.value.details == {"missing_files": [reference]}


def test_a_forbidden_file_is_refused_and_a_failing_disk_is_no_fault_of_the_request() -> None:
    assert isinstance(unreadable("a", PermissionError()), LoraPathRefused)
    with pytest.raises(OSError, match="I/O"):
        unreadable("a", OSError(5, "I/O"))


PARTS = st.sampled_from(["a", "in", "out", "up", "file", "deep", "..", ".", "", "~", "\0", "\\", "http:", "/", " "])


@pytest.mark.slow
@given(reference=st.lists(PARTS, max_size=6).map("/".join) | st.text(max_size=12))
def test_no_accepted_path_leaves_root(reference: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder).resolve()
        root = outside / "root"
        (root / "a").mkdir(parents=True)
        for file in (outside / "file", root / "file", root / "a" / "file"):
            file.write_bytes(b"")
        (root / "in").symlink_to("a")
        (root / "out").symlink_to("..")
        (root / "a" / "up").symlink_to("../..")
        (root / "a" / "deep").symlink_to("../in")
        try:
            accepted = resolve(reference, root)
        except (LoraPathRefused, LoraNotFound):
            return
        assert accepted.is_relative_to(root)
        assert accepted == accepted.resolve()
        assert accepted.is_file()
