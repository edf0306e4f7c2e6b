"""From a request's body to specs with nothing left to decide, or a refusal that says what to change."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from time import time
from uuid import uuid4

from serve_app.api.request_schema import InferenceRequest, LoraItem, PromptItem
from serve_app.api.services import Services
from serve_app.cards import ModelCard
from serve_app.errors import (
    ControlImageNotSupported,
    LoraFileRequired,
    LoraNotFound,
    ModelNotFound,
    MoeFormatRequired,
    SingleMoeConfigOnly,
)
from serve_app.jobs.records import NewRequest
from serve_app.jobs.spec import Expert, LoraFile, RenderSpec
from serve_app.loras.library import LoraIdentity

RANDOM_SEED = -1
_TRIGGER = "[trigger]"


async def accept(body: InferenceRequest, services: Services) -> NewRequest:
    """Check a request completely and resolve it; nothing is stored yet.

    Raises:
        RequestError: a rule of the model, or a LoRA file, stands against it.
    """
    card = services.plan.card
    _check_model(body, card)
    pair = _check_pair(body, card)
    _check_control_images(body.prompts, card)
    loras = await _pin_loras(pair, services)
    specs = tuple(
        _spec(prompt, index=index, body=body, loras=loras, card=card) for index, prompt in enumerate(body.prompts)
    )
    return NewRequest(id=str(uuid4()), model=card.id, created_at=time(), specs=specs)


def _check_model(body: InferenceRequest, card: ModelCard) -> None:
    if body.model != card.id:
        raise ModelNotFound(
            f"Model '{body.model}' is not supported; this service runs '{card.id}'",
            {"supported_models": [card.id]},
        )


def _check_pair(body: InferenceRequest, card: ModelCard) -> dict[Expert, LoraItem]:
    """The reference server's rules for mixture-of-experts models, in its order."""
    details = {"loras": [lora.model_dump(mode="json") for lora in body.loras]}
    if not body.loras:
        raise LoraFileRequired("At least one LoRA is required", details)
    pair = {lora.transformer: lora for lora in body.loras if lora.transformer is not None}
    if any(lora.transformer is None for lora in body.loras):
        raise MoeFormatRequired(
            f'Model \'{card.id}\' has two experts: each item of `loras` must say `transformer`: "low" or "high"',
            details,
        )
    if len(pair) != len(body.loras):
        raise SingleMoeConfigOnly(
            f"Model '{card.id}' takes one low/high LoRA pair: each of `transformer` low and high at most once",
            details,
        )
    return pair


def _check_control_images(prompts: Sequence[PromptItem], card: ModelCard) -> None:
    for index, prompt in enumerate(prompts):
        if fields := prompt.control_images():
            raise ControlImageNotSupported(
                f"Model '{card.id}' is text-to-video and takes no control image; remove {', '.join(fields)} from "
                f"prompts[{index}]",
                {"prompt_index": index, "fields": fields},
            )


async def _pin_loras(pair: Mapping[Expert, LoraItem], services: Services) -> tuple[LoraFile, ...]:
    """Inspect every file in a thread; files that are missing are named together, as the reference does."""
    inspections = [asyncio.to_thread(services.library.inspect, item.path) for item in pair.values()]
    results = await asyncio.gather(*inspections, return_exceptions=True)
    found = list(zip(pair.items(), results, strict=True))
    if missing := [item.path for (_, item), result in found if isinstance(result, LoraNotFound)]:
        raise LoraNotFound(f"LoRA file(s) not found: {missing}", {"missing_files": missing})
    pinned = []
    for (expert, item), identity in found:
        if isinstance(identity, BaseException):
            raise identity
        pinned.append(_pinned(expert, item, identity))
    return tuple(pinned)


def _pinned(expert: Expert, item: LoraItem, identity: LoraIdentity) -> LoraFile:
    return LoraFile(
        expert=expert,
        reference=item.path,
        location=str(identity.file),
        content=identity.sha256,
        sha256=identity.sha256,
        multiplier=1.0 if item.network_multiplier is None else item.network_multiplier,
    )


def _spec(
    prompt: PromptItem, *, index: int, body: InferenceRequest, loras: tuple[LoraFile, ...], card: ModelCard
) -> RenderSpec:
    return RenderSpec(
        recipe=body.recipe,
        loras=loras,
        prompt=_with_trigger(prompt.prompt, prompt.trigger_word or body.trigger_word),
        negative_prompt=prompt.neg or "",
        width=card.snap(_or(prompt.width, card.default_width)),
        height=card.snap(_or(prompt.height, card.default_height)),
        num_frames=card.round_frames(_or(prompt.num_frames, card.default_num_frames)),
        fps=_or(prompt.fps, card.default_fps),
        sample_steps=_or(prompt.sample_steps, card.default_steps),
        guidance_scale=card.default_guidance_scale if prompt.guidance_scale is None else prompt.guidance_scale,
        seed=_seed(prompt.seed, index, card),
        output_format=prompt.output_format,
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _with_trigger(prompt: str, trigger_word: str | None) -> str:
    """`[trigger]` replaced by the trigger word; an empty or absent one leaves the text alone."""
    return prompt.replace(_TRIGGER, trigger_word) if trigger_word else prompt


def _seed(seed: int | None, index: int, card: ModelCard) -> int:
    """The seed itself; the default plus the prompt's index when omitted; a drawn one (32 bits) for -1."""
    if seed is None:
        return card.default_seed + index
    return secrets.randbits(32) if seed == RANDOM_SEED else seed
