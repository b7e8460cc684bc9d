"""How much time does the `posixshm` command need for each name if there are very many?

    python benchmarks/bench_command.py            100,000 names; takes some minutes
    python benchmarks/bench_command.py --quick    only checks that it runs
    python benchmarks/bench_command.py --check    exit status 1 if a target is missed

Each contender is a program that runs once in each round. The first row is `ls -l` of coreutils,
which reads the attributes of each file. posixshm also opens each file to find out whether a process
uses it and what it contains. The figures are the processor time of the program and of the kernel
for it, divided by the number of names, so that other programs do not count. The start time of a
program is measured with a name that does not exist and subtracted. `reclaim` removes all names, so
they are created again for each of its rounds.
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
NONE = "none"  # no name continues with this after the prefix
TARGET = 30.0  # microseconds for a name
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
    """This many objects; yields the prefix of their names."""
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
    """The processor time of the program and of the kernel for it, in seconds."""
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
