"""`make soak`: mixed load with cancels, failures, deletions and retention on, while every process is measured.

    python -m tests.soak [--minutes 30] [--clients 6]

Prints the slopes of memory and file descriptors of each process, and of what lies in the store and in directories, and
last one line of JSON. Its exit status says whether a render was lost or doubled. How steep a slope may be is for the
reader: a cache that fills has one, too.
"""

import argparse
import json
import logging
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.soak.run import Report, soak
from tests.soak.slopes import Trend

_MIB = 2**20


def main() -> None:
    """Soak, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=6)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory() as directory:
        report = soak(Path(directory), seconds=options.minutes * 60, clients=options.clients)
    _print(report)
    sys.exit(0 if report.tally.is_whole else 1)


def _print(report: Report) -> None:
    console = Console(width=140)
    processes = Table("process", "pid", "USS first, MiB", "last", "MiB an hour", "files first", "last", "files an hour")
    for process in report.processes:
        processes.add_row(process.name, str(process.pid), *_trend(process.uss, _MIB), *_trend(process.descriptors, 1))
    console.print(processes)
    places = Table("place", "first", "last", "largest", "an hour")
    for place in report.places:
        trend = place.trend
        places.add_row(place.name, *(f"{each:,.0f}" for each in (trend.first, trend.last, trend.largest, trend.hourly)))
    console.print(places)
    console.print(str(report.tally))
    print(json.dumps({"benchmark": "soak", **asdict(report)}))


def _trend(trend: Trend, unit: int) -> tuple[str, str, str]:
    return f"{trend.first / unit:,.1f}", f"{trend.last / unit:,.1f}", f"{trend.hourly / unit:+,.1f}"


if __name__ == "__main__":
    main()
