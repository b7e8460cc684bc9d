"""What does the `posixshm` command take for each name, when there are very many?

    python benchmarks/bench_command.py            100,000 names; some minutes
    python benchmarks/bench_command.py --quick    does it run at all; the figures mean nothing
    python benchmarks/bench_command.py --check    exit status 1 if a target is missed

Each contender is a program that is started once a round, in turn.  The first row is coreutils' `ls
-l`, which reads the attributes of each file; posixshm also opens each of them, to prove whether a
process uses it and to see what it contains.  The figures are processor time, of the program and of
the kernel for it, by the number of names: other programs on the machine do not count.  The time
that a program takes to start is measured with a name that does not exist, and subtracted.
`reclaim` removes all names, which are made anew for each of its rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from _common import SHM_DIR, CannotRun, arguments_of, conclude, machine, run_command

COUNT, QUICK = 100_000, 500
NONE = "none"  # what no name begins with, behind the prefix
TARGET = 30.0  # microseconds a name
POSIXSHM = [sys.executable, "-m", "posixshm"]


def make(prefix: str, count: int) -> None:
    for i in range(count):
        path = SHM_DIR / f"{prefix}{i:06}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def remove(prefix: str) -> None:
    for name in os.listdir(SHM_DIR):
        if name.startswith(prefix):
            (SHM_DIR / name).unlink(missing_ok=True)


@contextmanager
def names(count: int) -> Iterator[str]:
    """So many objects, by what their names begin with."""
    prefix = f"posixshm-bench-{os.getpid()}-"
    room = os.statvfs(SHM_DIR)
    if room.f_files and room.f_favail < count + 1000:
        raise CannotRun(f"{SHM_DIR} has {room.f_favail} free inodes, and this takes {count}")
    try:
        make(prefix, count)
        yield prefix
    finally:
        remove(prefix)


def processor_time(command: list[str]) -> float:
    """Seconds that the program and the kernel took for it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


CONTENDERS: dict[str, Callable[[str], list[str]]] = {
    "ls -l": lambda prefix: ["ls", "-l", os.devnull if prefix.endswith(NONE) else str(SHM_DIR)],
    "posixshm ls": lambda prefix: [*POSIXSHM, "ls", prefix],
    "posixshm ls --json": lambda prefix: [*POSIXSHM, "ls", "--json", prefix],
    "posixshm ls -q": lambda prefix: [*POSIXSHM, "ls", "-q", prefix],
    "posixshm reclaim --dry-run": lambda prefix: [*POSIXSHM, "reclaim", "--dry-run", prefix],
    "posixshm reclaim": lambda prefix: [*POSIXSHM, "reclaim", "-y", prefix],
}
TARGETS = {"posixshm ls": TARGET, "posixshm ls --json": TARGET}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    count = QUICK if args.quick else COUNT
    rounds = args.rounds or (1 if args.quick else args.usual_rounds)
    head = machine()
    for key, value in head.items():
        print(f"{key:18}  {value}")
    print(f"{rounds} rounds, {count:,} names")
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with names(count) as prefix:
        for _ in range(rounds):
            for name, command in CONTENDERS.items():
                start = processor_time(command(prefix + NONE))
                taken = processor_time(command(prefix))
                times[name].append(max(taken - start, 0.0) / count * 1e6)
            make(prefix, count)
    rows = []
    print(f"\n{'':28}  {'us a name':>9}  {'target':>6}")
    for name, taken in times.items():
        median = statistics.median(taken)
        target = TARGETS.get(name)
        met = None if target is None else median <= target
        rows.append({"contender": name, "us": median, "target": target, "met": met})
        words = "" if met is None else f"{target:6.1f}  {'met' if met else 'MISSED'}"
        print(f"{name:28}  {median:9.2f}  {words}".rstrip())
    return {"machine": head, "cases": [{"case": "names", "count": count, "rows": rows}]}


def main() -> int:
    args = arguments_of(__doc__, rounds=3).parse_args()
    report = measure(args)
    missed = [
        f"{row['contender']}: {row['us']:.2f} us a name, target {row['target']:.2f}"
        for row in report["cases"][0]["rows"]
        if row["met"] is False
    ]
    return conclude(args, report, missed)


if __name__ == "__main__":
    run_command("bench_command", main)
