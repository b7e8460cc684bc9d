"""Standard output whose errors name it."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from posixshm._command.text import is_terminal

OUTPUT = "standard output"


class _Output(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            error.filename = OUTPUT
            raise


def prepare() -> None:
    """Make errors of standard output name it, and replace closed streams.

    Writing to a closed standard output is an error, and reaches no file that has its number.
    """
    if sys.stderr is None:
        _occupy(2, os.O_WRONLY)
        sys.stderr = os.fdopen(2, "w", closefd=False)
    old = sys.stdout
    if old is None:
        _occupy(1, os.O_RDONLY)
        _replace("utf-8")
    elif old is sys.__stdout__ and type(old) is io.TextIOWrapper:
        old.flush()
        _replace(old.encoding)


def _occupy(number: int, flags: int) -> None:
    fd = os.open(os.devnull, flags)
    if fd != number:
        os.dup2(fd, number)
        os.close(fd)


def _replace(encoding: str) -> None:
    raw = _Output(1, "w", closefd=False)
    buffered = io.BufferedWriter(raw, 1 << 16)
    # Bytes of a name that are not text are printed as they are.
    errors, lines = "surrogateescape", is_terminal(1)
    sys.stdout = io.TextIOWrapper(buffered, encoding, errors, line_buffering=lines)


def discard() -> None:
    """Discard the buffer of a closed pipe, so that the flush at exit does not fail."""
    _occupy(1, os.O_WRONLY)
