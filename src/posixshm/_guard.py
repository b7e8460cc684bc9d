"""guard(): raise an exception instead of a bus error in shared memory."""

from __future__ import annotations

import errno

from ._core import MemoryMap, SharedMemory, View, _guard_enter, _guard_leave
from ._support import imported

__all__ = ["BusError", "guard"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    _Memory: TypeAlias = SharedMemory | MemoryMap | View | memoryview | NDArray[Any]


class BusError(OSError):
    """An access in a guard() block found memory that the object has lost.

    errno is EFAULT, and filename the name of the object. Another process truncated the object, or
    there was no memory for a page that was not used before. The block read zeros there, and what it
    wrote there is lost. See SIGBUS in signal(7).
    """

    __module__ = "posixshm"


class guard:
    """Raise BusError at the end of a `with` block, instead of ending the process with SIGBUS.

    memory: one or more of SharedMemory, MemoryMap, View, memoryview and numpy arrays in shared
        memory. Of a handle, the memory that it has when the block begins is guarded.

    In the block, this thread reads zeros from a page that the object has lost, because another
    process truncated it or the file system is full. When the block ends, the pages of the object
    are mapped again and BusError is raised. If the block raised another exception, that is the
    __context__ of the BusError; an exception that is not an Exception, such as KeyboardInterrupt,
    is raised itself, with a note.

    Guards can be nested. A guard can have one block at a time. While a block is running, a handler
    of SIGBUS is installed with sigaction(2), which calls the previous handler for every other bus
    error.

    Raises TypeError for other memory; ValueError for a closed handle; OSError with errno EINVAL or
    EFAULT (huge pages of hugetlbfs, a device), ENOMEM (no address space for a second mapping), or
    EAGAIN (locked pages and RLIMIT_MEMLOCK).
    """

    __module__ = "posixshm"
    __slots__ = ("_block", "_memory")

    def __init__(self, *memory: _Memory) -> None:
        if not memory:
            raise TypeError("guard() needs the memory to guard: guard(shm)")
        self._memory = memory
        # The guards of the running block; empty if no block is running.
        self._block: dict[str, list[tuple[_Memory, Any]]] = {}

    def __enter__(self) -> None:
        entered: list[tuple[_Memory, Any]] = []
        # setdefault() is one step, so only one of several threads can start a block.
        if self._block.setdefault("entered", entered) is not entered:
            raise RuntimeError("this guard has a running block; use one guard() for each block")
        # A guard that __exit__ does not leave is left when it is deallocated.
        try:
            maps = [(memory, _map_of(memory)) for memory in self._memory]
            entered.extend((memory, _guard_enter(map)) for memory, map in maps)
        except BaseException:
            entered.clear()
            self._block.clear()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None:
        entered = self._block.pop("entered", ())
        if globals()["_leave"] is None:
            return  # the interpreter is shutting down, and deallocates the guards
        lost = [(memory, part) for memory, one in entered if (part := _leave(memory, one))]
        if not lost:
            return
        text = f"Memory was lost: {', '.join(part for _, part in lost)}. {_CAUSE}"
        if exc_value is not None and not isinstance(exc_value, Exception):
            exc_value.add_note(text)
            return
        raise BusError(errno.EFAULT, text, _name(lost[0][0]))


_CAUSE = (
    "Another process truncated the object, or there is no memory for a page of it. The block read "
    "zeros there, and what it wrote there is lost"
)


def _leave(memory: _Memory, entered: Any) -> str | None:
    """Leave a guard. Return a text that says what was lost, or None."""
    name = _name(memory)
    of = "" if name is None else f" of {name!r}"
    try:
        lost = _guard_leave(entered)
    except OSError as error:
        return f"{error.strerror}{of}"
    if lost is None:
        return None
    start, end = lost
    return f"bytes {start} to {end}{of}{_size_now(memory, end)}"


def _size_now(memory: _Memory, end: int) -> str:
    if not isinstance(memory, SharedMemory):
        return ""
    try:
        size = memory.stat().st_size
    except (OSError, ValueError, ImportError):  # ImportError: the interpreter is shutting down
        return ""
    return f", which has {size} bytes now" if size < end else ""


def _name(memory: _Memory) -> str | None:
    """Return the name of the object, or None."""
    name = getattr(memory, "name", None)
    return name if isinstance(name, str) else None


def _map_of(memory: object) -> MemoryMap:
    """Return the MemoryMap that contains the memory."""
    numpy = imported("numpy")
    found = memory
    while not isinstance(found, MemoryMap):
        if isinstance(found, SharedMemory):
            found = SharedMemory.buf.__get__(found).obj
        elif isinstance(found, (View, memoryview)):
            found = found.obj
        elif numpy is not None and isinstance(found, numpy.ndarray) and found.base is not None:
            found = found.base
        else:
            raise TypeError(
                "guard() takes SharedMemory, MemoryMap, View, memoryview and numpy arrays in "
                f"shared memory, not {type(memory).__name__}"
                + (f" in memory of {type(found).__name__}" if found is not memory else "")
            )
    return found
