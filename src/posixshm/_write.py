"""Writing a new object through its descriptor, before it has its name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from ._core import SharedMemory

# Bytes per call: large enough for full speed, small enough to answer Ctrl-C between two calls.
_MOST = 8 << 20


def write(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of data at offset. Return the offset of its end. Raises OSError (ENOSPC)."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest[:_MOST], offset)
        rest = rest[written:]
        offset += written
    return offset


@contextmanager
def named(name: str | None) -> Iterator[None]:
    """Add the name that the new object will have to an OSError without a file name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = name
        raise


def undo(handle: SharedMemory) -> None:
    """Remove the name of the object that the caller created in `handle`, and close the handle.

    For a function that raises after the object got its name, because a signal handler may raise
    after any call. If a signal handler raises in this function, that exception is raised.
    """
    try:
        with suppress(OSError, ValueError):  # the name was removed, or another object has it
            SharedMemory.unlink(handle)  # not the method of a subclass
    finally:
        SharedMemory.close(handle)


def check_options(
    function: str, options: Mapping[str, object], accepted: Iterable[str], others: Mapping[str, str]
) -> None:
    """Raise TypeError for an option that is not accepted; others: alternatives, for the message."""
    for option in options.keys() - set(accepted):
        hint = f": {others[option]}" if option in others else ""
        raise TypeError(f"{function} got an unexpected keyword argument {option!r}{hint}")
