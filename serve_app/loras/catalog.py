"""Catalog of `lora_root`: every LoRA file that a request may name by its path, and the pairs among them.

Example:
    catalog = LoraCatalog({"wan22_14b_t2v": card.architecture})
    found = await catalog.listing(View(lora_root))
    found.files, found.pairs

A header is read once for each `stat` signature of its file, in the catalog's own thread. Concurrent callers share one
listing (single-flight).
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from serve_app.batching import SharedAnswers
from serve_app.caching import FileSignature, SingleFlightCache
from serve_app.loras.formats.bounds import DEFAULT_HEADER_BYTES
from serve_app.loras.formats.glance import Glance, SideOfFile, glance
from serve_app.loras.pairs import Half, Pair, pairs
from serve_app.loras.sides import side_of
from serve_app.loras.tree import Entry, files_under
from serve_app.models.architecture import WanArchitecture
from serve_app.spec import Expert

logger = logging.getLogger("ray.serve.wan")

MOST_FILES = 10_000
_REMEMBERED = 20_000  # glances, of a few hundred bytes each
_ENDING = ".safetensors"
_AT_REST_S = 2.0  # within one tick of a file system's clock a file can change and keep its signature


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file under the root. `size` is bytes, `modified_at` seconds since the epoch."""

    path: str
    size: int
    modified_at: float
    side: SideOfFile | None
    seen: Glance

    @property
    def name(self) -> str:
        """Return the name of the training if the metadata has one, else the name of the file."""
        return next(iter(self.seen.provenance.names), self.path.rpartition("/")[2].removesuffix(_ENDING))


@dataclass(frozen=True, slots=True)
class View:
    """The part of `root` that one sender sees: all of it or, with `own`, its own folder and everything that is shared.

    Paths in `own` are relative to `own`, as in requests. Folders of other tenants are left out.
    """

    root: Path
    own: PurePosixPath | None = None

    def entries(self) -> Iterator[Entry]:
        """Yield the files of LoRAs. Raises OSError."""
        root = self.root.resolve()
        if self.own is None:
            yield from files_under(root, _ENDING)
            return
        if (root / self.own).is_dir():
            yield from files_under(root / self.own, _ENDING)
        beside = self.own.parts[0]
        yield from (entry for entry in files_under(root, _ENDING) if not entry.path.startswith(f"{beside}/"))


@dataclass(frozen=True, slots=True)
class Listing:
    """All files by their paths, and the pairs among them. `cut` is true if not all files are listed."""

    files: Mapping[str, ListedFile]
    pairs: tuple[Pair, ...]
    cut: bool


class LoraCatalog:
    """Lists folders of LoRA files. Use it on one event loop."""

    def __init__(self, models: Mapping[str, WanArchitecture], most_header_bytes: int = DEFAULT_HEADER_BYTES) -> None:
        """`models` are the served ones, by their ids."""
        self._models = models
        self._most_header_bytes = most_header_bytes
        self._seen: SingleFlightCache[FileSignature, Glance] = SingleFlightCache(_REMEMBERED)
        self._thread = ThreadPoolExecutor(1, "lora-catalog")
        self._listings: SharedAnswers[View, Listing] = SharedAnswers(self._list)

    async def listing(self, view: View) -> Listing:
        """Return the files that a sender sees under the root; unreadable ones are left out.

        Raises:
            OSError: the root itself cannot be read.
        """
        return await self._listings.ask(view)

    async def file(self, root: Path, path: str) -> ListedFile:
        """Return one file. Raises OSError."""
        place = root / path
        return await asyncio.to_thread(lambda: self._file(place, path, place.stat()))

    async def _list(self, view: View) -> Listing:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._listed, view)

    def _listed(self, view: View) -> Listing:
        files: dict[str, ListedFile] = {}
        for entry in view.entries():
            if entry.path in files:  # a tenant's own file hides a shared one with the same path
                continue
            if len(files) == MOST_FILES:
                return Listing(files, _pairs(files), cut=True)
            try:
                files[entry.path] = self._file(entry.place, entry.path, entry.place.stat())
            except OSError as error:
                logger.info("a LoRA file is left out of the list: %s", error)
        return Listing(files, _pairs(files), cut=False)

    def _file(self, place: Path, path: str, status: os.stat_result) -> ListedFile:
        signature = FileSignature.of_status(status)
        seen = self._seen.get(
            signature,
            lambda: glance(place, self._models, self._most_header_bytes),
            keep=lambda _: signature.rested_s >= _AT_REST_S,
        )
        return ListedFile(path, status.st_size, status.st_mtime, _side(path, seen), seen)


def _side(path: str, seen: Glance) -> SideOfFile | None:
    if seen.side is not None:
        return seen.side
    spoken = (side for name in (path, *seen.provenance.names) if (side := side_of(name)) is not None)
    said = next(spoken, None)
    return None if said is None else "high" if said is Expert.HIGH else "low"


def _pairs(files: Mapping[str, ListedFile]) -> tuple[Pair, ...]:
    experts = {"high": Expert.HIGH, "low": Expert.LOW, "both": None}
    return tuple(
        pairs(
            Half(file.path, experts[file.side], file.seen.provenance.step)
            for file in files.values()
            if file.side is not None
        )
    )
