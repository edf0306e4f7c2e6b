"""Checkpoints that a command line names: a pair by its name on the service, `HIGH,LOW`, or one file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from serve_app.api.schemas.loras import LoraPair
from serve_app.cli.console import UsageError
from serve_app.cli.local_files import lora_path
from serve_app.cli.options import Lora
from serve_app.client import Client, Side

_LISTED = 10  # names in an error


@dataclass(frozen=True)
class Checkpoint:
    """The LoRAs of one moment of a training."""

    name: str
    files: tuple[tuple[str, Side | None], ...]

    def at(self, strength: float) -> list[Lora]:
        """Return its LoRAs at a scale."""
        return [Lora(path, side, strength) for path, side in self.files]


def checkpoints_of(client: Client, texts: Iterable[str]) -> list[Checkpoint]:
    """Return the checkpoints that `--pair` names, in their order; a name without a step stands for all its steps.

    Raises:
        UsageError: the service has no pair of that name.
    """
    pairs: list[LoraPair] | None = None
    found: list[Checkpoint] = []
    for text in texts:
        if "," in text or text.endswith(".safetensors"):
            found.append(_of_files(client, text))
        else:
            pairs = client.loras().pairs if pairs is None else pairs
            found += _of_name(text, pairs)
    return found


def _of_files(client: Client, text: str) -> Checkpoint:
    match [part.strip() for part in text.split(",")]:
        case [only]:
            return Checkpoint(PurePosixPath(only).stem, ((lora_path(client, only), None),))
        case [high, low]:
            files = ((lora_path(client, high), Side.HIGH), (lora_path(client, low), Side.LOW))
            return Checkpoint(PurePosixPath(high).stem, files)
    raise UsageError(f"--pair {text}: write HIGH,LOW, or one file, or the name of a pair")


def _of_name(text: str, pairs: list[LoraPair]) -> list[Checkpoint]:
    name, _, step = text.partition("@")
    named = [pair for pair in pairs if name in (pair.name, PurePosixPath(pair.name).name)]
    wanted = [pair for pair in named if not step or str(pair.step) == step]
    if not wanted:
        known = list(dict.fromkeys(_title(pair) for pair in named or pairs))
        more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
        raise UsageError(f"--pair {text}: the service has {', '.join(known[:_LISTED]) or 'no pairs'}{more}")
    return [Checkpoint(_title(pair), tuple(_files(pair))) for pair in wanted]


def _title(pair: LoraPair) -> str:
    return pair.name if pair.step is None else f"{pair.name}@{pair.step}"


def _files(pair: LoraPair) -> Iterator[tuple[str, Side | None]]:
    if pair.high is not None and pair.low is not None and pair.high.path == pair.low.path:
        yield pair.high.path, None
        return
    for file, side in ((pair.high, Side.HIGH), (pair.low, Side.LOW)):
        if file is not None:
            yield file.path, side
