"""Every limit of the request: its edges are accepted, and what lies beyond is refused with the limit."""

from typing import Any

from tests.client import body, pair
from tests.fixtures.api import Api, Json
from tests.fixtures.each import each

INTEGERS = {
    "width": (64, 4096),
    "height": (64, 4096),
    "seed": (-1, 2**64 - 1),
    "sample_steps": (1, 150),
    "num_frames": (1, 1000),
    "fps": (1, 120),
}
LOWEST = [(field, low) for field, (low, _) in INTEGERS.items()] + [("guidance_scale", 0)]
HIGHEST = [(field, high) for field, (_, high) in INTEGERS.items()] + [("guidance_scale", 20)]


def told(problems: list[Json]) -> tuple[list[Any], str]:
    """Return where the one problem of a refused body lies, and what is said about it."""
    (problem,) = problems
    assert problem["loc"][0] == "body"
    return problem["loc"][1:], problem["msg"]


@each(("field", "edge"), LOWEST + HIGHEST)
async def test_the_edges_of_a_limit_are_accepted(api: Api, field: str, edge: int) -> None:
    await api.submit(body({field: edge}))


@each(("field", "low"), LOWEST)
@each("below", [1, 10**30])
async def test_a_value_below_its_limit_is_refused_with_the_limit(api: Api, field: str, low: int, below: int) -> None:
    where, what = told(await api.invalid(body({}, {field: low - below})))
    assert where == ["prompts", 1, field]
    assert what == f"Input should be greater than or equal to {low}"


@each(("field", "high"), HIGHEST)
@each("above", [1, 10**30])
async def test_a_value_above_its_limit_is_refused_with_the_limit(api: Api, field: str, high: int, above: int) -> None:
    where, what = told(await api.invalid(body({field: high + above})))
    assert where == ["prompts", 0, field]
    assert what == f"Input should be less than or equal to {high}"


@each(("value", "limit"), [(-0.001, "greater than or equal to 0"), (20.001, "equal to 20")])
async def test_guidance_has_limits_between_whole_numbers_too(api: Api, value: float, limit: str) -> None:
    where, what = told(await api.invalid(body({"guidance_scale": value})))
    assert where == ["prompts", 0, "guidance_scale"]
    assert limit in what


@each(("value", "limit"), [(-2.01, "greater than or equal to -2"), (2.01, "less than or equal to 2")])
async def test_a_multiplier_beyond_its_limit_is_refused_with_the_limit(api: Api, value: float, limit: str) -> None:
    high, low = pair()
    where, what = told(await api.invalid(body(loras=[high, {**low, "network_multiplier": value}])))
    assert where == ["loras", 1, "network_multiplier"]
    assert limit in what


@each("field", [*INTEGERS, "guidance_scale"])
@each("value", [float("nan"), float("inf"), "many", []])
async def test_what_is_no_finite_number_is_refused(api: Api, field: str, value: Any) -> None:
    assert {tuple(problem["loc"]) for problem in await api.invalid(body({field: value}))} == {
        ("body", "prompts", 0, field)
    }


@each("field", INTEGERS)
async def test_a_count_that_is_no_whole_number_is_refused(api: Api, field: str) -> None:
    where, _ = told(await api.invalid(body({field: INTEGERS[field][0] + 0.5})))
    assert where == ["prompts", 0, field]


@each("value", [float("nan"), float("inf"), float("-inf")])
async def test_a_multiplier_that_is_not_finite_is_refused(api: Api, value: float) -> None:
    where, _ = told(await api.invalid(body(loras=[{**pair()[0], "network_multiplier": value}])))
    assert where == ["loras", 0, "network_multiplier"]


async def test_a_request_has_at_least_one_prompt(api: Api) -> None:
    where, what = told(await api.invalid({**body(), "prompts": []}))
    assert where == ["prompts"]
    assert "at least 1 item" in what


async def test_a_request_has_at_most_a_thousand_prompts(api: Api) -> None:
    where, what = told(await api.invalid(body(*[{}] * 1001)))
    assert where == ["prompts"]
    assert "at most 1000 items" in what


async def test_a_thousand_prompts_are_accepted_together(api: Api) -> None:
    record = await api.store.requests.get(await api.submit(body(*[{}] * 1000)))
    assert [render.spec.seed for render in record.renders] == list(range(42, 1042))


async def test_every_problem_of_a_body_is_reported_at_once(api: Api) -> None:
    problems = await api.invalid(body({"width": 1}, {"fps": 0, "colour": "red"}))
    assert {tuple(problem["loc"][1:]) for problem in problems} == {
        ("prompts", 0, "width"),
        ("prompts", 1, "fps"),
        ("prompts", 1, "colour"),
    }
