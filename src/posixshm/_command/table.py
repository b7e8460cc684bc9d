"""Tables, complete for another program, and as wide as the terminal on a terminal."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from posixshm._command.text import is_terminal, printable

_GAP = "  "


class Column(NamedTuple):
    """A column of a table.

    right: align right, for numbers. rank: on a narrow terminal, columns with the highest rank are
    left out first, and columns of rank 0 never. least: None if entries must not be shortened;
    otherwise the width to which they may be shortened before a column of the same or a lower rank
    is left out. middle: shorten in the middle, because names often differ only at their ends.
    """

    title: str
    right: bool = False
    rank: int = 0
    least: int | None = None
    middle: bool = False


Painter = Callable[[str, str], str]  # title of the column, entry as printed


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print the rows. On a terminal, columns that do not fit are left out."""
    for line in table_lines(columns, rows):
        print(line)


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Return the lines of a table, with its titles."""
    titles = [printable(column.title) for column in columns]
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = dict(enumerate(map(_width, titles)))
    for row in cells:
        for i, cell in enumerate(row):
            own = len(cell) if cell.isascii() else _width(cell)
            if own > widths[i]:
                widths[i] = own
    paint = None
    if is_terminal(1):
        widths = fit(columns, list(widths.values()), terminal_width())
        paint = painter()
    yield _line(columns, widths, titles, paint and (lambda _, cell: paint("", cell)))
    for row in cells:
        yield _line(columns, widths, row, paint)


def print_fields(rows: Sequence[tuple[str, str]]) -> None:
    """Print one field per line. On a terminal, long values are wrapped between words."""
    label = max(len(title) for title, _ in rows) + len(_GAP)
    for title, value in rows:
        for line in wrapped(printable(value), label):
            print(f"{title:{label}}{line}")
            title = ""


def wrapped(text: str, indent: int) -> list[str]:
    """Return the lines of a text with this indentation; a single line for another program."""
    if not is_terminal(1):
        return [text]
    import textwrap

    width = max(terminal_width() - indent, 16)
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def terminal_width() -> int:
    """Return the width of the terminal; the environment may set COLUMNS."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def fit(columns: Sequence[Column], natural: Sequence[int], room: int) -> dict[int, int]:
    """Return the columns that fit into this width, and their widths."""
    shown = list(range(len(columns)))

    def least(i: int) -> int:
        cut = columns[i].least
        return natural[i] if cut is None else min(natural[i], cut)

    def needed(widths: Sequence[int]) -> int:
        return sum(widths) + len(_GAP) * (len(widths) - 1)

    while needed([least(i) for i in shown]) > room:
        last = max(shown, key=lambda i: (columns[i].rank, i))
        if columns[last].rank == 0:
            break
        shown.remove(last)
    widths = {i: natural[i] for i in shown}
    # Shorten the longest column first. The open end of a line needs no width.
    while (over := needed(list(widths.values())) - room) > 0:
        cuttable = [i for i in shown if columns[i].least is not None and widths[i] > 4]
        if not cuttable:
            break
        longest = max(cuttable, key=widths.__getitem__)
        others = [widths[i] for i in cuttable if i != longest]
        step = max(1, min(over, widths[longest] - max(others, default=4)))
        widths[longest] = max(4, widths[longest] - step)
    return widths


def _line(
    columns: Sequence[Column],
    widths: dict[int, int],
    row: Sequence[str],
    paint: Painter | None,
) -> str:
    parts = []
    for i, width in widths.items():
        cell = row[i]
        own = len(cell) if cell.isascii() else _width(cell)
        if own > width:
            cell = _cut(cell, width, columns[i].middle)
            own = _width(cell)
        space = " " * (width - own)
        shown = cell if paint is None else paint(columns[i].title, cell)
        parts.append(space + shown if columns[i].right else shown + space)
    return _GAP.join(parts).rstrip()


def _width(text: str) -> int:
    """Return the width of a text on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _cut(text: str, width: int, middle: bool) -> str:
    dots = "..." if width > 8 else ".."[: max(width - 1, 0)]
    room = width - len(dots)
    end = room // 2 if middle else 0
    while end > 0 and _width(text[len(text) - end :]) > room // 2:
        end -= 1
    tail = text[len(text) - end :]
    start = room
    while _width(text[:start]) > room - _width(tail):
        start -= 1
    return text[:start] + dots + tail


_STYLES = {
    "in use": "green",
    "free": "yellow",
    "unknown": "red",
    "ok": "green",
    "note": "yellow",
    "problem": "bold red",
}


def painter() -> Painter | None:
    """Return a function that adds colours, if rich is installed and the user wants them."""
    if "NO_COLOR" in os.environ:
        return None
    try:
        from rich.color import ColorSystem
        from rich.console import Console
        from rich.style import Style
    except ImportError:
        return None
    if Console().color_system is None:
        return None
    system = ColorSystem.STANDARD
    bold = Style.parse("bold")
    styles = {state: Style.parse(style) for state, style in _STYLES.items()}

    def paint(title: str, cell: str) -> str:
        if title == "":
            return bold.render(cell, color_system=system) if cell else cell
        if title != "STATE":
            return cell
        style = styles.get(cell.partition(" (")[0])
        return cell if style is None else style.render(cell, color_system=system)

    return paint
