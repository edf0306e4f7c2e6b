"""Commands about requests that were accepted: `status`, `watch`, `cancel`, `delete`, `list`."""

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from serve_app.api.schemas.answers import API_STATUS, RequestStatus
from serve_app.cli.bundles import bundled
from serve_app.cli.console import Exit, JsonOption, print_json, reporting, say, show, table
from serve_app.cli.progress import Bars, note_of
from serve_app.cli.server import Service
from serve_app.client import Client, Done, Wanted
from serve_app.client.events import as_json as event_json
from serve_app.client.failures import failure_of

app = typer.Typer()


class StatusWord(StrEnum):
    """The API's words for states, as a type that typer knows."""

    IN_QUEUE = "in_queue"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


_STATES = {StatusWord(word): state for state, word in API_STATUS.items()}

RequestArgument = Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the request.")]
RequestsArgument = Annotated[list[str], typer.Argument(metavar="REQUEST...", help="Ids of requests.")]


@app.command(epilog="Example: wan-lora status b3e6e2e0-5d0c-4c3e-9d38-0d3f7f6a4b11")
@reporting
@bundled
def status(
    request: RequestArgument,
    *,
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """Show how far a request is; ends with 1 where it failed or was canceled."""
    with service.connect() as client:
        found = client.status(request)
    _show([found], as_json)
    _end(found, as_json)


@app.command(epilog="Example: wan-lora watch b3e6e2e0-5d0c-4c3e-9d38-0d3f7f6a4b11")
@reporting
@bundled
def watch(
    request: RequestArgument,
    *,
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """Show a request live until it ends; with --json one line for each event. A lost connection is taken up again."""
    with service.connect() as client:
        final = _lines(client, request) if as_json else _bar(client, request)
    _end(final, as_json)


@app.command(epilog="Example: wan-lora cancel b3e6e2e0-5d0c-4c3e-9d38-0d3f7f6a4b11")
@reporting
@bundled
def cancel(
    requests: RequestsArgument,
    *,
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """End requests: queued renders now, running ones at their next step."""
    with service.connect() as client:
        _show([client.cancel(request) for request in requests], as_json)


@app.command(epilog="Example: wan-lora delete b3e6e2e0-5d0c-4c3e-9d38-0d3f7f6a4b11")
@reporting
@bundled
def delete(
    requests: RequestsArgument,
    *,
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """Remove requests that have ended, with their files on the service."""
    with service.connect() as client:
        deleted = [client.delete(request) for request in requests]
    if as_json:
        print_json({"deleted": [one.request_id for one in deleted]})
    else:
        for one in deleted:
            typer.echo(f"{one.request_id} deleted")


@app.command(name="list", epilog="Example: wan-lora list --status failed --text fox")
@reporting
@bundled
def list_requests(
    *,
    status: Annotated[
        list[StatusWord] | None, typer.Option("--status", help="With this status; may be repeated.")
    ] = None,
    pair: Annotated[str | None, typer.Option("--pair", help="Of this pair key, as results have it.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="With this in a prompt.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Of this model.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="At most so many.")] = 20,
    after: Annotated[str | None, typer.Option("--after", help="The `next` of the list before.")] = None,
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """List requests, the newest first."""
    wanted = Wanted(
        status=[API_STATUS[_STATES[word]] for word in status or ()],
        pair=pair,
        text=text,
        model=model,
        limit=limit,
        after=after,
    )
    with service.connect() as client:
        page = client.list(wanted)
    if as_json:
        print_json(page)
        return
    rows = table("request", "status", "created (UTC)", "prompt")
    for one in page.requests:
        prompts = [prompt.prompt for prompt in one.prompts]
        more = f" (and {len(prompts) - 1} more)" if len(prompts) > 1 else ""
        rows.add_row(one.request_id, note_of(one), _minute(one.created_at), escape(prompts[0] + more))
    show(rows)
    if page.next is not None:
        say(f"there are more: --after {page.next}")


def _minute(timestamp: str) -> str:
    """Return an RFC 3339 time as people write it, in UTC as the service has it."""
    return timestamp[:16].replace("T", " ")


def _show(found: Iterable[RequestStatus], as_json: bool) -> None:
    if as_json:
        print_json({"requests": [one.model_dump(mode="json") for one in found]})
        return
    rows = table("request", "model", "status", "progress", "created (UTC)")
    for one in found:
        rows.add_row(one.request_id, escape(one.model), note_of(one), f"{one.progress:.0%}", _minute(one.created_at))
    show(rows)


def _bar(client: Client, request: str) -> RequestStatus:
    with Bars() as bars:
        bar = bars.add(request[:8])
        for event in client.events(request):
            bar.show(event)
    return event.status if isinstance(event, Done) else client.status(request)


def _lines(client: Client, request: str) -> RequestStatus:
    for event in client.events(request):
        typer.echo(json.dumps(event_json(event)))
    return event.status if isinstance(event, Done) else client.status(request)


def _end(status: RequestStatus, as_json: bool) -> None:
    """End with 1 where the request failed or was canceled; for people, with the reason."""
    failure = failure_of(status)
    if failure is None:
        return
    if not as_json:
        raise failure
    raise typer.Exit(Exit.FAILED)
