"""Errors of renders: an accepted one ended without a video. Stored with the render, and never raised over HTTP."""

from serve_app.errors.base import ServiceError


class RenderError(ServiceError):
    """An accepted render ended without a video."""


class RenderFailed(RenderError):
    """The pipeline raised an error that has no class of its own."""


class LoraNotFetched(RenderError):
    """A LoRA could not be downloaded for its render, or was damaged after the download."""


class LoraChanged(RenderError):
    """A LoRA file was replaced or removed after the request was accepted."""


class LoraNotLoaded(RenderError):
    """The pipeline could not apply every weight of a LoRA that had passed inspection."""


class ControlImageLost(RenderError):
    """The control image that was stored with the request is missing or has changed."""


class OutOfMemory(RenderError):
    """The device ran out of memory, on a GPU also in one retry under the next leaner offload plan, if there is one."""


class DeadlineExceeded(RenderError):
    """The render took longer than `render_timeout_s`."""


class AttemptsExhausted(RenderError):
    """The render was lost with its replica `max_attempts` times."""


class OutputNotWritten(RenderError):
    """The video could not be encoded or stored."""
