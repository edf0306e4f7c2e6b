"""Contract testing (property-based, schemathesis): whatever is sent, the API answers as `/openapi.json` says it does.

    python -m tests.contract                               # the API alone, in this process: 300 examples an endpoint
    python -m tests.contract --url http://127.0.0.1:8000   # a running service; what is accepted will be rendered there

Every endpoint gets values that its schema allows, values that it does not, each limit and what lies one beyond it, and
sequences of calls on the same request. No answer may be a 5xx, or have a status, a type, a header or a body that is not
documented. A failure is printed with the `curl` command that shows it again.
"""

import argparse
import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from serve_app.jobs.coordination import dispatcher_of
from serve_app.jobs.schema import migrate
from tests.client import body, pair
from tests.fixtures.api import UNKNOWN, Api, api_over, save_pair
from tests.fixtures.specs import MODEL

_LEASE_S = 3600.0
EXAMPLES = 300
ARGS: dict[str, Any] = {
    "lora_hosts": []
}  # the examples name the Hub, and where that is not reached is a (documented) 503

# A stream of events lasts as long as its request, which may wait forever here: its head and first event are looked at.
_STREAM_EVENTS = 1
# These two answer 503, as documented, where the cluster is away or has only just started.
_MAY_BE_AWAY = ("/health/ready", "/metrics")

# What fits the schemas may still be refused: a model that is not served, a file that is not there.
_NOT_CHECKED = "positive_data_acceptance"


async def try_contract(url: str, examples: int, known: Sequence[str] = ()) -> tuple[bool, str]:
    """Return whether the API at `url` keeps to its description, and what schemathesis prints.

    `known` are ids of requests, to be used beside made-up ones.
    """
    command = (
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--checks", "all", "--exclude-checks", _NOT_CHECKED),
        *("--max-examples", str(examples), "--generation-deterministic", "--continue-on-failure", "--no-color"),
        *("--suppress-health-check", "all"),
    )
    with tempfile.TemporaryDirectory() as directory:  # where it keeps examples
        (Path(directory) / "schemathesis.toml").write_text(_configuration(known))
        process = await asyncio.create_subprocess_exec(
            *command, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        printed, _ = await process.communicate()
    return process.returncode == 0, printed.decode()


def _configuration(known: Sequence[str]) -> str:
    """Return the file of settings; with it, three of four requests get to what lies behind the checks of names."""
    names: dict[str, Sequence[str | int]] = {
        "path.request_id": known or [UNKNOWN],
        "path.index": [0],
        "body.model": [MODEL],
        "body.loras[*].path": [lora["path"] for lora in pair()],
    }
    bounds = f"max-stream-events = {_STREAM_EVENTS}\n"
    away = "".join(
        f"[[operations]]\ninclude-path = {json.dumps(path)}\n"
        'checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]\n'
        for path in _MAY_BE_AWAY
    )
    return (
        bounds
        + away
        + "".join(
            f"[dictionaries.names{number}]\nvalues = {json.dumps(values)}\n"
            f'[parameters."{field}"]\ndictionary = "names{number}"\nprobability = 0.75\n'
            for number, (field, values) in enumerate(names.items())
        )
    )


@asynccontextmanager
async def listening(api: Api) -> AsyncIterator[str]:
    """Serve the API of the tests over a socket, as Serve does; its URL."""
    server = uvicorn.Server(uvicorn.Config(api.app, log_level="error"))
    listener = socket.create_server(("127.0.0.1", 0))  # listens before the server runs, so nobody has to wait for it
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield url
    finally:
        server.should_exit = True
        await serving


async def requests_in_every_state(api: Api, count: int = 20) -> list[str]:
    """Post requests of which some wait, some have their video and some have failed; their ids. A Dispatcher lives."""
    assert await api.store.leadership(dispatcher_of(MODEL)).hold(_LEASE_S, 1)
    ids = [await api.submit(body()) for _ in range(3 * count)]
    for _ in range(count):
        await api.finish(await api.claim())
        await api.fail(await api.claim())
    return ids


@asynccontextmanager
async def _api() -> AsyncIterator[tuple[str, list[str]]]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        save_pair(directory)
        database = f"sqlite:///{directory}/jobs.db"
        migrate(database)
        async with api_over(directory, database, **ARGS) as api, listening(api) as url:
            yield url, await requests_in_every_state(api)


async def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="of a running service")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="for each endpoint")
    wanted = parser.parse_args()
    if wanted.url:
        kept, printed = await try_contract(wanted.url.rstrip("/"), wanted.examples)
    else:
        async with _api() as (url, known):
            kept, printed = await try_contract(url, wanted.examples, known)
    print(printed)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
