"""The recipe `draft`: the server's few-step LoRAs under the request's own, their steps, and no guidance."""

from typing import Any

from tests.client import body, pair
from tests.fixtures.api import Api
from tests.fixtures.drafts import FEW_STEPS
from tests.serve_app.loras.files import full, save


def draft(*prompts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a request for a draft whose prompts name no steps."""
    request = body(*prompts, recipe="draft", **changes)
    for prompt, given in zip(request["prompts"], prompts or ({},), strict=True):
        if "sample_steps" not in given:
            del prompt["sample_steps"]
    return request


async def test_a_draft_acts_under_the_pair_in_its_own_steps_and_without_guidance(drafting: Api) -> None:
    (spec,) = await drafting.specs(draft())
    assert (spec.recipe, spec.sampler, spec.shift, spec.sample_steps) == ("draft", "euler", 5.0, 5)
    assert spec.guidance_scale == 1.0
    assert [(lora.reference, lora.expert, lora.multiplier) for lora in spec.draft] == [
        (lora["path"], lora["transformer"], 0.9) for lora in FEW_STEPS
    ]
    assert [lora.reference for lora in spec.loras] == [lora["path"] for lora in pair()]  # one pair is the limit
    assert spec.acting == (*spec.draft, *spec.loras)
    assert spec.warnings == ()


async def test_the_few_step_loras_are_pinned_and_part_of_the_pair_key(drafting: Api) -> None:
    specs = [(await drafting.specs(draft()))[0], (await drafting.specs(body()))[0]]
    assert specs[0].pair_key != specs[1].pair_key
    save(drafting.lora_root / FEW_STEPS[0]["path"], full(rank=7))
    (replaced,) = await drafting.specs(draft())
    assert replaced.pair_key != specs[0].pair_key
    assert replaced.draft[0].sha256 != specs[0].draft[0].sha256


async def test_a_prompt_may_name_steps_sampler_and_shift(drafting: Api) -> None:
    (spec,) = await drafting.specs(draft({"sample_steps": 8, "sampler": "unipc", "shift": 3, "guidance_scale": 1}))
    assert (spec.sample_steps, spec.sampler, spec.shift, spec.guidance_scale) == (8, "unipc", 3.0, 1.0)


async def test_what_a_draft_was_posted_again_is_the_same_render(drafting: Api) -> None:
    request_id = await drafting.submit(draft({"neg": "blurry"}))
    (first,) = (await drafting.store.requests.get(request_id)).renders
    details = await drafting.get(f"/v1/requests/{request_id}")
    assert [lora["path"] for lora in details["loras"]] == [lora["path"] for lora in pair()]
    (again,) = await drafting.specs(details["request"])
    assert again == first.spec
    assert "neg has no effect" in again.warnings[0]


async def test_guidance_contradicts_a_draft(drafting: Api) -> None:
    error = await drafting.refused(draft({}, {"guidance_scale": 4}), "DRAFT_FIELD_REFUSED")
    assert error["message"].startswith("prompts[1].guidance_scale is 4")


async def test_the_result_lists_the_few_step_loras_apart(drafting: Api) -> None:
    request_id = await drafting.submit(draft())
    await drafting.finish(await drafting.claim())
    (made,) = (await drafting.result(request_id))["metadata"]["prompts"]
    assert made["draft_loras"] == []  # of the test's own Generator, which applied none
    assert (await drafting.get("/v1/models"))["models"][0]["draft"] == {
        "sample_steps": 5,
        "sampler": "euler",
        "shift": 5.0,
    }


async def test_a_server_without_a_draft_says_which_arg_is_missing(api: Api) -> None:
    error = await api.refused(draft(), "DRAFT_NOT_SERVED")
    assert "arg `draft`" in error["message"]
    assert (await api.get("/v1/models"))["models"][0]["draft"] is None


async def test_a_file_of_the_server_that_is_gone_is_the_servers_fault(drafting: Api) -> None:
    (drafting.lora_root / FEW_STEPS[1]["path"]).unlink()
    answer = await drafting.post(draft())
    assert answer.status_code == 503
    error = answer.json()["detail"]["error"]
    assert error["code"] == "DRAFT_UNAVAILABLE"
    assert FEW_STEPS[1]["path"] in error["message"]
    drafting.must_be_untouched()
