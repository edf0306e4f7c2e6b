"""Which memory plan is made, and why: tables and properties of a pure function, without any device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.wan.memory.needs import Needs
from deployments.wan.memory.planner import (
    Barred,
    Demand,
    FreeMemory,
    MemoryPlan,
    Need,
    WeightBytes,
    holds,
    make_plan,
    originals_off_gpu,
)
from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import load_card
from serve_app.needs import NeedKey
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import Speed

_GIB = 2**30
# Of Wan 2.2 T2V A14B in bfloat16.
_EXPERT = 266 * _GIB // 10
_OUTSIDE = 8 * _GIB // 10  # embeddings of both experts
_WAN = WeightBytes(
    {"text_encoder": 106 * _GIB // 10, "transformer": _EXPERT, "transformer_2": _EXPERT, "vae": _GIB // 4},
    experts=("transformer", "transformer_2"),
    block=(_EXPERT - _OUTSIDE // 2) // 40,
    outside=_OUTSIDE,
)
_BIG_HOST = 512 * _GIB
_NEEDS = Needs(load_card("wan22_14b_t2v"))
_USUAL = Need(16 * _GIB)

SIZES = ("832x480x81", "1024x1024x41", "1280x720x81")
_ADAPTERS = 2 * 307_000_000


def _demand(
    gpu: int | None,
    host: int = _BIG_HOST,
    *,
    offload: OffloadMode = OffloadMode.AUTO,
    pristine: PristineMode = PristineMode.AUTO,
    lora_host_bytes: int = 0,
    weights: WeightBytes = _WAN,
    ranks: int = 1,
) -> Demand:
    """Wan A14B on a machine with that many free bytes; None is a CPU."""
    return Demand(offload, pristine, lora_host_bytes, weights, FreeMemory(gpu, host), ranks)


def _plan(gpu: int | None, host: int = _BIG_HOST, need: Need = _USUAL, **options: object) -> MemoryPlan:
    return make_plan(_demand(gpu, host, **options), need)  # type: ignore[arg-type]  # of `_demand`


@pytest.mark.parametrize(
    ("free_gib", "host_gib", "modes", "pinned"),
    [
        (23, 128, ("groups", "groups", "groups"), True),  # a card of 24 GiB
        (23, 64, ("groups", "groups", "groups"), False),
        (47, 128, ("swap", "swap", "swap"), True),  # of 48 GiB
        (47, 64, ("swap", "swap", "swap"), False),
        (78, 256, ("none", "text", "text"), False),  # an H100, which calls itself 80 GB
        (139, 256, ("none", "none", "none"), False),  # an H200
    ],
)
def test_every_card_gets_a_plan_that_holds_every_usual_size(
    free_gib: int, host_gib: int, modes: tuple[str, ...], pinned: bool
) -> None:
    for size, mode in zip(SIZES, modes, strict=True):
        width, height, frames = map(int, size.split("x"))
        need = Need(_NEEDS.bytes(NeedKey.of_size(width, height, frames, Speed.EXACT)), _ADAPTERS)
        plan = _plan(free_gib * _GIB, host_gib * _GIB, need)
        assert (plan.offload.value, plan.pinned) == (mode, pinned), size
        assert plan.predicted_bytes is not None
        assert need.under(plan.offload) < plan.predicted_bytes <= free_gib * _GIB


def test_originals_on_the_gpu_leave_room_for_larger_renders_or_leave_it() -> None:
    demand = _demand(140 * _GIB)
    plan = make_plan(demand, Need(12 * _GIB))
    assert (plan.originals, plan.lora_gpu_bytes) == (PristineMode.GPU, 2 * _GIB)
    left = 140 * _GIB - _WAN.total - _WAN.of_experts - plan.lora_gpu_bytes
    assert holds(demand, plan, Need(left - 4 * _GIB))
    assert not holds(demand, plan, Need(left - 4 * _GIB + 1))


def test_copies_in_fp8_count_only_where_they_are_made() -> None:
    need = Need(16 * _GIB, float8=10 * _GIB)
    assert _plan(139 * _GIB, need=need).offload is OffloadMode.NONE
    assert _plan(79 * _GIB, need=need).offload is OffloadMode.SWAP  # beside both experts there is no room for them
    assert _plan(48 * _GIB, need=need).offload is OffloadMode.SWAP


def test_ranks_that_share_a_render_keep_the_experts_on_their_gpus_and_share_the_host() -> None:
    assert _plan(79 * _GIB, ranks=2).offload is OffloadMode.TEXT
    assert [_plan(81 * _GIB, host=256 * _GIB, ranks=ranks).originals for ranks in (2, 4)] == [
        PristineMode.HOST,
        PristineMode.CHECKPOINT,
    ]
    assert _demand(139 * _GIB, ranks=2).candidates == (OffloadMode.NONE, OffloadMode.TEXT)
    with pytest.raises(ConfigurationInvalid, match="gpus_per_generator: 2 needs the experts on every GPU"):
        _plan(47 * _GIB, ranks=2, offload=OffloadMode.SWAP)


@pytest.mark.parametrize(
    ("free_gib", "host_gib", "offload", "originals", "lora_gpu_bytes"),
    [
        (140, 512, OffloadMode.NONE, PristineMode.GPU, 2 * _GIB),
        (138, 512, OffloadMode.NONE, PristineMode.GPU, 138 * _GIB - _WAN.total - _WAN.of_experts - 20 * _GIB),
        (137, 512, OffloadMode.NONE, PristineMode.HOST, 2 * _GIB),
        (133, 66, OffloadMode.NONE, PristineMode.CHECKPOINT, 2 * _GIB),
        (81, 512, OffloadMode.NONE, PristineMode.HOST, 81 * _GIB - _WAN.total - 16 * _GIB),
        (79, 512, OffloadMode.TEXT, PristineMode.HOST, 2 * _GIB),  # an H100
        (69, 512, OffloadMode.SWAP, PristineMode.HOST, 2 * _GIB),
        (44, 512, OffloadMode.SWAP, PristineMode.HOST, 44 * _GIB - _WAN.on_gpu(OffloadMode.SWAP) - 16 * _GIB),
        (43, 512, OffloadMode.GROUPS, PristineMode.HOST, 0),
        (23, 512, OffloadMode.GROUPS, PristineMode.HOST, 0),
        (23, 128, OffloadMode.GROUPS, PristineMode.CHECKPOINT, 0),  # the experts wait in the host's memory
        (17, 512, OffloadMode.SEQUENTIAL, PristineMode.HOST, 0),
        (None, 512, OffloadMode.NONE, PristineMode.HOST, 0),
        (None, 128, OffloadMode.NONE, PristineMode.CHECKPOINT, 0),
    ],
)
def test_memory_is_given_to_weights_then_originals_then_loras(
    free_gib: int | None, host_gib: int, offload: OffloadMode, originals: PristineMode, lora_gpu_bytes: int
) -> None:
    plan = _plan(None if free_gib is None else free_gib * _GIB, host_gib * _GIB)
    assert (plan.offload, plan.originals, plan.lora_gpu_bytes) == (offload, originals, lora_gpu_bytes)


@pytest.mark.parametrize(
    ("free_gib", "mode", "reason"),
    [
        (139, OffloadMode.NONE, "all weights fit: 64.0 GiB and 16.0 GiB for a render, 139.0 GiB free"),
        (79, OffloadMode.TEXT, "those without the text encoder do (53.4 GiB)"),
        (60, OffloadMode.SWAP, "one expert at a time does (27.6 GiB)"),
        (47, OffloadMode.SWAP, "all weights do not fit (64.0 GiB and 16.0 GiB for a render, 47.0 GiB free)"),
        (23, OffloadMode.GROUPS, "two blocks at a time do (2.4 GiB)"),
        (17, OffloadMode.SEQUENTIAL, "one layer at a time does (0.0 GiB)"),
        (15, OffloadMode.SEQUENTIAL, "nothing does; the least is one layer at a time does (0.0 GiB)"),
    ],
)
def test_auto_picks_the_fastest_offload_that_fits_and_says_why(free_gib: int, mode: OffloadMode, reason: str) -> None:
    plan = _plan(free_gib * _GIB)
    assert plan.offload is mode
    assert reason in plan.reason


@pytest.mark.parametrize("mode", [mode for mode in OffloadMode if mode is not OffloadMode.AUTO])
def test_the_operator_s_offload_is_obeyed_and_held_to_fit(mode: OffloadMode) -> None:
    plan = _plan(0, offload=mode)
    assert (plan.offload, plan.reason, plan.lora_gpu_bytes) == (mode, "set by the operator", 0)
    demand = _demand(0, offload=mode)
    assert holds(demand, plan, _USUAL)
    assert not holds(demand, plan, _USUAL, Barred(frozenset({mode})))


@pytest.mark.parametrize("mode", [OffloadMode.AUTO, OffloadMode.NONE])
def test_a_cpu_needs_no_offload(mode: OffloadMode) -> None:
    plan = _plan(None, offload=mode)
    assert (plan.offload, plan.predicted_bytes) == (OffloadMode.NONE, None)


@pytest.mark.parametrize("mode", [mode for mode in OffloadMode if mode not in (OffloadMode.AUTO, OffloadMode.NONE)])
def test_a_cpu_cannot_offload(mode: OffloadMode) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"offload: .* needs a GPU"):
        _plan(None, offload=mode)


def test_a_model_with_one_expert_has_nothing_to_swap() -> None:
    weights = WeightBytes({"text_encoder": 11 * _GIB, "transformer": 10 * _GIB}, ("transformer",), block=_GIB // 4)
    assert OffloadMode.SWAP not in _demand(_GIB, weights=weights).candidates
    assert _plan(25 * _GIB, weights=weights).offload is OffloadMode.GROUPS


@pytest.mark.parametrize(
    ("operator", "candidates"),
    [
        (OffloadMode.AUTO, ["none", "text", "swap", "groups", "sequential"]),
        (OffloadMode.MODEL, ["model", "groups", "sequential"]),
        (OffloadMode.SWAP, ["swap", "groups", "sequential"]),
        (OffloadMode.SEQUENTIAL, ["sequential"]),
    ],
)
def test_model_offload_is_the_operator_s_choice_alone(operator: OffloadMode, candidates: list[str]) -> None:
    assert [mode.value for mode in _demand(0, offload=operator).candidates] == candidates


def test_what_ran_out_of_memory_is_not_taken_again_while_another_is_left() -> None:
    demand = _demand(139 * _GIB)
    plan = make_plan(demand, _USUAL, Barred(frozenset({OffloadMode.NONE})))
    assert plan.offload is OffloadMode.TEXT
    assert plan.reason.startswith("out of memory with none at this size or a smaller one; ")
    all_barred = Barred(frozenset(demand.candidates))
    assert make_plan(demand, _USUAL, all_barred).offload is OffloadMode.SEQUENTIAL


def test_copies_that_ran_out_of_memory_are_not_made_again() -> None:
    demand = _demand(139 * _GIB)
    plan = make_plan(demand, _USUAL, Barred(copies=True))
    assert (plan.offload, plan.originals, plan.lora_gpu_bytes) == (OffloadMode.NONE, PristineMode.HOST, 0)
    assert not holds(demand, make_plan(demand, _USUAL), _USUAL, Barred(copies=True))
    assert holds(demand, plan, _USUAL, Barred(copies=True))


def test_adapters_are_part_of_the_need() -> None:
    exactly = _WAN.total + _USUAL.under(OffloadMode.NONE)
    assert _plan(exactly).offload is OffloadMode.NONE
    assert _plan(exactly, need=Need(16 * _GIB, adapters=1)).offload is OffloadMode.TEXT


def _originals(mode: PristineMode, gpu_gib: int, host_gib: int) -> PristineMode:
    """Return where the originals of two experts, 54 GiB, go if the GPU has so much beside weights and a render."""
    weights = WeightBytes({"transformer": 27 * _GIB, "transformer_2": 27 * _GIB}, ("transformer", "transformer_2"))
    free_gpu = (54 + 16 + gpu_gib) * _GIB
    return _plan(free_gpu, host_gib * _GIB, offload=OffloadMode.NONE, pristine=mode, weights=weights).originals


@pytest.mark.parametrize(
    ("gpu", "host", "chosen"),
    [(58, 0, PristineMode.GPU), (57, 68, PristineMode.HOST), (57, 67, PristineMode.CHECKPOINT)],
)
def test_originals_go_to_the_fastest_place_with_room(gpu: int, host: int, chosen: PristineMode) -> None:
    assert _originals(PristineMode.AUTO, gpu, host) is chosen


@pytest.mark.parametrize(("host", "chosen"), [(68, PristineMode.HOST), (67, PristineMode.CHECKPOINT)])
def test_originals_that_leave_the_gpu_go_to_the_host_if_it_has_room(host: int, chosen: PristineMode) -> None:
    assert originals_off_gpu(54 * _GIB, host * _GIB) is chosen


@pytest.mark.parametrize("mode", [PristineMode.GPU, PristineMode.HOST, PristineMode.CHECKPOINT])
def test_the_operator_s_place_for_originals_is_obeyed(mode: PristineMode) -> None:
    assert _originals(mode, 0, 0) is mode


def test_a_cpu_has_no_gpu_memory() -> None:
    with pytest.raises(ConfigurationInvalid, match="pristine: gpu needs a GPU"):
        _plan(None, pristine=PristineMode.GPU)


def test_host_memory_given_to_loras_and_weights_is_not_given_to_originals() -> None:
    needed = int((_WAN.of_experts + _WAN.total) / 0.8) + 1
    assert _plan(None, needed).originals is PristineMode.HOST
    plan = _plan(None, needed, lora_host_bytes=_GIB)
    assert (plan.originals, plan.lora_host_bytes) == (PristineMode.CHECKPOINT, _GIB)


_sizes = st.integers(0, 200 * _GIB)


@given(free=_sizes, host=_sizes, loras=_sizes, need=_sizes)
def test_what_auto_plans_fits_and_nothing_faster_does(free: int, host: int, loras: int, need: int) -> None:
    demand = _demand(free, host, lora_host_bytes=loras)
    plan = make_plan(demand, Need(need))
    assert plan.predicted_bytes is not None
    faster = demand.candidates[: demand.candidates.index(plan.offload)]
    assert not any(_WAN.on_gpu(mode) + need <= free for mode in faster)
    if plan.offload is not OffloadMode.SEQUENTIAL:
        assert plan.predicted_bytes <= free
        assert holds(demand, plan, Need(need))


@given(less=_sizes, more=_sizes)
def test_more_memory_never_makes_it_slower(less: int, more: int) -> None:
    less, more = sorted((less, more))
    assert _plan(more).slowness <= _plan(less).slowness


@given(host=_sizes, loras=_sizes)
def test_pinned_weights_leave_the_host_a_fifth_of_its_memory(host: int, loras: int) -> None:
    plan = _plan(23 * _GIB, host, lora_host_bytes=loras)
    taken = _WAN.on_host(OffloadMode.GROUPS) + loras
    assert plan.pinned == (taken <= int(host * 0.8))
