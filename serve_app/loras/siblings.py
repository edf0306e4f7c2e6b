"""Which other model of the service would take a LoRA file that one of them refuses (a hint for the client).

Example:
    with Siblings([card_of_ti2v]).asked_about(path, name):
        ...    # LoraInvalid: "...; it fits Wan 2.2 TI2V 5B, which this service serves too: send model: wan22_5b, ..."
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serve_app.caching import FileSignature, SingleFlightCache
from serve_app.errors import LoraInvalid
from serve_app.loras.formats import SafetensorsHeader, parse, read_header
from serve_app.loras.formats.bounds import DEFAULT_HEADER_BYTES
from serve_app.models.card import ModelCard

_REMEMBERED = 512


class Siblings:
    """The other models of a service. Thread-safe; it blocks, so call it in a thread."""

    def __init__(self, cards: Sequence[ModelCard] = (), most_header_bytes: int = DEFAULT_HEADER_BYTES) -> None:
        self._cards = tuple(cards)
        self._most_header_bytes = most_header_bytes
        self._takers: SingleFlightCache[Hashable, tuple[ModelCard, ...]] = SingleFlightCache(_REMEMBERED)

    @contextmanager
    def asked_about(self, path: Path, name: str) -> Iterator[None]:
        """Add a hint to a LoraInvalid of the block, which reads the file at `path`: the models that would accept it."""
        try:
            yield
        except LoraInvalid as error:
            raise self.hinted(error, path, lambda: read_header(path, name, self._most_header_bytes)) from error

    def hinted(self, error: LoraInvalid, content: Path | str, header: Callable[[], SafetensorsHeader]) -> LoraInvalid:
        """Return `error` with a hint at the models that would accept the file by its names and shapes.

        Return `error` itself if there are none. `content` identifies the file, and `header` reads its header. The
        details get `models`, the ids.
        """
        takers = self._find(content, header) if self._cards else ()
        if not takers:
            return error
        fits = " and ".join(card.title for card in takers)
        advice = " or ".join(_advice(card) for card in takers)
        hint = f"it fits {fits}, which this service serves too: send {advice}"
        return LoraInvalid(f"{error.message}; {hint}", {**error.details, "models": [card.id for card in takers]})

    def _find(self, content: Path | str, header: Callable[[], SafetensorsHeader]) -> tuple[ModelCard, ...]:
        try:
            key = FileSignature.of(content) if isinstance(content, Path) else content
            return self._takers.get(key, lambda: tuple(card for card in self._cards if _takes(card, header())))
        except (LoraInvalid, OSError):  # no model accepts a file that is no LoRA at all
            return ()


NO_SIBLINGS = Siblings()


def _takes(card: ModelCard, header: SafetensorsHeader) -> bool:
    try:
        parts = parse(header, card.architecture, "").parts
    except LoraInvalid:
        return False
    return card.is_pair or None in parts


def _advice(card: ModelCard) -> str:
    return f"model: {card.id}" + ("" if card.is_pair else ", without `transformer`")
