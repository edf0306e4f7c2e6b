"""Make docs/performance.svg from the tables in docs/performance.md. Run it as `python docs/performance_chart.py`."""

from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
STEPS = 25
SIZES = ("832x480x41", "1024x1024x41")

_LABELS, _WIDTH, _BAR, _GAP = 230, 860, 22, 8  # pixels
_COLOURS = {"exact": "#9fa8da", "fast": "#5c6bc0", "cards": "#ef6c00"}


def main() -> None:
    """Write the chart."""
    (DOCS / "performance.svg").write_text(chart((DOCS / "performance.md").read_text()))


def chart(page: str) -> str:
    """Return the chart, SVG, of what the tables in `page` say of a video of `STEPS` steps."""
    groups = {size: _seconds(page, size) for size in SIZES}
    longest = max(seconds for rows in groups.values() for _, _, seconds in rows)
    scale = (_WIDTH - _LABELS - 90) / longest
    parts, y = [], 50
    for size, rows in groups.items():
        parts.append(f'<text class="size" x="20" y="{y}">{size}</text>')
        y += 12
        for label, colour, seconds in rows:
            parts.append(_bar(label, _COLOURS[colour], seconds, y, seconds * scale))
            y += _BAR + _GAP
        y += 32
    return _document("\n".join(parts), y - 12)


def _seconds(page: str, size: str) -> list[tuple[str, str, float]]:
    """Return label, colour and seconds of each bar of a size."""
    resolution = size.rpartition("x")[0]
    decode = _cell(page, "VAE decode", resolution)
    by_cards = f"{size}, one card"
    steps = (
        ("exact, recipe reference", "exact", _cell(page, "step, recipe `reference` (adapter)", resolution)),
        ("exact, recipe preview", "exact", _cell(page, "step, recipe `preview` (merged, all bfloat16)", resolution)),
        ("fast", "fast", _cell(page, by_cards, "step")),
        ("fast, 2 GPUs", "cards", _cell(page, "guidance 2", "step", after=by_cards)),
        ("fast, 4 GPUs", "cards", _cell(page, "guidance 2 x Ulysses 2", "step", after=by_cards)),
    )
    return [(label, colour, STEPS * step + decode) for label, colour, step in steps]


def _cell(page: str, row: str, column: str, after: str = "") -> float:
    """Return the number in the first table that has a row and a column of those names; the row follows `after`."""
    header: list[str] = []
    passed = not after
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header, passed = [], not after
        elif not header:
            header = cells
        elif cells[0] == after:
            passed = True
        if passed and column in header and cells and cells[0] == row:
            return float(cells[header.index(column)].split()[0])
    raise ValueError(f"no table has a row {row!r} with a column {column!r}")


def _bar(label: str, colour: str, seconds: float, y: int, width: float) -> str:
    middle = y + _BAR * 0.72
    return (
        f'<text class="label" x="{_LABELS - 10}" y="{middle:.1f}">{escape(label)}</text>'
        f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="3" fill="{colour}"/>'
        f'<text x="{_LABELS + width + 8:.1f}" y="{middle:.1f}">{seconds:.0f} s</text>'
    )


def _document(body: str, height: int) -> str:
    title = f"Seconds for a video of {STEPS} steps on H200, guidance 4, rank 32 pair, bfloat16"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="14" role="img" aria-label="{title}">\n'
        "<style>.size { font-weight: bold } .label { text-anchor: end }</style>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="20" y="24" font-size="16">{title}</text>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
