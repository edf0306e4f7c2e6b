"""The recipe `draft` at the API: what its prompts may ask for, and the few-step LoRAs that the server adds to them.

Example:
    draft = await draft_loras(body, served, fetcher)  # of the specs; () for every other recipe
"""

import asyncio

from serve_app.api.schemas.bodies import InferenceRequest, PromptItem
from serve_app.api.served import ServedModel
from serve_app.drafts import GUIDANCE_SCALE, Draft
from serve_app.errors import ConfigurationInvalid, DraftFieldRefused, DraftNotServed, DraftUnavailable, RequestError
from serve_app.loras.drafts import pinned_draft
from serve_app.spec import LoraFile, Recipe


async def draft_loras(body: InferenceRequest, served: ServedModel, fetcher: str) -> tuple[LoraFile, ...]:
    """Return the pinned few-step LoRAs of the request's renders; none if its recipe is no draft.

    They are read with the server's own token, and from the folder that all tenants share.

    Raises:
        DraftNotServed: the server has none for this model.
        DraftFieldRefused: a prompt asks for guidance.
        DraftUnavailable: a file is gone, damaged or for another model, which the sender cannot help.
        LoraSourceUnavailable, TooManyFetches: the server that a file comes from does not answer, or too many are read.
    """
    if body.recipe is not Recipe.DRAFT:
        return ()
    draft = served.plan.draft
    if draft is None:
        raise DraftNotServed(
            f"recipe 'draft' is not served for '{served.card.id}': the server's arg `draft` names no few-step LoRAs "
            "for it; use another recipe",
            {"field": "recipe", "arg": "draft"},
        )
    for index, prompt in enumerate(body.prompts):
        _check_guidance(prompt, index)
    return await _pinned(draft, body, served, fetcher)


def without_effect(prompt: PromptItem) -> list[str]:
    """Return what a draft makes no use of."""
    return ["neg has no effect: the recipe draft runs without guidance"] if prompt.neg else []


def _check_guidance(prompt: PromptItem, index: int) -> None:
    if prompt.guidance_scale not in (None, GUIDANCE_SCALE):
        raise DraftFieldRefused(
            f"prompts[{index}].guidance_scale is {prompt.guidance_scale:g}, and the recipe 'draft' runs without "
            "guidance; leave it out",
            {"prompt_index": index, "field": "guidance_scale"},
        )


async def _pinned(draft: Draft, body: InferenceRequest, served: ServedModel, fetcher: str) -> tuple[LoraFile, ...]:
    looks = served.loras.looks(sender=fetcher, token=None, owner=None)
    try:
        files = await asyncio.gather(
            *(looks.resolve(lora.path, lora.expert, strict=body.strict) for lora in draft.loras)
        )
        return pinned_draft(draft, files, served.card)
    except (RequestError, ConfigurationInvalid) as error:
        raise DraftUnavailable(
            f"recipe 'draft' cannot be rendered now, as the files of the server's arg `draft` cannot be used: "
            f"{error.message}",
            {"arg": "draft", "reason": error.message},
        ) from error
