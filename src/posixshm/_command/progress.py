"""A progress bar on a terminal, for long operations."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from posixshm._command.text import is_terminal, size_text

_FIRST = 0.5  # seconds until there is a bar
_INTERVAL = 0.1  # ... between two updates


class Advance(Protocol):
    """advance(n): n more units are done. advance(n, label): also change the label."""

    def __call__(self, amount: int, label: str = "", /) -> None: ...


@contextmanager
def progress(label: str, total: int | None, *, in_bytes: bool = True) -> Iterator[Advance]:
    """Yield a function to call during the work. total: None if it is unknown."""
    if not is_terminal(2):
        yield lambda amount, label="", /: None
        return
    bar = _Bar(label, total, in_bytes)
    try:
        yield bar.advance
    finally:
        bar.end()


class _Bar:
    def __init__(self, label: str, total: int | None, in_bytes: bool) -> None:
        self._label, self._total, self._in_bytes = label, total, in_bytes
        self._done = 0
        self._began = time.monotonic()
        self._next = self._began + _FIRST
        self._rich: Any = None
        self._length = 0

    def advance(self, amount: int, label: str = "", /) -> None:
        self._done += amount
        self._label = label or self._label
        if time.monotonic() < self._next:
            return
        if self._length == 0 and self._rich is None:
            self._rich = _rich_bar(self._total, self._in_bytes)
            if self._rich is not None:
                self._rich.start()
        if self._rich is not None:
            self._rich.update(0, completed=self._done, description=self._label)
        else:
            self._print(self._text())
        self._next = time.monotonic() + _INTERVAL

    def _text(self) -> str:
        parts = [self._label]
        if self._total:
            parts.append(f"{min(100 * self._done // self._total, 100)}%")
        if self._in_bytes:
            speed = self._done / max(time.monotonic() - self._began, 1e-9)
            parts += [size_text(self._done), f"{size_text(speed)}/s"]
        return "  ".join(parts)

    def _print(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self._length))
        sys.stderr.flush()
        self._length = len(text)

    def end(self) -> None:
        if self._rich is not None:
            self._rich.stop()
        elif self._length:
            self._print("")
            sys.stderr.write("\r")
            sys.stderr.flush()


def _rich_bar(total: int | None, in_bytes: bool) -> Any:
    """Return a progress bar of rich, or None if rich is not installed."""
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    columns: list[Any] = [progress.TextColumn("{task.description:<26}"), progress.BarColumn()]
    columns.append(progress.TaskProgressColumn())
    columns.append(progress.TransferSpeedColumn() if in_bytes else progress.TimeElapsedColumn())
    bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("", total=total)
    return bar
