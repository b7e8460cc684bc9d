"""Parts of all benchmarks: the clock, the interleaved run, the machine and the table.

A case has a baseline and some contenders. Each runs a short batch in every round. The order is
shuffled for one round and reversed for the next, so that a drift of the machine, and effects of one
contender on the next, affect all equally. The figure is the ratio to the baseline *within* a round:
the median over the rounds and the interquartile range (IQR). The batches are short, so that another
process disturbs few of them and the median ignores those.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import os
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

SHM_DIR = Path("/dev/shm")

# The clock, in nanoseconds. The C peers read the same clock.
now: Callable[[], int] = functools.partial(time.clock_gettime_ns, time.CLOCK_MONOTONIC)

# A batch runs n turns and returns the time in nanoseconds.
Batch = Callable[[int], float]


class CannotRun(Exception):
    """Something is missing without which the benchmark has nothing to compare."""


# -- contenders ----------------------------------------------------------------


def python_batch(statement: str, **names: Any) -> Batch:
    """A loop over a statement in which `names` are local variables.

    timeit compiles a function for each batch, so that contenders do not share specialized byte
    code, and turns the cyclic collector off during a batch.
    """
    setup = "\n".join(f"{name} = names[{name!r}]" for name in names) or "pass"
    return timeit.Timer(statement, setup, timer=now, globals={"names": names}).timeit


def c_batch(function: Callable[..., int], *args: Any) -> Batch:
    """A loop that runs and reads the clock in C, without the time of the call from Python."""

    def batch(n: int) -> float:
        return checked(function(*args, n))

    return batch


def checked(result: int) -> int:
    """The result of a C peer; raises OSError if it returned -errno."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


@dataclass
class Contender:
    name: str
    batch: Batch
    target: float | None = None  # at most this many times the baseline
    in_c: bool = False  # its loop runs in C, so the loop of the case is not subtracted


@dataclass
class Case:
    """contenders[0] is the baseline.

    loop: an empty batch, whose median time for each turn is subtracted for each contender whose
    loop runs in Python.
    missing: lines that name the missing contenders.
    """

    title: str
    contenders: list[Contender]
    loop: Batch | None = None
    missing: list[str] = field(default_factory=list)


@dataclass
class Row:
    name: str
    ns: float
    ratio: float
    low: float
    high: float
    target: float | None

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.ratio <= self.target

    def as_dict(self) -> dict[str, Any]:
        return {
            "contender": self.name,
            "ns": self.ns,
            "ratio": self.ratio,
            "q1": self.low,
            "q3": self.high,
            "target": self.target,
            "met": self.met,
        }


# -- the interleaved run -------------------------------------------------------


def turns_for(batch: Batch, batch_ns: float) -> int:
    """The number of turns that take about batch_ns, at least one. Also warms the batch up."""
    turns = 1
    while True:
        # Use the fastest of several: after an interrupted one, every batch would be too short.
        took = min(batch(turns) for _ in range(5))
        if took >= batch_ns / 2:
            return max(1, round(turns * batch_ns / took))
        turns *= 2


def run(case: Case, rounds: int, batch_ns: float | None) -> list[Row]:
    """batch_ns: length of a batch; None: one turn, for slow operations."""
    batches = [c.batch for c in case.contenders] + ([case.loop] if case.loop else [])
    turns = [1 if batch_ns is None else turns_for(batch, batch_ns) for batch in batches]
    per_turn: list[list[float]] = [[] for _ in batches]

    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for order in orders(len(batches), rounds):
            for i in order:
                per_turn[i].append(batches[i](turns[i]) / turns[i])
    finally:
        if was_enabled:
            gc.enable()

    if case.loop:
        loop = statistics.median(per_turn.pop())
        per_turn = [
            times if c.in_c else [t - loop for t in times]
            for c, times in zip(case.contenders, per_turn, strict=True)
        ]
    return [row(c, times, per_turn[0]) for c, times in zip(case.contenders, per_turn, strict=True)]


def orders(count: int, rounds: int) -> Iterator[list[int]]:
    """The order of the contenders in each round, which is the same in every run."""
    random = Random(0)
    order = list(range(count))
    for number in range(rounds):
        if number % 2 == 0:
            random.shuffle(order)
        else:
            order.reverse()
        yield order


def row(contender: Contender, times: list[float], baseline: list[float]) -> Row:
    ratios = [t / b for t, b in zip(times, baseline, strict=True)]
    low, ratio, high = quartiles(ratios)
    return Row(contender.name, statistics.median(times), ratio, low, high, contender.target)


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


# -- the machine ---------------------------------------------------------------


def first_line(*command: str) -> str:
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return output.partition("\n")[0] or "unknown"


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware", "cpu model"):
            return value.strip()
    return platform.machine()


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "cc"))


def machine() -> dict[str, str]:
    gil = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", without the GIL"
    debug = ", debug" if sysconfig.get_config_var("Py_DEBUG") else ""
    return {
        "cpu": f"{cpu_model()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "python": f"{platform.python_implementation()} {platform.python_version()}{gil}{debug}",
        "python's compiler": platform.python_compiler(),
        "compiler": first_line(*compiler(), "--version"),
    }


