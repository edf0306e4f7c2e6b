"""Puts the LoRAs of a render where its pipeline can read them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pydantic import SecretStr

from serve_app.errors import LoraInvalid, LoraNotFetched, LoraNotFound, LoraPathRefused, LoraSourceUnavailable
from serve_app.loras.library import LoraLibrary
from serve_app.loras.sources import LoraSources, is_remote
from serve_app.spec import LoraFile, RenderSpec

_NOT_FETCHED = (LoraInvalid, LoraNotFound, LoraPathRefused, LoraSourceUnavailable)


class LocalLoras:
    """Downloads what is not here yet. Thread-safe; it blocks, so call it in a thread."""

    def __init__(self, library: LoraLibrary, sources: LoraSources) -> None:
        self._library = library
        self._sources = sources

    @contextmanager
    def localised(self, spec: RenderSpec, token: SecretStr | None) -> Iterator[RenderSpec]:
        """`spec` with every LoRA a checked local file, kept on the disk while the block runs.

        Raises:
            LoraNotFetched: a download failed, or what came is not a usable LoRA.
            LoraChanged: the file behind the address is no longer the one that was accepted.
        """
        with ExitStack() as held:
            yield spec.model_copy(update={"loras": tuple(self._local(lora, spec, token, held) for lora in spec.loras)})

    def _local(self, lora: LoraFile, spec: RenderSpec, token: SecretStr | None, held: ExitStack) -> LoraFile:
        if not is_remote(lora.location):
            return lora
        secret = None if token is None else token.get_secret_value()
        try:
            fetched = held.enter_context(self._sources.fetch(lora, secret))
            checked = self._library.check(fetched.path, lora.reference, strict=spec.strict)
        except _NOT_FETCHED as error:
            details = {"path": lora.reference, "transformer": lora.expert.value, "reason": error.code}
            raise LoraNotFetched(
                f"{error.message}; the render was accepted on the file's header alone", details
            ) from error
        return lora.model_copy(update={"location": str(fetched.path), "sha256": checked.sha256})
