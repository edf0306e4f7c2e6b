"""What a client meets, and the wiring: `serve run serve_config.yaml` calls `serve_app:build`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["build"]


def build(args: dict[str, Any]) -> "Application":
    """Build the Serve application from the `args` of `serve_config.yaml`.

    Raises:
        ConfigurationInvalid: an arg is unknown or has a wrong value; the message names it.
    """
    # Imported here because every part of the service imports some module of this package, and only the
    # application knows every part.
    from serve_app.application import application  # noqa: PLC0415

    return application(args)
