"""Passing handles that have no name through multiprocessing, by descriptor.

In a pickle, `Descriptor` stands for the descriptor. The pickler of multiprocessing has a reducer
for it; every other pickler calls its `__reduce__`, which raises. So the handle's own `__reduce__`
need not know which pickler has called it.

A pickler has the reducers that were registered when it was made. This module is imported when the
first handle without a name is made, or, if multiprocessing is imported later than that, when the
first one is pickled. The pickler that is at work then is recognised by its caller.
"""

from __future__ import annotations

import os
import types
from multiprocessing import reduction
from typing import Any

from ._core import SharedMemory
from ._support import UNNAMED


class Descriptor:
    """The descriptor of a handle that is being pickled."""

    def __init__(self, handle: SharedMemory) -> None:
        self.handle = handle

    def __reduce__(self) -> Any:
        raise TypeError(UNNAMED)

    def detach(self) -> int:  # called by copy.copy(), which pickles nothing
        raise TypeError(UNNAMED)


def _received(descriptor: Any) -> Any:
    return descriptor


def _reduce_descriptor(descriptor: Descriptor) -> tuple[Any, ...]:
    return _received, (reduction.DupFd(descriptor.handle.fileno()),)


reduction.ForkingPickler.register(Descriptor, _reduce_descriptor)


def _rebuild(
    cls: type[SharedMemory], descriptor: Any, readonly: bool, max_size: int | None
) -> SharedMemory:
    fd = descriptor.detach()
    try:
        return cls.from_fd(fd, readonly=readonly, max_size=max_size)
    except BaseException:
        os.close(fd)
        raise


_CALLERS = (reduction.dump.__code__, reduction.ForkingPickler.dumps.__func__.__code__)  # type: ignore[attr-defined]


def reduce(handle: SharedMemory, caller: types.CodeType) -> tuple[Any, ...]:
    """`__reduce__` of a handle without a name. caller: the function that called the pickler."""
    descriptor = reduction.DupFd(handle.fileno()) if caller in _CALLERS else Descriptor(handle)
    arguments = (type(handle), descriptor, handle.readonly, handle.max_size)
    return _rebuild, arguments, handle.__getstate__()
