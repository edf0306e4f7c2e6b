"""What a request's values become: defaults, trigger words, seeds, snapping."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client import body, pair
from tests.fixtures.api import Api
from tests.fixtures.each import each
from tests.fixtures.specs import MODEL

HIGH, _ = pair()


@each("omitted", [{}, dict.fromkeys(("width", "height", "seed", "sample_steps", "neg", "fps"))])
async def test_what_is_omitted_or_null_takes_the_models_defaults(api: Api, omitted: dict[str, None]) -> None:
    (spec,) = await api.specs({"model": MODEL, "loras": [HIGH], "prompts": [{"prompt": "a fox", **omitted}]})
    assert spec.model_dump(mode="json", exclude={"loras"}) == {
        "model": MODEL,
        "recipe": "reference",
        "speed": "exact",
        "step_cache": None,
        "sampler": "unipc",
        "shift": None,
        "sampler_assumed": False,
        "trained_with": None,
        "strict": True,
        "warnings": [],
        "draft": [],
        "prompt": "a fox",
        "trigger_word": None,
        "negative_prompt": "",
        "image": None,
        "width": 1024,
        "height": 1024,
        "num_frames": 41,
        "fps": 16,
        "sample_steps": 25,
        "guidance_scale": 4.0,
        "seed": 42,
        "output_format": "mp4",
        "previews": False,
    }
    assert [lora.multiplier for lora in spec.loras] == [1.0]


async def test_what_is_given_is_kept(api: Api) -> None:
    given = {"neg": "blurry", "fps": 24, "sample_steps": 7, "guidance_scale": 0, "num_frames": 9}
    (spec,) = await api.specs(body({**given, "width": 128, "height": 96, "seed": 7}))
    assert (spec.negative_prompt, spec.fps, spec.sample_steps, spec.guidance_scale) == ("blurry", 24, 7, 0.0)
    assert (spec.width, spec.height, spec.num_frames, spec.seed) == (128, 96, 9, 7)


@each(
    ("prompt", "request_word", "prompt_word", "text"),
    [
        ("[trigger] a fox", "sks", None, "sks a fox"),
        ("[trigger] a fox", "sks", "ohwx", "ohwx a fox"),
        ("[trigger] a fox", None, "ohwx", "ohwx a fox"),
        ("[trigger] meets [trigger]", "sks", None, "sks meets sks"),
        ("a fox", "sks", None, "a fox"),
        ("[TRIGGER] a fox", "sks", None, "[TRIGGER] a fox"),
        ("[trigger] a fox", None, None, "[trigger] a fox"),
        ("[trigger] a fox", "", None, "[trigger] a fox"),
        ("[trigger] a fox", None, "", "[trigger] a fox"),
        ("[trigger] a fox", "a [trigger]", None, "a [trigger] a fox"),
    ],
)
async def test_the_trigger_word_takes_its_place(
    api: Api, prompt: str, request_word: str | None, prompt_word: str | None, text: str
) -> None:
    (spec,) = await api.specs(body({"prompt": prompt, "trigger_word": prompt_word}, trigger_word=request_word))
    assert spec.prompt == text


async def test_the_trigger_word_is_for_the_prompt_alone(api: Api) -> None:
    (spec,) = await api.specs(body({"neg": "[trigger]"}, trigger_word="sks"))
    assert spec.negative_prompt == "[trigger]"


async def test_omitted_seeds_count_up_from_42_by_the_prompts_index(api: Api) -> None:
    specs = await api.specs(body({}, {"seed": 7}, {}, {"seed": None}))
    assert [spec.seed for spec in specs] == [42, 7, 44, 45]


@each("seed", [0, 1, 2**32, 2**64 - 1])
async def test_a_given_seed_is_used_and_reported(api: Api, seed: int) -> None:
    request_id = await api.submit(body({"seed": seed}))
    await api.finish(await api.claim())
    (video,) = (await api.result(request_id))["outputs"]["videos"]
    assert video["seed"] == seed


async def test_a_seed_of_minus_one_is_drawn_once_and_reported(api: Api) -> None:
    request_id = await api.submit(body(*[{"seed": -1}] * 4))
    drawn = [render.spec.seed for render in (await api.store.requests.get(request_id)).renders]
    assert len(set(drawn)) == 4
    assert all(0 <= seed < 2**64 for seed in drawn)
    await api.store.claims.release(await api.claim(), max_attempts=3)  # a lost attempt draws no other seed
    for _ in drawn:
        await api.finish(await api.claim())
    for _ in range(2):
        assert [video["seed"] for video in (await api.result(request_id))["outputs"]["videos"]] == drawn


def prompts(most_frames: int) -> st.SearchStrategy[list[dict[str, int]]]:
    size = st.integers(64, 4096)
    frames = st.integers(1, most_frames)
    prompt = st.fixed_dictionaries({"width": size, "height": size, "num_frames": frames})
    return st.lists(prompt, min_size=1, max_size=20)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=prompts(most_frames=1000))
async def test_sizes_are_floored_to_32_and_frames_are_one_more_than_a_multiple_of_four(
    api: Api, asked: list[dict[str, int]]
) -> None:
    specs = await api.specs(body(*asked))
    for prompt, spec in zip(asked, specs, strict=True):
        for pixels, effective in ((prompt["width"], spec.width), (prompt["height"], spec.height)):
            assert effective % 32 == 0
            assert pixels - 32 < effective <= pixels
        assert spec.num_frames % 4 == 1
        assert abs(spec.num_frames - prompt["num_frames"]) <= 2


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=prompts(most_frames=999))  # 1000 becomes 1001, which cannot be asked for
async def test_asking_for_the_effective_values_gives_the_same_video(api: Api, asked: list[dict[str, int]]) -> None:
    first = await api.specs(body(*asked))
    fields = ("width", "height", "num_frames", "seed")
    again = await api.specs(body(*[{field: getattr(spec, field) for field in fields} for spec in first]))
    assert again == first


@each(
    ("frames", "effective"),
    [(1, 1), (3, 1), (4, 5), (5, 5), (6, 5), (8, 9), (40, 41), (41, 41), (42, 41), (1000, 1001)],
)
async def test_frames_are_rounded_as_the_pipeline_does(api: Api, frames: int, effective: int) -> None:
    (spec,) = await api.specs(body({"num_frames": frames}))
    assert spec.num_frames == effective