def room_for(size: int) -> bool:
    """Are this many bytes of memory and of /dev/shm free?"""
    mount = os.statvfs(SHM_DIR)
    available = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    return (
        available is not None
        and mount.f_bavail * mount.f_frsize > size
        and int(available[1]) * 1024 > size + size // 4
    )


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Keep this thread on one core, because a migration within a batch is noise."""
    allowed = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def c_library(source: Path) -> Iterator[ctypes.CDLL]:
    """Build one C file as a shared library and load it."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / f"{source.stem}.so"
        flags = ["-std=c11", "-O2", "-fPIC", "-shared"]
        command = [*compiler(), *flags, "-o", str(library), str(source), "-lrt", "-pthread"]
        try:
            built = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise CannotRun(f"no C compiler: {error}; set CC") from error
        if built.returncode != 0:
            raise CannotRun(f"{shlex.join(command)} failed:\n{built.stderr}")
        yield ctypes.CDLL(str(library))


# -- the table -----------------------------------------------------------------


def verdict(met: bool | None) -> str:
    return {None: "", True: "met", False: "MISSED"}[met]


def duration(ns: float) -> str:
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if abs(ns) >= scale:
            return f"{ns / scale:.2f} {unit}"
    return f"{ns:.1f} ns"


def print_case(
    case: Case, rows: list[Row], columns: dict[str, Sequence[str]] | None = None
) -> None:
    """columns: additional columns, as {head: values of the rows}."""
    more = columns or {}
    wide = {head: max(map(len, (head, *cells))) for head, cells in more.items()}
    width = max(len(r.name) for r in rows)
    print(f"\n{case.title}")
    heads = "".join(f"  {head:>{wide[head]}}" for head in more)
    print(f"  {'':{width}}  {'median':>10}  {'ratio':>6}  {'IQR':>13}{heads}  {'target':>6}")
    for i, r in enumerate(rows):
        target = "" if r.target is None else f"{r.target:.2f}"
        cells = "".join(f"  {more[head][i]:>{wide[head]}}" for head in more)
        print(
            f"  {r.name:{width}}  {duration(r.ns):>10}  {r.ratio:>6.2f}"
            f"  {f'{r.low:.2f} - {r.high:.2f}':>13}{cells}  {target:>6}"
            f"  {verdict(r.met)}".rstrip()
        )
    for line in case.missing:
        print(f"  {line}")
    sys.stdout.flush()


# -- a benchmark as a command --------------------------------------------------


@dataclass
class Settings:
    rounds: int
    batch_ms: float
    cpu: int | None

    @property
    def batch_ns(self) -> float:
        return self.batch_ms * 1e6


def arguments_of(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options of all benchmarks. rounds: the default."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0] if doc else None)
    parser.add_argument("--quick", action="store_true", help="a few short rounds, nothing large")
    parser.add_argument("--rounds", type=int, help=f"rounds per case ({rounds}; with --quick 5)")
    parser.add_argument("--batch-ms", type=float, help="length of a batch (0.3; with --quick 0.1)")
    parser.add_argument("--cpu", type=int, help="the core to run on (the last one allowed)")
    parser.add_argument("--no-pin", action="store_true", help="run on any core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    parser.set_defaults(usual_rounds=rounds)
    return parser


def settings_of(args: argparse.Namespace) -> Settings:
    return Settings(
        rounds=args.rounds or (5 if args.quick else args.usual_rounds),
        batch_ms=args.batch_ms or (0.1 if args.quick else 0.3),
        cpu=None if args.no_pin else max(os.sched_getaffinity(0)) if args.cpu is None else args.cpu,
    )


def print_head(about: dict[str, str], settings: Settings) -> None:
    width = max(map(len, about))
    for key, value in about.items():
        print(f"{key:{width}}  {value}")
    print(f"{settings.rounds} rounds of batches of {settings.batch_ms:g} ms, ", end="")
    print("not pinned" if settings.cpu is None else f"pinned to core {settings.cpu}")
    print("ratio: to the first row, median of the rounds; IQR: the middle half of the rounds")


def as_report(case: Case, rows: list[Row]) -> dict[str, Any]:
    return {"case": case.title, "rows": [r.as_dict() for r in rows], "missing": case.missing}


def missed_in(cases: list[dict[str, Any]]) -> list[str]:
    return [
        f"{case['case']}: {row['contender']} {row['ratio']:.2f}, target {row['target']:.2f}"
        for case in cases
        for row in case["rows"]
        if row["met"] is False
    ]


def conclude(args: argparse.Namespace, report: dict[str, Any], missed: list[str]) -> int:
    """Print the missed targets and write the figures. Returns the exit status."""
    print("\n" + ("\n".join(["missed:", *missed]) if missed else "all targets met"))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if args.check and missed else 0


def run_command(name: str, main: Callable[[], int]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the names are removed
    try:
        sys.exit(main())
    except CannotRun as error:
        print(f"{name}: cannot run: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
