"""POSIX shared memory for Python: shm_overview(7).

Objects in shared memory:

    SharedMemory    an object, with or without a name; create(), open(), anonymous() make one
    MemoryMap       a mapped range of an object, which lives as long as any view of it
    View            such a range as an array, for numpy, DLPack and the buffer protocol

Synchronization of processes, as in the threading module:

    Lock, RLock     mutual exclusion; the next owner learns that an owner died (OwnerDiedError)
    RWLock          many readers or one writer
    Condition       wait until another process changes something, under a lock
    Event           a flag to wait for
    Barrier         processes that wait for each other
    Semaphore       a POSIX semaphore: a counter to wait for
    Atomic          one integer in shared memory, with the operations of C11's stdatomic.h

Names in /dev/shm:

    listdir(), exists()             the names of objects
    holders() -> Holders of Holder  the processes that use an object
    reclaim() -> list of Reclaimed  remove the objects that no process uses
    shm_open(), shm_unlink(), sem_unlink()
                                    the POSIX functions

guard() turns a bus error into an exception, BusError.

Submodules, imported when they are first used:

    posixshm.array          named numpy arrays
    posixshm.arrow          tables of pyarrow, pandas and polars
    posixshm.shared_memory  a drop-in for multiprocessing.shared_memory
    posixshm.aio            waiting for locks in asyncio

Constants:

    PROT_NONE, PROT_READ, PROT_WRITE    for protect(): mprotect(2)
    MADV_...                            for advise(): madvise(2)
    MS_SYNC, MS_ASYNC, MS_INVALIDATE    for sync(): msync(2)
    F_SEAL_...                          for add_seals() and require_seals=: fcntl(2)
    NAME_MAX                            bytes in a name, without the slash
    PAGESIZE                            bytes in a page
    SEM_VALUE_MAX                       the largest value of a semaphore

"posixshm docs" in a shell lists the guides and the reference; "posixshm docs SharedMemory.resize"
shows one entry.
"""

from . import _core, _support
from ._core import (
    F_SEAL_EXEC,
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    MADV_COLD,
    MADV_COLLAPSE,
    MADV_DODUMP,
    MADV_DOFORK,
    MADV_DONTDUMP,
    MADV_DONTNEED,
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    MADV_NORMAL,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_WILLNEED,
    MS_ASYNC,
    MS_INVALIDATE,
    MS_SYNC,
    NAME_MAX,
    PAGESIZE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    SEM_VALUE_MAX,
    Atomic,
    Barrier,
    Condition,
    Event,
    Lock,
    MemoryMap,
    OwnerDiedError,
    Reclaimed,
    RLock,
    RWLock,
    Semaphore,
    SharedMemory,
    View,
    exists,
    listdir,
    reclaim,
    sem_unlink,
    shm_open,
    shm_unlink,
)

TYPE_CHECKING = False  # typing's own would take longer to import than all of this package
if TYPE_CHECKING:
    from . import aio as aio
    from . import array as array
    from . import arrow as arrow
    from . import shared_memory as shared_memory
    from ._guard import BusError as BusError
    from ._guard import guard as guard
    from ._holders import Holder as Holder
    from ._holders import Holders as Holders
    from ._holders import holders as holders
del TYPE_CHECKING

__version__ = "0.1.0"

_core._set_support(_support)

__all__ = [
    "F_SEAL_EXEC",
    "F_SEAL_FUTURE_WRITE",
    "F_SEAL_GROW",
    "F_SEAL_SEAL",
    "F_SEAL_SHRINK",
    "F_SEAL_WRITE",
    "MADV_COLD",
    "MADV_COLLAPSE",
    "MADV_DODUMP",
    "MADV_DOFORK",
    "MADV_DONTDUMP",
    "MADV_DONTNEED",
    "MADV_HUGEPAGE",
    "MADV_NOHUGEPAGE",
    "MADV_NORMAL",
    "MADV_PAGEOUT",
    "MADV_POPULATE_READ",
    "MADV_POPULATE_WRITE",
    "MADV_RANDOM",
    "MADV_SEQUENTIAL",
    "MADV_WILLNEED",
    "MS_ASYNC",
    "MS_INVALIDATE",
    "MS_SYNC",
    "NAME_MAX",
    "PAGESIZE",
    "PROT_NONE",
    "PROT_READ",
    "PROT_WRITE",
    "SEM_VALUE_MAX",
    "Atomic",
    "Barrier",
    "BusError",
    "Condition",
    "Event",
    "Holder",
    "Holders",
    "Lock",
    "MemoryMap",
    "OwnerDiedError",
    "RLock",
    "RWLock",
    "Reclaimed",
    "Semaphore",
    "SharedMemory",
    "View",
    "__version__",
    "exists",
    "guard",
    "holders",
    "listdir",
    "reclaim",
    "sem_unlink",
    "shm_open",
    "shm_unlink",
]

_SUBMODULES = {"aio", "array", "arrow", "shared_memory"}
_LATER = {
    "BusError": "_guard",
    "Holder": "_holders",
    "Holders": "_holders",
    "guard": "_guard",
    "holders": "_holders",
}


def __getattr__(name: str) -> object:
    """Import a submodule when it is first used: together they take many times as long as this."""
    if name in _LATER:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        return value
    if name in _SUBMODULES:
        from importlib import import_module

        try:
            return import_module(f"{__name__}.{name}")
        except ImportError as error:  # hasattr() and help() expect an AttributeError
            raise AttributeError(str(error), name=name) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)


def __dir__() -> list[str]:
    return sorted(globals().keys() | _SUBMODULES | _LATER.keys())
