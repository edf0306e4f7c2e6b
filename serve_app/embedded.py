"""Embedded settings (metadata in media files): what a finished file says of itself, so that it can be made again.

    {"wan_lora_serve": 1, "request": {"model": "wan22_14b_t2v", "loras": [...], "prompts": [{...}], ...}}

`request` is a body of `POST /v1/inference` with one prompt and every value in effect; posted again, it gives the same
frames. A token is never in it. Neither is a control image, which may have megabytes.
"""

import json
from collections.abc import Mapping
from typing import Any

from serve_app.replay import lora_fields, prompt_fields
from serve_app.spec import RenderSpec

NAME = "wan_lora_serve"  # tells the text from other programs' metadata
_VERSION = 1


def settings_text(spec: RenderSpec) -> str:
    """Return the settings of a render as JSON on one line. The same spec gives the same text."""
    request = {
        "model": spec.model,
        "trigger_word": spec.trigger_word,
        "loras": [_named(lora_fields(lora)) for lora in spec.loras],
        "recipe": spec.recipe,
        "speed": spec.speed,
        "strict": spec.strict,
        "prompts": [_named(prompt_fields(spec))],
    }
    return json.dumps({NAME: _VERSION, "request": _named(request)}, ensure_ascii=False)


def _named(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
