"""Acceptance of a request: validate its body completely, and resolve it to specs with nothing left to decide.

Example:
    inputs = RequestInputs(services.outputs, str(uuid4()))
    new = await accept(body, sender, None, services, inputs, fetcher=fetcher)
    new.specs, new.costs

Every problem of a request is found here, before it is stored and before a GPU works on it.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from time import time

from pydantic import SecretStr

from serve_app.access.limits import check_sizes
from serve_app.api.control_images import PromptImage, refuse_unsupported, require_images, resolve_images
from serve_app.api.dependencies import Services
from serve_app.api.drafts import draft_loras, without_effect
from serve_app.api.lora_rules import ChosenLora, check_loras, choose_loras
from serve_app.api.prompt_flags import placed, read_flags, unplaced
from serve_app.api.recipes import RecipeChoice, choose_recipe
from serve_app.api.schemas.bodies import InferenceRequest, PromptItem
from serve_app.api.tracing import current_traceparent
from serve_app.api.webhooks import checked_webhook
from serve_app.errors import PromptFlagRefused, SpeedNotAllowed
from serve_app.images.resolver import ImageAsker
from serve_app.images.stored import RequestInputs
from serve_app.jobs.ownership import Sender
from serve_app.jobs.records import Idempotency, NewRequest
from serve_app.loras.warnings import of_file, of_pair
from serve_app.models.card import ModelCard
from serve_app.models.limits import RANDOM_SEED
from serve_app.settings import Settings
from serve_app.spec import LoraFile, Recipe, RenderSpec, Speed


@dataclass(frozen=True, slots=True)
class _Shared:
    """The values that all prompts of a request share."""

    body: InferenceRequest
    card: ModelCard
    recipe: RecipeChoice
    speed: Speed
    step_cache: float | None
    loras: tuple[LoraFile, ...]
    draft: tuple[LoraFile, ...]
    warnings: tuple[str, ...]


async def accept(
    body: InferenceRequest,
    sender: Sender,
    idempotency: Idempotency | None,
    services: Services,
    inputs: RequestInputs,
    *,
    fetcher: str,
) -> NewRequest:
    """Check a request completely and resolve it. Only its images are stored so far, in `inputs`.

    Raises:
        RequestError: a rule of the model, a LoRA file or an image stands against it.
        DraftUnavailable: the server's few-step LoRAs cannot be used.
        LoraSourceUnavailable, ImageSourceUnavailable: the server of a LoRA or an image does not answer as it should.
        OutputStorageUnavailable: there is no place for an image.
    """
    served = services.served(body.model)
    webhook = await checked_webhook(body, services, fetcher)
    card = served.card
    speed = _allowed_speed(body, served.plan.settings)
    looks = served.loras.looks(sender=fetcher, token=body.hf_token, owner=sender.owner)
    combined = await check_loras(body, looks, served)
    refuse_unsupported(body.prompts, card)
    chosen = await choose_loras(body, combined, looks, served)
    require_images(body.prompts, card)
    draft = await draft_loras(body, served, fetcher)
    shared = _Shared(
        body=body,
        card=card,
        recipe=choose_recipe(body.recipe, chosen, card, served.plan.draft),
        speed=speed,
        step_cache=served.plan.settings.turbo.step_cache if speed is Speed.TURBO else None,
        loras=tuple(lora.file.pinned(lora.expert, lora.multiplier) for lora in chosen),
        draft=draft,
        warnings=tuple(_warnings(chosen)),
    )
    images = await resolve_images(body, services, inputs, ImageAsker(fetcher, sender.owner, body.hf_token))
    specs = tuple(
        _spec(prompt, index, shared, image)
        for index, (prompt, image) in enumerate(zip(body.prompts, images, strict=True))
    )
    check_sizes(specs, services.plan.settings.limits_of(sender.tenant))
    costs = await served.forecaster.costs()
    return NewRequest(
        id=inputs.request_id,
        model=card.id,
        created_at=time(),
        specs=specs,
        costs=tuple(costs.predict(spec) for spec in specs),
        tenant=sender.tenant,
        priority=body.priority,
        hf_token=_token_to_keep(body, chosen),
        idempotency=idempotency,
        traceparent=current_traceparent(),
        webhook=webhook,
    )


def _token_to_keep(body: InferenceRequest, chosen: Sequence[ChosenLora]) -> SecretStr | None:
    """Return the request's token, if a Generator may still have to download with it."""
    return body.hf_token if any(lora.file.is_remote for lora in chosen) else None


