"""Variants of outputs (lazy, cached): thumbnails and sprite sheets, drawn at the first request and stored afterwards.

Example:
    name = await variants.made(output, Variant.THUMBNAIL, request_id)  # of a file in the output store

Concurrent callers of the same variant share one drawing (single-flight). A process draws two at once; others wait.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import Depends, Request

from serve_app.batching import SharedAnswers
from serve_app.clips import variants as pictures
from serve_app.clips.reading import NotAVideo
from serve_app.errors import OutputGone, OutputNotWritten, OutputStorageUnavailable, RequestNotFound
from serve_app.jobs.records import Output, variant_name
from serve_app.jobs.store import JobStore
from serve_app.outputs import NotAsStored, OutputStore
from serve_app.spec import Variant

_THREADS = 2  # each runs an ffmpeg, too


class _Wanted(NamedTuple):
    request_id: str
    source: str  # its name in the output store
    num_frames: int
    variant: Variant


class Variants:
    """Draws variants. Use it on one event loop."""

    def __init__(self, store: JobStore, outputs: OutputStore) -> None:
        self._store = store
        self._outputs = outputs
        self._threads = ThreadPoolExecutor(_THREADS, "variants")
        self._drawings: SharedAnswers[_Wanted, str] = SharedAnswers(self._made)

    async def made(self, source: Output, variant: Variant, request_id: str) -> str:
        """Return the name of a variant of a video in the output store; draw it if it does not exist yet.

        Raises:
            OutputGone: the video cannot be decoded.
            OutputStorageUnavailable: it cannot be read, or the variant cannot be stored.
            RequestNotFound: the request was deleted meanwhile.
        """
        return await self._drawings.ask(_Wanted(request_id, source.name, source.num_frames, variant))

    async def _made(self, wanted: _Wanted) -> str:
        name = variant_name(wanted.source, wanted.variant)
        try:
            opened = await self._outputs.open(name, None)
        except FileNotFoundError:
            await self._draw(wanted, name)
        except NotAsStored as error:
            raise _gone(wanted, str(error)) from error
        except OSError as error:
            raise OutputStorageUnavailable.of("read", error) from error
        else:
            if opened is not None:
                opened.stream.close()
        return name

    async def _draw(self, wanted: _Wanted, name: str) -> None:
        try:
            path = self._outputs.local_path(wanted.source)
            data = None if path is not None else await self._outputs.read(wanted.source)
            drawn = await asyncio.get_running_loop().run_in_executor(self._threads, _drawn, path, data, wanted)
            with tempfile.TemporaryDirectory() as directory:
                picture = Path(directory, "picture")
                await asyncio.to_thread(picture.write_bytes, drawn)
                await self._outputs.put(name, picture, pictures.MEDIA_TYPE)
        except NotAVideo as error:
            raise _gone(wanted, str(error)) from error
        except OutputNotWritten as error:
            raise OutputStorageUnavailable(
                f"the {wanted.variant.value} cannot be stored now; try again later"
            ) from error
        except OSError as error:
            raise OutputStorageUnavailable.of("read", error) from error
        try:
            await self._store.requests.get(wanted.request_id)
        except RequestNotFound:  # it was deleted meanwhile, so no one would remove the file later
            with contextlib.suppress(OSError):
                await self._outputs.delete([name])
            raise


def _drawn(path: Path | None, data: bytes | None, wanted: _Wanted) -> bytes:
    with _file(path, data) as file:
        return pictures.draw(file, wanted.variant, wanted.num_frames)


@contextlib.contextmanager
def _file(path: Path | None, data: bytes | None) -> Iterator[Path]:
    """Yield the path of a file: the one that there is, or one with these bytes while the block runs."""
    if path is not None:
        yield path
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(data or b"")
        file.flush()
        yield Path(file.name)


def _gone(wanted: _Wanted, reason: str) -> OutputGone:
    return OutputGone(
        f"no {wanted.variant.value} can be made of the video: {reason}; render it again",
        {"request_id": wanted.request_id, "reason": reason},
    )


async def _variants(request: Request) -> Variants:
    variants: Variants = request.app.state.variants
    return variants


VariantsDep = Annotated[Variants, Depends(_variants)]
