"""One service of several models, for every test in this folder: each model with its own Generator."""

import json
from collections.abc import Iterator

import pytest

from tests.lantern import CARD, ENVIRONMENT
from tests.service_process import ServiceProcess, write_demo_card

# What comes sooner than that does not come with a heartbeat, nor with a lease that ran out.
HEARTBEAT_S = 60


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """Yield a running service of Wan 2.2 T2V over two processes, of its siblings, and of a made-up model."""
    directory = tmp_path_factory.mktemp("fleet")
    process = ServiceProcess(
        directory,
        {**ENVIRONMENT, "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": 8})},
        models=[
            {"model": str(write_demo_card(directory)), "gpus_per_generator": 2},
            *({"model": name} for name in ("wan22_14b_i2v", "wan22_5b", str(CARD))),
        ],
        heartbeat_s=HEARTBEAT_S,
        lease_s=3 * HEARTBEAT_S,
    )
    process.start()
    yield process
    process.kill()
