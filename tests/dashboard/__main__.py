"""Make docs/dashboard.svg: a real Prometheus scrapes a service under load, and answers the dashboard's questions.

    make soak                                                       # in one window; it names the address
    python -m tests.dashboard http://127.0.0.1:23456 [--minutes 10]  # in another one

It needs prometheus (Debian: apt-get install prometheus). The panels are drawn here and not by Grafana, which neither
Debian nor a package registry brings. The key is that of the soak test, or what WAN_ADMIN_KEY says.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.dashboard.drawing import dashboard_svg
from tests.dashboard.panels import Span, answers, read_panels
from tests.fixtures.keys import ADMIN_KEY
from tests.fixtures.prometheus import running_prometheus

_PICTURE = Path(__file__).parents[2] / "docs" / "dashboard.svg"
_POINTS = 60  # of a line


def main() -> None:
    """Scrape, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of a service under load")
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    _PICTURE.write_text(_picture(options.url, os.environ.get("WAN_ADMIN_KEY", ADMIN_KEY), options.minutes * 60))
    sys.stdout.write(f"wrote {_PICTURE.name}\n")


def _picture(url: str, key: str, seconds: float) -> str:
    with tempfile.TemporaryDirectory() as directory, running_prometheus(Path(directory), url, key) as prometheus:
        start = time.time()
        time.sleep(seconds)
        span = Span(start, start + seconds, seconds / _POINTS)
        return dashboard_svg([(panel, answers(prometheus, panel, span)) for panel in read_panels()], span)


if __name__ == "__main__":
    main()
