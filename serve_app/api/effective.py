"""The effective request (replay): a body that gives the same frames when it is posted again, made from stored specs.

Example:
    effective = await effective_request(record, services)
    body = effective.model_dump(mode="json")

Values that the request omitted, and values that were snapped or drawn, appear as they were used. Specs never contain a
token, so the body contains none.
"""

import base64
from collections.abc import Mapping

from serve_app.api.dependencies import Services
from serve_app.api.schemas.bodies import Side
from serve_app.api.schemas.listing import EffectiveLora, EffectivePrompt, EffectiveRequest
from serve_app.errors import OutputStorageUnavailable
from serve_app.images.header import media_type_of
from serve_app.jobs.records import RequestRecord, input_name
from serve_app.outputs import NotAsStored
from serve_app.replay import lora_fields, prompt_fields
from serve_app.spec import LoraFile, RenderSpec

_DEFAULT_MULTIPLIER = 1.0
_EXPANSION = 4 / 3  # characters of base64 for a byte


async def effective_request(record: RequestRecord, services: Services) -> EffectiveRequest:
    """Return the body that repeats this request.

    Raises:
        OutputStorageUnavailable: a control image cannot be read now.
    """
    specs = [render.spec for render in record.renders]
    images = await _images(record, services)
    varying = _varying(specs)
    return EffectiveRequest(
        model=record.model,
        loras=[_lora(lora, index in varying) for index, lora in enumerate(specs[0].loras)],
        prompts=[_prompt(spec, images, varying) for spec in specs],
        recipe=specs[0].recipe,
        speed=specs[0].speed,
        priority=record.line.priority,
        strict=specs[0].strict,
        preview=specs[0].previews,
    )


def is_whole(request: EffectiveRequest, record: RequestRecord) -> bool:
    """Return whether every control image of the request is in its effective body."""
    return all(
        render.spec.image is None or prompt.ctrl_img is not None
        for render, prompt in zip(record.renders, request.prompts, strict=True)
    )


def _varying(specs: list[RenderSpec]) -> frozenset[int]:
    """Return the indices of the LoRAs whose multiplier differs between prompts, because of the flag `--m`."""
    columns = zip(*([lora.multiplier for lora in spec.loras] for spec in specs), strict=True)
    return frozenset(index for index, multipliers in enumerate(columns) if len(set(multipliers)) > 1)


def _lora(lora: LoraFile, varies: bool) -> EffectiveLora:
    fields = lora_fields(lora)
    side = fields["transformer"]
    return EffectiveLora(
        path=fields["path"],
        transformer=None if side is None else Side(side),
        network_multiplier=None if varies else fields["network_multiplier"],
    )


def _flag(spec: RenderSpec, varying: frozenset[int]) -> str:
    """Return the flag `--m` for this prompt if its multiplier differs from the other prompts', else an empty text."""
    multiplier = next((spec.loras[index].multiplier for index in varying), _DEFAULT_MULTIPLIER)
    return "" if multiplier == _DEFAULT_MULTIPLIER else f" --m {multiplier!r}"


def _prompt(spec: RenderSpec, images: Mapping[str, str], varying: frozenset[int]) -> EffectivePrompt:
    fields = prompt_fields(spec)
    fields["prompt"] += _flag(spec, varying)
    image = spec.image if spec.image is not None and spec.image.sha256 in images else None
    return EffectivePrompt(
        **fields,
        trigger_word=spec.trigger_word,
        ctrl_img=None if image is None else images[image.sha256],
        fit=None if image is None else image.fit,
    )


async def _images(record: RequestRecord, services: Services) -> dict[str, str]:
    """Return the control images as data URLs, by their SHA-256; none if together they are too large for a body."""
    wanted = [render.spec.image.sha256 for render in record.renders if render.spec.image is not None]
    found: dict[str, str] = {}
    for sha256 in dict.fromkeys(wanted):
        try:
            data = await services.outputs.read(input_name(record.id, sha256))
        except (FileNotFoundError, NotAsStored):
            continue  # a render that still needs it fails with an error that says so
        except OSError as error:
            raise OutputStorageUnavailable.of("read", error) from error
        if wanted.count(sha256) * len(data) * _EXPANSION > services.max_body_bytes:
            return {}
        found[sha256] = f"data:{media_type_of(data)};base64,{base64.b64encode(data).decode()}"
    total = sum(len(found.get(sha256, "")) for sha256 in wanted)
    return found if total <= services.max_body_bytes else {}
