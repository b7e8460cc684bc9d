"""Writing a new object through its descriptor, before it has its name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from ._core import SharedMemory, _check_room

_T = TypeVar("_T")
# Bytes per call: large enough for full speed, small enough to answer Ctrl-C between two calls.
_MOST = 8 << 20
# Bytes for which the room is checked before any of it is taken.
_LARGE = 64 << 20


def write(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of data at offset. Return the offset of its end. Raises OSError (ENOSPC)."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest[:_MOST], offset)
        rest = rest[written:]
        offset += written
    return offset


def publish(
    name: str | None,
    size: int,
    fill: Callable[[int], object],
    replace: bool,
    options: Mapping[str, Any],
    finish: Callable[[SharedMemory], _T],
) -> _T:
    """Create an object that `fill` writes before the object gets its name.

    name: None for an anonymous object. fill is called with the descriptor and writes all `size`
    bytes, which takes their memory. finish is called with the handle at the end, and its result is
    returned. Reserving the memory first would clear each page, and writing
    through a mapping would cost a page fault for each page.

    Raises OSError as SharedMemory.create does, also if the memory ends while `fill` writes; and
    what `fill` and `finish` raise. No object remains then, except one that has already replaced
    another.
    """
    make = SharedMemory.anonymous if name is None else SharedMemory.unlinked
    if not (options.get("populate") or options.get("huge_pages")):
        options = {**options, "reserve": False}
    try:
        shm = make(size, **options)
        try:
            _fill(shm.fileno(), name, size, fill)
            if name is not None:
                shm.link(name, replace)
            return finish(shm)
        except BaseException:
            if replace:  # the old object may have lost its name already
                shm.close()
            else:
                undo(shm)
            raise
    except OSError as error:
        if error.filename is None:
            error.filename = name
        raise


def _fill(fd: int, name: str | None, size: int, fill: Callable[[int], object]) -> None:
    if size > _LARGE:
        _check_room(fd, size, name)
    try:
        fill(fd)
    except OSError as error:
        if error.errno == errno.ENOSPC and name is not None:
            os.ftruncate(fd, 0)  # what is free then is what the object could have had
            _check_room(fd, size, name)
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
