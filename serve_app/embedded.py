"""Embedded settings (metadata in media files): what a finished file says of itself, so that it can be made again.

    {"wan_lora_serve": 1, "request": {"model": "wan22_14b_t2v", "loras": [...], "prompts": [{...}], ...}}

`request` is a body of `POST /v1/inference` with one prompt and every value in effect; posted again, it gives the same
frames. A token is never in it. Neither is a control image, which may have megabytes.
"""

import json
from typing import Any

from serve_app.models import limits
from serve_app.spec import Expert, LoraFile, RenderSpec

NAME = "wan_lora_serve"  # tells the text from other programs' metadata
_VERSION = 1
_PINNED = "hf://"  # such a location names a commit, and no longer moves with a branch


def settings_text(spec: RenderSpec) -> str:
    """Return the settings of a render as JSON on one line. The same spec gives the same text."""
    return json.dumps({NAME: _VERSION, "request": _request(spec)}, ensure_ascii=False)


def _request(spec: RenderSpec) -> dict[str, Any]:
    return {
        "model": spec.model,
        **({} if spec.trigger_word is None else {"trigger_word": spec.trigger_word}),
        "loras": [_lora(lora) for lora in spec.loras],
        "recipe": spec.recipe.value,
        "speed": spec.speed.value,
        "strict": spec.strict,
        "prompts": [_prompt(spec)],
    }


def _lora(lora: LoraFile) -> dict[str, Any]:
    return {
        "path": lora.location if lora.location.startswith(_PINNED) else lora.reference,
        **({} if lora.expert is Expert.ONLY else {"transformer": lora.expert.value}),
        "network_multiplier": lora.multiplier,
    }


def _prompt(spec: RenderSpec) -> dict[str, Any]:
    return {
        "prompt": spec.prompt,
        "neg": spec.negative_prompt,
        "width": spec.width,
        "height": spec.height,
        # A count may be rounded up beyond the most that a request may ask for; that most is rounded up again.
        "num_frames": min(spec.num_frames, limits.NUM_FRAMES.most),
        "fps": spec.fps,
        "seed": spec.seed,
        "sample_steps": spec.sample_steps,
        "guidance_scale": spec.guidance_scale,
        "sampler": spec.sampler.value,
        **({} if spec.shift is None else {"shift": spec.shift}),
        "output_format": spec.output_format.value,
    }
