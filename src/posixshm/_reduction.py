"""Passing handles that have no name through multiprocessing, by descriptor."""

from __future__ import annotations

import os
from multiprocessing import reduction
from typing import Any

from ._core import SharedMemory


def _rebuild(
    cls: type[SharedMemory], descriptor: Any, readonly: bool, max_size: int | None
) -> SharedMemory:
    fd = descriptor.detach()
    try:
        return cls.from_fd(fd, readonly=readonly, max_size=max_size)
    except BaseException:
        os.close(fd)
        raise


def _reduce(handle: SharedMemory) -> tuple[Any, ...]:
    if handle.name is not None:
        return handle.__reduce__()
    descriptor = reduction.DupFd(handle.fileno())
    arguments = (type(handle), descriptor, handle.readonly, handle.max_size)
    return _rebuild, arguments, handle.__getstate__()


def register(cls: type[SharedMemory]) -> None:
    """Let multiprocessing's pickler, and no other, pass handles of this type."""
    reduction.ForkingPickler.register(cls, _reduce)
