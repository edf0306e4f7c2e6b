"""Contact sheets: a grid of videos as one HTML file with everything in it, which plays without a network."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

_TEMPLATE = files(__package__).joinpath("template.html")
_TYPES = {".mp4": "video/mp4", ".webp": "image/webp"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One video of a sheet, or why there is none."""

    row: str
    column: str
    video: Path | None
    caption: str  # what was used; of a cell without a video, what went wrong


def sheet(title: str, subtitle: str, cells: Sequence[Cell]) -> str:
    """Return the HTML of a sheet, with rows and columns in the order in which the cells name them."""
    rows, columns = (
        [*dict.fromkeys(names)] for names in ((cell.row for cell in cells), (cell.column for cell in cells))
    )
    at = {(cell.row, cell.column): cell for cell in cells}
    lines = [_line(row, [at.get((row, column)) for column in columns]) for row in rows]
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    parts = {
        "title": html.escape(title),
        "subtitle": html.escape(subtitle),
        "head": head,
        "body": "\n".join(lines),
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    for name, content in parts.items():
        page = page.replace(f"<!-- {name} -->", content)
    return page


def _line(row: str, cells: Sequence[Cell | None]) -> str:
    return f'<tr><th scope="row">{html.escape(row)}</th>{"".join(map(_cell, cells))}</tr>'


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    caption = html.escape(cell.caption)
    if cell.video is None:
        return f'<td><p class="failed">{caption}</p></td>'
    kind = _TYPES[cell.video.suffix]
    source = f"data:{kind};base64,{base64.b64encode(cell.video.read_bytes()).decode()}"
    label = html.escape(f"{cell.row}, {cell.column}", quote=True)
    shown = (
        f'<video muted loop playsinline preload="auto" src="{source}"></video>'
        if kind.startswith("video")
        else f'<img alt="" src="{source}">'
    )
    return f'<td><button type="button" aria-label="Enlarge {label}">{shown}</button><p>{caption}</p></td>'
