"""Which offload plan is picked, and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.wan.offload import OffloadPlan, next_plan, plan_offload
from serve_app.errors import ConfigurationInvalid
from serve_app.settings import OffloadMode

_GIB = 2**30
# Of Wan 2.2 T2V A14B in bfloat16.
_EXPERT = 266 * _GIB // 10
_WAN = {"text_encoder": 106 * _GIB // 10, "transformer": _EXPERT, "transformer_2": _EXPERT, "vae": _GIB // 4}
_ALLOWANCE = 16 * _GIB


def _plan(mode: OffloadMode, free: int, device_type: str = "cuda") -> OffloadPlan:
    return plan_offload(
        mode, device_type=device_type, component_bytes=_WAN, allowance_bytes=_ALLOWANCE, free_bytes=free
    )


@pytest.mark.parametrize(
    ("free_gib", "mode", "reason"),
    [
        (139, OffloadMode.NONE, "all weights fit: 64.0 GiB and 16.0 GiB for a render, 139.0 GiB free"),
        (79, OffloadMode.MODEL, "the largest component, transformer, does (26.6 GiB)"),
        (47, OffloadMode.MODEL, "all weights do not fit (64.0 GiB and 16.0 GiB for a render, 47.0 GiB free)"),
        (23, OffloadMode.SEQUENTIAL, "nor does transformer alone (26.6 GiB)"),
    ],
)
def test_auto_picks_the_fastest_that_fits_and_says_why(free_gib: int, mode: OffloadMode, reason: str) -> None:
    plan = _plan(OffloadMode.AUTO, free_gib * _GIB)
    assert plan.mode is mode
    assert reason in plan.reason


@pytest.mark.parametrize("mode", [OffloadMode.NONE, OffloadMode.MODEL, OffloadMode.SEQUENTIAL])
def test_the_operator_is_obeyed(mode: OffloadMode) -> None:
    assert _plan(mode, 0) == OffloadPlan(mode, "set by the operator")


@pytest.mark.parametrize("mode", [OffloadMode.AUTO, OffloadMode.NONE])
def test_a_cpu_needs_no_offload(mode: OffloadMode) -> None:
    assert _plan(mode, 0, "cpu").mode is OffloadMode.NONE


@pytest.mark.parametrize("mode", [OffloadMode.MODEL, OffloadMode.SEQUENTIAL])
def test_a_cpu_cannot_offload(mode: OffloadMode) -> None:
    with pytest.raises(ConfigurationInvalid, match="needs a GPU"):
        _plan(mode, 0, "cpu")


@pytest.mark.parametrize(
    ("mode", "following"),
    [(OffloadMode.NONE, OffloadMode.MODEL), (OffloadMode.MODEL, OffloadMode.SEQUENTIAL)],
)
def test_when_memory_ran_out_the_next_plan_is_leaner_and_says_why(mode: OffloadMode, following: OffloadMode) -> None:
    plan = next_plan(OffloadPlan(mode, "all weights fit"), "cuda")
    assert plan == OffloadPlan(following, f"out of memory with {mode.value} (all weights fit)")


def test_nothing_is_leaner_than_sequential_or_on_a_cpu() -> None:
    assert next_plan(OffloadPlan(OffloadMode.SEQUENTIAL, ""), "cuda") is None
    assert next_plan(_plan(OffloadMode.AUTO, 0, "cpu"), "cpu") is None


_sizes = st.integers(0, 200 * _GIB)


@given(components=st.dictionaries(st.text(min_size=1), _sizes, min_size=1), allowance=_sizes, free=_sizes)
def test_what_auto_picks_fits_and_nothing_faster_does(components: dict[str, int], allowance: int, free: int) -> None:
    plan = plan_offload(
        OffloadMode.AUTO,
        device_type="cuda",
        component_bytes=components,
        allowance_bytes=allowance,
        free_bytes=free,
    )
    all_fit = sum(components.values()) + allowance <= free
    largest_fits = max(components.values()) + allowance <= free
    assert (plan.mode is OffloadMode.NONE) == all_fit
    assert (plan.mode is OffloadMode.SEQUENTIAL) == (not largest_fits)


@given(less=_sizes, more=_sizes)
def test_more_memory_never_makes_it_slower(less: int, more: int) -> None:
    speed = [OffloadMode.SEQUENTIAL, OffloadMode.MODEL, OffloadMode.NONE]
    less, more = sorted((less, more))
    assert speed.index(_plan(OffloadMode.AUTO, less).mode) <= speed.index(_plan(OffloadMode.AUTO, more).mode)
