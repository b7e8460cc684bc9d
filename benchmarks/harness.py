"""The interleaved run: contenders run short batches, and are compared within a round.

The order is shuffled for one round and reversed for the next, so that a drift of the machine, and
effects of one contender on the next, affect all equally. The figure of a contender is the median,
over the rounds, of its ratio to the first contender in the same round. One contender is the first
one again, as a control: its ratio is 1, and the distance of the measured ratio from 1 is the noise.
"""

from __future__ import annotations

import functools
import gc
import os
import statistics
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

Kind = Literal["posixshm", "floor", "raw C", "peer", "control"]

# The clock, in nanoseconds. The raw loops in C read the same clock.
now: Callable[[], int] = functools.partial(time.clock_gettime_ns, time.CLOCK_MONOTONIC)

# A batch runs n turns and returns the time in nanoseconds, or another number in the case's unit.
Batch = Callable[[int], float]


class CannotRun(Exception):
    """Something is missing without which the benchmark has nothing to compare."""


@dataclass
class Contender:
    name: str
    batch: Batch
    kind: Kind = "peer"


@dataclass
class Goal:
    """A bound of the figure of `who`; with `to`, of its ratio to that contender."""

    who: str
    at_most: float | None = None
    to: str | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        bound = self.at_most if self.at_least is None else self.at_least
        words = "at least" if self.at_most is None else "at most"
        return f"{words} {bound:g}" + (f" of {self.to}" if self.to else "")


@dataclass
class Case:
    """contenders[0] is the one that the others are compared with.

    chart, x: the picture in which this case is the point x.
    once: each batch is one turn, for slow operations and for counts.
    loop: the time of an empty loop in Python is subtracted.
    rounds: at most this many.
    """

    title: str
    contenders: list[Contender]
    goals: list[Goal] = field(default_factory=list)
    unit: str = "ns"
    chart: str | None = None
    x: float | None = None
    once: bool = False
    loop: bool = False
    rounds: int = 10_000
    remark: str = ""


@dataclass
class Settings:
    quick: bool
    seconds: float  # for a case
    cpu: int

    @property
    def batch_ns(self) -> float:
        return 1e5 if self.quick else 3e5

    @property
    def least_rounds(self) -> int:
        return 2 if self.quick else 5


def python_batch(statement: str, **names: Any) -> Batch:
    """A loop over a statement in which `names` are local variables.

    timeit compiles a function for each batch, so that contenders do not share specialized byte
    code, and turns the cyclic collector off during a batch.
    """
    setup = "\n".join(f"{name} = names[{name!r}]" for name in names) or "pass"
    return timeit.Timer(statement, setup, timer=now, globals={"names": names}).timeit


def c_batch(function: Callable[..., float], *args: Any) -> Batch:
    """A loop that runs and reads the clock in C."""
    return lambda n: function(*args, n)


def timed(work: Callable[[], Any], after: Callable[[], Any] = lambda: None) -> Batch:
    """One call of a slow function; `after` is not measured."""

    def batch(_: int) -> float:
        start = now()
        work()
        took = now() - start
        after()
        return took

    return batch


def constant(figure: float) -> Batch:
    """A figure that was counted before."""
    return lambda _: figure


def control_of(contender: Contender) -> Contender:
    return Contender(f"{contender.name}, once more", contender.batch, "control")


# -- the run -------------------------------------------------------------------


def turns_for(batch: Batch, batch_ns: float) -> int:
    """The number of turns that take about batch_ns, at least one. Also warms the batch up."""
    turns = 1
    while True:
        # Use the fastest of several: after an interrupted one, every batch would be too short.
        took = batch(turns)
        if took < 2 * batch_ns:
            took = min(took, batch(turns), batch(turns))
        if took >= batch_ns / 2:
            return max(1, round(turns * batch_ns / took))
        turns *= 2


def run(case: Case, settings: Settings) -> dict[str, list[float]]:
    """The figures of each contender, one for each round."""
    batches = [c.batch for c in case.contenders]
    batches += [python_batch("pass")] if case.loop else []
    turns = [1 if case.once else turns_for(batch, settings.batch_ns) for batch in batches]
    figures: list[list[float]] = [[] for _ in batches]
    end = now() + settings.seconds * 1e9

    gc.collect()
    gc.disable()
    try:
        for number, order in enumerate(orders(len(batches))):
            if number >= case.rounds or (number >= settings.least_rounds and now() > end):
                break
            for i in order:
                figures[i].append(batches[i](turns[i]) / turns[i])
    finally:
        gc.enable()

    if case.loop:
        loop = statistics.median(figures.pop())
        figures = [
            values if c.kind == "raw C" else [value - loop for value in values]
            for c, values in zip(case.contenders, figures, strict=True)
        ]
    return {c.name: values for c, values in zip(case.contenders, figures, strict=True)}


def orders(count: int) -> Iterator[list[int]]:
    """The order of the contenders in each round, which is the same in every run."""
    random = Random(0)
    order = list(range(count))
    while True:
        random.shuffle(order)
        yield order
        order.reverse()
        yield order


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Keep this thread on one core, because a migration within a batch is noise."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
