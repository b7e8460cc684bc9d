"""How fast is one lock that several processes want, and how fair is it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .bench_lock import MP, MP_LOCK, Segment, ipc_semaphore
from .harness import Case, Contender, Goal, Settings
from .peers import floor, posix_ipc, posixshm
from .processes import Race, racing, shared_page

SPINS = 100
Count = Callable[[int, memoryview], int]


def under(lock: Any) -> Count:
    """Add 1 to a counter with a `with` statement."""

    def count(_: int, running: memoryview) -> int:
        mine = 0
        while running[1]:
            with lock:
                running[0] += 1
            mine += 1
        return mine

    return count


def reading(enter: Callable[[], Any], leave: Callable[[], Any]) -> Count:
    def count(_: int, running: memoryview) -> int:
        mine = 0
        while running[1]:
            enter()
            leave()
            mine += 1
        return mine

    return count


def by_fetch_add() -> Count:
    atomic = Segment().make(posixshm.Atomic)

    def count(_: int, running: memoryview) -> int:
        mine = 0
        while running[1]:
            atomic.fetch_add(1)
            mine += 1
        return mine

    return count


def in_c(spins: int) -> Count:
    page = shared_page()
    floor().raw_sync("prepare", page, 1)
    return lambda _, running: floor().raw_count(page, running, spins)


def counters() -> dict[str, tuple[Count, str]]:
    lock = floor().Lock
    found = {
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


def readers() -> dict[str, tuple[Count, str]]:
    rw, lock, mp = Segment().new(posixshm.RWLock), Segment().new(posixshm.Lock), MP.Lock()
    of_mp = reading(mp.acquire, mp.release)
    return {
        MP_LOCK: (of_mp, "peer"),
        "posixshm.RWLock": (reading(rw.acquire_read, rw.release), "posixshm"),
        "posixshm.Lock": (reading(lock.acquire, lock.release), "posixshm"),
        "posixshm.Atomic.fetch_add, without a lock": (by_fetch_add(), "posixshm"),
        f"{MP_LOCK}, once more": (of_mp, "control"),
    }


def race_case(
    title: str, counts: dict[str, tuple[Count, str]], races: dict[str, Race], **options: Any
) -> Case:
    return Case(
        title,
        [Contender(name, races[name].batch, kind) for name, (_, kind) in counts.items()],
        once=True,
        **options,
    )


def cases(settings: Settings) -> Iterator[Case]:
    seconds = 0.005 if settings.quick else 0.05
    for processes in (1, 2) if settings.quick else (1, 2, 4, 8):
        counts = counters()
        races = {n: Race(count, processes, seconds, True) for n, (count, _) in counts.items()}
        goals = [Goal("posixshm.Lock", 0.4, MP_LOCK)] if processes == 2 else []
        with racing(list(races.values())):
            yield race_case(
                f"add 1 under a lock, {processes} processes",
                counts,
                races,
                goals=goals,
                chart="contention",
                x=processes,
            )
        if processes == 2:
            yield Case(
                "fairness of a lock, 2 processes",
                [
                    Contender(n, races[n].fairness_batch, kind)
                    for n, (_, kind) in counts.items()
                    if kind != "control"
                ],
                [Goal("posixshm.Lock", at_least=0.85)],
                unit="share",
                once=True,
                rounds=1,
                remark="the number of turns of the slowest process, as a ratio to the fastest",
            )
    for processes in (2,) if settings.quick else (1, 2, 4):
        counts = readers()
        races = {n: Race(count, processes, seconds) for n, (count, _) in counts.items()}
        with racing(list(races.values())):
            yield race_case(
                f"read at the same time, {processes} processes",
                counts,
                races,
                chart="readers",
                x=processes,
            )
