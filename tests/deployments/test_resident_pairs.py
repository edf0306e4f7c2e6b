from typing import Any

from deployments.resident_pairs import ResidentPairs


def report(*loras: str, resident: str) -> dict[str, Any]:
    return {"loras": [{"sha256": sha} for sha in loras], "resident": [{"sha256": sha} for sha in resident]}


def test_the_loaded_pair_comes_first_then_the_more_recent() -> None:
    pairs = ResidentPairs()
    assert not pairs.keys
    pairs.rendered("A", report("a", "b", resident="ab"))
    pairs.rendered("C", report("c", "d", resident="abcd"))
    pairs.rendered("E", report("e", "f", resident="abcdef"))
    assert pairs.keys == ("E", "C", "A")
    pairs.rendered("A", report("a", "b", resident="abcdef"))
    assert pairs.keys == ("A", "E", "C")


def test_a_pair_of_which_one_lora_had_to_go_is_not_ready() -> None:
    pairs = ResidentPairs()
    pairs.rendered("A", report("a", "b", resident="ab"))
    pairs.rendered("C", report("c", "d", resident="bcd"))
    assert pairs.keys == ("C",)


def test_the_loaded_pair_is_ready_although_memory_keeps_nothing() -> None:
    pairs = ResidentPairs()
    pairs.rendered("A", report("a", "b", resident=""))
    assert pairs.keys == ("A",)


def test_pairs_that_share_a_lora_are_kept_apart() -> None:
    pairs = ResidentPairs()
    pairs.rendered("A", report("a", "b", resident="ab"))
    pairs.rendered("high", report("a", resident="ab"))
    assert pairs.keys == ("high", "A")
