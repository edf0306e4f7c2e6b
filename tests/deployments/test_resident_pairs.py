from deployments.resident_pairs import ResidentPairs
from serve_app.spec import Expert, LoraFile, RenderSpec
from tests.fixtures.specs import make_spec


def pair(*contents: str) -> RenderSpec:
    """A render with LoRAs of these content ids, the first on the high side."""
    loras = tuple(
        LoraFile(expert=side, reference="x", location="/x", content=content, sha256=None, multiplier=1.0)
        for side, content in zip((Expert.HIGH, Expert.LOW), contents, strict=False)
    )
    return make_spec(loras=loras)


A, C, E = pair("a", "b"), pair("c", "d"), pair("e", "f")


def test_the_loaded_pair_comes_first_then_the_more_recent() -> None:
    pairs = ResidentPairs()
    assert not pairs.keys
    pairs.rendered(A, frozenset("ab"))
    pairs.rendered(C, frozenset("abcd"))
    pairs.rendered(E, frozenset("abcdef"))
    assert pairs.keys == (E.pair_key, C.pair_key, A.pair_key)
    pairs.rendered(A, frozenset("abcdef"))
    assert pairs.keys == (A.pair_key, E.pair_key, C.pair_key)


def test_a_pair_of_which_one_lora_had_to_go_is_not_ready() -> None:
    pairs = ResidentPairs()
    pairs.rendered(A, frozenset("ab"))
    pairs.rendered(C, frozenset("bcd"))
    assert pairs.keys == (C.pair_key,)


def test_the_loaded_pair_is_ready_although_memory_keeps_nothing() -> None:
    pairs = ResidentPairs()
    pairs.rendered(A, frozenset())
    assert pairs.keys == (A.pair_key,)


def test_pairs_that_share_a_lora_are_kept_apart() -> None:
    pairs = ResidentPairs()
    high_alone = pair("a")
    pairs.rendered(A, frozenset("ab"))
    pairs.rendered(high_alone, frozenset("ab"))
    assert pairs.keys == (high_alone.pair_key, A.pair_key)
