"""Which fields and which choices a request may hold."""

from typing import Any

from serve_app.models.limits import PROMPT_LENGTH
from tests.client import body, pair
from tests.fixtures.api import Api
from tests.fixtures.each import each

HIGH, _ = pair()


@each(
    ("unknown", "where"),
    [
        (body(colour="red"), ["body", "colour"]),
        (body(loras=[{**HIGH, "strength": 1}]), ["body", "loras", 0, "strength"]),
        (body({}, {"negative_prompt": "blurry"}), ["body", "prompts", 1, "negative_prompt"]),
    ],
)
async def test_an_unknown_field_is_refused_by_name(api: Api, unknown: Any, where: list[Any]) -> None:
    (problem,) = await api.invalid(unknown)
    assert (problem["loc"], problem["type"]) == (where, "extra_forbidden")


@each("field", ["model", "loras", "prompts"])
async def test_a_missing_field_is_named(api: Api, field: str) -> None:
    incomplete = body()
    del incomplete[field]
    (problem,) = await api.invalid(incomplete)
    assert (problem["loc"], problem["msg"]) == (["body", field], "Field required")


@each(("kind", "field"), [("loras", "path"), ("prompts", "prompt")])
async def test_a_missing_field_of_an_item_is_named(api: Api, kind: str, field: str) -> None:
    (problem,) = await api.invalid({**body(), kind: [{}]})
    assert (problem["loc"], problem["msg"]) == (["body", kind, 0, field], "Field required")


@each("recipe", ["sketch", "", "REFERENCE", None, 1])
async def test_a_recipe_that_is_not_offered_is_refused_with_those_that_are(api: Api, recipe: Any) -> None:
    (problem,) = await api.invalid(body(recipe=recipe))
    assert problem["loc"] == ["body", "recipe"]
    assert "'reference'" in problem["msg"]


@each("sampler", ["ddim", "flowmatch", "", "UniPC"])
async def test_a_sampler_that_is_not_offered_is_refused_with_those_that_are(api: Api, sampler: str) -> None:
    (problem,) = await api.invalid(body({"sampler": sampler}))
    assert problem["loc"] == ["body", "prompts", 0, "sampler"]
    assert "'unipc'" in problem["msg"]


@each("sampler", ["unipc", None])
async def test_the_checkpoints_own_sampler_may_be_named_or_left_out(api: Api, sampler: str | None) -> None:
    await api.submit(body({"sampler": sampler}, recipe="reference"))


@each("output_format", ["gif", "", "MP4", "zip"])
async def test_an_output_format_that_is_not_offered_is_refused_with_those_that_are(
    api: Api, output_format: str
) -> None:
    (problem,) = await api.invalid(body({"output_format": output_format}))
    assert problem["loc"] == ["body", "prompts", 0, "output_format"]
    assert all(f"'{offered}'" in problem["msg"] for offered in ("mp4", "webp", "png"))


async def test_each_prompt_has_its_own_output_format(api: Api) -> None:
    specs = await api.specs(body({}, *({"output_format": each} for each in ("mp4", "webp", "png"))))
    assert [spec.output_format.value for spec in specs] == ["mp4", "mp4", "webp", "png"]


@each("transformer", ["both", "", "HIGH", "high_noise", 1])
async def test_an_expert_that_does_not_exist_is_refused_with_those_that_do(api: Api, transformer: Any) -> None:
    (problem,) = await api.invalid(body(loras=[{**HIGH, "transformer": transformer}]))
    assert problem["loc"] == ["body", "loras", 0, "transformer"]
    assert "'high' or 'low'" in problem["msg"]


LONE = "\ud800"  # half of a surrogate pair: JSON can spell it, UTF-8 cannot


@each(
    ("mangled", "where"),
    [
        (body(model=LONE), ["model"]),
        (body(trigger_word=LONE), ["trigger_word"]),
        (body(loras=[{**HIGH, "path": LONE}]), ["loras", 0, "path"]),
        (body({"prompt": LONE}), ["prompts", 0, "prompt"]),
        (body({"neg": f"a{LONE}b"}), ["prompts", 0, "neg"]),
    ],
)
async def test_text_that_is_not_unicode_is_refused_by_the_name_of_its_field(
    api: Api, mangled: Any, where: list[Any]
) -> None:
    (problem,) = await api.invalid(mangled)
    assert problem["loc"] == ["body", *where]
    assert "unicode" in problem["msg"]


@each("text", ["狐狸 🦊", "a\0b", "", "e\u0301", "x" * PROMPT_LENGTH])
async def test_any_unicode_text_is_a_prompt(api: Api, text: str) -> None:
    (spec,) = await api.specs(body({"prompt": text, "neg": text}))
    assert (spec.prompt, spec.negative_prompt) == (text, text)


@each("token", ["hf_\x00", "hf_é", "hf\n"])
async def test_a_token_that_no_header_can_carry_is_refused(api: Api, token: str) -> None:
    (problem,) = await api.invalid(body(hf_token=token))
    assert problem["loc"] == ["body", "hf_token"]
