"""The Python part of the C extension: ends of processes, the resource tracker, descriptors.

The package hands this module to the extension. All that costs time to import is imported in the
functions, when it is needed.
"""

from __future__ import annotations

import sys

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any
    from weakref import ReferenceType

    from ._core import SharedMemory


def imported(module: str) -> Any:
    """The module if the program has imported it, else None.

    Does not call dict.get(): in a free-threaded 3.13 it acquires the lock of the dict, which stays
    locked in a forked child if another thread held it. The same holds for every dict that threads
    share.
    """
    return sys.modules[module] if module in sys.modules else None  # noqa: SIM401


def _is_worker() -> bool:
    """Whether multiprocessing has started this process; a forked one ends without the
    interpreter's own end."""
    process, util = imported("multiprocessing.process"), imported("multiprocessing.util")
    return process is not None and util is not None and process.parent_process() is not None


def _at_end_of_worker(call: Callable[[], object]) -> None:
    util = imported("multiprocessing.util")
    # After the program's own finalizers, which may still use the objects.
    util.Finalize(None, call, exitpriority=-100)


# -- delete=True --------------------------------------------------------------------------------


class _End:
    """Its finalizer runs at the end of the process."""


_end = _End()
_deleting = False


def delete_at_end() -> None:
    """Have _remove_all() called at the end of this process. Each process calls this once."""
    global _deleting
    from ._core import _remove_all

    if not _deleting:
        import weakref

        # Finalizers that the program makes later are called before.
        weakref.finalize(_end, _remove_all)
        _deleting = True  # the other order would lose the end if a signal handler raised
    if _is_worker():
        _at_end_of_worker(_remove_all)


# -- delete="last" ------------------------------------------------------------------------------


class _Leaving:
    """Handles that have something to do when the process ends, each by a weak reference.

    Threads may add handles, and drop them, while the process ends. So every step on the dict is one
    call that is atomic: nothing iterates over it.
    """

    def __init__(self) -> None:
        self.started = False
        self._worker: int | None = None
        self._entries: dict[int, ReferenceType[SharedMemory]] = {}  # by the id of the reference

    def add(self, handle: SharedMemory) -> None:
        import weakref

        reference = weakref.ref(handle, lambda reference: self._entries.pop(id(reference), None))
        self._entries[id(reference)] = reference

    def handles(self) -> list[SharedMemory]:
        found = [reference() for reference in list(self._entries.values())]
        return [handle for handle in found if handle is not None]

    def at_end_of_worker(self, call: Callable[[], None]) -> None:
        """Have it called once, at the end of this process, which multiprocessing has started."""
        import os

        if self._worker != os.getpid():
            self._worker = os.getpid()
            _at_end_of_worker(call)


_leaving = _Leaving()
_workers_told = False  # those that this process forks


def leave_at_end(handle: SharedMemory) -> None:
    """Have _leave(handle) called when the process ends, if the handle is still there."""
    if not _leaving.started:
        import atexit
        import os

        atexit.register(_leave_all)
        os.register_at_fork(before=_before_fork)
        _leaving.started = True
    _leaving.add(handle)
    if _is_worker():
        _leaving.at_end_of_worker(_leave_all)


def _before_fork() -> None:
    """A worker of multiprocessing that is forked forgets the finalizers of its parent."""
    global _workers_told
    util = imported("multiprocessing.util")
    if util is not None and not _workers_told:
        _workers_told = True
        util.register_after_fork(_leaving, lambda each: each.at_end_of_worker(_close_all))


def _leave_all() -> None:
    from ._core import _leave

    for handle in _leaving.handles():
        _leave(handle)


def _close_all() -> None:
    """In a forked worker, whose siblings may have the same open files and end at the same time.

    Threads that the worker still waits for may use the handles.
    """
    import threading

    _leave_all()
    if all(each.daemon or each is threading.main_thread() for each in threading.enumerate()):
        for handle in _leaving.handles():
            handle.close()


def stat(fd: int) -> os.stat_result:
    """os.fstat(fd)."""
    import os

    return os.fstat(fd)


def warn_of_huge_pages(memfd: bool) -> None:
    """Warn if huge_pages=True has no effect for a new object."""
    try:
        from . import _huge_pages
    except ImportError:  # a daemon that has changed its user may not be able to read the package
        return
    _huge_pages.warn(memfd)


def explain_taken(name: str, operation: str, what: str) -> str:
    """The message of FileExistsError for an object called name."""
    try:
        from . import _taken
    except ImportError:  # a daemon that has changed its user may not be able to read the package
        return what
    return _taken.explain(name, operation, what)


