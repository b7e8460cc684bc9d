"""guard(): a bus error in shared memory becomes an exception."""

from __future__ import annotations

import errno

from ._core import MemoryMap, SharedMemory, View, _guard_enter, _guard_leave
from ._support import imported

__all__ = ["BusError", "guard"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from numpy.typing import NDArray

    _Memory = SharedMemory | MemoryMap | View | memoryview | NDArray[Any]


class BusError(OSError):
    """Memory that was accessed in a guard() is gone: errno is EFAULT, filename the object's name.

    Another process truncated the object, or there was no memory for a page that was not used
    before. What the block read there were zeros, and what it wrote there is lost. See signal(7),
    SIGBUS.
    """

    __module__ = "posixshm"


class guard:
    """Raise BusError at the end of a `with` block, instead of ending the process with SIGBUS.

    memory: one or more of SharedMemory, MemoryMap, View, memoryview and numpy arrays in shared
    memory. In the block, an access by this thread to a page that the object lost (another process
    truncated it), or that cannot be had (a full file system), finds zeros; when the block ends, the
    object's pages are mapped again, and BusError is raised. If the block raised another exception,
    it is the __context__ of the BusError; one that is not an Exception, such as KeyboardInterrupt,
    is raised on, with a note. A handle's memory is that which it has when the block begins.

    Guards nest. One guard serves one block at a time. The handler of SIGBUS is installed while
    there is a block, calls the previous handler for every other bus error, and uses sigaction(2).

    Raises TypeError for other memory; ValueError for a closed handle; OSError: EINVAL or EFAULT
    (huge pages of hugetlbfs, a device), ENOMEM (address space for a second mapping), EAGAIN (locked
    pages, RLIMIT_MEMLOCK).
    """

    __module__ = "posixshm"
    __slots__ = ("_block", "_memory")

    def __init__(self, *memory: _Memory) -> None:
        if not memory:
            raise TypeError("guard() takes the memory to guard: guard(shm)")
        self._memory = memory
        # What the block has entered; empty if there is no block.
        self._block: dict[str, list[tuple[_Memory, Any]]] = {}

    def __enter__(self) -> None:
        entered: list[tuple[_Memory, Any]] = []
        # One step: another thread may be here, too.
        if self._block.setdefault("entered", entered) is not entered:
            raise RuntimeError("this guard has a block already; each block takes its own guard()")
        # A guard that is not left by __exit__ is left when it is collected.
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
        lost = [(memory, part) for memory, one in entered if (part := _leave(memory, one))]
        if not lost:
            return
        text = f"Memory was lost: {', '.join(part for _, part in lost)}. {_CAUSE}"
        if exc_value is not None and not isinstance(exc_value, Exception):
            exc_value.add_note(text)
            return
        raise BusError(errno.EFAULT, text, _name(lost[0][0]))


_CAUSE = (
    "Another process truncated the object, or there is no memory for a page of it. What the block "
    "read there were zeros, and what it wrote there is lost"
)


def _leave(memory: _Memory, entered: Any) -> str | None:
    """What was lost; None if nothing was."""
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
    except (OSError, ValueError, ImportError):  # the last one while the interpreter ends
        return ""
    return f", which has {size} bytes now" if size < end else ""


def _name(memory: _Memory) -> str | None:
    """The object's name; also of a SharedArray, which has one."""
    name = getattr(memory, "name", None)
    return name if isinstance(name, str) else None


def _map_of(memory: object) -> MemoryMap:
    """The MemoryMap that has the memory."""
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
