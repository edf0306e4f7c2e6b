"""Which pairs are ready on a replica, and in the fleet."""

from deployments.scheduling.residency import FleetMemory, ResidentPairs
from serve_app.spec import Expert, LoraFile, RenderSpec
from tests.fixtures.specs import make_spec


def seen(**resident: tuple[str, ...]) -> FleetMemory:
    fleet = FleetMemory()
    fleet.saw(resident)
    return fleet


def test_what_replicas_publish_fills_what_is_not_known() -> None:
    fleet = seen(r1=("a", "b"), r2=())
    assert (fleet.size, fleet.resident("r1"), fleet.resident("r2"), fleet.resident("r3")) == (2, ("a", "b"), (), ())


def test_what_a_render_showed_counts_more_than_what_was_published_before() -> None:
    fleet = seen(r1=("a",))
    fleet.learned("r1", ("b", "a"))
    fleet.saw({"r1": ("a",)})
    assert fleet.resident("r1") == ("b", "a")


def test_elsewhere_is_what_others_have() -> None:
    fleet = seen(r1=("a", "b"), r2=("b", "c"))
    assert set(fleet.elsewhere("r1")) == {"b", "c"}
    assert set(fleet.elsewhere("r3")) == {"a", "b", "c"}


def test_a_replica_that_is_gone_has_nothing_any_more() -> None:
    fleet = seen(r1=("a",), r2=("b",))
    fleet.saw({"r2": ("b",)})
    assert (fleet.size, fleet.resident("r1"), set(fleet.elsewhere("r2"))) == (1, (), set())
    fleet.forget("r2")
    assert set(fleet.elsewhere("r3")) == set()


def test_a_free_replica_with_a_wanted_pair_ranks_first() -> None:
    fleet = seen(warm=("x", "a"), empty=(), other=("x",))
    fleet.want(["a"])
    assert sorted(("warm", "empty", "other"), key=fleet.rank) == ["warm", "empty", "other"]


def pair(*contents: str) -> RenderSpec:
    """Return a render with LoRAs of these content ids, the first on the high side."""
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
