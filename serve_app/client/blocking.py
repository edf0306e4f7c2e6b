"""The synchronous client: the API's calls as methods, with retries (httpx2)."""

import time
from collections.abc import Iterator
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
from serve_app.client.uploads import pieces_of
from serve_app.client.waiting import Wait


class Client:
    """Calls one service. Use it in a `with` block, which closes its connections.

    Every call is retried while the server is unreachable or busy, for up to `patience_s` seconds. Then it raises one of
    the service's own errors (`serve_app.errors`: LoraNotFound, QueueFull, ...) or ServerUnreachable.
    """

    def __init__(
        self,
        server: str,
        key: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        url = server_at(server)
        self._server = str(url)
        self._patience_s = patience_s
        self._http = httpx2.Client(
            base_url=url, auth=BearerKey(url, key), headers=HEADERS, timeout=TIMEOUT, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, body: InferenceRequest, *, idempotency_key: str | None = None) -> Accepted:
        """Queue one video per prompt.

        A key is made when none is given, so that a submit which is retried is one request. Give your own where a
        program that starts again must not render again.
        """
        return self._call(calls.submit(body, idempotency_key))

    def render(self, body: InferenceRequest, *, timeout_s: float | None = None) -> RequestResult:
        """Submit, wait for the end and return the result.

        Raises:
            RenderError: the render failed; the class says how, such as OutOfMemory.
            RequestCanceled: somebody canceled it.
            WaitedTooLong: it has not ended within `timeout_s`; it goes on.
        """
        status = self.wait(self.submit(body).request_id, timeout_s=timeout_s)
        failure = failure_of(status)
        if failure is not None:
            raise failure
        return self.result(status.request_id)

    def status(self, request_id: str) -> RequestStatus:
        """Return where a request is, and how far."""
        return self._call(calls.status(request_id))

    def result(self, request_id: str) -> RequestResult:
        """Return the finished videos of a request; before its end, those that are finished so far."""
        return self._call(calls.result(request_id))

    def wait(self, request_id: str, *, timeout_s: float | None = None) -> RequestStatus:
        """Return the status of a request once it has ended, whether it succeeded, failed or was canceled.

        Raises:
            WaitedTooLong: it has not ended within `timeout_s`; it goes on.
        """
        wait = Wait(timeout_s)
        while True:
            status = self.status(request_id)
            pause_s = wait.pause(status)
            if pause_s is None:
                return status
            time.sleep(pause_s)

    def events(self, request_id: str) -> Iterator[Event]:
        """Iterate over the events of a request, from its current state to its end.

        A lost connection is opened again, and continues after the last event that arrived.
        """
        listening = Listening(request_id, Retries(self._patience_s))
        while True:
            try:
                with self._http.sse(listening.path, headers=listening.headers()) as source:
                    if source.response.is_success:
                        for sent in source:
                            yield from listening.take(sent)
                            if listening.done:
                                return
                        refusal = listening.cut_off()
                    else:
                        source.response.read()
                        refusal = refusal_of(source.response)
            except httpx2.TransportError as fault:
                refusal = unreachable(self._server, fault)
            time.sleep(listening.retries.pause(refusal))

    def cancel(self, request_id: str) -> RequestStatus:
        """End a request: queued renders now, running ones at their next step. Idempotent."""
        return self._call(calls.cancel(request_id))

    def delete(self, request_id: str) -> Deleted:
        """Remove a request that has ended, with its files."""
        return self._call(calls.delete(request_id))

    def details(self, request_id: str) -> RequestDetails:
        """Return a request with all values in effect; its `request`, submitted again, gives the same frames."""
        return self._call(calls.details(request_id))

    def list(self, wanted: Wanted = Wanted()) -> RequestList:  # noqa: B008  a frozen value
        """Return a page of requests, the newest first; `next` of the answer is `after` of the next page."""
        return self._call(calls.page(wanted))

    def forecast(self, body: InferenceRequest) -> RequestForecast:
        """Return what a request would cost and what it would become; nothing is accepted."""
        return self._call(calls.forecast(body))

    def inspect(self, body: InspectionRequest) -> Inspection:
        """Return what LoRA files hold, as the service sees them."""
        return self._call(calls.inspect(body))

    def loras(self) -> Loras:
        """Return the LoRA files that requests may name, and which of them are a pair."""
        return self._call(calls.loras())

    def upload(self, file: str | Path, path: str, *, overwrite: bool = False) -> LoraFile:
        """Upload a LoRA file of this machine; requests can then name it by `path`.

        Raises:
            LoraInvalid: it is no LoRA that a served model could use.
        """
        source = Path(file)
        call = calls.upload(path, source.stat().st_size, overwrite=overwrite)
        return self._call(call, source)

    def models(self) -> Models:
        """Return the models of the service, with their defaults."""
        return self._call(calls.models())

    def health(self) -> Health:
        """Return whether renders start."""
        return self._call(calls.health())

    def download(self, video: Video, path: str | Path) -> Path:
        """Download a finished video to `path`, resume an interrupted download, and verify the SHA-256.

        Raises:
            DownloadDamaged: what arrived is not what the service has.
            OutputGone, OutputNotFound: the service no longer has it.
        """
        part, retries = PartialFile(video, Path(path)), Retries(self._patience_s)
        while True:
            refusal = None if part.complete else self._fetch(part, video.url, retries)
            if refusal is None:
                return part.keep()
            time.sleep(retries.pause(refusal))

    def _fetch(self, part: PartialFile, url: str, retries: Retries) -> Refusal | None:
        try:
            with self._http.stream("GET", url, headers=part.headers(), follow_redirects=True) as response:
                if not response.is_success:
                    response.read()
                    return refusal_of(response)
                part.begin(response)
                for piece in response.iter_raw():
                    part.append(piece)
                    retries.progress()
        except httpx2.TransportError as fault:
            return unreachable(self._server, fault)
        return None

    def _call(self, call: Call[Answer], file: Path | None = None) -> Answer:
        retries = Retries(self._patience_s)
        while True:
            try:
                content = call.content() if file is None else pieces_of(file)
                response = self._http.request(call.method, call.path, **call.options(), content=content)
            except httpx2.TransportError as fault:
                refusal = unreachable(self._server, fault)
            else:
                if response.is_success:
                    return call.read(response)
                refusal = refusal_of(response)
            time.sleep(retries.pause(refusal))
