"""The cache by itself. What it does for threads, processes and downloads is in sources/test_sharing.py."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest

from serve_app.errors import ConfigurationInvalid, LoraSourceUnavailable
from serve_app.loras.cache import CachedFile, DigestMismatch, LoraCache, Partial

CONTENTS = [bytes([index]) * 1000 for index in range(4)]
ETAGS = [f"etag-{index:064}" for index in range(4)]


@pytest.fixture
def cache(tmp_path: Path) -> LoraCache:
    """Room for three files."""
    return LoraCache(tmp_path, 3500)


class Fill:
    """Completes a file, and remembers with how many bytes of it each call began."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.began: list[int] = []

    def __call__(self, partial: Partial) -> None:
        self.began.append(partial.size)
        partial.reserve(len(self.content) - partial.size)
        partial.append(self.content[partial.size :])


@contextmanager
def held(cache: LoraCache, index: int, fill: Fill | None = None) -> Iterator[CachedFile]:
    with cache.hold(ETAGS[index], fill or Fill(CONTENTS[index]), "x", wait_s=0) as file:
        assert file.path.read_bytes() == CONTENTS[index]
        yield file


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(directory: Path) -> set[int]:
    return {index for index, content in enumerate(CONTENTS) if (directory / "blobs" / digest(content)).exists()}


def use(cache: LoraCache, *indices: int) -> None:
    for index in indices:
        with held(cache, index):
            time.sleep(0.01)  # time stamps are coarse


def test_a_file_is_filled_once_and_known_by_its_hash(cache: LoraCache, tmp_path: Path) -> None:
    fill = Fill(CONTENTS[0])
    for _ in range(2):
        with held(cache, 0, fill) as file:
            assert file.sha256 == file.path.name == digest(CONTENTS[0])
    with cache.hold(digest(CONTENTS[0]), fill, "x", wait_s=0) as file:
        assert file.path.read_bytes() == CONTENTS[0]
    with held(LoraCache(tmp_path, 3500), 0, fill):
        pass
    assert fill.began == [0]


def test_one_content_under_two_names_is_one_file(cache: LoraCache, tmp_path: Path) -> None:
    with held(cache, 0) as one, cache.hold(ETAGS[1], Fill(CONTENTS[0]), "x", wait_s=0) as two:
        assert one == two
    assert len(list((tmp_path / "blobs").iterdir())) == 1
    assert not list((tmp_path / "partial").iterdir())


def test_the_least_recently_used_files_make_room(cache: LoraCache, tmp_path: Path) -> None:
    use(cache, 0, 1, 2, 0)
    assert kept(tmp_path) == {0, 1, 2}
    use(cache, 3)
    assert kept(tmp_path) == {0, 2, 3}
    use(cache, 1)
    assert kept(tmp_path) == {0, 1, 3}


def test_a_file_in_use_does_not(cache: LoraCache, tmp_path: Path) -> None:
    use(cache, 1, 2)
    with held(cache, 0), held(cache, 0):
        use(cache, 1, 2, 3)
        assert kept(tmp_path) == {0, 2, 3}
    use(cache, 2, 3, 1)
    assert kept(tmp_path) == {1, 2, 3}


def test_without_room_the_reason_is_told(cache: LoraCache) -> None:
    with held(cache, 0), held(cache, 1), held(cache, 2), pytest.raises(LoraSourceUnavailable) as caught:
        use(cache, 3)
    assert "500 bytes are missing in the LoRA cache, whose files are in use" in caught.value.message
    with pytest.raises(LoraSourceUnavailable, match="lora_cache_gib"):
        use_of(cache, bytes(4000))


def use_of(cache: LoraCache, content: bytes) -> None:
    with cache.hold(digest(content), Fill(content), "x", wait_s=0):
        pass


def test_a_disk_without_room_loses_files_that_are_not_used(cache: LoraCache, tmp_path: Path) -> None:
    roomy = LoraCache(tmp_path, 1 << 62)
    use(roomy, 0)
    with (
        pytest.raises(LoraSourceUnavailable, match="bytes are missing"),
        roomy.hold(ETAGS[1], lambda partial: partial.reserve(1 << 61), "x", wait_s=0),
    ):
        pass
    assert kept(tmp_path) == set()


def test_a_disk_that_is_full_is_called_so() -> None:
    with FileIO("/dev/full", "r+") as file:  # reads as zeros without an end, so only writing is tried
        partial = Partial(_Unread(file.fileno(), "r+", closefd=False), "x", lambda _more: None)
        with pytest.raises(LoraSourceUnavailable, match="disk of the LoRA cache is full"):
            partial.append(b"x")


class _Unread(FileIO):
    def read(self, _size: int | None = -1, /) -> bytes:
        return b""


def test_a_disk_that_fails_is_no_fault_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with FileIO(tmp_path / "x") as read_only, pytest.raises(OSError, match="not open for writing"):
        Partial(read_only, "x", lambda _more: None).append(b"x")


