"""Publishing: frames are encoded and stored, and the end of an attempt is written to the job store.

Every attempt stores its output under its own name, so no attempt can overwrite the output of another one. The job store
then accepts the end only from the holder of the claim (by its fencing token).

Example:
    output = await publisher.store_output(attempt, generated)
    published = await publisher.succeed(claim, output, measurement)  # False: fenced off, nothing was written
"""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

from deployments.attempt import Attempt
from deployments.media.encoding import encode
from deployments.pipeline import Rendered
from deployments.storage_retries import StorageRetries
from serve_app.embedded import settings_text
from serve_app.errors import OutputNotWritten, RenderError, StoreUnavailable
from serve_app.jobs.costs import Measurement
from serve_app.jobs.records import Claim, Output, output_name
from serve_app.jobs.store import JobStore
from serve_app.observers import LoraSource
from serve_app.outputs import Directory, OutputStore
from serve_app.results import ImageUse, LoraUse, RenderMetadata, Timings
from serve_app.spec import RenderSpec
from serve_app.tasks import happened

logger = logging.getLogger("ray.serve.wan")

STORE_RETRY_S = 1.0
_TURN_S = 0.02  # between two checks whether the previous attempt is stored
_ENCODED = "output"  # the name of the encoded file
_SCRATCH_LOOK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Generated:
    """The frames of an attempt, and the seconds that they took the replica."""

    rendered: Rendered
    image: ImageUse | None
    loras: LoraSource
    fetch_s: float  # getting the image and LoRA files
    generate_s: float  # the pipeline as a whole

    @property
    def replica_s(self) -> float:
        """Return the seconds for which the replica could take no other render."""
        return self.fetch_s + self.generate_s

    def timings(self, *, encode_s: float, store_s: float) -> Timings:
        """Return the seconds of every part of the attempt, to a tenth of a millisecond."""
        seconds = {
            "fetch": self.fetch_s,
            "generate": self.generate_s,
            **self.rendered.seconds.model_dump(),
            "encode": encode_s,
            "store": store_s,
        }
        return Timings(**{part: round(value, 4) for part, value in seconds.items()})


