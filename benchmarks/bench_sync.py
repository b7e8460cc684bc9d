"""What does synchronization cost, compared with raw C, multiprocessing, threading and posix_ipc?

    python benchmarks/bench_sync.py            the tables; takes less than a minute
    python benchmarks/bench_sync.py --quick    only checks that it runs
    python benchmarks/bench_sync.py --check    exit status 1 if a target is missed

All contenders are interleaved, see _common.py; a figure is the median over the rounds of the ratio
to the first row in the same round.  Without contention they run in one process on one
core, and the time of an empty loop is subtracted from every contender whose loop runs in Python.

In the ping-pong two processes wake each other alternately. Both are on one core, so that each
wake-up is one context switch; on two cores the figure would include the sleep of a core. A turn is
one exchange. Every contender has its own second process, which is started once and sleeps while
others play. Both processes run the same kind of loop, either in Python or in C.

In "one counter for all" the processes run on all cores, for the same time in each round. The ratio
compares the time for an increment; fairness is the ratio of the smallest share of a process to the
largest share. Each round checks that no increment was lost.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from _children import children
from _common import (
    CannotRun,
    Case,
    Contender,
    Row,
    arguments_of,
    as_report,
    c_batch,
    c_library,
    conclude,
    machine,
    missed_in,
    now,
    pinned,
    print_case,
    print_head,
    python_batch,
    run,
    run_command,
    settings_of,
)
from _peers import posix_ipc, posixshm, versions
from _peers_sync import (
    C_FUTEX,
    C_MUTEX,
    C_SEMAPHORE,
    MP_LOCK,
    NO_POSIX_IPC,
    RAW_C,
    Counter,
    Pair,
    Segment,
    Shared,
    c_page,
    c_pair,
    counters,
    declare,
    our_locks,
    our_pairs,
    peer_locks,
    peer_pairs,
)

TARGETS = {"acquire": 0.7, "with": 0.45, "fetch_add": 0.3, "ping-pong": 1.35}

WITHOUT = [] if posix_ipc else [NO_POSIX_IPC]


# -- without contention --------------------------------------------------------


def acquire_case(lib: ctypes.CDLL, segment: Segment) -> Case:
    def lock(x: Any) -> Any:
        return python_batch("x.acquire()\nx.release()", x=x)

    rw = segment.new(posixshm.RWLock)
    targets = {"posixshm Lock": TARGETS["acquire"]}
    locks = peer_locks()
    return Case(
        "acquire() + release(), without contention",
        [
            Contender(MP_LOCK, lock(locks.pop(MP_LOCK))),
            *(Contender(n, lock(x), targets.get(n)) for n, x in our_locks(segment).items()),
            Contender("posixshm RWLock, read", python_batch("x.acquire_read()\nx.release()", x=rw)),
            Contender(
                "posixshm RWLock, write", python_batch("x.acquire_write()\nx.release()", x=rw)
            ),
            *(Contender(n, lock(x)) for n, x in locks.items()),
            Contender(C_MUTEX, c_batch(lib.peer_mutex, c_page(lib)), in_c=True),
            Contender(C_SEMAPHORE, c_batch(lib.peer_semaphore, c_page(lib)), in_c=True),
        ],
        python_batch("pass"),
        list(WITHOUT),
    )


def with_case(segment: Segment) -> Case:
    def block(x: Any) -> Any:
        return python_batch("with x:\n    pass", x=x)

    rw = segment.new(posixshm.RWLock)
    targets = {"posixshm Lock": TARGETS["with"]}
    locks = peer_locks()
    return Case(
        "with lock: pass, without contention",
        [
            Contender(MP_LOCK, block(locks.pop(MP_LOCK))),
            *(Contender(n, block(x), targets.get(n)) for n, x in our_locks(segment).items()),
            Contender("posixshm RWLock, read", python_batch("with x.read():\n    pass", x=rw)),
            Contender("posixshm RWLock, write", python_batch("with x.write():\n    pass", x=rw)),
            *(Contender(n, block(x)) for n, x in locks.items()),
        ],
        python_batch("pass"),
        list(WITHOUT),
    )


def increment_case(segment: Segment) -> Case:
    def view(lock: Any) -> Any:
        return python_batch("with x:\n    v[0] = v[0] + 1", x=lock, v=Shared().numbers)

    def packed(lock: Any) -> Any:
        form = struct.Struct("q")
        return python_batch(
            "with x:\n    value, = get(v)\n    put(v, 0, value + 1)",
            x=lock,
            v=Shared().numbers.cast("B"),
            get=form.unpack_from,
            put=form.pack_into,
        )

    return Case(
        "increment a shared counter, without contention",
        [
            Contender("with posixshm Lock, memoryview", view(segment.new(posixshm.Lock))),
            Contender(
                "posixshm Atomic.fetch_add",
                python_batch("x.fetch_add(1)", x=segment.make(posixshm.Atomic)),
                TARGETS["fetch_add"],
            ),
            Contender("with posixshm Lock, struct", packed(segment.new(posixshm.Lock))),
            Contender("with multiprocessing Lock, memoryview", view(peer_locks()[MP_LOCK])),
        ],
        python_batch("pass"),
    )


# -- ping-pong -----------------------------------------------------------------


def ping_pong_case(pairs: dict[str, Pair]) -> Case:
    targets = {"posixshm Semaphore": TARGETS["ping-pong"]}
    return Case(
        "ping-pong of two processes on one core",
        [Contender(n, pair.ping, targets.get(n)) for n, pair in pairs.items()],
        missing=list(WITHOUT),
    )


def peers_under(rows: list[Row]) -> list[str]:
    """The Python peers that are not slower than our semaphore.

    Their semaphores are excluded: they sleep without a timer, and so miss a signal that arrives
    just before the sleep.
    """
    ours = next(r.ratio for r in rows if r.name == "posixshm Semaphore")
    return [r.name for r in rows if r.name in peer_names() and r.ratio <= ours]


def peer_names() -> set[str]:
    return {"multiprocessing Event", "multiprocessing Condition"}


# -- one counter for all -------------------------------------------------------


class Race:
    """Processes that increment one counter after each start signal.

    They receive the signal and report the end through pipes. `results` has three numbers for each
    process: its start, its end, and the number of increments.
    """

    def __init__(self, counter: Counter, processes: int, seconds: float) -> None:
        self.counter = counter
        self.seconds = seconds
        self.results = Shared().numbers
        self.starts = [os.pipe() for _ in range(processes)]
        self.end = os.pipe()
        self.fairness: list[float] = []

    def runner(self, number: int) -> Callable[[], None]:
        def life() -> None:
            while os.read(self.starts[number][0], 1):
                begin = now()
                count = self.counter.count()
                self.results[3 * number] = begin
                self.results[3 * number + 1] = now()
                self.results[3 * number + 2] = count
                os.write(self.end[1], b"x")

        return life

    def lives(self) -> list[Callable[[], None]]:
        return [self.runner(number) for number in range(len(self.starts))]

    def batch(self, _turns: int) -> float:
        """Nanoseconds for an increment."""
        value, running = self.counter.value, self.counter.running
        value[0], running[0] = 0, 1
        for _, start in self.starts:
            os.write(start, b"x")
        time.sleep(self.seconds)
        running[0] = 0
        for _ in self.starts:
            os.read(self.end[0], 1)
        results = self.results[: 3 * len(self.starts)].tolist()
        counts = results[2::3]
        if value[0] != sum(counts):
            raise CannotRun(f"{sum(counts)} increments gave {value[0]}")
        self.fairness.append(min(counts) / max(1, max(counts)))
        return (max(results[1::3]) - min(results[0::3])) / max(1, sum(counts))

    def close(self) -> None:
        for fds in (*self.starts, self.end):
            for fd in fds:
                os.close(fd)


@contextmanager
def races(lib: ctypes.CDLL, processes: int, seconds: float) -> Iterator[dict[str, Race]]:
    found = {
        name: Race(counter, processes, seconds)
        for name, counter in counters(lib, Segment()).items()
    }
    try:
        with children(
            [life for race in found.values() for life in race.lives()], lib.peer_end_with_parent
        ):
            yield found
    finally:
        for race in found.values():
            race.close()


def report_race(found: dict[str, Race], processes: int, rounds: int) -> dict[str, Any]:
    case = Case(
        f"one counter for all: {processes} processes on all cores",
        [Contender(name, race.batch) for name, race in found.items()],
        missing=list(WITHOUT),
    )
    rows = run(case, rounds, None)
    fairness = [statistics.median(race.fairness) for race in found.values()]
    columns: dict[str, Sequence[str]] = {
        "increments/s": [f"{1e9 / r.ns:,.0f}" for r in rows],
        "fairness": [f"{f:.2f}" for f in fairness],
    }
    print_case(case, rows, columns)
    report = as_report(case, rows)
    for row, fair in zip(report["rows"], fairness, strict=True):
        row.update(per_second=1e9 / row["ns"], fairness=fair)
    return report


# -- the run -------------------------------------------------------------------


def measure(args: argparse.Namespace) -> dict[str, Any]:
    settings = settings_of(args)
    race_rounds = args.race_rounds or (2 if args.quick else 40)
    race_ms = args.race_ms or (5 if args.quick else 50)
    about = {**machine(), **versions()}
    print_head(about, settings)
    print(f"one counter for all: {race_rounds} rounds of {race_ms:g} ms, not pinned")

    results: list[dict[str, Any]] = []

    def report(case: Case) -> list[Row]:
        rows = run(case, settings.rounds, settings.batch_ns)
        print_case(case, rows)
        results.append(as_report(case, rows))
        return rows

    with c_library(RAW_C) as lib:
        declare(lib)
        segment = Segment()
        with pinned(settings.cpu):
            report(acquire_case(lib, segment))
            report(with_case(segment))
            report(increment_case(segment))
            pairs = {
                C_SEMAPHORE: c_pair(lib, "semaphore"),
                **our_pairs(segment),
                **peer_pairs(),
                C_FUTEX: c_pair(lib, "futex"),
                f"{C_SEMAPHORE} once more": c_pair(lib, "semaphore"),
            }
            with children([pair.pong for pair in pairs.values()], lib.peer_end_with_parent):
                under = peers_under(report(ping_pong_case(pairs)))
        for processes in (2, 4):
            with races(lib, processes, race_ms / 1e3) as found:
                results.append(report_race(found, processes, race_rounds))
    return {
        "machine": about,
        "settings": {**asdict(settings), "race_rounds": race_rounds, "race_ms": race_ms},
        "cases": results,
        "peers_under_semaphore": under,
    }


def main() -> int:
    parser = arguments_of(__doc__, rounds=1000)
    parser.add_argument("--race-rounds", type=int, help="rounds of a race (40; with --quick 2)")
    parser.add_argument("--race-ms", type=float, help="length of a race (50; with --quick 5)")
    args = parser.parse_args()
    report = measure(args)
    under = [
        f"ping-pong: {name} is not slower than posixshm Semaphore"
        for name in report["peers_under_semaphore"]
    ]
    return conclude(args, report, missed_in(report["cases"]) + under)


if __name__ == "__main__":
    run_command("bench_sync", main)
