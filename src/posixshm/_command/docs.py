"""`posixshm docs`: the reference in a terminal."""

from __future__ import annotations

import argparse
import sys

from posixshm._command.markdown import plain
from posixshm._command.pages import Page, find, pages
from posixshm._command.table import terminal_width
from posixshm._command.text import is_terminal

_WIDTH = 80  # without a terminal
_WIDEST = 100  # longer lines are hard to read

_HINT = """\
'posixshm docs TOPIC' shows one of these, the entry of a public name
(SharedMemory.resize, MADV_COLD), or the guide or section that has TOPIC in its title.
"""


def docs(args: argparse.Namespace) -> int:
    topic = " ".join(args.topic)
    if not topic:
        print(_list(), end="")
        return 0
    text = find(topic)
    if is_terminal(0) and is_terminal(1):
        import pydoc

        sys.stdout.flush()
        pydoc.pager(plain(text, min(terminal_width() - 1, _WIDEST)))
    else:
        print(plain(text, _WIDTH), end="")
    return 0


def topics() -> list[str]:
    """Return the names of the pages, for completion."""
    return [page.name for page in pages()]


def _list() -> str:
    found = pages()
    width = max(len(page.name) for page in found) + 2

    def lines(title: str, chosen: list[Page]) -> list[str]:
        return [title, *(f"  {page.name:{width}}{page.title}" for page in chosen), ""]

    guides = [page for page in found if not page.describes_names]
    api = [page for page in found if page.describes_names]
    shown = lines("guides:", guides) + lines("classes, functions and constants:", api)
    return "\n".join(shown) + "\n" + _HINT
