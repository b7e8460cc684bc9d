"""Helpers of test_leaks: run a cycle many times, and check that no resource count grows.

A module of cycles, _leak_NAME, states the public names that each cycle calls. It runs in its own
process:

    @cycle("MemoryMap.sync")
    def _():
        mapping.sync()
        refused(mapping.sync, -1)

    python -c "from _leaks import main; main('_leak_memory')" NAME

NAME is the name of the objects that the cycles create; each cycle removes its own.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import struct
import sys
import warnings
from typing import NamedTuple

# A leak adds at least one item in each cycle. Caches of the interpreter also grow, but only once,
# and a free-threaded interpreter frees or counts some items late, for several cycles at once. So
# growth is a failure only if it is at least a quarter of the number of cycles in every attempt. A
# count that varies within bounds, such as the memory of ended threads, passes.
PART = 4
ATTEMPTS = 12
WARM_UP = 8
LEAST_MALLOC = 32  # bytes: the smallest allocation, with its header

FAILURES = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, BufferError)

name = sys.argv[1] if len(sys.argv) > 1 else ""
cycles = []
unwatched = []  # objects whose references other code miscounts


class Cycle(NamedTuple):
    names: tuple[str, ...]
    function: object
    times: int


def cycle(*names, times=100):
    """For a function: a cycle that calls these public names and runs this many times."""

    def add(function):
        cycles.append(Cycle(names, function, times))
        return function

    return add


# -- in cycles ----------------------------------------------------------------------------------


def refused(function, *args, **keywords):
    """The call must raise one of the documented exceptions."""
    try:
        function(*args, **keywords)
    except (*FAILURES, struct.error):
        return
    raise AssertionError(f"{function} was not refused")


def misused(function):
    """Call the function with arguments that no function accepts."""
    refused(function, nonsense=True)
    refused(function, *[object()] * 20)


def read(thing, *attributes):
    """Read the attributes; setting or deleting them must fail."""
    for attribute in attributes:
        getattr(thing, attribute)
        for change in (
            lambda a=attribute: setattr(thing, a, 1),
            lambda a=attribute: delattr(thing, a),
        ):
            with contextlib.suppress(AttributeError):
                change()
                raise AssertionError(f"{attribute} was changed")


# -- resource counts ----------------------------------------------------------------------------


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (field, ctypes.c_size_t)
        for field in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def _find_mallinfo():
    """mallinfo2() of glibc 2.33 and later; without it, only resident memory shows a leak of C
    code."""
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = _Mallinfo
    return function


_mallinfo = _find_mallinfo()
_watched = []


def _references():
    """The number of references: all of them if a debug build counts them; otherwise those to
    objects from before the first cycle, such as classes, functions, and the objects that all cycles
    use."""
    # numpy from PyPI is built for the release build, and does not update the total.
    if hasattr(sys, "gettotalrefcount") and "numpy" not in sys.modules:
        return sys.gettotalrefcount()
    return sum(map(sys.getrefcount, _watched))


def _allocated():
    """Bytes that malloc has handed out."""
    if _mallinfo is None:
        return 0
    info = _mallinfo()
    return info.uordblks + info.hblkhd


class Holdings(NamedTuple):
    """Resource counts. Counting blocks makes a free-threaded 3.13 keep arenas of some MB, so no
    cycle allocates that much."""

    descriptors: int
    shared: int  # mappings of shared memory
    names: int  # of objects in /dev/shm
    references: int
    blocks: int  # objects and other pieces of memory
    malloc: int  # bytes
    mappings: int  # all; the kernel merges adjacent mappings with the same attributes
    address_space: int  # bytes, resident or not
    resident: int  # bytes

    @classmethod
    def now(cls):
        gc.collect()
        gc.collect()
        # The type cache keeps the names that were looked up, and unpickling looks up a new string
        # each time.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            sys._clear_type_cache()
        with open("/proc/self/maps") as maps:
            lines = maps.readlines()
        with open("/proc/self/statm") as statm:
            address_space, resident = (int(pages) * 4096 for pages in statm.read().split()[:2])
        return cls(
            len(os.listdir("/proc/self/fd")),
            sum("/dev/shm/" in line or "/memfd:" in line for line in lines),
            sum(file.startswith(name) for file in os.listdir("/dev/shm")),
            _references(),
            sys.getallocatedblocks(),
            _allocated(),
            len(lines),
            address_space,
            resident,
        )

    def growth_since(self, before, times):
        """The counts that have grown beyond their limit for this many cycles."""
        limits = Holdings(
            descriptors=1,
            shared=1,
            names=1,
            references=times // PART,
            blocks=times // PART,
            malloc=times // PART * LEAST_MALLOC,
            mappings=times // PART,
            address_space=times // PART * 4096,
            resident=(1 << 18) + 100 * times,
        )
        grown = {field: getattr(self, field) - getattr(before, field) for field in self._fields}
        return {field: n for field, n in grown.items() if n >= getattr(limits, field)}


def _growth(cycle):
    """The counts that a cycle increases; empty if the cycle leaves nothing."""
    for _ in range(WARM_UP):
        cycle.function()
    before = Holdings.now()
    for _ in range(ATTEMPTS):
        for _ in range(cycle.times):
            cycle.function()
        after = Holdings.now()
        grown = after.growth_since(before, cycle.times)
        if not grown:
            break
        before = after
    return grown


def main(module):
    """Run the cycles of a module, and report each that leaves something."""
    importlib.import_module(module)
    gc.collect()
    _watched.extend(what for what in gc.get_objects() if all(what is not it for it in unwatched))
    gc.freeze()  # each collection can skip the objects that exist now
    for _ in range(WARM_UP):
        Holdings.now()
    leaks = []
    for cycle in cycles:
        if grown := _growth(cycle):
            leaks.append(f"{', '.join(cycle.names)}: {grown} in {cycle.times} cycles")
    gc.unfreeze()  # the interpreter collects them when it ends
    _watched.clear()
    if leaks:
        sys.exit("\n".join(leaks))


def names(*modules):
    """The public names that these modules have cycles for."""
    for module in modules:
        importlib.import_module(module)
    return {name for cycle in cycles for name in cycle.names}
