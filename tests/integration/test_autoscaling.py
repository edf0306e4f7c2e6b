"""Generators come with the work and go when there is none; none goes in the middle of a render.

The made-up model renders: its Generators start fast, and its steps take the time that is set here, also on a busy
machine.
"""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest
from sqlalchemy import select

from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import renders
from tests.client import Client
from tests.fixtures.store import connect
from tests.lantern import CARD, ENVIRONMENT, STEP_VARIABLE
from tests.lantern.loras import save_lora
from tests.service_process import OPEN_DASHBOARD, ServiceProcess

MOST = 3
STEP_S = 0.1
SHORT, LONG = 10, 150  # steps: a second; far longer than it takes until idle Generators go
SAMPLE_S = 0.25
WITHIN_S = 60
LORA = "lantern.safetensors"


class Watch:
    """Looks at the Generators and at the store, many times a second."""

    def __init__(self, service: ServiceProcess) -> None:
        self._address = f"{service.dashboard}/api/serve/applications/"
        self._database_url = f"sqlite:///{service.directory}/var/jobs.db"
        self._thread = threading.Thread(target=self._run)
        self._over = threading.Event()
        self.counts: list[int] = []
        self.robbed: list[int] = []  # renders whose Generator was gone while they were under way

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        """Wait until there are that many Generators, whatever state they are in."""
        deadline = time.monotonic() + WITHIN_S
        while self.counts[-1:] != [count]:
            assert time.monotonic() < deadline, self.counts
            time.sleep(SAMPLE_S)

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_S):
            before = self._under_way()
            generators = self._generators()
            after = self._under_way()
            self.counts.append(len(generators))
            # Under way before and after, on the same replica: it was under way in between.
            self.robbed += [render for render, replica in before & after if replica not in generators]

    def _generators(self) -> set[str]:
        answer = httpx.get(self._address, timeout=10).raise_for_status().json()
        generator = answer["applications"]["wan"]["deployments"]["Generator"]
        return {replica["replica_id"] for replica in generator["replicas"]}

    def _under_way(self) -> set[tuple[int, str]]:
        with connect(self._database_url) as connection:
            rows = connection.execute(
                select(renders.c.id, renders.c.replica).where(renders.c.state == RenderState.PROCESSING)
            )
            return {(row.id, row.replica) for row in rows}


@pytest.fixture
def scaling(tmp_path: Path) -> Iterator[ServiceProcess]:
    """Yield a service that scales from none to three, and back sooner than by default."""
    resources = {"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": 2 * MOST})}
    service = ServiceProcess(
        tmp_path,
        {**OPEN_DASHBOARD, **ENVIRONMENT, **resources, STEP_VARIABLE: str(STEP_S)},
        model=str(CARD),
        min_generators=0,
        max_generators=MOST,
        target_wait_s=2,
        downscale_delay_s=5,
    )
    save_lora(tmp_path / "loras" / LORA)
    service.start()
    yield service
    service.kill()


def request(*steps: int) -> dict[str, Any]:
    """Return a request of one render for each number of steps."""
    prompts = [{"prompt": f"lantern {number}", "sample_steps": each} for number, each in enumerate(steps)]
    return {"model": "lantern_1b", "loras": [{"path": LORA}], "prompts": prompts}


def attempts(client: Client, request_id: str) -> list[int]:
    assert client.wait(request_id)["status"] == "succeeded"
    return [prompt["attempt"] for prompt in client.result(request_id)["metadata"]["prompts"]]


def test_generators_follow_the_work_from_none_to_the_most_and_back(scaling: ServiceProcess) -> None:
    with Client(scaling.url) as client, Watch(scaling) as watch:
        watch.wait_for(0)

        # At the end one renders alone, beside idle ones that go.
        burst = client.submit(request(*8 * [SHORT], LONG))
        watch.wait_for(MOST)
        assert attempts(client, burst) == [1] * 9
        watch.wait_for(0)
        assert max(watch.counts) == MOST

        watch.counts.clear()
        assert attempts(client, client.submit(request(SHORT))) == [1]
        watch.wait_for(0)
        assert max(watch.counts) == 1
    assert watch.robbed == []
