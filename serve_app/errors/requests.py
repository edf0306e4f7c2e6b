"""Errors of a request that is wrong (400): its client must change it, and nothing was accepted.

MODEL_NOT_FOUND, LORA_FILE_REQUIRED, MOE_FORMAT_REQUIRED, SINGLE_MOE_CONFIG_ONLY, MOE_FORMAT_NOT_SUPPORTED,
SINGLE_LORA_ONLY, LORA_NOT_FOUND and CONTROL_IMAGE_REQUIRED are the reference server's.
"""

from serve_app.errors.base import ServiceError


class RequestError(ServiceError):
    """The request cannot be accepted; the client must change it."""

    status = 400


class ModelNotFound(RequestError):
    """The service does not run this model."""


class LoraFileRequired(RequestError):
    """`loras` is empty."""


class MoeFormatRequired(RequestError):
    """A LoRA does not say which expert (`transformer`: low or high) it is for."""


class SingleMoeConfigOnly(RequestError):
    """More than one LoRA for one expert."""


class MoeFormatNotSupported(RequestError):
    """A LoRA says which expert it is for, and the model has only one."""


class SingleLoraOnly(RequestError):
    """More than one LoRA for a model with one expert."""


class LoraNotFound(RequestError):
    """No file at that path inside `lora_root`."""


class LoraPathRefused(RequestError):
    """The path leads out of `lora_root`, or is of a kind this service does not read."""


class LoraInvalid(RequestError):
    """The file is not a LoRA that would be applied completely to this model."""


class ControlImageRequired(RequestError):
    """A prompt has no control image, and the model requires one."""


class ControlImageNotSupported(RequestError):
    """A control image, or `fit`, was sent for a model that takes no image."""


class SingleControlImageOnly(RequestError):
    """A prompt has several control images, and the model takes one."""


class ControlImageNotFound(RequestError):
    """No image at that path inside `image_root`, or at that address."""


class ControlImageRefused(RequestError):
    """The service does not read images from that path or address."""


class ControlImageInvalid(RequestError):
    """The bytes are no image of an accepted format, are damaged, or exceed a limit."""


class SpeedNotAllowed(RequestError):
    """The request names a speed profile that this server does not allow."""


class DraftNotServed(RequestError):
    """The request asks for a draft, and the server has no few-step LoRAs for the model."""


class DraftFieldRefused(RequestError):
    """A prompt sets a field that a draft does not support."""


class RenderTooLarge(RequestError):
    """A render has more pixels, frames or steps than its tenant may use."""


class PromptFlagRefused(RequestError):
    """A flag at the end of a trainer's sample prompt is unknown, wrong, or contradicts a field."""


class PromptTooLong(RequestError):
    """A prompt with its trigger word is longer than the limit."""


class HeaderInvalid(RequestError):
    """A header has an invalid value."""


class CursorInvalid(RequestError):
    """The query parameter `after` is not a value that a list returned as `next`."""


class WebhookRefused(RequestError):
    """The service may not send webhooks to this address, or sends none at all."""


class VideoFieldRefused(RequestError):
    """A field of OpenAI's Videos API has a value without meaning here, or contradicts another field."""


class FormInvalid(RequestError):
    """A multipart form has unknown fields, or fields that contradict each other."""


class BodyDamaged(RequestError):
    """The body ended too early, or is compressed and cannot be decompressed."""
