"""How long the device of a warm Generator idles between two renders while others wait.

    python -m tests.benchmarks.render_gap [--renders 40]

All renders are equal and come in one request, to a service of its own with one Generator. The gap is the time from one
claim to the next less the time in which the first one fetched and generated, by the server's own figures; encoding and
storing overlap with the next render. Prints the percentiles and, last, one line of JSON.
"""

import argparse
import itertools
import json
import os
import platform
import tempfile
from pathlib import Path

from sqlalchemy import select

from serve_app.jobs.records import Output
from serve_app.jobs.tables import renders
from tests.benchmarks.http_load import milliseconds
from tests.client import Client, body
from tests.fixtures.store import connect
from tests.service_process import ServiceProcess

STEPS = 10


def gaps(database_url: str, request_id: str) -> list[float]:
    """Seconds between the renders of one request."""
    query = select(renders.c.started_at, renders.c.output).where(renders.c.request_id == request_id)
    with connect(database_url) as connection:
        rows = connection.execute(query.order_by(renders.c.started_at)).all()
    timings = [Output.model_validate_json(row.output).metadata.timings for row in rows]
    free = [row.started_at + used.fetch + used.generate for row, used in zip(rows, timings, strict=True)]
    return [later.started_at - end for end, (_, later) in zip(free, itertools.pairwise(rows), strict=False)]


def measure(count: int) -> list[float]:
    with tempfile.TemporaryDirectory() as directory:
        service = ServiceProcess(Path(directory))
        service.start()
        try:
            with Client(service.url) as client:
                client.render(body())  # warm-up: the pair is loaded
                request_id = client.submit(body(*({"sample_steps": STEPS, "seed": seed} for seed in range(count))))
                assert client.wait(request_id, timeout_s=10 * count)["status"] == "succeeded"
        finally:
            service.stop()
        return gaps(f"sqlite:///{directory}/var/jobs.db", request_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=40)
    options = parser.parse_args()
    measured = measure(options.renders)
    row = {"renders": options.renders, **{f"gap_p{p}_ms": milliseconds(measured, p) for p in (50, 95)}}
    print("  ".join(f"{column:>12}" for column in row))
    print("  ".join(f"{value:>12}" for value in row.values()))
    setting = {"cores": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps({"benchmark": "render_gap", "setting": setting, "rows": [row]}))


if __name__ == "__main__":
    main()
