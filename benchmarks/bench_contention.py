"""How fast is one lock that several processes want, and how fair is it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .bench_lock import MP, MP_LOCK, Segment, ipc_semaphore
from .harness import Case, Contender, Goal, Kind, Settings
from .peers import floor, posix_ipc, posixshm
from .processes import Count, Race, race_case, repeated, shared_page

SPINS = 100


def under(lock: Any) -> Count:
    return repeated("with lock:\n    running[0] += 1", lock=lock)


def in_c(spins: int) -> Count:
    page = shared_page()
    floor().raw_sync("prepare", page, 1)
    return lambda _, running: floor().raw_count(page, running, spins)


def counters() -> dict[str, tuple[Count, Kind]]:
    lock = floor().Lock
    found: dict[str, tuple[Count, Kind]] = {
        MP_LOCK: (under(MP.Lock()), "peer"),
        "posixshm.Lock": (under(Segment().new(posixshm.Lock)), "posixshm"),
        "floor": (under(lock(shared_page(), 0)), "floor"),
        "floor, which spins first": (under(lock(shared_page(), 0, spins=SPINS)), "floor"),
        "raw C": (in_c(0), "raw C"),
        "raw C, which spins first": (in_c(SPINS), "raw C"),
    }
    if posix_ipc:
        found["posix_ipc.Semaphore"] = under(ipc_semaphore(1)), "peer"
    found[f"{MP_LOCK}, once more"] = under(MP.Lock()), "control"
    return found


def readers() -> dict[str, tuple[Count, Kind]]:
    segment, take = Segment(), "x.acquire()\nx.release()"
    by_mp = repeated(take, x=MP.Lock())
    reading = repeated("x.acquire_read()\nx.release()", x=segment.new(posixshm.RWLock))
    adding = repeated("x.fetch_add(1)", x=segment.make(posixshm.Atomic))
    return {
        MP_LOCK: (by_mp, "peer"),
        "posixshm.RWLock": (reading, "posixshm"),
        "posixshm.Lock": (repeated(take, x=segment.new(posixshm.Lock)), "posixshm"),
        "posixshm.Atomic.fetch_add, without a lock": (adding, "posixshm"),
        f"{MP_LOCK}, once more": (by_mp, "control"),
    }


def fairness_case(case: Case) -> Case:
    """Of the lock case that has just run."""
    return Case(
        "fairness of a lock, 2 processes",
        [
            Contender(c.name, c.batch.fairness, c.kind)
            for c in case.contenders
            if isinstance(c.batch, Race)
        ],
        [Goal("posixshm.Lock", at_least=0.85)],
        unit="share",
        once=True,
        rounds=1,
        remark="the number of turns of the slowest process, as a ratio to the fastest",
    )


def cases(settings: Settings) -> Iterator[Case]:
    for processes in (1, 2) if settings.quick else (1, 2, 4, 8):
        title = "add 1 under a lock"
        with race_case(title, counters(), processes, settings, "contention", True) as case:
            case.goals = [Goal("posixshm.Lock", 0.4, MP_LOCK)] if processes == 2 else []
            yield case
        if processes == 2:
            yield fairness_case(case)
    for processes in (2,) if settings.quick else (1, 2, 4):
        title = "read at the same time"
        with race_case(title, readers(), processes, settings, "readers") as case:
            yield case
