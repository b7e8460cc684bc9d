"""What does a free lock cost: acquire and release, a with statement, and a readers-writer lock?"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from typing import Any

from .harness import (
    Batch,
    Case,
    Contender,
    Goal,
    Kind,
    Settings,
    c_batch,
    control_of,
    pinned,
    python_batch,
)
from .peers import floor, posix_ipc, posixshm
from .processes import shared_page

MP = multiprocessing.get_context("fork")
MP_LOCK = "multiprocessing.Lock"


class Segment:
    """An anonymous object in which primitives are created one after the other."""

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
    made = posix_ipc.Semaphore(None, posix_ipc.O_CREX, initial_value=value)
    made.unlink()
    return made


def locks(segment: Segment) -> dict[str, tuple[Any, Kind]]:
    found: dict[str, tuple[Any, Kind]] = {
        "floor": (floor().Lock(shared_page(), 0), "floor"),
        "posixshm.Lock": (segment.new(posixshm.Lock), "posixshm"),
        "posixshm.RLock": (segment.new(posixshm.RLock), "posixshm"),
        "posixshm.Semaphore": (segment.new(posixshm.Semaphore), "posixshm"),
        MP_LOCK: (MP.Lock(), "peer"),
        "multiprocessing.RLock": (MP.RLock(), "peer"),
        "threading.Lock": (threading.Lock(), "peer"),
    }
    if posix_ipc:
        found["posix_ipc.Semaphore"] = ipc_semaphore(1), "peer"
    return found


def lock_case(title: str, statement: str, goals: list[Goal]) -> Case:
    def batch(lock: Any) -> Batch:
        return python_batch(statement, x=lock)

    contenders = [Contender(n, batch(x), kind) for n, (x, kind) in locks(Segment()).items()]
    contenders.append(control_of(contenders[0]))
    return Case(title, contenders, goals, loop=True)


def raw_contenders() -> list[Contender]:
    page = shared_page()
    native = floor()
    native.raw_sync("prepare", page, 1)
    return [
        Contender("raw C, robust mutex", c_batch(native.raw_sync, "mutex", page), "raw C"),
        Contender("raw C, sem_t", c_batch(native.raw_sync, "semaphore", page), "raw C"),
    ]


def rwlock_case() -> Case:
    rw = Segment().new(posixshm.RWLock)
    lock = floor().Lock(shared_page(), 0)
    of_floor = Contender(
        "floor of a Lock", python_batch("x.acquire()\nx.release()", x=lock), "floor"
    )
    statements = {
        "posixshm.RWLock, read": "x.acquire_read()\nx.release()",
        "posixshm.RWLock, read, timeout=0": "x.acquire_read(timeout=0)\nx.release()",
        "posixshm.RWLock, write": "x.acquire_write()\nx.release()",
        "posixshm.RWLock, write, timeout=0": "x.acquire_write(timeout=0)\nx.release()",
        "with posixshm.RWLock.read()": "with x.read():\n    pass",
        "with posixshm.RWLock.write()": "with x.write():\n    pass",
    }
    return Case(
        "acquire and release a free RWLock",
        [
            of_floor,
            *(Contender(n, python_batch(s, x=rw), "posixshm") for n, s in statements.items()),
            Contender(MP_LOCK, python_batch("x.acquire()\nx.release()", x=MP.Lock())),
            control_of(of_floor),
        ],
        # 60 and 200 ns on a machine on which the floor of a Lock takes 28 ns.
        [
            Goal("posixshm.RWLock, read", 2.1, "floor of a Lock"),
            Goal("posixshm.RWLock, write", 7.1, "floor of a Lock"),
        ],
        loop=True,
    )


def cases(settings: Settings) -> Iterator[Case]:
    with pinned(settings.cpu):
        free = lock_case(
            "acquire and release a free lock",
            "x.acquire()\nx.release()",
            [Goal("posixshm.Lock", 1.1, "floor"), Goal("posixshm.Lock", 0.55, MP_LOCK)],
        )
        free.contenders += raw_contenders()
        yield free
        yield lock_case(
            "with a free lock", "with x:\n    pass", [Goal("posixshm.Lock", 1.05, "floor")]
        )
        yield rwlock_case()
