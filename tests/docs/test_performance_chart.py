"""The chart in docs/performance.md shows the figures of the tables there."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_it_is_drawn_from_the_tables() -> None:
    draw = runpy.run_path(str(DOCS / "performance_chart.py"))["chart"]
    page = (DOCS / "performance.md").read_text()
    drawn = (DOCS / "performance.svg").read_text()
    assert draw(page) == drawn, "run python docs/performance_chart.py"
    assert draw(page.replace("10.8 s", "20.8 s")) != drawn
