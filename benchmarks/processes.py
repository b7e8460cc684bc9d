"""Processes that a benchmark starts once and that sleep while others run."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import statistics
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from .harness import Batch, CannotRun, Case, Contender, Kind, Settings, now

FOR_EVER = sys.maxsize


@contextmanager
def children(lives: list[Callable[[], Any]]) -> Iterator[None]:
    """Fork a process for each function; all of them end with the block.

    They inherit everything from this process, including its core. If one of them ends early,
    CannotRun is raised at once, because a wait for it would not end.
    """
    old, parent = signal.signal(signal.SIGCHLD, raise_ended), os.getpid()
    pids: list[int] = []
    try:
        for life in lives:
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                live(life, parent)
            pids.append(pid)
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        signal.signal(signal.SIGCHLD, old)


def raise_ended(*_: Any) -> None:
    raise CannotRun("a process of the benchmark has ended")


def live(life: Callable[[], Any], parent: int) -> None:
    """Run a child from its start to its end."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:  # otherwise the signal will not be sent any more
            life()
    except KeyboardInterrupt:
        pass
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def shared_page() -> mmap.mmap:
    """Zeros that forked children share."""
    return mmap.mmap(-1, mmap.PAGESIZE)


def shared_numbers() -> memoryview:
    return memoryview(shared_page()).cast("q")


# In process `number`: repeats an operation while running[1] is not 0, and returns how often.
# running[0] is free for the operation.
Count = Callable[[int, memoryview], int]


def repeated(statement: str, **names: Any) -> Count:
    """A count of a statement, in which `names`, `number` and `running` are local variables."""
    source = f"""
def count(number, running, {", ".join(f"{name}={name}" for name in names)}):
    done = 0
    while running[1]:
{textwrap.indent(statement, " " * 8)}
        done += 1
    return done
"""
    exec(source, names)
    count: Count = names["count"]
    return count


class Race:
    """A batch of processes that repeat an operation as often as they can for some milliseconds.

    Pipes carry the signal to start and the report of the end. If `checked`, each operation adds 1
    to running[0].
    """

    def __init__(self, count: Count, processes: int, seconds: float, checked: bool) -> None:
        self.count, self.seconds, self.checked = count, seconds, checked
        self.running, self.results = shared_numbers(), shared_numbers()
        self.starts = [os.pipe() for _ in range(processes)]
        self.end = os.pipe()
        self.shares: list[float] = []

    def runner(self, number: int) -> Callable[[], None]:
        def life() -> None:
            while os.read(self.starts[number][0], 1):
                begin = now()
                count = self.count(number, self.running)
                for i, result in enumerate((begin, now(), count)):
                    self.results[3 * number + i] = result
                os.write(self.end[1], b"x")

        return life

    def runners(self) -> list[Callable[[], None]]:
        return [self.runner(number) for number in range(len(self.starts))]

    def __call__(self, _turns: int) -> float:
        """Nanoseconds for an operation, of all processes together."""
        self.running[0], self.running[1] = 0, 1
        for _, start in self.starts:
            os.write(start, b"x")
        time.sleep(self.seconds)
        self.running[1] = 0
        for _ in self.starts:
            os.read(self.end[0], 1)
        results = self.results[: 3 * len(self.starts)].tolist()
        counts = results[2::3]
        if self.checked and self.running[0] != sum(counts):
            raise CannotRun(f"{sum(counts)} increments gave {self.running[0]}")
        self.shares.append(min(counts) / max(1, max(counts)))
        return (max(results[1::3]) - min(results[0::3])) / max(1, sum(counts))

    def fairness(self, _turns: int) -> float:
        """The turns of the slowest process, as a ratio to those of the fastest."""
        return statistics.median(self.shares)

    def close(self) -> None:
        for fds in (*self.starts, self.end):
            for fd in fds:
                os.close(fd)


@contextmanager
def race_case(
    title: str,
    counts: dict[str, tuple[Count, Kind]],
    processes: int,
    settings: Settings,
    chart: str,
    checked: bool = False,
) -> Iterator[Case]:
    """A case in which each contender has this number of processes of its own."""
    title += f", {processes} process{'es' if processes > 1 else ''}"
    seconds = 0.005 if settings.quick else 0.05
    races = {name: Race(count, processes, seconds, checked) for name, (count, _) in counts.items()}
    contenders = [Contender(name, races[name], kind) for name, (_, kind) in counts.items()]
    try:
        with children([runner for race in races.values() for runner in race.runners()]):
            yield Case(title, contenders, chart=chart, x=processes, once=True)
    finally:
        for race in races.values():
            race.close()


@dataclass
class Pair:
    """The calls that two processes repeat alternately."""

    ping: Batch
    pong: Callable[[], Any]
