"""Which memory plan is made, and why: tables and properties of a pure function, without any device."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.wan.memory.planner import FreeMemory, MemoryPlan, WeightBytes, make_plan, originals_off_gpu
from serve_app.errors import ConfigurationInvalid
from serve_app.settings import OffloadMode, PristineMode

_GIB = 2**30
# Of Wan 2.2 T2V A14B in bfloat16.
_EXPERT = 266 * _GIB // 10
_WAN = WeightBytes(
    {"text_encoder": 106 * _GIB // 10, "transformer": _EXPERT, "transformer_2": _EXPERT, "vae": _GIB // 4},
    experts=("transformer", "transformer_2"),
)
_BIG_HOST = 512 * _GIB


def _plan(
    gpu: int | None,
    host: int = _BIG_HOST,
    *,
    offload: OffloadMode = OffloadMode.AUTO,
    pristine: PristineMode = PristineMode.AUTO,
    lora_host_bytes: int = 0,
    ranks: int = 1,
) -> MemoryPlan:
    """Return a plan for Wan A14B with that many free bytes; None is a CPU."""
    return make_plan(
        offload=offload,
        pristine=pristine,
        lora_host_bytes=lora_host_bytes,
        weights=_WAN,
        free=FreeMemory(gpu, host),
        ranks=ranks,
    )


def test_ranks_that_share_a_render_keep_the_experts_on_their_gpus_and_share_the_host() -> None:
    assert _plan(79 * _GIB, ranks=2).offload is OffloadMode.TEXT
    assert [_plan(81 * _GIB, host=256 * _GIB, ranks=ranks).originals for ranks in (2, 4)] == [
        PristineMode.HOST,
        PristineMode.CHECKPOINT,
    ]
    leaner = _plan(139 * _GIB, ranks=2).leaner()
    assert leaner is not None
    assert (leaner.offload, leaner.leaner()) == (OffloadMode.TEXT, None)
    with pytest.raises(ConfigurationInvalid, match="gpus_per_generator: 2 needs both experts on every GPU"):
        _plan(47 * _GIB, ranks=2)


@pytest.mark.parametrize(
    ("free_gib", "host_gib", "offload", "originals", "lora_gpu_bytes"),
    [
        (139, 512, OffloadMode.NONE, PristineMode.GPU, 2 * _GIB),  # an H200
        (134, 512, OffloadMode.NONE, PristineMode.GPU, 134 * _GIB - _WAN.total - _WAN.of_experts - 16 * _GIB),
        (133, 512, OffloadMode.NONE, PristineMode.HOST, 2 * _GIB),
        (133, 66, OffloadMode.NONE, PristineMode.CHECKPOINT, 2 * _GIB),
        (81, 512, OffloadMode.NONE, PristineMode.HOST, 81 * _GIB - _WAN.total - 16 * _GIB),
        (79, 512, OffloadMode.TEXT, PristineMode.HOST, 2 * _GIB),  # an H100
        (70, 512, OffloadMode.TEXT, PristineMode.HOST, 70 * _GIB - _WAN.without_text_encoder - 16 * _GIB),
        (69, 512, OffloadMode.MODEL, PristineMode.HOST, 2 * _GIB),
        (47, 512, OffloadMode.MODEL, PristineMode.HOST, 2 * _GIB),
        (43, 512, OffloadMode.MODEL, PristineMode.HOST, 43 * _GIB - _EXPERT - 16 * _GIB),
        (23, 512, OffloadMode.SEQUENTIAL, PristineMode.HOST, 0),
        (None, 512, OffloadMode.NONE, PristineMode.HOST, 0),
        (None, 60, OffloadMode.NONE, PristineMode.CHECKPOINT, 0),
    ],
)
def test_memory_is_given_to_weights_then_originals_then_loras(
    free_gib: int | None,
    host_gib: int,
    offload: OffloadMode,
    originals: PristineMode,
    lora_gpu_bytes: int,
) -> None:
    plan = _plan(None if free_gib is None else free_gib * _GIB, host_gib * _GIB)
    assert (plan.offload, plan.originals, plan.lora_gpu_bytes) == (offload, originals, lora_gpu_bytes)


@pytest.mark.parametrize(
    ("free_gib", "mode", "reason"),
    [
        (139, OffloadMode.NONE, "all weights fit: 64.0 GiB and 16.0 GiB for a render, 139.0 GiB free"),
        (79, OffloadMode.TEXT, "those without the text encoder do (53.4 GiB)"),
        (60, OffloadMode.MODEL, "the largest component, transformer, does (26.6 GiB)"),
        (47, OffloadMode.MODEL, "all weights do not fit (64.0 GiB and 16.0 GiB for a render, 47.0 GiB free)"),
        (23, OffloadMode.SEQUENTIAL, "nor does transformer alone (26.6 GiB)"),
    ],
)
def test_auto_picks_the_fastest_offload_that_fits_and_says_why(free_gib: int, mode: OffloadMode, reason: str) -> None:
    plan = _plan(free_gib * _GIB)
    assert plan.offload is mode
    assert reason in plan.reason


@pytest.mark.parametrize("mode", [OffloadMode.NONE, OffloadMode.TEXT, OffloadMode.MODEL, OffloadMode.SEQUENTIAL])
def test_the_operator_s_offload_is_obeyed(mode: OffloadMode) -> None:
    plan = _plan(0, offload=mode)
    assert (plan.offload, plan.reason, plan.lora_gpu_bytes) == (mode, "set by the operator", 0)


@pytest.mark.parametrize("mode", [OffloadMode.AUTO, OffloadMode.NONE])
def test_a_cpu_needs_no_offload(mode: OffloadMode) -> None:
    assert _plan(None, offload=mode).offload is OffloadMode.NONE


@pytest.mark.parametrize("mode", [OffloadMode.TEXT, OffloadMode.MODEL, OffloadMode.SEQUENTIAL])
def test_a_cpu_cannot_offload(mode: OffloadMode) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"offload: .* needs a GPU"):
        _plan(None, offload=mode)


def _originals(mode: PristineMode, gpu_gib: int, host_gib: int) -> PristineMode:
    """Return where the originals of two experts, 54 GiB, go if the GPU has so much beside weights and a render."""
    weights = WeightBytes({"transformer": 27 * _GIB, "transformer_2": 27 * _GIB}, ("transformer", "transformer_2"))
    plan = make_plan(
        offload=OffloadMode.NONE,
        pristine=mode,
        lora_host_bytes=0,
        weights=weights,
        free=FreeMemory((54 + 16 + gpu_gib) * _GIB, host_gib * _GIB),
    )
    return plan.originals


@pytest.mark.parametrize(
    ("gpu", "host", "chosen"),
    [(54, 0, PristineMode.GPU), (53, 68, PristineMode.HOST), (53, 67, PristineMode.CHECKPOINT)],
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


def test_host_memory_given_to_loras_is_not_given_to_originals() -> None:
    needed = int(_WAN.of_experts / 0.8) + 1
    assert _plan(None, needed).originals is PristineMode.HOST
    plan = _plan(None, needed, lora_host_bytes=_GIB)
    assert (plan.originals, plan.lora_host_bytes) == (PristineMode.CHECKPOINT, _GIB)


@pytest.mark.parametrize(
    ("mode", "following"),
    [
        (OffloadMode.NONE, OffloadMode.TEXT),
        (OffloadMode.TEXT, OffloadMode.MODEL),
        (OffloadMode.MODEL, OffloadMode.SEQUENTIAL),
    ],
)
def test_when_memory_ran_out_the_next_plan_is_leaner_and_says_why(mode: OffloadMode, following: OffloadMode) -> None:
    plan = replace(_plan(0, offload=mode), reason="all weights fit")
    leaner = plan.leaner()
    assert leaner is not None
    assert (leaner.offload, leaner.reason) == (following, f"out of memory with {mode.value} (all weights fit)")
    assert (leaner.originals, leaner.lora_host_bytes) == (plan.originals, plan.lora_host_bytes)


def test_nothing_is_leaner_than_sequential_or_on_a_cpu() -> None:
    assert _plan(0, offload=OffloadMode.SEQUENTIAL).leaner() is None
    assert _plan(None).leaner() is None


_sizes = st.integers(0, 200 * _GIB)


@given(components=st.dictionaries(st.text(min_size=1), _sizes, min_size=1), activations=_sizes, free=_sizes)
def test_what_auto_picks_fits_and_nothing_faster_does(components: dict[str, int], activations: int, free: int) -> None:
    plan = make_plan(
        offload=OffloadMode.AUTO,
        pristine=PristineMode.AUTO,
        lora_host_bytes=0,
        weights=WeightBytes(components, experts=()),
        free=FreeMemory(free, _BIG_HOST),
        activation_bytes=activations,
    )
    all_fit = sum(components.values()) + activations <= free
    largest_fits = max(components.values()) + activations <= free
    assert (plan.offload is OffloadMode.NONE) == all_fit
    assert (plan.offload is OffloadMode.SEQUENTIAL) == (not largest_fits)


@given(free=_sizes, host=_sizes, loras=_sizes)
def test_what_auto_plans_for_the_gpu_never_exceeds_it(free: int, host: int, loras: int) -> None:
    plan = _plan(free, host, lora_host_bytes=loras)
    if plan.offload is OffloadMode.SEQUENTIAL:
        assert (plan.originals is PristineMode.GPU, plan.lora_gpu_bytes) == (False, 0)
        return
    all_but_text = _WAN.without_text_encoder
    placed = {OffloadMode.NONE: _WAN.total, OffloadMode.TEXT: all_but_text, OffloadMode.MODEL: _EXPERT}
    weights = placed[plan.offload]
    originals = _WAN.of_experts if plan.originals is PristineMode.GPU else 0
    assert weights + originals + plan.lora_gpu_bytes + 16 * _GIB <= free


@given(less=_sizes, more=_sizes)
def test_more_memory_never_makes_it_slower(less: int, more: int) -> None:
    speed = [OffloadMode.SEQUENTIAL, OffloadMode.MODEL, OffloadMode.TEXT, OffloadMode.NONE]
    less, more = sorted((less, more))
    assert speed.index(_plan(less).offload) <= speed.index(_plan(more).offload)
