from deployments.fleet import FleetMemory


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
