"""Helpers of test_failures: each allocation of each cycle of test_leaks fails once.

A child imports a module of cycles and runs each cycle again and again. The first allocation of the
extension module fails in the first run, the second allocation in the next run, and so on until a
run makes fewer allocations. A run raises MemoryError or ENOMEM, or continues without the memory.
After each run the process has as many descriptors and mappings of shared memory as before and has
not lost memory, and no lock is held.

    python -c "from _failures import main; main('_leak_memory')" NAME
"""

import contextlib
import errno
import gc
import importlib
import os
import re
import sys
import weakref
from functools import partial

import _leaks
from _processes import SHM, Faults, shm_names

from posixshm import Barrier, Condition, Lock, RLock, RWLock, Semaphore, SharedMemory

# A leak occurs in every run. Memory that the interpreter caches is allocated in one run only.
ATTEMPTS = 300
MOST = 10_000  # allocations in a cycle
# Messages of CPython 3.11 when a call or an attribute lookup runs out of memory.
_BY_CPYTHON = re.compile(
    "<function .*> returned NULL without setting an exception|.* object has no attribute '.*'"
)


class Scene:
    """The objects that the cycles of a module share, and the resources in use before each cycle."""

    def __init__(self):
        everything = gc.get_objects()
        self.locks = [it for it in everything if isinstance(it, (Lock, RLock, Condition, RWLock))]
        handles = [it for it in everything if isinstance(it, SharedMemory)]
        self.contents = [(it, bytes(it)) for it in handles if not (it.closed or it.readonly)]
        self.names = set(shm_names())
        self.holdings = self.now()

    def now(self):
        """Descriptors, and mappings of shared memory."""
        with open("/proc/self/maps", "rb") as file:
            maps = file.read()
        shared = maps.count(f" {SHM}/".encode()) + maps.count(b" /memfd:")
        return len(os.listdir("/proc/self/fd")), shared

    def restore(self):
        """Undo what a failed cycle could not undo."""
        for lock in self.locks:
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                while True:
                    lock.release()
        for shm, content in self.contents:
            shm.buf[:] = content
        for name in set(shm_names()) - self.names:
            assert "~" not in name, f"a temporary name was left: {name}"
            os.unlink(f"{SHM}/{name}")
        gc.collect()


class Failing:
    """Runs of a cycle in which one allocation fails."""

    def __init__(self, scene):
        self.scene = scene
        self.faults = Faults()
        self.faults.count_allocations()
        self.not_finalized = False
        sys.unraisablehook = self.ignored

    def ignored(self, what):
        """Without memory CPython itself may fail to call the callback of a weakref."""
        kinds = what.exc_type, type(what.object)
        assert kinds == (MemoryError, weakref.finalize), what
        self.not_finalized = True

    def run(self, cycle, step):
        """Run the cycle; return whether it made an allocation of that number, which failed."""
        self.faults.arm("allocate", step, Faults.FAIL)
        problem = None
        try:
            cycle.function()
        except BaseException as error:
            error.__context__ = None  # the traceback would keep the cycle's objects alive
            problem = error.with_traceback(None)
        met = self.faults.disarm()
        self.scene.restore()
        if problem is not None:
            self.check(problem, met >= step)
        return met >= step

    def check(self, problem, failed):
        """Check that the error is MemoryError, ENOMEM, or what CPython raises in its place."""
        match problem:
            case OSError():
                is_told = problem.errno == errno.ENOMEM
            case SystemError() | AttributeError():
                is_told = _BY_CPYTHON.match(str(problem))
            case _:
                is_told = isinstance(problem, MemoryError)
        if not (failed and is_told):
            raise problem

    def run_each(self, cycle):
        cycle.function()
        self.scene.restore()
        for step in range(1, MOST):
            for _ in range(ATTEMPTS):
                self.not_finalized = False
                before = sys.getallocatedblocks()
                failed = self.run(cycle, step)
                grown = sys.getallocatedblocks() - before
                if grown <= 0 or self.not_finalized:
                    break
            else:
                raise AssertionError(f"{grown} blocks of memory were left at allocation {step}")
            assert self.scene.now() == self.scene.holdings, f"left at allocation {step}"
            if not failed:
                return
        raise AssertionError("the number of allocations does not end")


def main(module):
    """Run the cycles of a module, and stop at the first that leaves something."""
    importlib.import_module(module)
    for cycle in _leaks.cycles:
        cycle.function()
    gc.collect()
    failing = Failing(Scene())
    gc.freeze()  # each collection can skip the objects that exist now
    for cycle in _leaks.cycles:
        try:
            failing.run_each(cycle)
        except BaseException as error:
            error.add_note(f"in the cycle of {', '.join(cycle.names)}")
            raise
    gc.unfreeze()  # the interpreter collects them when it ends


def fail_to_make(name):
    """A failed creation leaves neither the name nor a temporary name."""
    makers = [partial(kind, name, create=True) for kind in (Lock, Condition, RWLock, Semaphore)]
    makers += [
        partial(Barrier, name, create=True, parties=2),
        partial(SharedMemory, name, create=True, size=10),
        partial(SharedMemory.create, name, 10, exist_ok=True),
        partial(SharedMemory.create, name, 10, delete=True, track=True, init=bytes),
        partial(SharedMemory.create, name, 10, max_size=1000, populate=True, uid=os.geteuid()),
    ]
    faults = Faults()
    faults.count_allocations()
    before = shm_names()
    for make in makers:
        for step in range(1, MOST):
            faults.arm("allocate", step, Faults.FAIL)
            made = None
            with contextlib.suppress(MemoryError):
                try:
                    made = make()
                except OSError as error:
                    assert error.errno == errno.ENOMEM, error
            met = faults.disarm()
            if made is None:
                assert shm_names() == before, (make, step)
                continue
            made.unlink()
            made.close()
            if met < step:
                break
