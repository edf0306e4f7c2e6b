"""Startup check (fail-fast) of the arg `aliases`: each stands for a request that would be accepted.

Example:
    check_aliases(settings, [model.card for model in plan.models], drafted={"wan22_14b_t2v"})
"""

from collections.abc import Collection, Sequence

from pydantic import ValidationError

from serve_app.aliases import Alias
from serve_app.api.schemas.videos import VideoRequest
from serve_app.errors import ConfigurationInvalid, RequestError
from serve_app.loras import paths
from serve_app.loras.sources.base import is_remote
from serve_app.models.card import ModelCard
from serve_app.settings import Settings, wrong_values
from serve_app.spec import Recipe


def check_aliases(
    settings: Settings, cards: Sequence[ModelCard], *, drafted: Collection[str], files: bool = True
) -> None:
    """Check every alias. A LoRA on a server is looked up when a request asks for it.

    `drafted` has the ids of the models for which the recipe `draft` is served. `files` is false where the demo's LoRAs
    may not be in `lora_root` yet.

    Raises:
        ConfigurationInvalid: an alias has a model's name, a model that is not served, a recipe that is not, a value
            beyond its limits, or a path where no file is; names the key.
    """
    served = {card.id: card for card in cards}
    for name, alias in settings.aliases.items():
        key = f"aliases.{name}"
        if name in served:
            raise ConfigurationInvalid(f"{key}: it is the id of a model; take another name")
        if alias.model not in served:
            runs = ", ".join(served)
            raise ConfigurationInvalid(f"{key}.model: '{alias.model}' is not served; this service runs {runs}")
        if alias.recipe is Recipe.DRAFT and alias.model not in drafted:
            raise ConfigurationInvalid(f"{key}.recipe: draft needs the arg `draft`, with LoRAs for {alias.model}")
        _check_values(key, alias)
        if files:
            _check_loras(key, alias, served[alias.model], settings)


def _check_values(key: str, alias: Alias) -> None:
    try:
        VideoRequest.model_validate({"prompt": "", **alias.values()})
    except ValidationError as error:
        raise ConfigurationInvalid(f"{key}: {wrong_values(error)}") from None


def _check_loras(key: str, alias: Alias, card: ModelCard, settings: Settings) -> None:
    if not alias.loras:
        raise ConfigurationInvalid(f"{key}.loras: is empty; name the LoRA files")
    for index, lora in enumerate(alias.loras):
        if lora.transformer is not None and not card.is_pair:
            raise ConfigurationInvalid(f"{key}.loras[{index}].transformer: {card.id} has one expert; leave it out")
        if is_remote(lora.path):
            continue
        try:
            paths.resolve(lora.path, settings.lora_root)
        except RequestError as error:
            where = f"lora_root is {settings.lora_root}"
            raise ConfigurationInvalid(f"{key}.loras[{index}].path: {error.message}; {where}") from error
