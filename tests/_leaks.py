"""The runner of test_leaks: a cycle that runs many times changes no counter.

A module of cycles, _leak_NAME, says which public names each of them is for. It runs in a process of
its own, where nothing else happens:

    @cycle("MemoryMap.sync")
    def _():
        mapping.sync()
        refused(mapping.sync, -1)

    python -c "from _leaks import main; main('_leak_memory')" NAME

NAME is that of the objects that the cycles make, which are gone after each.
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

# A leak is at least one of a kind a cycle. Caches of the interpreter grow too, but once; and what
# a free-threaded one frees or counts late, it does for some cycles at once. So growth counts from a
# quarter of the cycles on, and only if it is there each time: what goes up and down within bounds, as
# the memory of threads that ended does, is not.
PART = 4
ATTEMPTS = 12
WARM_UP = 8
LEAST_MALLOC = 32  # bytes: the smallest piece, with its header

FAILURES = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, BufferError)

name = sys.argv[1] if len(sys.argv) > 1 else ""
cycles = []
unwatched = []  # what a module knows to be miscounted by others


class Cycle(NamedTuple):
    names: tuple[str, ...]
    function: object
    times: int


def cycle(*names, times=100):
    """For a function: a cycle of these public names, run so many times."""

    def add(function):
        cycles.append(Cycle(names, function, times))
        return function

    return add


# -- in cycles ----------------------------------------------------------------------------------


def refused(function, *args, **keywords):
    """It must raise one of the documented errors."""
    try:
        function(*args, **keywords)
    except (*FAILURES, struct.error):
        return
    raise AssertionError(f"{function} was not refused")


def misused(function):
    """Refused, whatever it takes."""
    refused(function, nonsense=True)
    refused(function, *[object()] * 20)


def read(thing, *attributes):
    """Attributes that can be read, but cannot be set or deleted."""
    for attribute in attributes:
        getattr(thing, attribute)
        for change in (
            lambda a=attribute: setattr(thing, a, 1),
            lambda a=attribute: delattr(thing, a),
        ):
            with contextlib.suppress(AttributeError):
                change()
                raise AssertionError(f"{attribute} was changed")


# -- what there is ------------------------------------------------------------------------------


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (field, ctypes.c_size_t)
        for field in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def _find_mallinfo():
    """glibc's from 2.33 on; without it, what C code loses is seen by the resident memory alone."""
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = _Mallinfo
    return function


_mallinfo = _find_mallinfo()
_watched = []


def _references():
    """All references there are, where a debug build counts them; else those to what there was before
    the first cycle: classes, functions, and the objects that all cycles use."""
    # numpy counts only if it was built for a debug build, which the wheels of PyPI are not.
    if hasattr(sys, "gettotalrefcount") and "numpy" not in sys.modules:
        return sys.gettotalrefcount()
    return sum(map(sys.getrefcount, _watched))


def _allocated():
    """Bytes that malloc has given away."""
    if _mallinfo is None:
        return 0
    info = _mallinfo()
    return info.uordblks + info.hblkhd


class Holdings(NamedTuple):
    """A count of the blocks makes a free-threaded 3.13 keep pieces of some MB: no cycle has such."""

    descriptors: int
    shared: int  # mappings of shared memory
    names: int  # of objects in /dev/shm
    references: int
    blocks: int  # objects and other pieces of memory
    malloc: int  # bytes
    mappings: int  # all of them; the kernel makes one of two that touch and are alike
    address_space: int  # bytes, whether anything is in them or not
    resident: int  # bytes

    @classmethod
    def now(cls):
        gc.collect()
        gc.collect()
        # The cache of attributes keeps the names that it was asked for, and unpickling asks for a
        # new string each time.
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
        """The counters that have grown too much in so many cycles."""
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
    """The objects that a cycle leaves; empty if it is correct."""
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
    """Run the cycles of a module, and tell of all that leave something."""
    importlib.import_module(module)
    gc.collect()
    _watched.extend(what for what in gc.get_objects() if all(what is not it for it in unwatched))
    gc.freeze()  # a collection need not traverse the objects that exist already
    for _ in range(WARM_UP):
        Holdings.now()
    leaks = []
    for cycle in cycles:
        if grown := _growth(cycle):
            leaks.append(f"{', '.join(cycle.names)}: {grown} in {cycle.times} cycles")
    gc.unfreeze()  # the interpreter's end needs to collect it
    _watched.clear()
    if leaks:
        sys.exit("\n".join(leaks))


def names(*modules):
    """The public names that these modules have cycles for."""
    for module in modules:
        importlib.import_module(module)
    return {name for cycle in cycles for name in cycle.names}
