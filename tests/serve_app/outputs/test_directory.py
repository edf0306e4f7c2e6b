"""Outputs in a directory: atomic writes, safe names, clear errors."""

import asyncio
from pathlib import Path

import pytest

from serve_app.errors import OutputNotWritten
from serve_app.outputs import NotAsStored, OutputStore

NAME = "request/0-1.mp4"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "out puts"


@pytest.fixture
def store(root: Path) -> OutputStore:
    return OutputStore.from_url(root.as_uri())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"video" * 1000)
    return path


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


async def test_a_stored_file_is_served_from_where_the_store_says(store: OutputStore, root: Path, source: Path) -> None:
    await store.put(NAME, source, "video/mp4")
    assert store.local_path(NAME) == root / NAME
    assert store.location(NAME) == str(root / NAME)
    assert contents(root)[NAME] == contents(source.parent)["clip.mp4"]
    assert files(root) == ["request", NAME]


def test_the_directory_is_there_before_the_first_file(store: OutputStore, root: Path) -> None:
    assert root.is_dir()


async def test_readers_see_one_whole_file_or_another(store: OutputStore, tmp_path: Path) -> None:
    sources = [tmp_path / "a", tmp_path / "b"]
    videos = [bytes([digit]) * 4_000_000 for digit in (1, 2)]
    for source, video in zip(sources, videos, strict=True):
        source.write_bytes(video)
    path = store.local_path(NAME)
    assert path is not None
    await store.put(NAME, sources[0], "video/mp4")
    writes = asyncio.gather(*(store.put(NAME, source, "video/mp4") for source in sources * 5))
    reads = 0
    while not writes.done():
        assert await asyncio.to_thread(path.read_bytes) in videos
        reads += 1
    await writes
    assert reads


async def test_deleting_takes_the_empty_folder_and_nothing_else(store: OutputStore, root: Path, source: Path) -> None:
    for name in (NAME, "request/1-1.mp4", "other/0-1.mp4"):
        await store.put(name, source, "video/mp4")
    await store.delete([NAME])
    assert files(root) == ["other", "other/0-1.mp4", "request", "request/1-1.mp4"]
    await store.delete(["request/1-1.mp4", NAME])
    assert files(root) == ["other", "other/0-1.mp4"]
    await store.delete(["other/0-1.mp4"])
    assert files(root) == []
    await store.put(NAME, source, "video/mp4")


async def test_a_write_that_fails_says_why_and_leaves_no_part(
    store: OutputStore, root: Path, source: Path, tmp_path: Path
) -> None:
    (root / "blocked").touch()
    with pytest.raises(OutputNotWritten, match="File exists"):
        await store.put("blocked/0-1.mp4", source, "video/mp4")
    (root / "taken.mp4").mkdir()
    with pytest.raises(OutputNotWritten, match="Is a directory"):
        await store.put("taken.mp4", source, "video/mp4")
    with pytest.raises(OutputNotWritten, match="No such file"):
        await store.put("lost.mp4", tmp_path / "lost", "video/mp4")
    assert files(root) == ["blocked", "taken.mp4"]


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a//x", "a/", "./a", "a\\..\\x", "a\0"])
async def test_names_cannot_leave_the_directory(store: OutputStore, root: Path, source: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        store.local_path(name)
    with pytest.raises(ValueError, match="not a name"):
        store.location(name)
    with pytest.raises(ValueError, match="not a name"):
        await store.put(name, source, "video/mp4")
    with pytest.raises(ValueError, match="not a name"):
        await store.delete([name])
    assert files(root) == []


async def test_a_directory_signs_nothing(store: OutputStore) -> None:
    with pytest.raises(NotImplementedError):
        await store.signed_url(NAME, 60)


async def test_a_small_file_is_read_whole_and_only_where_it_is_a_regular_one(store: OutputStore, source: Path) -> None:
    await store.put(NAME, source, "video/mp4")
    assert await store.read(NAME) == b"video" * 1000
    with pytest.raises(FileNotFoundError):
        await store.read("request/none")
    with pytest.raises(NotAsStored):
        await store.read("request")
