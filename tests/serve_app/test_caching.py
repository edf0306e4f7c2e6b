"""The LRU cache with single-flight, shared by threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from serve_app.caching import FileSignature, SingleFlightCache


def test_a_value_is_computed_once_and_the_least_recently_used_goes() -> None:
    cache: SingleFlightCache[str, str] = SingleFlightCache(2)
    computed: list[str] = []

    def get(key: str) -> str:
        def compute() -> str:
            computed.append(key)
            return key.upper()

        return cache.get(key, compute)

    assert [get(key) for key in "abaca"] == ["A", "B", "A", "C", "A"]
    assert computed == ["a", "b", "c"]
    get("b")
    assert computed == ["a", "b", "c", "b"]


def test_threads_share_one_computation() -> None:
    cache: SingleFlightCache[str, object] = SingleFlightCache(1)
    start, calls = Barrier(8), []

    def get(_: int) -> object:
        start.wait()
        return cache.get("a", compute)

    def compute() -> object:
        calls.append(1)
        Event().wait(0.1)
        return object()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(get, range(8)))) == 1
    assert len(calls) == 1


def test_what_is_not_to_be_kept_is_computed_again() -> None:
    cache: SingleFlightCache[str, int] = SingleFlightCache(1)
    assert cache.get("a", lambda: 1, keep=lambda value: value != 1) == 1
    assert cache.get("a", lambda: 2, keep=lambda value: value != 1) == 2
    assert cache.get("a", lambda: 3) == 2


def test_an_exception_is_raised_and_forgotten() -> None:
    cache: SingleFlightCache[str, float] = SingleFlightCache(1)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 / 0)
    assert cache.get("a", lambda: 1.0) == 1.0


def test_what_was_computed_elsewhere_is_kept() -> None:
    cache: SingleFlightCache[str, int] = SingleFlightCache(1)
    assert cache.peek("a") is None
    cache.put("a", 1)
    assert cache.peek("a") == cache.get("a", lambda: 2) == 1


def test_a_value_that_is_being_computed_is_not_waited_for_by_a_peek() -> None:
    cache: SingleFlightCache[str, int] = SingleFlightCache(1)
    assert cache.get("a", lambda: 1 if cache.peek("a") is None else 2) == 1


def test_a_signature_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    before = FileSignature.of(path)
    assert FileSignature.of(path) == before
    assert before.rested_s < 3600
    path.write_text("other")
    assert FileSignature.of(path) != before
