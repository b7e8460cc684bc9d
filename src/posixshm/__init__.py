"""POSIX shared memory for Python: shm_overview(7), natively.

SharedMemory is an object in shared memory, with or without a name; MemoryMap is
a range of memory that lives as long as anything that can reach it; View is such
memory as an array, for numpy and DLPack. Lock, RLock, Condition, Event,
Semaphore, Barrier, RWLock and Atomic synchronise processes.
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