class Publisher:
    """Turns finished frames into an output, and writes the end of each attempt."""

    def __init__(self, store: JobStore, outputs: OutputStore, thread: ThreadPoolExecutor, lease_s: float) -> None:
        """Take the stores, the thread that encodes, and `lease_s`, the time for which a pause holds without renewal."""
        self._store = store
        self._outputs = outputs
        self._thread = thread
        self._retries = StorageRetries(store, lease_s)
        self._scratch = Directory(Path(tempfile.gettempdir()))
        self._publishing = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, attempt: Attempt) -> AsyncIterator[None]:
        """Wait until no other attempt is being stored: finished frames must not pile up in memory.

        Raises:
            AttemptAborted: the attempt was told to stop meanwhile.
        """
        while self._publishing.locked() and not await happened(attempt.stopped, _TURN_S):
            attempt.lives()  # the previous attempt may wait for the output store
        attempt.check()
        async with self._publishing:
            attempt.check()
            yield

    async def store_output(self, attempt: Attempt, generated: Generated) -> Output:
        """Encode the frames and store the file under the attempt's own name; see `StorageRetries` for what fails.

        Raises:
            AttemptAborted: the attempt was told to stop before its file was stored.
            OutputNotWritten: the encoder failed, or this file cannot be stored while others can.
        """
        claim, spec, frames = attempt.claim, attempt.claim.spec, generated.rendered.frames
        name = output_name(claim.request_id, claim.index, claim.attempt, spec.output_format)
        started = monotonic()
        scratch = await self._retries.kept(
            attempt,
            partial(self._encoded, generated, spec),
            self._scratch,
            min(frames.nbytes, _SCRATCH_LOOK_BYTES),
        )
        with scratch:
            path, encoded = Path(scratch.name, _ENCODED), monotonic()
            attempt.check()
            put = partial(self._outputs.put, name, path, spec.output_format.media_type)
            kept = await self._retries.kept(attempt, put, self._outputs, (await asyncio.to_thread(path.stat)).st_size)
        timings = generated.timings(encode_s=encoded - started, store_s=monotonic() - encoded)
        count, height, width, _ = frames.shape
        return Output(
            name=name,
            format=spec.output_format,
            width=width,
            height=height,
            num_frames=count,
            fps=spec.fps,
            seed=spec.seed,
            metadata=render_metadata(claim, generated, timings),
            size=kept.size,
            sha256=kept.sha256,
        )

    async def _encoded(self, generated: Generated, spec: RenderSpec) -> "tempfile.TemporaryDirectory[str]":
        """Return a directory with the encoded file. Raise OutputNotWritten."""
        try:
            scratch = tempfile.TemporaryDirectory()
        except OSError as error:
            raise OutputNotWritten(f"there is no room to encode: {error.strerror}") from error
        try:
            path = Path(scratch.name, _ENCODED)
            await asyncio.get_running_loop().run_in_executor(
                self._thread, encode, generated.rendered.frames, spec.fps, spec.output_format, path, settings_text(spec)
            )
        except BaseException:
            scratch.cleanup()
            raise
        return scratch

    async def succeed(self, claim: Claim, output: Output, measured: Measurement) -> bool:
        """Publish the output, and delete files that no request refers to; return False if fenced off (lost lease)."""
        published = await _write(lambda: self._store.claims.succeed(claim, output, measured))
        # Nobody will ever ask for this attempt's file, or for those of attempts that died before they could publish.
        superseded = range(1, claim.attempt) if published else [claim.attempt]
        names = [output_name(claim.request_id, claim.index, attempt, output.format) for attempt in superseded]
        try:
            await self._outputs.delete(names)
        except OSError as error:
            logger.warning("files that no request refers to stay behind: %s: %s", names, error)
        return published

    async def fail(self, claim: Claim, error: RenderError) -> bool:
        """Record a failure; return False if fenced off."""
        return await _write(lambda: self._store.claims.fail(claim, error))

    async def cancel(self, claim: Claim) -> bool:
        """Record the end of a canceled render; return False if fenced off."""
        return await _write(lambda: self._store.claims.cancel(claim))

    async def release(self, claim: Claim, max_attempts: int) -> bool:
        """Give the render to another replica; return False if fenced off."""
        return await _write(lambda: self._store.claims.release(claim, max_attempts))


def render_metadata(claim: Claim, generated: Generated, timings: Timings) -> RenderMetadata:
    """Return the metadata of an output: the request's values, the pipeline's values, and the seconds of each part."""
    spec, made_with = claim.spec, generated.rendered.made_with
    uses = [
        LoraUse(path=lora.reference, **applied.model_dump())
        for lora, applied in zip(spec.acting, made_with.loras, strict=True)
    ]
    return RenderMetadata(
        model=spec.model,
        recipe=made_with.recipe,
        sampler=made_with.sampler,
        shift=made_with.shift,
        boundary_step=made_with.boundary_step,
        acceleration=made_with.acceleration,
        sampler_assumed=spec.sampler_assumed,
        sample_steps=spec.sample_steps,
        guidance_scale=spec.guidance_scale,
        width=spec.width,
        height=spec.height,
        num_frames=spec.num_frames,
        trained_with=spec.trained_with,
        loras=tuple(uses[len(spec.draft) :]),
        draft_loras=tuple(uses[: len(spec.draft)]),
        image=generated.image,
        pair_key=spec.pair_key,
        warnings=tuple(dict.fromkeys((*spec.warnings, *made_with.warnings))),
        attempt=claim.attempt,
        runtime=made_with.runtime,
        timings=timings,
    )


async def _write(write: Callable[[], Awaitable[bool]]) -> bool:
    """Write an end state, and retry while the store does not answer, so that a finished render is not lost.

    Return False if the claim is no longer valid, and nothing was written.
    """
    while True:
        try:
            written = await write()
        except StoreUnavailable as error:
            logger.warning("%s; the end of the render is written when it is back", error)
            await asyncio.sleep(STORE_RETRY_S)
            continue
        if not written:
            logger.warning("a newer attempt holds this render; what this one did is dropped")
        return written
