"""Log lines say which render they are about, as fields of JSON, and show at the terminal where Serve is kept off it."""

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from io import StringIO

import pytest
from ray._common.formatters import JSONFormatter  # what Serve formats its files with

from deployments.observability.journal import RenderLog
from serve_app.errors import OutOfMemory
from serve_app.jobs.records import Claim
from serve_app.logs import LOGGER, QUIET_VARIABLE, about, configure_logging
from serve_app.observers import End, Outcome
from tests.fixtures.specs import make_spec

CLAIM = Claim(render_id=7, request_id="b3e6", index=0, attempt=2, token="secret", spec=make_spec(prompt="a red fox"))


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """Yield the service's logger, as a new process has it."""
    logger = logging.getLogger(LOGGER)
    filters, handlers, level = logger.filters[:], logger.handlers[:], logger.level
    logger.filters, logger.handlers = [], []
    logger.setLevel(logging.INFO)
    yield logger
    logger.filters, logger.handlers = filters, handlers
    logger.setLevel(level)


async def test_a_line_about_a_render_has_its_fields_also_from_tasks_and_threads(logger: logging.Logger) -> None:
    configure_logging()
    written = StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JSONFormatter())
    logger.addHandler(handler)

    async def in_a_task() -> None:
        logger.info("in a task")

    with about(CLAIM):
        await asyncio.create_task(in_a_task())
        await asyncio.to_thread(logger.info, "in a thread")
        RenderLog().ended(CLAIM, Outcome(End.FAILED, OutOfMemory("it does not fit", {}), replica_s=1.5))
    logger.info("about nothing")
    *of_render, other = [json.loads(line) for line in written.getvalue().splitlines()]
    for line in of_render:
        assert (line["request"], line["render"], line["attempt"]) == ("b3e6", 7, 2)
    assert "render" not in other
    assert of_render[-1]["message"] == "render 0 of request b3e6 failed in 1.5 s: OUT_OF_MEMORY: it does not fit"
    assert "fox" not in written.getvalue()
    assert "secret" not in written.getvalue()


@pytest.mark.parametrize(("variable", "shown"), [("0", "INFO hello\n"), ("1", "")])
def test_what_the_service_says_is_shown_where_serve_is_not(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, variable: str, shown: str
) -> None:
    terminal = StringIO()
    monkeypatch.setattr(sys, "__stderr__", terminal)
    monkeypatch.setenv(QUIET_VARIABLE, variable)
    configure_logging()
    configure_logging()  # an actor's process may hold two actors
    logger.info("hello")
    assert terminal.getvalue() == shown
