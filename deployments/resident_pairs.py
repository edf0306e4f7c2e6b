"""Which LoRA pairs a Generator could render without loading anything."""

from serve_app.spec import RenderSpec


class ResidentPairs:
    """Follows the pipeline's residency: it keeps single LoRAs, while routing goes by pairs."""

    def __init__(self) -> None:
        self._loras: dict[str, frozenset[str]] = {}  # content ids of each pair, the most recently rendered last
        self._loaded: str | None = None

    def rendered(self, spec: RenderSpec, resident: frozenset[str]) -> None:
        """Note that `spec` gave frames, after which the LoRAs of these content ids are `resident`."""
        self._loaded = spec.pair_key
        self._loras.pop(spec.pair_key, None)
        self._loras[spec.pair_key] = frozenset(lora.content for lora in spec.loras)
        self._loras = {pair: loras for pair, loras in self._loras.items() if loras <= resident}

    @property
    def keys(self) -> tuple[str, ...]:
        """Pair keys, the loaded one first, then by how recently they were rendered."""
        recent = [pair for pair in reversed(self._loras) if pair != self._loaded]
        return tuple(recent if self._loaded is None else [self._loaded, *recent])
