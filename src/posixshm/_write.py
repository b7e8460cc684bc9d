"""Writing to an object by its descriptor."""

from __future__ import annotations

import os

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
