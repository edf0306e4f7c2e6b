"""Which LoRA pairs a Generator could render without loading anything."""

from collections.abc import Mapping
from typing import Any


class ResidentPairs:
    """Follows the pipeline's reports: it keeps single LoRAs, while routing goes by pairs."""

    def __init__(self) -> None:
        self._loras: dict[str, frozenset[str | None]] = {}  # of each pair, the most recently rendered last
        self._resident: frozenset[str | None] = frozenset()
        self._loaded: str | None = None

    def rendered(self, pair_key: str, report: Mapping[str, Any]) -> None:
        """A render of that pair gave frames; `report` is the pipeline's."""
        self._resident = frozenset(lora["sha256"] for lora in report["resident"])
        self._loras.pop(pair_key, None)
        self._loras[pair_key] = frozenset(lora["sha256"] for lora in report["loras"])
        self._loras = {pair: loras for pair, loras in self._loras.items() if loras <= self._resident}
        self._loaded = pair_key

    @property
    def keys(self) -> tuple[str, ...]:
        """Pair keys, the loaded one first, then by how recently they were rendered."""
        recent = [pair for pair in reversed(self._loras) if pair != self._loaded]
        return tuple(recent if self._loaded is None else [self._loaded, *recent])
