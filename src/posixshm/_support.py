"""What the C extension leaves to Python: ends of processes, the resource tracker, descriptors.

The package hands this module to the extension. All that costs time to import is imported in the
functions, when it is needed.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import SharedMemory

# After the program's own finalizers, which may still use the object.
_WORKER_END_PRIORITY = -100


def imported(module: str) -> Any:
    """The module if the program has imported it, else None.

    Without dict.get(): in a free-threaded 3.13 it takes the dict's lock, which a forked child may
    find taken for ever by another thread. So for every dict that threads share.
    """
    return sys.modules[module] if module in sys.modules else None  # noqa: SIM401


def call_at_end(handle: SharedMemory, remove: Callable[[Any], object], duty: Any) -> None:
    """Have remove(duty) called when the handle goes, or its process ends."""
    import weakref

    weakref.finalize(handle, remove, duty)
    if _is_worker():
        util = imported("multiprocessing.util")
        util.Finalize(handle, remove, (duty,), exitpriority=_WORKER_END_PRIORITY)


def _is_worker() -> bool:
    """Whether multiprocessing has started this process; a forked one ends without the
    interpreter's own end."""
    process, util = imported("multiprocessing.process"), imported("multiprocessing.util")
    return process is not None and util is not None and process.parent_process() is not None


_ending: Any = None  # the handles that leave_at_end() has got
_ending_worker: int | None = None  # the worker of multiprocessing whose end is seen to
_workers_told = False  # those that this process forks


def leave_at_end(handle: SharedMemory) -> None:
    """Have _leave(handle) called when the process ends, if the handle is still there."""
    global _ending
    if _ending is None:
        import atexit
        import os
        import weakref

        _ending = weakref.WeakSet()
        atexit.register(_leave_all)
        os.register_at_fork(before=_before_fork)
    _ending.add(handle)
    if _is_worker():
        _at_end_of_worker(_leave_all)


def _before_fork() -> None:
    """A worker of multiprocessing that is forked forgets the finalizers of its parent."""
    global _workers_told
    util = imported("multiprocessing.util")
    if util is not None and not _workers_told:
        _workers_told = True
        util.register_after_fork(_ending, lambda _: _at_end_of_worker(_close_all))


def _at_end_of_worker(call: Callable[[], None]) -> None:
    global _ending_worker
    import os

    if _ending_worker != os.getpid():
        _ending_worker = os.getpid()
        util = imported("multiprocessing.util")
        util.Finalize(None, call, exitpriority=_WORKER_END_PRIORITY)


def _leave_all() -> None:
    from ._core import _leave

    for handle in list(_ending):
        _leave(handle)


def _close_all() -> None:
    """In a forked worker, whose siblings may have the same open files and end at the same time.

    Threads that the worker still waits for may use the handles.
    """
    import threading

    _leave_all()
    if all(each.daemon or each is threading.main_thread() for each in threading.enumerate()):
        for handle in list(_ending):
            handle.close()


def track(function: str, name: str) -> None:
    """Tell the resource tracker of the standard library."""
    from . import _track

    getattr(_track, function)(name)


def register() -> None:
    """Let every pickler of multiprocessing that is made from now on pass descriptors."""
    from . import _reduction  # noqa: F401


def reduce_unnamed(handle: SharedMemory) -> tuple[Any, ...]:
    """`__reduce__` of an open handle without a name."""
    # A pickler of multiprocessing exists only if this module is there.
    if "multiprocessing.reduction" not in sys.modules:
        raise TypeError(UNNAMED)
    from . import _reduction

    return _reduction.reduce(handle, sys._getframe(1).f_code)


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


UNNAMED = (
    "shared memory without a name can be pickled only by multiprocessing, which passes its "
    "descriptor: by Process(args=...), a Queue, a Pipe or a Pool"
)
