"""The LoRAs of a draft: checked when the service starts (fail-fast), and pinned by content for each request.

Example:
    check_draft(plan.draft, plan.card, LoraLibrary(lora_root, plan.card.architecture))
    files = [await looks.resolve(lora.path, lora.expert, strict=True) for lora in plan.draft.loras]
    pinned_draft(plan.draft, files, plan.card)  # of the spec of a render
"""

from collections.abc import Sequence

from serve_app.drafts import Draft, DraftLora
from serve_app.errors import ConfigurationInvalid, LoraStorageUnavailable, RequestError
from serve_app.loras.formats import LoraContents
from serve_app.loras.library import LoraLibrary, ResolvedLora
from serve_app.loras.sources import is_remote, shown
from serve_app.models import limits
from serve_app.models.card import ModelCard
from serve_app.spec import Expert, LoraFile


def check_draft(draft: Draft, card: ModelCard, library: LoraLibrary) -> None:
    """Check every LoRA of a draft; one that lies on a server is looked up when a request asks for a draft.

    Raises:
        ConfigurationInvalid: a value is beyond its limits, or a file is missing, damaged, for another model or for
            another expert; names the key, and the file.
    """
    _check("sample_steps", draft.sample_steps, limits.SAMPLE_STEPS)
    for index, lora in enumerate(draft.loras):
        _check(f"loras[{index}].network_multiplier", lora.network_multiplier, limits.MULTIPLIER)
        if is_remote(lora.path):
            if lora.transformer is not None:
                _experts(index, lora, None, card)
            continue
        try:
            found = library.find(lora.path)
        except (RequestError, LoraStorageUnavailable) as error:
            raise ConfigurationInvalid(f"draft.loras[{index}].path: {error.message}") from error
        _experts(index, lora, found.contents, card)


def pinned_draft(draft: Draft, files: Sequence[ResolvedLora], card: ModelCard) -> tuple[LoraFile, ...]:
    """Return the LoRAs of a draft, which are in `files`, pinned for their experts.

    Raises:
        ConfigurationInvalid: a file is for another expert; names key and file.
    """
    return tuple(
        file.pinned(expert, lora.network_multiplier)
        for index, (lora, file) in enumerate(zip(draft.loras, files, strict=True))
        for expert in _experts(index, lora, file.contents, card)
    )


def _check(key: str, value: float, allowed: limits.Limits) -> None:
    if not allowed.least <= value <= allowed.most:
        raise ConfigurationInvalid(f"draft.{key}: {value:g} must be from {allowed.least} to {allowed.most}")


def _experts(index: int, lora: DraftLora, contents: LoraContents | None, card: ModelCard) -> tuple[Expert, ...]:
    """Return the experts that a LoRA acts on. `contents` None: the file was not read yet."""
    key, name = f"draft.loras[{index}]", shown(lora.path)
    if not card.is_pair:
        if lora.expert is not None:
            raise ConfigurationInvalid(f"{key}.transformer: {card.id} has one expert; leave it out")
        if contents is not None and contents.combined:
            raise ConfigurationInvalid(f"{key}.path: {name!r} is for a model with two experts; {card.id} has one")
        return (Expert.ONLY,)
    if lora.expert is None:
        if contents is None or not contents.combined:
            raise ConfigurationInvalid(
                f"{key}.transformer: {card.id} has two experts; say high or low for {name!r}, which does not hold both"
            )
        return tuple(expert for expert in contents.parts if expert is not None)
    if contents is not None and not contents.changes_for(lora.expert):
        raise ConfigurationInvalid(f"{key}.transformer: {name!r} holds nothing for the {lora.expert.label}")
    return (lora.expert,)
