"""Prompts pasted from a training job: placeholders and flags count as the trainer reads them, or are refused."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.prompt_flags import read_flags
from serve_app.api.schemas.bodies import PromptItem
from serve_app.errors import PromptFlagRefused
from serve_app.models import limits
from tests.client import body, pair
from tests.fixtures.api import Api
from tests.fixtures.each import each

PREVIEW = {"recipe": "preview"}
TAKEN: dict[str, tuple[str, Any]] = {
    "--n blurry, low quality": ("negative_prompt", "blurry, low quality"),
    "--seed 7": ("seed", 7),
    "--d 7": ("seed", 7),
    "--w 128": ("width", 128),
    "--h 256": ("height", 256),
    "--cfg 3.5": ("guidance_scale", 3.5),
    "--steps 9": ("sample_steps", 9),
    "--m 0.8": ("loras", 0.8),
}


def prompt(text: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": text, **fields}


@each("flag", TAKEN)
async def test_a_flag_is_taken_where_the_field_is_omitted(flag: str, api: Api) -> None:
    (spec,) = await api.specs({**body(**PREVIEW), "prompts": [prompt(f"a fox {flag}")]})
    field, value = TAKEN[flag]
    assert spec.prompt == "a fox"
    if field == "loras":
        assert [lora.multiplier for lora in spec.loras] == [value, value]
    else:
        assert getattr(spec, field) == value


async def test_all_flags_in_any_order(api: Api) -> None:
    for flags in (list(TAKEN), list(reversed(TAKEN))):
        text = " ".join(["a fox", *(flag for flag in flags if not flag.startswith("--d"))])
        (spec,) = await api.specs({**body(**PREVIEW), "prompts": [prompt(text)]})
        assert (spec.prompt, spec.seed, spec.width, spec.height) == ("a fox", 7, 128, 256)
        assert (spec.negative_prompt, spec.guidance_scale, spec.sample_steps) == ("blurry, low quality", 3.5, 9)


@each(
    ("text", "fields", "flag"),
    [
        ("a fox --seed 7", {"seed": 8}, "--seed"),
        ("a fox --w 128", {"width": 256}, "--w"),
        ("a fox --n blurry", {"neg": "static"}, "--n"),
        ("a fox --seed x", {}, "--seed"),
        ("a fox --seed", {}, "--seed"),
        ("a fox --seed 7 and more", {}, "--seed"),
        ("a fox --seed -2", {}, "--seed"),
        ("a fox --w 63", {}, "--w"),
        ("a fox --h 1e9", {}, "--h"),
        ("a fox --cfg nan", {}, "--cfg"),
        ("a fox --cfg 21", {}, "--cfg"),
        ("a fox --steps 0", {}, "--steps"),
        ("a fox --m 9", {}, "--m"),
        ("a fox --m", {}, "--m"),
        ("a fox --ar 16:9", {}, "--ar"),
        ("a fox --seed=7", {}, "--seed"),
        ("a fox --cfg:4 --seed 7", {}, "--cfg"),
        ("a fox \u2014seed 7", {}, "--seed"),
        ("a fox \u2013w 512", {}, "--w"),
        ("a fox --seed 1 --seed 2", {}, "--seed"),
        ("a fox --seed 1 --d 1", {}, "--d"),
        ("a fox --seed " + "9" * 5000, {}, "--seed"),
    ],
)
async def test_a_flag_is_refused_by_its_name_and_the_prompt_s_index(
    text: str, fields: dict[str, Any], flag: str, api: Api
) -> None:
    request = {**body(**PREVIEW), "prompts": [prompt("a hen"), prompt(text, **fields)]}
    error = await api.refused(request, "PROMPT_FLAG_REFUSED")
    assert error["details"] == {"prompt_index": 1, "flag": flag}
    assert f"prompts[1] has the flag {flag} " in error["message"]
    assert len(error["message"]) < 500


async def test_a_flag_that_says_what_the_field_says_is_taken(api: Api) -> None:
    request = {**body(**PREVIEW), "prompts": [prompt("a fox --seed 7 --w 128", seed=7, width=128)]}
    (spec,) = await api.specs(request)
    assert (spec.prompt, spec.seed, spec.width) == ("a fox", 7, 128)


async def test_a_multiplier_against_that_of_a_lora_is_refused(api: Api) -> None:
    loras = [{**lora, "network_multiplier": 0.5} for lora in pair()]
    request = {**body(loras=loras, **PREVIEW), "prompts": [prompt("a fox --m 0.8")]}
    assert (await api.refused(request, "PROMPT_FLAG_REFUSED"))["details"]["flag"] == "--m"


@each("text", ["a fox -- running", "a fox--seed 7", "a -seed 7", "a well--known fox", "--"])
async def test_other_dashes_are_text(text: str, api: Api) -> None:
    (spec,) = await api.specs({**body(**PREVIEW), "prompts": [prompt(text)]})
    assert spec.prompt == text


async def test_in_the_other_recipe_flags_and_name_are_text(api: Api) -> None:
    (spec,) = await api.specs({**body(trigger_word="sks"), "prompts": [prompt("[name] and [trigger] --seed 7")]})
    assert spec.prompt == "[name] and sks --seed 7"


async def test_name_is_replaced_like_trigger(api: Api) -> None:
    (spec,) = await api.specs(
        {**body(trigger_word="sks", **PREVIEW), "prompts": [prompt("[name] or [trigger] --seed 7")]}
    )
    assert spec.prompt == "sks or sks"
    assert not any("trigger_word" in warning for warning in spec.warnings)


@each(("recipe", "placeholder"), [("preview", "[name]"), ("preview", "[trigger]"), ("reference", "[trigger]")])
@each("trigger_word", [None, ""])
async def test_a_placeholder_without_a_trigger_word_is_warned_of(
    recipe: str, placeholder: str, trigger_word: str | None, api: Api
) -> None:
    request = {**body(recipe=recipe, trigger_word=trigger_word), "prompts": [prompt(f"{placeholder} in snow")]}
    (spec,) = await api.specs(request)
    assert spec.prompt == f"{placeholder} in snow"
    assert any(placeholder in warning and "trigger_word" in warning for warning in spec.warnings)


@given(st.text(max_size=200), st.sampled_from(["", " --seed ", " --w", " --m ", " --n "]), st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str, flag: str, value: str) -> None:
    try:
        item, multiplier = read_flags(PromptItem(prompt=f"{text}{flag}{value}"), 0)
    except PromptFlagRefused as error:
        assert error.details["flag"].startswith("--")
        return
    assert item.seed is None or limits.SEED.least <= item.seed <= limits.SEED.most
    assert multiplier is None or limits.MULTIPLIER.least <= multiplier <= limits.MULTIPLIER.most


@each("text", ["a fox \u2014 seed of all", "a fox -- seed 7", "well\u2014s 4", "a\u2014b", "--", "a --- b", "[x]"])
async def test_dashes_and_brackets_of_a_text_stay_text(text: str, api: Api) -> None:
    (spec,) = await api.specs({**body(**PREVIEW), "trigger_word": "sks", "prompts": [prompt(text)]})
    assert spec.prompt == text
    assert not any("left in the prompt" in warning for warning in spec.warnings)


@each(
    ("recipe", "text"),
    [("preview", "[Trigger]"), ("preview", "[ trigger ]"), ("reference", "[TRIGGER]"), ("reference", "[name]")],
)
async def test_a_placeholder_in_another_spelling_is_left_with_a_warning(recipe: str, text: str, api: Api) -> None:
    (spec,) = await api.specs(body({"prompt": f"{text} a fox"}, recipe=recipe, trigger_word="sks"))
    assert spec.prompt == f"{text} a fox"
    assert [warning for warning in spec.warnings if "left in the prompt" in warning] == [
        f"{text} is left in the prompt as text; this recipe replaces "
        + {"preview": "[trigger] and [name]", "reference": "[trigger]"}[recipe]
    ]
