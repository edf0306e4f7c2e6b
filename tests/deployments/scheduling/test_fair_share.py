"""Start-time fair queueing: shares by weight, no credit for idling, corrected predictions."""

from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from deployments.scheduling import FairShare

costs = st.floats(1, 1000)
weights = st.fixed_dictionaries({"x": st.floats(0.1, 10), "y": st.floats(0.1, 10), "z": st.just(1.0)})


def most_owed(turns: dict[str, float]) -> str:
    return min(sorted(turns), key=lambda tenant: turns[tenant])


@given(weights, st.lists(costs, min_size=1, max_size=60))
def test_tenants_that_always_have_work_are_served_by_weight(weights: dict[str, float], costs: list[float]) -> None:
    share = FairShare(weights)
    served = dict.fromkeys("xyz", 0.0)
    for cost in costs:
        tenant = most_owed(share.turns("xyz"))
        share.charge(tenant, cost)
        served[tenant] += cost / weights[tenant]
    assert max(served.values()) - min(served.values()) <= max(costs) / min(weights.values()) + 1e-6


@given(st.lists(costs, min_size=1, max_size=60))
def test_idling_makes_neither_credit_nor_debt(costs: list[float]) -> None:
    share = FairShare({})
    for cost in costs:
        share.turns("x")
        share.charge("x", cost)
    system = share.turns("xy")["y"]
    assert system == approx(sum(costs[:-1]))  # where the other one's last render started, not where all began
    for cost in costs:
        share.settle("x", cost, cost)
    share.turns("y")
    assert share.turns("xy") == {"x": system, "y": system}


@given(costs, costs)
def test_a_wrong_prediction_is_corrected_when_the_render_ends(predicted: float, actual: float) -> None:
    guessed, known = FairShare({"x": 2.0}), FairShare({"x": 2.0})
    for share, cost in ((guessed, predicted), (known, actual)):
        share.turns("xy")
        share.charge("x", cost)
        share.settle("x", cost, actual)
    assert guessed.turns("xy")["x"] == approx(known.turns("xy")["x"])


@given(st.lists(st.tuples(st.sampled_from("xyz"), costs), max_size=60))
def test_nothing_is_kept_of_tenants_without_work(renders: list[tuple[str, float]]) -> None:
    share = FairShare({})
    for tenant, cost in renders:
        share.turns({tenant})
        share.charge(tenant, cost)
    share.turns(())
    for tenant, cost in renders:
        share.settle(tenant, cost, cost)
    assert not share._turns
    assert not share._running


def test_a_render_that_was_charged_elsewhere_changes_nothing() -> None:
    share = FairShare({})
    before = share.turns("x")
    share.settle("x", 1.0, 100.0)
    assert share.turns("x") == before


def test_the_most_owed_tenant_waits_for_at_most_the_patience_of_the_fleet() -> None:
    share = FairShare({"x": 2.0})
    slack = share.slack(replicas=10, tenants="xyz", patience_s=60)
    ahead_of_x = 2 * slack  # seconds of one replica that y and z, weighing 1 each, may have before x
    assert ahead_of_x <= 10 * 60
