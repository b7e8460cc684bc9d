"""Markdown as plain text, for a terminal or a pipe."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

_FENCE = re.compile(r" *```")
_UNDERLINES = {1: "=", 2: "-"}


def plain(text: str, width: int) -> str:
    """The text of a page, with lines of at most so many characters if its words allow that."""
    without_comments = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    return "\n".join(_lines(without_comments.strip().splitlines(), width)) + "\n"


def words(text: str) -> str:
    """A line without marks: of a link its text."""
    parts = re.split(r"(`+)(.+?)\1", re.sub(r"\[((?:`[^`]*`|[^\]])*)\]\([^)]*\)", r"\1", text))
    for number in range(0, len(parts), 3):
        part = re.sub(r"<(https?://[^>]+)>", r"\1", parts[number].replace("**", ""))
        parts[number] = re.sub(r"\\([\\*_<>|`#])", r"\1", part)
    return "".join(part for number, part in enumerate(parts) if number % 3 != 1)


def _lines(lines: list[str], width: int) -> Iterator[str]:
    number = 0
    while number < len(lines):
        line = lines[number]
        end = number + 1
        if _FENCE.match(line):
            while end < len(lines) and not _FENCE.match(lines[end]):
                yield f"    {lines[end]}".rstrip()
                end += 1
            end += 1
        elif line.startswith("|"):
            while end < len(lines) and lines[end].startswith("|"):
                end += 1
            yield from _table(lines[number:end], width)
        elif match := re.match(r"(#+) +(.*)", line):
            title = words(match[2])
            yield title
            if len(match[1]) in _UNDERLINES:
                yield _UNDERLINES[len(match[1])] * len(title)
        elif not line.strip():
            yield ""
        else:
            while end < len(lines) and _continues(lines[end]):
                end += 1
            yield from _paragraph(" ".join(map(str.strip, lines[number:end])), line, width)
        number = end


def _continues(line: str) -> bool:
    """Whether a line belongs to the paragraph or the item before it."""
    return re.match(r" *(?:[-*] |\d+\. |#|```|\||$)", line) is None


def _paragraph(text: str, first: str, width: int) -> list[str]:
    indent = re.match(r" *", first)[0]  # type: ignore[index]  # it matches every line
    bullet = re.match(r"(?:[-*]|\d+\.) ", text)
    hang = indent + " " * (len(bullet[0]) if bullet else 0)
    return _wrap(indent + words(text), hang, width)


def _wrap(text: str, hang: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )


def _table(lines: list[str], width: int) -> Iterator[str]:
    """Each row: its first column, and the other columns below it."""
    rows = [_cells(line) for line in lines]
    titles, rows = rows[0], rows[2:]
    for row in rows:
        yield from _wrap(row[0] or "-", "  ", width)
        for title, cell in zip(titles[1:], row[1:], strict=False):
            if cell:
                label = f"{title}: " if title and len(titles) > 2 else ""
                yield from _wrap(f"    {label}{cell}", "      ", width)


def _cells(line: str) -> list[str]:
    return [words(cell.strip()) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
