"""Model downloads: the files of a card's checkpoints, from the Hugging Face Hub into its cache, resumed and verified.

The Generators load from the same cache, so files that were downloaded before are not downloaded at their start:

    for wanted in checkpoint_files(load_card("wan22_5b")):
        directory = download(wanted, Hub())
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import httpx2
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.file_download import DryRunFileInfo

from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import ModelCard
from serve_app.models.checkpoints.folder import EXPERT_FOLDERS

# What diffusers and transformers load: configurations, safetensors weights and their indexes, tokenizers.
_KINDS = ("*.json", "*.safetensors", "*.model", "*.txt")
_BASE_FOLDERS = ("scheduler", "text_encoder", "tokenizer", "vae")
_SHA256_DIGITS = 64
_GB = 1e9


@dataclass(frozen=True, slots=True)
class RepositoryFiles:
    """Files of one repository on the Hub."""

    repository: str
    patterns: tuple[str, ...]  # of their names, with *


@dataclass(frozen=True, slots=True)
class Hub:
    """The Hub's address and the directory of its cache. None: as the environment variables of huggingface_hub say."""

    endpoint: str | None = None
    cache: Path | None = None
    token: str | None = None


def checkpoint_files(card: ModelCard) -> tuple[RepositoryFiles, ...]:
    """Return the files that a Generator of this model loads, each repository once.

    Parts may lie in repositories of their own (`parts` of the card), and so may the experts (`transformer_model`).
    """
    patterns: dict[str, list[str]] = {}
    if card.parts is None:
        patterns[card.base_model] = ["model_index.json", *_inside(_BASE_FOLDERS)]
    else:
        for part in (card.parts.text_encoder, card.parts.tokenizer, card.parts.vae):
            folders = _KINDS if not part.folder else _inside([part.folder])
            patterns.setdefault(part.checkpoint, []).extend(folders)
    experts = EXPERT_FOLDERS[: len(card.experts)]
    patterns.setdefault(card.transformer_model or card.base_model, []).extend(_inside(experts))
    return tuple(RepositoryFiles(repository, tuple(names)) for repository, names in patterns.items())


def missing(wanted: RepositoryFiles, hub: Hub) -> list[DryRunFileInfo]:
    """Return the files that are not in the cache yet, each with its size in bytes.

    Raises:
        ConfigurationInvalid: the repository does not exist or may not be read, or the Hub does not answer.
    """
    found = _snapshot(wanted, hub, dry_run=True)
    if not isinstance(found, list):
        raise TypeError("a dry run of the Hub returned no list of files")
    return [file for file in found if file.will_download]


def check_repository(arg: str, repository: str, hub: Hub) -> None:
    """Check that a repository is on the Hub, or in its cache where the Hub cannot be reached; within ten seconds.

    Raises:
        ConfigurationInvalid: it is in neither; the message names `arg`.
    """
    try:
        _snapshot(RepositoryFiles(repository, ("model_index.json",)), hub, dry_run=True)
    except ConfigurationInvalid as error:
        raise ConfigurationInvalid(f"{arg}: {error.message}; or name a directory") from error


def download(wanted: RepositoryFiles, hub: Hub) -> Path:
    """Download what is missing, check every file, and return the directory that holds them.

    A download that was interrupted is resumed. Blocking; shows progress on standard error.

    Raises:
        ConfigurationInvalid: the repository cannot be read, there is no room for it, or a file arrived damaged (which
            is then deleted, so that the next call fetches it again).
    """
    _check_room(missing(wanted, hub), hub.cache or Path(constants.HF_HUB_CACHE))
    directory = Path(str(_snapshot(wanted, hub, dry_run=False)))
    for file in _files(directory, wanted.patterns):
        _verify(file, wanted.repository)
    return directory


def _inside(folders: Iterable[str]) -> list[str]:
    return [f"{folder}/{kind}" for folder in folders for kind in _KINDS]


def _snapshot(wanted: RepositoryFiles, hub: Hub, *, dry_run: bool) -> str | list[DryRunFileInfo]:
    name = wanted.repository
    try:
        return snapshot_download(
            name,
            allow_patterns=list(wanted.patterns),
            endpoint=hub.endpoint,
            cache_dir=hub.cache,
            token=hub.token,
            dry_run=dry_run,
        )
    except GatedRepoError as error:
        raise ConfigurationInvalid(
            f"{name}: the Hub denies access; accept its conditions on its page, and set HF_TOKEN to a token of your own"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigurationInvalid(
            f"{name}: there is no such repository on the Hub, or HF_TOKEN may not read it"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        # huggingface_hub then looks in its cache and complains about that; the real reason is the error's cause.
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ConfigurationInvalid(f"{name}: {reason}; run the command again, it goes on where it stopped") from error


def _check_room(files: Iterable[DryRunFileInfo], cache: Path) -> None:
    needed = sum(file.file_size or 0 for file in files)
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ConfigurationInvalid(
            f"{cache}: {needed / _GB:.1f} GB are needed and {free / _GB:.1f} GB are free; make room, or set HF_HOME to "
            "a directory on a larger disk"
        )


def _files(directory: Path, patterns: Iterable[str]) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and any(fnmatch(name, pattern) for pattern in patterns):
            yield path


def _verify(file: Path, repository: str) -> None:
    """Compare a large file with its SHA-256, under which the Hub's cache keeps its bytes."""
    stored = file.resolve()
    if len(stored.name) != _SHA256_DIGITS:
        return  # a small file, kept by git's own hash; its length was checked while it was fetched
    with stored.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != stored.name:
        stored.unlink()
        file.unlink()
        raise ConfigurationInvalid(f"{repository}: {file.name} arrived damaged; run the command again to fetch it anew")