def test_a_download_that_failed_is_resumed(cache: LoraCache) -> None:
    def breaking(partial: Partial) -> None:
        partial.append(CONTENTS[0][:300])
        raise LoraSourceUnavailable("broke off")

    with pytest.raises(LoraSourceUnavailable, match="broke off"), cache.hold(ETAGS[0], breaking, "x", wait_s=0):
        pass
    fill = Fill(CONTENTS[0])
    with held(cache, 0, fill) as file:
        assert file.sha256 == digest(CONTENTS[0])
    assert fill.began == [300]


def test_what_is_resumed_wrongly_is_downloaded_again(cache: LoraCache, tmp_path: Path) -> None:
    (tmp_path / "partial" / digest(CONTENTS[0])).write_bytes(b"damaged")
    fill = Fill(CONTENTS[0])
    with cache.hold(digest(CONTENTS[0]), fill, "x", wait_s=0) as file:
        assert file.path.read_bytes() == CONTENTS[0]
    assert fill.began == [7, 0]


def test_what_is_wrong_twice_is_not_kept(cache: LoraCache, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch), cache.hold(digest(CONTENTS[0]), Fill(CONTENTS[1]), "x", wait_s=0):
        pass
    assert kept(tmp_path) == set()


def test_a_file_known_by_its_place_is_downloaded_every_time(cache: LoraCache, tmp_path: Path) -> None:
    key = f"url-{0:064}"
    (tmp_path / "partial" / key).write_bytes(b"of an earlier file")
    for content in (CONTENTS[0], CONTENTS[0], CONTENTS[1]):
        fill = Fill(content)
        with cache.hold_new(key, fill, "x", wait_s=0) as file:
            assert file.path.read_bytes() == content
        assert fill.began == [0]
    assert kept(tmp_path) == {0, 1}


def test_a_removed_file_is_downloaded_again(cache: LoraCache, tmp_path: Path) -> None:
    use(cache, 0)
    (tmp_path / "blobs" / digest(CONTENTS[0])).unlink()
    fill = Fill(CONTENTS[0])
    with held(cache, 0, fill):
        pass
    assert fill.began == [0]


def test_a_start_removes_what_nobody_will_resume(cache: LoraCache, tmp_path: Path) -> None:
    use(cache, 0, 1)
    old, new = tmp_path / "partial" / ETAGS[2], tmp_path / "partial" / ETAGS[3]
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    (tmp_path / "blobs" / digest(CONTENTS[0])).unlink()
    (tmp_path / "refs" / ETAGS[2]).touch()  # as a crash of the machine may leave it
    use(cache, 1)
    LoraCache(tmp_path, 3500)
    assert (old.exists(), new.exists()) == (False, True)
    assert [path.name for path in (tmp_path / "refs").iterdir()] == [ETAGS[1]]


def test_a_name_that_a_crash_left_empty_stands_for_nothing(cache: LoraCache, tmp_path: Path) -> None:
    (tmp_path / "refs" / ETAGS[0]).touch()
    use(cache, 0)
    assert kept(tmp_path) == {0}


def test_a_large_download_looks_at_the_size_as_it_grows(tmp_path: Path) -> None:
    cache = LoraCache(tmp_path, 100 << 20)
    use(cache, 0)
    piece = bytes(40 << 20)

    def unannounced(partial: Partial) -> None:
        for _ in range(3):
            partial.append(piece)

    with pytest.raises(LoraSourceUnavailable, match="missing"), cache.hold(ETAGS[1], unannounced, "x", wait_s=0):
        pass
    assert kept(tmp_path) == set()


@pytest.mark.parametrize("content", ["../../x", "etag-x", "", "x" * 64])
def test_only_names_of_contents_are_taken(cache: LoraCache, content: str) -> None:
    with pytest.raises(ValueError, match="not the name of a content"), cache.hold(content, Fill(b""), "x", wait_s=0):
        pass


def test_a_directory_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationInvalid, match="lora_cache_dir"):
        LoraCache(tmp_path / "file", 1)


def age(directory: Path, index: int) -> None:
    """Have a file look as if it was used last in 1970."""
    for folder in ("used", "blobs"):
        path = directory / folder / digest(CONTENTS[index])
        path.touch()
        os.utime(path, (0, 0))


def test_what_nobody_has_used_for_too_long_goes_unless_it_is_in_use(tmp_path: Path) -> None:
    use(LoraCache(tmp_path, 9000), 0, 1, 2)
    with held(LoraCache(tmp_path, 9000), 1):
        age(tmp_path, 0)
        age(tmp_path, 1)
        use(LoraCache(tmp_path, 9000, longest_s=86_400), 2)
        assert kept(tmp_path) == {1, 2}


def test_without_an_age_old_files_stay(cache: LoraCache, tmp_path: Path) -> None:
    use(cache, 0)
    age(tmp_path, 0)
    use(cache, 1)
    assert kept(tmp_path) == {0, 1}
