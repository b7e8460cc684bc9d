"""Writing a new object by its descriptor, before it has its name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

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
def named(name: str) -> Iterator[None]:
    """Put the name that the object is to have into an OSError of the object without a name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = name
        raise


def check_options(
    function: str, options: Mapping[str, object], accepted: Iterable[str], others: Mapping[str, str]
) -> None:
    """Raise TypeError for an option that is not accepted; others: what to do instead of some."""
    for option in options.keys() - set(accepted):
        hint = f": {others[option]}" if option in others else ""
        raise TypeError(f"{function} got an unexpected keyword argument {option!r}{hint}")