def _warnings(chosen: Sequence[ChosenLora]) -> list[str]:
    """Return warnings about the files: possible mistakes."""
    by_file = [
        warning
        for lora in chosen
        for warning in of_file(lora.file.file_name, lora.file.contents, lora.expert, lora.multiplier)
    ]
    separate = [(lora.expert, lora.file.content) for lora in chosen if not lora.file.contents.combined]
    return list(dict.fromkeys([*by_file, *of_pair(separate)]))


def _allowed_speed(body: InferenceRequest, settings: Settings) -> Speed:
    speed = settings.speed if body.speed is None else body.speed
    if speed not in settings.speeds:
        allowed = [each.value for each in settings.speeds]
        raise SpeedNotAllowed(
            f"speed '{speed.value}' is not allowed on this server; use {' or '.join(allowed)}, or leave it out",
            {"field": "speed", "allowed": allowed},
        )
    return speed


def _spec(item: PromptItem, index: int, shared: _Shared, image: PromptImage | None) -> RenderSpec:
    card, defaults, recipe = shared.card, shared.card.defaults, shared.recipe.for_prompt(item)
    prompt, multiplier = read_flags(item, index) if recipe.recipe is Recipe.PREVIEW else (item, None)
    trigger_word = prompt.trigger_word or shared.body.trigger_word
    width = card.snap(_or(prompt.width, defaults.width), recipe.recipe)
    height = card.snap(_or(prompt.height, defaults.height), recipe.recipe)
    num_frames = card.round_frames(_or(prompt.num_frames, defaults.num_frames))
    warnings = (
        *shared.warnings,
        *recipe.warnings,
        *unplaced(prompt.prompt, trigger_word, recipe.recipe),
        *card.size_warnings(width=width, height=height, num_frames=num_frames),
    )
    if recipe.recipe is Recipe.DRAFT:
        warnings += tuple(without_effect(prompt))
    return RenderSpec(
        model=card.id,
        recipe=recipe.recipe,
        speed=shared.speed,
        step_cache=shared.step_cache,
        sampler=recipe.sampler,
        shift=recipe.shift,
        sampler_assumed=recipe.assumed,
        trained_with=recipe.trained_with,
        strict=shared.body.strict,
        warnings=warnings if image is None else (*warnings, *image.warnings(width, height)),
        loras=shared.loras if multiplier is None else _scaled(shared, multiplier, index),
        draft=shared.draft,
        prompt=placed(prompt.prompt, trigger_word, recipe.recipe, index),
        trigger_word=trigger_word or None,
        negative_prompt=prompt.neg or "",
        image=None if image is None else image.image,
        width=width,
        height=height,
        num_frames=num_frames,
        fps=_or(prompt.fps, defaults.fps),
        sample_steps=_or(prompt.sample_steps, recipe.sample_steps),
        guidance_scale=recipe.guidance_scale if prompt.guidance_scale is None else prompt.guidance_scale,
        seed=_seed(prompt.seed, index, card),
        output_format=prompt.output_format,
        previews=shared.body.preview,
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _scaled(shared: _Shared, multiplier: float, index: int) -> tuple[LoraFile, ...]:
    """Return the LoRAs with the multiplier of a prompt's flag."""
    explicit = {item.network_multiplier for item in shared.body.loras} - {None, multiplier}
    if explicit:
        raise PromptFlagRefused(
            f"prompts[{index}] has the flag --m of a sample prompt: it says {multiplier:g}, and network_multiplier of "
            f"a LoRA {explicit.pop():g}",
            {"prompt_index": index, "flag": "--m"},
        )
    return tuple(lora.model_copy(update={"multiplier": multiplier}) for lora in shared.loras)


def _seed(seed: int | None, index: int, card: ModelCard) -> int:
    """Return the seed itself; the default plus the prompt's index when omitted; a drawn one (32 bits) for -1."""
    if seed is None:
        return card.defaults.seed + index
    return secrets.randbits(32) if seed == RANDOM_SEED else seed
