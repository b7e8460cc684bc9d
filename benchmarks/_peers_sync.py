"""The contenders of bench_sync.py: locks, pairs that play ping-pong, and counters."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import Batch, c_batch, checked, python_batch
from _peers import posix_ipc, posixshm

RAW_C = Path(__file__).parent / "raw" / "sync.c"

MP = multiprocessing.get_context("fork")

MP_LOCK = "multiprocessing Lock"
C_MUTEX = "raw C robust mutex"
C_SEMAPHORE = "raw C sem_t"
C_FUTEX = "raw C futex"

NO_POSIX_IPC = "posix_ipc Semaphore: left out, " + (
    "not installed (pip install posix-ipc), or this is a build without the GIL"
)

FOR_EVER = sys.maxsize


def declare(lib: ctypes.CDLL) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for peer, arguments in {
        "prepare": (pointer,),
        "end_with_parent": (),
        "mutex": (pointer, number),
        "semaphore": (pointer, number),
        "ping_semaphore": (pointer, number),
        "pong_semaphore": (pointer, number),
        "ping_futex": (pointer, number),
        "pong_futex": (pointer, number),
        "count_mutex": (pointer, pointer, pointer),
    }.items():
        function = getattr(lib, f"peer_{peer}")
        function.argtypes = arguments
        function.restype = number


class Shared:
    """Memory shared with children: integers for Python, an argument for C."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.numbers = memoryview(memory).cast("q")
        self._as_parameter_ = ctypes.addressof(ctypes.c_char.from_buffer(memory))


def c_page(lib: ctypes.CDLL) -> Shared:
    page = Shared()
    checked(lib.peer_prepare(page))
    return page


class Segment:
    """An anonymous segment in which primitives are created one after the other."""

    def __init__(self) -> None:
        self.shm = posixshm.SharedMemory.anonymous(64 << 10)
        self.used = 0

    def make(self, kind: Any, **options: Any) -> Any:
        self.used += -self.used % max(64, kind.alignment)
        made = kind.at(self.shm, self.used, **options)
        self.used += kind.nbytes
        return made

    def new(self, kind: Any, **options: Any) -> Any:
        return self.make(kind, create=True, **options)


def ipc_semaphore(value: int) -> Any:
    assert posix_ipc
    made = posix_ipc.Semaphore(None, posix_ipc.O_CREX, initial_value=value)
    made.unlink()
    return made


# -- without contention --------------------------------------------------------


def peer_locks() -> dict[str, Any]:
    locks = {
        MP_LOCK: MP.Lock(),
        "multiprocessing RLock": MP.RLock(),
        "multiprocessing Semaphore": MP.Semaphore(),
        "threading Lock": threading.Lock(),
    }
    if posix_ipc:
        locks["posix_ipc Semaphore"] = ipc_semaphore(1)
    return locks


def our_locks(segment: Segment) -> dict[str, Any]:
    return {
        "posixshm Lock": segment.new(posixshm.Lock),
        "posixshm RLock": segment.new(posixshm.RLock),
        "posixshm Semaphore": segment.new(posixshm.Semaphore),
    }


# -- ping-pong -----------------------------------------------------------------


@dataclass
class Pair:
    """The calls that two processes repeat alternately."""

    ping: Batch
    pong: Callable[[], Any]


SEMAPHORES = "a.release()\nb.acquire()", "a.acquire()\nb.release()"
EVENTS = "a.set()\nb.wait()\nb.clear()", "a.wait()\na.clear()\nb.set()"
WORD = (
    "w.store(1)\nw.notify(1)\nw.wait(1)",
    "w.wait(0)\nw.store(0)\nw.notify(1)",
)
CONDITION = (
    "with c:\n    turn[0] = 1\n    c.notify()\n    while turn[0]:\n        c.wait()",
    "with c:\n    while not turn[0]:\n        c.wait()\n    turn[0] = 0\n    c.notify()",
)


def python_pair(statements: tuple[str, str], **names: Any) -> Pair:
    """Both ends run the same kind of loop."""
    ping, pong = (python_batch(statement, **names) for statement in statements)
    return Pair(ping, lambda: pong(FOR_EVER))


def c_pair(lib: ctypes.CDLL, how: str) -> Pair:
    page = c_page(lib)
    ping, pong = (getattr(lib, f"peer_{end}_{how}") for end in ("ping", "pong"))
    return Pair(c_batch(ping, page), lambda: checked(pong(page, FOR_EVER)))


def our_pairs(segment: Segment) -> dict[str, Pair]:
    semaphores = [segment.new(posixshm.Semaphore, value=0) for _ in range(2)]
    events = [segment.new(posixshm.Event) for _ in range(2)]
    return {
        "posixshm Semaphore": python_pair(SEMAPHORES, a=semaphores[0], b=semaphores[1]),
        "posixshm Event": python_pair(EVENTS, a=events[0], b=events[1]),
        "posixshm Atomic": python_pair(WORD, w=segment.make(posixshm.Atomic)),
        "posixshm Condition": python_pair(
            CONDITION, c=segment.new(posixshm.Condition), turn=Shared().numbers
        ),
    }


def peer_pairs() -> dict[str, Pair]:
    pairs = {
        "multiprocessing Semaphore": python_pair(SEMAPHORES, a=MP.Semaphore(0), b=MP.Semaphore(0)),
        "multiprocessing Event": python_pair(EVENTS, a=MP.Event(), b=MP.Event()),
        "multiprocessing Condition": python_pair(
            CONDITION, c=MP.Condition(), turn=Shared().numbers
        ),
    }
    if posix_ipc:
        pairs["posix_ipc Semaphore"] = python_pair(
            SEMAPHORES, a=ipc_semaphore(0), b=ipc_semaphore(0)
        )
    return pairs


# -- one counter for all -------------------------------------------------------

# Counts while `running` is not 0. Returns the number of increments.
Counting = Callable[[], int]


@dataclass
class Counter:
    """A counter that several processes increment while `running` is not 0."""

    value: memoryview  # [0]
    running: memoryview  # [0]
    count: Counting


def under_lock(lock: Any) -> Counter:
    value, running = Shared().numbers, Shared().numbers

    def count() -> int:
        mine = 0
        while running[0]:
            with lock:
                value[0] += 1
            mine += 1
        return mine

    return Counter(value, running, count)


def by_fetch_add() -> Counter:
    shm, running = posixshm.SharedMemory.anonymous(mmap.PAGESIZE), Shared().numbers
    atomic = posixshm.Atomic.at(shm)

    def count() -> int:
        mine = 0
        while running[0]:
            atomic.fetch_add(1)
            mine += 1
        return mine

    return Counter(shm.buf.cast("q"), running, count)


def in_c(lib: ctypes.CDLL) -> Counter:
    page, value, running = c_page(lib), Shared(), Shared()
    return Counter(
        value.numbers,
        running.numbers,
        lambda: checked(lib.peer_count_mutex(page, value, running)),
    )


def counters(lib: ctypes.CDLL, segment: Segment) -> dict[str, Counter]:
    found = {
        MP_LOCK: under_lock(MP.Lock()),
        "posixshm Lock": under_lock(segment.new(posixshm.Lock)),
        "posixshm Atomic.fetch_add": by_fetch_add(),
        C_MUTEX: in_c(lib),
    }
    if posix_ipc:
        found["posix_ipc Semaphore"] = under_lock(ipc_semaphore(1))
    return found
