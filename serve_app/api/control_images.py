"""Rules for control images: how many each prompt must have, checked in the order of the reference server.

Example:
    refuse_unsupported(body.prompts, card)               # before the LoRAs are looked up
    require_images(body.prompts, card)                   # after it
    images = await resolve_images(body, services, inputs, asker)  # one for each prompt, or None

The reference server accepts several images and uses none of them, and finds a bad image only when it renders. Here both
are refused, with the index of the prompt and the name of the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from serve_app.api.dependencies import Services
from serve_app.api.schemas.bodies import InferenceRequest, PromptItem
from serve_app.errors import (
    ControlImageInvalid,
    ControlImageNotFound,
    ControlImageNotSupported,
    ControlImageRefused,
    ControlImageRequired,
    ImageSourceUnavailable,
    ServiceError,
    SingleControlImageOnly,
)
from serve_app.images.decoding import ImageFacts
from serve_app.images.header import ImageUnusable
from serve_app.images.resolver import ImageAsker
from serve_app.images.sources.policy import ImageMissing
from serve_app.images.stored import RequestInputs
from serve_app.images.warnings import of_image
from serve_app.models.card import ImageInput, ModelCard
from serve_app.net import AddressForbidden, Forbidden, HostForbidden, Transient
from serve_app.paths import PathForbidden, PathMissing
from serve_app.spec import Fit, InputImage

_MOST_IMAGES = 32  # different ones in a request

_FAULTS = (ImageUnusable, ImageMissing, PathMissing, PathForbidden, Forbidden, Transient)


@dataclass(frozen=True, slots=True)
class PromptImage:
    """The image of one prompt: its entry in the spec, and its properties."""

    image: InputImage
    facts: ImageFacts

    def warnings(self, width: int, height: int) -> list[str]:
        """Return warnings about what a video of that size in pixels does not show of it."""
        return of_image(self.facts, self.image.fit, width, height)


class _Known(NamedTuple):
    sha256: str
    facts: ImageFacts


def refuse_unsupported(prompts: Sequence[PromptItem], card: ModelCard) -> None:
    """Refuse control images for a model that takes none.

    Raises:
        ControlImageNotSupported: for the first prompt with one, or with `fit`.
    """
    if card.image_input is not ImageInput.NONE:
        return
    for index, prompt in enumerate(prompts):
        fields = prompt.control_images() + (["fit"] if prompt.fit else [])
        if fields:
            raise ControlImageNotSupported(
                f"Model '{card.id}' is text-to-video and takes no control image; remove {', '.join(fields)} from "
                f"prompts[{index}]",
                {"prompt_index": index, "fields": fields},
            )


def require_images(prompts: Sequence[PromptItem], card: ModelCard) -> None:
    """Check that each prompt has as many control images as the model takes; an empty text is none.

    Raises:
        ControlImageRequired: the first prompt without one, for a model that needs it.
        SingleControlImageOnly: the first prompt with several.
        ControlImageNotSupported: the first prompt with `fit` and no image.
    """
    counted = [prompt.control_images() for prompt in prompts]
    if card.image_input is ImageInput.REQUIRED and [] in counted:
        index = counted.index([])
        raise ControlImageRequired(
            f"Model '{card.id}' requires a control image: set ctrl_img in prompts[{index}]",
            {"model": card.id, "prompt_index": index},
        )
    for index, (prompt, fields) in enumerate(zip(prompts, counted, strict=True)):
        if len(fields) > 1:
            raise SingleControlImageOnly(
                f"Model '{card.id}' takes one control image for each prompt: keep one of {', '.join(fields)} in "
                f"prompts[{index}]",
                {"prompt_index": index, "fields": fields},
            )
        if prompt.fit and not fields:
            raise ControlImageNotSupported(
                f"fit is about a control image, and prompts[{index}] has none; remove fit or set ctrl_img",
                {"prompt_index": index, "fields": ["fit"]},
            )


async def resolve_images(
    body: InferenceRequest, services: Services, inputs: RequestInputs, asker: ImageAsker
) -> list[PromptImage | None]:
    """Return the image of each prompt, read, checked, and stored in `inputs`; call `require_images` before.

    Raises:
        ControlImageInvalid, ControlImageNotFound, ControlImageRefused: an image cannot be used.
        ImageSourceUnavailable, TooManyFetches: the server of an image does not deliver it, or too many files are being
            read.
        OutputStorageUnavailable: an image cannot be stored.
    """
    known: dict[str, _Known] = {}  # without the bytes: those of one image at a time are in memory
    deadline = services.images.deadline()
    found: list[PromptImage | None] = []
    for index, prompt in enumerate(body.prompts):
        if not (fields := prompt.control_images()):
            found.append(None)
            continue
        reference: str = getattr(prompt, fields[0])
        if reference not in known:
            _check_count(len(known), index, fields[0])
            try:
                image = await services.images.resolve(reference, deadline=deadline, asker=asker)
            except _FAULTS as fault:
                raise _worded(fault, index, fields[0]) from None  # a cause may quote signed URLs
            await inputs.keep(image)
            known[reference] = _Known(image.sha256, image.facts)
        sha256, facts = known[reference]
        found.append(PromptImage(InputImage(sha256=sha256, fit=prompt.fit or Fit.STRETCH), facts))
    return found


def _check_count(known: int, index: int, field: str) -> None:
    if known == _MOST_IMAGES:
        raise _worded(Forbidden(f"a request may have {_MOST_IMAGES} different images; send several"), index, field)


def _worded(fault: Exception, index: int, field: str) -> ServiceError:
    """Return the error for an image, without its reference, which may have megabytes or contain a secret."""
    place, reason = f"prompts[{index}].{field}", str(fault)
    details = {"prompt_index": index, "field": field}
    if isinstance(fault, ImageMissing | PathMissing):
        return ControlImageNotFound(f"{place}: no image is there; check its spelling", details)
    if isinstance(fault, ImageUnusable):
        return ControlImageInvalid(f"{place} cannot be used: {reason}", details)
    if isinstance(fault, Transient):
        return ImageSourceUnavailable(
            f"{place} cannot be read from its source now: {fault.reason}; retry later", details
        )
    if isinstance(fault, HostForbidden):
        reason = f"its host {fault.host!r} is none of those that images may come from (image_hosts)"
    elif isinstance(fault, AddressForbidden):
        reason = f"{fault}; an operator can allow it in image_private_hosts"
    return ControlImageRefused(f"{place} is refused: {reason}", details)
