"""Drawing the dashboard: its panels in Grafana's grid, as one SVG."""

from collections.abc import Mapping, Sequence
from html import escape

from tests.dashboard.panels import Line, Panel, Span

_COLUMN, _ROW = 46, 26  # pixels of Grafana's grid
_LEFT, _TOP, _BOTTOM, _RIGHT = 62, 30, 46, 12  # of a panel, around its lines
_COLOURS = ("#3f51b5", "#ef6c00", "#2e7d32", "#ad1457", "#00838f", "#6d4c41", "#9e9d24", "#7b1fa2", "#546e7a")
_LEGENDS = 4  # in a row
_LETTERS = 24  # of a legend
_UNITS: Mapping[str, tuple[float, str]] = {"percentunit": (100, " %"), "s": (1, " s")}
_BINARY = (" B", " KiB", " MiB", " GiB", " TiB")

Box = tuple[float, float, float, float]  # left, top, width, height


def dashboard_svg(shown: Sequence[tuple[Panel, Sequence[Line]]], span: Span) -> str:
    """Return the picture of panels with their lines over that span."""
    width = max((panel.x + panel.width) * _COLUMN for panel, _ in shown)
    height = max((panel.y + panel.height) * _ROW for panel, _ in shown)
    parts = "\n".join(_panel(panel, lines, span) for panel, lines in shown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" fill="#37474f">\n<rect width="{width}" height="{height}" fill="#eceff1"/>\n{parts}\n</svg>\n'
    )


def _panel(panel: Panel, lines: Sequence[Line], span: Span) -> str:
    left, top = panel.x * _COLUMN + 4, panel.y * _ROW + 4
    width, height = panel.width * _COLUMN - 8, panel.height * _ROW - 8
    box = (left + _LEFT, top + _TOP, width - _LEFT - _RIGHT, height - _TOP - _BOTTOM)
    largest = max((value for line in lines for _, value in line.points), default=0.0) or 1.0
    parts = [
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="3" fill="#fff"/>',
        f'<text x="{left + 10}" y="{top + 19}" font-size="13" font-weight="bold">{escape(panel.title)}</text>',
        *_axes(box, largest, panel.unit, span),
    ]
    if not lines:
        parts.append(f'<text x="{box[0] + box[2] / 2}" y="{box[1] + box[3] / 2}" text-anchor="middle">no data</text>')
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(_line(line, box, largest, span, colour))
        x = left + 12 + number % _LEGENDS * (width - 20) / _LEGENDS
        y = top + height - 18 + number // _LEGENDS * 12
        if number < 2 * _LEGENDS:
            parts.append(f'<text x="{x:.0f}" y="{y}" font-size="10" fill="{colour}">{_short(line.legend)}</text>')
    return "\n".join(parts)


def _axes(box: Box, largest: float, unit: str, span: Span) -> list[str]:
    left, top, width, height = box
    parts = []
    for share in (0, 0.5, 1):
        y = top + height * (1 - share)
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#cfd8dc"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{amount(share * largest, unit)}</text>')
    minutes = (span.end - span.start) / 60
    y = top + height + 13
    parts.append(f'<text x="{left}" y="{y}">0</text>')
    parts.append(f'<text x="{left + width}" y="{y}" text-anchor="end">{minutes:.0f} min</text>')
    return parts


def _line(line: Line, box: Box, largest: float, span: Span, colour: str) -> str:
    left, top, width, height = box
    points = " ".join(
        f"{left + width * (at - span.start) / (span.end - span.start):.1f},{top + height * (1 - value / largest):.1f}"
        for at, value in line.points
    )
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def amount(value: float, unit: str) -> str:
    """Return a value with its unit, as Grafana names units."""
    if unit in ("bytes", "Bps"):
        power = 0
        while value >= 1024 and power < len(_BINARY) - 1:
            value, power = value / 1024, power + 1
        return f"{value:.3g}{_BINARY[power]}{'/s' if unit == 'Bps' else ''}"
    factor, suffix = _UNITS.get(unit, (1, ""))
    return f"{value * factor:.3g}{suffix}"


def _short(legend: str) -> str:
    text = legend.strip()
    return escape(text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…")
