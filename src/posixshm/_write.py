"""Writing a new object by its descriptor, before it has its name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from ._core import SharedMemory

# Bytes of a call: long enough to cost nothing, and so short that Ctrl-C is answered between two.
_MOST = 8 << 20


def write(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of data at offset, and return the offset behind it. Raises OSError (ENOSPC)."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest[:_MOST], offset)
        rest = rest[written:]
        offset += written
    return offset


@contextmanager
def named(name: str | None) -> Iterator[None]:
    """Put the name that the object is to have into an OSError of the object without a name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = name
        raise


def undo(handle: SharedMemory) -> None:
    """Remove the name of the object that the caller has made in `handle`, and close that.

    For a function that is left by an exception after the object had its name: a signal handler may
    raise after any call. What a signal handler raises in here is raised then.
    """
    try:
        with suppress(OSError, ValueError):  # the name is another object's by now, or there is none
            SharedMemory.unlink(handle)  # whatever a subclass makes of it
    finally:
        SharedMemory.close(handle)


def check_options(
    function: str, options: Mapping[str, object], accepted: Iterable[str], others: Mapping[str, str]
) -> None:
    """Raise TypeError for an option that is not accepted; others: what to do instead of some."""
    for option in options.keys() - set(accepted):
        hint = f": {others[option]}" if option in others else ""
        raise TypeError(f"{function} got an unexpected keyword argument {option!r}{hint}")
