"""The asynchronous client: as `Client`, with coroutines (httpx2, asyncio)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from serve_app.api.schemas.answers import Accepted, Deleted, RequestResult, RequestStatus, Video
from serve_app.api.schemas.bodies import InferenceRequest
from serve_app.api.schemas.inspection import Inspection, InspectionRequest
from serve_app.api.schemas.listing import RequestDetails, RequestForecast, RequestList
from serve_app.api.schemas.loras import LoraFile, Loras
from serve_app.api.schemas.service import Health, Models
from serve_app.client import calls
from serve_app.client.calls import Answer, Call, Wanted
from serve_app.client.connection import HEADERS, BearerKey, server_at
from serve_app.client.events import Event, Listening
from serve_app.client.failures import Refusal, failure_of, refusal_of, unreachable
from serve_app.client.partial import PartialFile
from serve_app.client.retries import PATIENCE_S, TIMEOUT, Retries
from serve_app.client.uploads import async_pieces_of
from serve_app.client.waiting import Wait


class AsyncClient:
    """Calls one service. Use it in an `async with` block, which closes its connections.

    Each method does, raises and retries what the method of `Client` with its name does.
    """

    def __init__(
        self,
        server: str,
        key: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        url = server_at(server)
        self._server = str(url)
        self._patience_s = patience_s
        self._http = httpx2.AsyncClient(
            base_url=url, auth=BearerKey(url, key), headers=HEADERS, timeout=TIMEOUT, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(self, body: InferenceRequest, *, idempotency_key: str | None = None) -> Accepted:
        """Queue one video per prompt.

        A key is made when none is given, so that a submit which is retried is one request. Give your own where a
        program that starts again must not render again.
        """
        return await self._call(calls.submit(body, idempotency_key))

    async def render(self, body: InferenceRequest, *, timeout_s: float | None = None) -> RequestResult:
        """Submit, wait for the end and return the result.

        Raises:
            RenderError: the render failed; the class says how, such as OutOfMemory.
            RequestCanceled: somebody canceled it.
            WaitedTooLong: it has not ended within `timeout_s`; it goes on.
        """
        status = await self.wait((await self.submit(body)).request_id, timeout_s=timeout_s)
        failure = failure_of(status)
        if failure is not None:
            raise failure
        return await self.result(status.request_id)

    async def status(self, request_id: str) -> RequestStatus:
        """Return where a request is, and how far."""
        return await self._call(calls.status(request_id))

    async def result(self, request_id: str) -> RequestResult:
        """Return the finished videos of a request; before its end, those that are finished so far."""
        return await self._call(calls.result(request_id))

    async def wait(self, request_id: str, *, timeout_s: float | None = None) -> RequestStatus:
        """Return the status of a request once it has ended, whether it succeeded, failed or was canceled.

        Raises:
            WaitedTooLong: it has not ended within `timeout_s`; it goes on.
        """
        wait = Wait(timeout_s)
        while True:
            status = await self.status(request_id)
            pause_s = wait.pause(status)
            if pause_s is None:
                return status
            await asyncio.sleep(pause_s)

    async def events(self, request_id: str) -> AsyncIterator[Event]:
        """Iterate over the events of a request, from its current state to its end.

        A lost connection is opened again, and continues after the last event that arrived.
        """
        listening = Listening(request_id, Retries(self._patience_s))
        while True:
            try:
                async with self._http.sse(listening.path, headers=listening.headers()) as source:
                    if source.response.is_success:
                        async for sent in source:
                            for event in listening.take(sent):
                                yield event
                            if listening.done:
                                return
                        refusal = listening.cut_off()
                    else:
                        await source.response.aread()
                        refusal = refusal_of(source.response)
            except httpx2.TransportError as fault:
                refusal = unreachable(self._server, fault)
            await asyncio.sleep(listening.retries.pause(refusal))

    async def cancel(self, request_id: str) -> RequestStatus:
        """End a request: queued renders now, running ones at their next step. Idempotent."""
        return await self._call(calls.cancel(request_id))

    async def delete(self, request_id: str) -> Deleted:
        """Remove a request that has ended, with its files."""
        return await self._call(calls.delete(request_id))

    async def details(self, request_id: str) -> RequestDetails:
        """Return a request with all values in effect; its `request`, submitted again, gives the same frames."""
        return await self._call(calls.details(request_id))

    async def list(self, wanted: Wanted = Wanted()) -> RequestList:  # noqa: B008  a frozen value
        """Return a page of requests, the newest first; `next` of the answer is `after` of the next page."""
        return await self._call(calls.page(wanted))

    async def forecast(self, body: InferenceRequest) -> RequestForecast:
        """Return what a request would cost and what it would become; nothing is accepted."""
        return await self._call(calls.forecast(body))

    async def inspect(self, body: InspectionRequest) -> Inspection:
        """Return what LoRA files hold, as the service sees them."""
        return await self._call(calls.inspect(body))

    async def loras(self) -> Loras:
        """Return the LoRA files that requests may name, and which of them are a pair."""
        return await self._call(calls.loras())

    async def upload(self, file: str | Path, path: str, *, overwrite: bool = False) -> LoraFile:
        """Upload a LoRA file of this machine; requests can then name it by `path`.

        Raises:
            LoraInvalid: it is no LoRA that a served model could use.
        """
        source = Path(file)
        size = (await asyncio.to_thread(source.stat)).st_size
        call = calls.upload(path, size, overwrite=overwrite)
        return await self._call(call, source)

    async def models(self) -> Models:
        """Return the models of the service, with their defaults."""
        return await self._call(calls.models())

    async def health(self) -> Health:
        """Return whether renders start."""
        return await self._call(calls.health())

    async def download(self, video: Video, path: str | Path) -> Path:
        """Download a finished video to `path`, resume an interrupted download, and verify the SHA-256.

        Raises:
            DownloadDamaged: what arrived is not what the service has.
            OutputGone, OutputNotFound: the service no longer has it.
        """
        part, retries = PartialFile(video, Path(path)), Retries(self._patience_s)
        while True:
            refusal = None if part.complete else await self._fetch(part, video.url, retries)
            if refusal is None:
                return await asyncio.to_thread(part.keep)
            await asyncio.sleep(retries.pause(refusal))

    async def _fetch(self, part: PartialFile, url: str, retries: Retries) -> Refusal | None:
        try:
            async with self._http.stream("GET", url, headers=part.headers(), follow_redirects=True) as response:
                if not response.is_success:
                    await response.aread()
                    return refusal_of(response)
                await asyncio.to_thread(part.begin, response)
                async for piece in response.aiter_raw():
                    await asyncio.to_thread(part.append, piece)
                    retries.progress()
        except httpx2.TransportError as fault:
            return unreachable(self._server, fault)
        return None

    async def _call(self, call: Call[Answer], file: Path | None = None) -> Answer:
        retries = Retries(self._patience_s)
        while True:
            try:
                content = call.content() if file is None else async_pieces_of(file)
                response = await self._http.request(call.method, call.path, **call.options(), content=content)
            except httpx2.TransportError as fault:
                refusal = unreachable(self._server, fault)
            else:
                if response.is_success:
                    return call.read(response)
                refusal = refusal_of(response)
            await asyncio.sleep(retries.pause(refusal))
