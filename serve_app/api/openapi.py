"""The OpenAPI document: the declared schemas, with the defaults and rules of the served models' cards.

The schemas contain what is true for every model. Defaults, divisors and the form of `loras` differ between models, so
they are added to the descriptions here, from the cards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute

from serve_app.api.openapi_security import with_keys
from serve_app.api.schemas.bodies import CONTROL_IMAGES
from serve_app.models.card import ModelCard
from serve_app.models.limits import SEED
from serve_app.spec import Recipe, Sampler

_OPENAI = "/v1/videos"
_LORA_EXAMPLE = "my_lora_job/my_{}.safetensors"


class DocumentedApi(FastAPI):
    """A FastAPI application whose OpenAPI document has the defaults and limits of the served models.

    With the card of Wan 2.2 T2V, for example, `fps` of a prompt gets the description "Frames per second of the file. 16
    when omitted."
    """

    def __init__(self, cards: Sequence[ModelCard], **settings: Any) -> None:
        super().__init__(**settings)
        self._cards = cards
        self.api_routes: Sequence[BaseRoute] = ()  # of the routers that it includes

    def openapi(self) -> dict[str, Any]:
        """Return the document, which is built once."""
        if self.openapi_schema is None:
            self.openapi_schema = with_keys(_with_models(super().openapi(), self._cards), self.api_routes)
        return self.openapi_schema


def request_example(card: ModelCard) -> dict[str, Any]:
    """Return a body of `POST /v1/inference` for this model that spells out its defaults."""
    defaults = card.defaults
    return {
        "model": card.id,
        "trigger_word": "sks",
        "loras": _pair_example() if card.is_pair else [{"path": _LORA_EXAMPLE.format("lora")}],
        "prompts": [
            {
                "prompt": "[trigger] a photo of a person",
                "width": defaults.width,
                "height": defaults.height,
                "seed": defaults.seed,
                "sample_steps": defaults.sample_steps,
                "guidance_scale": defaults.guidance_scale,
                "neg": "",
                "num_frames": defaults.num_frames,
                "fps": defaults.fps,
            }
        ],
    }


def _pair_example() -> list[dict[str, Any]]:
    return [
        {"path": _LORA_EXAMPLE.format(f"{side}_noise"), "transformer": side, "network_multiplier": 1.0}
        for side in ("high", "low")
    ]


def _with_models(document: dict[str, Any], cards: Sequence[ModelCard]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    for schema, notes in _notes(cards).items():
        for field, note in notes.items():
            described = schemas[schema]["properties"][field]
            described["description"] = f"{described['description']} {note}"
    # FastAPI writes limits as floats, of which 2^64 - 1 is none.
    for schema in ("PromptItem", "VideoRequest"):
        schemas[schema]["properties"]["seed"]["anyOf"][0] |= {"minimum": SEED.least, "maximum": SEED.most}
    for path, operations in document["paths"].items():
        if path.startswith(_OPENAI):  # whose route class answers 400 where FastAPI says 422
            for operation in operations.values():
                operation["responses"].pop("422", None)
    schemas["InferenceRequest"]["examples"] = [request_example(card) for card in cards]
    return document


def _notes(cards: Sequence[ModelCard]) -> dict[str, dict[str, str]]:
    """Return the text that the cards add to the description of each field, by schema and field."""
    by_model = {card.id: _notes_of(card) for card in cards}
    first = by_model[cards[0].id]
    notes = {
        schema: {field: _joined({model: of[schema][field] for model, of in by_model.items()}) for field in fields}
        for schema, fields in first.items()
    }
    runs = " and ".join(f"`{model}`" for model in by_model)
    return notes | {"InferenceRequest": {"model": f"This service runs {runs}."} | notes["InferenceRequest"]}


def _joined(notes: Mapping[str, str]) -> str:
    """Return the note if it is the same for all models, else the note of each model with its name."""
    said = set(notes.values())
    return said.pop() if len(said) == 1 else " ".join(f"`{model}`: {note}" for model, note in notes.items())


def _notes_of(card: ModelCard) -> dict[str, dict[str, str]]:
    return {
        "InferenceRequest": {"loras": _loras(card)},
        "LoraItem": {"transformer": _transformer(card)},
        "PromptItem": _prompt(card),
        "VideoRequest": _prompt(card),
    }


def _loras(card: ModelCard) -> str:
    if card.is_pair:
        return (
            "One `high` and/or one `low` file, each once. A server whose arg `max_loras_per_side` is above 1 takes "
            "that many of each, which act in their order."
        )
    return "One file; or, where the arg `max_loras_per_side` is above 1, that many, which act in their order."


def _transformer(card: ModelCard) -> str:
    if card.is_pair:
        return "Required, but for a combined file of both experts."
    return "Refused: the model has one expert."


def _prompt(card: ModelCard) -> dict[str, str]:
    defaults, divisors = card.defaults, card.size_divisors
    floored = f"Floored to a multiple of {divisors[Recipe.REFERENCE]}"
    if divisors[Recipe.PREVIEW] != divisors[Recipe.REFERENCE]:
        floored += f", in the recipe `preview` of {divisors[Recipe.PREVIEW]}"
    rounded = card.frame_rule.formula(card.latents.stride.frames)
    return {
        **dict.fromkeys(CONTROL_IMAGES, f"{card.title} takes none: a value is refused."),
        "width": f"{floored}; {defaults.width} when omitted.",
        "height": f"{floored}; {defaults.height} when omitted.",
        "seed": f"When omitted: {defaults.seed} plus the prompt's index.",
        "sample_steps": f"{defaults.sample_steps} when omitted.",
        "guidance_scale": f"{defaults.guidance_scale:.1f} when omitted.",
        "num_frames": f"Rounded to {rounded}; {defaults.num_frames} when omitted.",
        "fps": f"{defaults.fps} when omitted.",
        "shift": (
            f"When omitted, {card.default_shift(Sampler.UNIPC):.1f} for unipc (the checkpoint's) and "
            f"{card.default_shift(Sampler.EULER):.1f} for euler."
        ),
    }
