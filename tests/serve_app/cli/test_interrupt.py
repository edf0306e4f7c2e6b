"""Ctrl-C: `generate` leaves its request with the service, `grid` cancels what is not finished."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.fixtures.api import Api
from tests.fixtures.loopback import loopback
from tests.serve_app.cli.conftest import SMALL


async def interrupted(api: Api, requests: int, *arguments: str) -> tuple[int, str, set[str]]:
    """Run a command, interrupt it once so many requests wait; its exit code, what it said, and their statuses."""
    async with loopback(api.app) as url:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("wan-lora"), *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, "WAN_SERVER": url},
        )  # fmt: skip
        assert process.stdout is not None
        said = b""
        while said.count(b"in the queue") < requests:  # by then it follows them all
            said += await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = await process.communicate()
    statuses = {(await api.status(request.id))["status"] for request in api.observed.requests}
    return process.returncode or 0, (said + rest).decode(), statuses


@pytest.mark.slow
async def test_generate_leaves_its_request_and_says_how_to_take_it_up(api: Api) -> None:
    code, said, statuses = await interrupted(api, 1, "generate", "a fox", *SMALL)
    assert (code, statuses) == (130, {"in_queue"}), said
    assert f"wan-lora watch {api.observed.requests[0].id}" in said


@pytest.mark.slow
async def test_grid_cancels_its_requests(api: Api, tmp_path: Path) -> None:
    out = tmp_path / "grid.html"
    code, said, statuses = await interrupted(api, 3, "grid", "a fox", "--pair", "wan22_demo", "-o", str(out))
    assert (code, statuses, len(api.observed.requests)) == (130, {"canceled"}, 3), said
    assert not out.exists()
