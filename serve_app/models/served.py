"""The models of one service: each entry of the arg `models`, or the one model of the args, with its card.

Example:
    for model in served_models(Settings.from_args(args)):
        with model.named():  # a ConfigurationInvalid of the block begins with "models[1]."
            check_experts("transformer_model", Path(model.card.base_model), model.card)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import ModelCard, load_card
from serve_app.settings import Settings


@dataclass(frozen=True, slots=True)
class Served:
    """One model of a service."""

    name: str  # of its entry in error messages: "models[1]."; "" where the args mean one model
    settings: Settings  # its own
    card: ModelCard

    @contextmanager
    def named(self) -> Iterator[None]:
        """Put the name of the entry before the key at the beginning of a ConfigurationInvalid's message."""
        with _named(self.name):
            yield


def served_models(settings: Settings) -> tuple[Served, ...]:
    """Return the models that these settings ask for, in their order.

    Raises:
        ConfigurationInvalid: an entry has no valid card, or two have cards with the same id, by which requests name it.
    """
    found: dict[str, Served] = {}
    for index, own in enumerate(settings.each_model()):
        name = f"models[{index}]." if settings.models else ""
        with _named(name):
            card = load_card(own.model)
        if card.id in found:
            raise ConfigurationInvalid(
                f"{name}model: {found[card.id].name}model is '{card.id}', too; give one of them a card file with an id "
                "of its own, by which requests name it"
            )
        found[card.id] = Served(name, own, card)
    return tuple(found.values())


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except ConfigurationInvalid as error:
        raise ConfigurationInvalid(f"{name}{error.message}", error.details) from error