def track(function: str, name: str) -> None:
    """Tell the resource tracker of the standard library."""
    from . import _track

    getattr(_track, function)(name)


# -- pickling -----------------------------------------------------------------------------------

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_boot_id: str | None = None


def _host() -> str:
    """Identify this host and its boot, which no object outlives."""
    global _boot_id
    if _boot_id is None:
        try:
            with open(_BOOT_ID, encoding="utf-8") as file:
                _boot_id = file.read().strip()
        except OSError as error:
            error.strerror = (
                "A pickle of shared memory identifies the host by its boot id, which cannot be "
                "read (is /proc mounted?)"
            )
            raise
    return _boot_id


def reduce(
    handle: SharedMemory,
    name: str | None,
    device: int,
    inode: int,
    readonly: bool,
    track: bool,
    max_size: int,
) -> tuple[Any, ...]:
    """`__reduce__` of a handle: its type, what identifies the object, and the options."""
    if name is not None:
        arguments = type(handle), name, device, inode, _host(), readonly, track, max_size
        return attach, arguments, handle.__getstate__()
    if handle.closed:
        raise ValueError(CLOSED)
    # A pickler of multiprocessing exists only if this module is there.
    if "multiprocessing.reduction" not in sys.modules:
        raise TypeError(UNNAMED)
    from . import _reduction

    return _reduction.reduce(handle, sys._getframe(1).f_code)


def attach(
    cls: type[SharedMemory], name: str, device: int, inode: int, host: str, *options: int
) -> SharedMemory:
    """Unpickle a handle of an object with a name."""
    if host != _host():
        import errno

        raise OSError(
            errno.EREMOTE,
            "The shared memory is on another host, or this host was restarted after it was pickled",
            name,
        )
    return _core._attach(cls, name, device, inode, *options)


def register() -> None:
    """Let every pickler of multiprocessing that is made from now on pass descriptors."""
    from . import _reduction  # noqa: F401


CLOSED = (
    "this shared memory has no name and is closed, so it cannot be pickled; a "
    "multiprocessing.Queue pickles after put() has returned, so close the handle after the item "
    "was received"
)
UNNAMED = (
    "shared memory without a name can be pickled only by multiprocessing, which passes its "
    "descriptor: by Process(args=...), a Queue, a Pipe or a Pool"
)


# -- access control lists -----------------------------------------------------------------------


def encode_acl(text: str | None, mode: int, current: bytes) -> tuple[bytes, int]:
    """The access control list that text makes of an object, and what that makes of its mode."""
    from . import _acl

    return _acl.encode(text, mode, current)


def format_acl(current: bytes, mode: int, numeric: bool) -> str:
    """The text of an object's access control list; current is empty if it has a mode only."""
    from . import _acl

    return _acl.to_text(_acl.of_object(current, mode), numeric)


def explain_no_acl(device: int) -> str:
    """Why an object of that device cannot have an access control list, and what to do."""
    from . import _acl

    return _acl.explain(device)


# -- owner= -------------------------------------------------------------------------------------


def accepted_uids(owner: Any, most: int) -> tuple[int, ...]:
    """Return the uids that the argument owner=, which is not 'any', stands for.

    Raises TypeError and ValueError, also for more than `most` users.
    """
    users = owner if isinstance(owner, (set, frozenset, list, tuple)) else (owner,)
    uids = tuple(dict.fromkeys(uid for user in users for uid in _uids_of(user)))
    if not uids:
        raise ValueError("owner must be at least one user, or 'any'")
    if len(uids) > most:
        raise ValueError(f"owner must be at most {most} users")
    return uids


def _uids_of(user: Any) -> tuple[int, ...]:
    import operator

    if isinstance(user, str):
        return _uids_of_name(user)
    if isinstance(user, bool) or not hasattr(user, "__index__"):
        kind = type(user).__name__
        raise TypeError(
            f"owner must be a uid, a user name, 'self', a set of them, or 'any', not {kind}"
        )
    uid = operator.index(user)
    if not 0 <= uid < 2**32 - 1:
        raise ValueError(f"owner must be between 0 and {2**32 - 2}, not {uid}")
    return (uid,)


def _uids_of_name(name: str) -> tuple[int, ...]:
    import os

    if name == "self":
        return os.geteuid(), 0
    import pwd

    try:
        return (pwd.getpwnam(name).pw_uid,)
    except (KeyError, ValueError):
        raise ValueError(f"owner: the user {name!r} does not exist; a uid always works") from None
