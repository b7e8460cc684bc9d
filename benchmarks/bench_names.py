"""What do listdir(), reclaim() and the command cost if there are very many names?"""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .harness import Batch, CannotRun, Case, Contender, Goal, Settings, now
from .peers import PREFIX, SHM_DIR, floor, posixshm, scratch_names

PROCESSES = 1
COUNTS, QUICK = (10, 100, 1_000, 10_000, 200_000), (10, 1_000)
FOR_COMMAND = 20_000


@contextmanager
def names(count: int) -> Iterator[str]:
    """This many objects; yields the prefix of their names."""
    prefix = f"{PREFIX}n-"
    room = os.statvfs(SHM_DIR)
    if room.f_files and room.f_favail < count + 1000:
        raise CannotRun(f"{SHM_DIR} has {room.f_favail} free inodes, and this takes {count}")
    with scratch_names():
        floor().raw_names(prefix, "make", count)
        yield prefix


def listing_case(prefix: str, count: int) -> Case:
    def raw(_: int) -> float:
        took: float = floor().raw_names(prefix, "list", count)
        return took

    def listing(function: Callable[[], list[str]]) -> Batch:
        def batch(_: int) -> float:
            start = now()
            function()
            return now() - start

        return batch

    return Case(
        f"list {count:,} names",
        [
            Contender("raw C", raw, "raw C"),
            Contender("posixshm.listdir", listing(posixshm.listdir), "posixshm"),
            Contender("os.listdir", listing(lambda: os.listdir(SHM_DIR))),
            Contender("raw C, once more", raw, "control"),
        ],
        [Goal("posixshm.listdir", 1.05, "os.listdir")] if count == COUNTS[-1] else [],
        chart="listing",
        x=count,
        once=True,
    )


def reclaim_in_python(prefix: str) -> None:
    """Without a proof that no process maps the object."""
    for name in os.listdir(SHM_DIR):
        if name.startswith(prefix):
            fd = os.open(SHM_DIR / name, os.O_RDWR)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(SHM_DIR / name)
            os.close(fd)


def reclaim_case(prefix: str, count: int) -> Case:
    """The names exist at the start of each batch."""
    make = floor().raw_names

    def raw(_: int) -> float:
        took: float = make(prefix, "reclaim", count)
        make(prefix, "make", count)
        return took / count

    def by(function: Callable[[], Any], removes: bool = True) -> Batch:
        def batch(_: int) -> float:
            start = now()
            found = function()
            took = now() - start
            if found is not None and len(found) != count:
                raise CannotRun(f"{len(found)} of {count} names were reclaimed")
            if removes:
                make(prefix, "make", count)
            return took / count

        return batch

    return Case(
        f"reclaim {count:,} names, for each name",
        [
            Contender("raw C, without the proof", raw, "raw C"),
            Contender("posixshm.reclaim", by(lambda: posixshm.reclaim(prefix)), "posixshm"),
            Contender(
                "posixshm.reclaim(dry_run=True)",
                by(lambda: posixshm.reclaim(prefix, dry_run=True), removes=False),
                "posixshm",
            ),
            Contender("os and fcntl, without the proof", by(lambda: reclaim_in_python(prefix))),
            Contender("raw C, once more", raw, "control"),
        ],
        [Goal("posixshm.reclaim", 15_000)] if count == COUNTS[-1] else [],
        chart="reclaim",
        x=count,
        once=True,
        rounds=2 if count > 10_000 else 10_000,
    )


def command_case(prefix: str, count: int) -> Case:
    """The processor time of the program and of the kernel for it, so that others do not count."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (usage.ru_utime + usage.ru_stime) * 1e9

    def command(*words: str) -> Batch:
        def batch(_: int) -> float:
            start = used()
            subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
            return (used() - start) / count

        return batch

    program = sys.executable, "-m", "posixshm"
    commands = {
        "posixshm ls": ("ls",),
        "posixshm ls --json": ("ls", "--json"),
        "posixshm ls -q": ("ls", "-q"),
        "posixshm reclaim --dry-run": ("reclaim", "--dry-run"),
    }
    return Case(
        f"the command, for each of {count:,} names",
        [
            Contender("ls -l", command("ls", "-l", str(SHM_DIR)), "peer"),
            *(
                Contender(name, command(*program, *words, prefix), "posixshm")
                for name, words in commands.items()
            ),
            Contender("ls -l, once more", command("ls", "-l", str(SHM_DIR)), "control"),
        ],
        [Goal("posixshm ls", 30_000), Goal("posixshm ls --json", 30_000)]
        if count == FOR_COMMAND
        else [],
        once=True,
        rounds=3,
        remark="processor time, with the start of the program",
    )


def cases(settings: Settings) -> Iterator[Case]:
    counts = QUICK if settings.quick else COUNTS
    for count in counts:
        with names(count) as prefix:
            yield listing_case(prefix, count)
            yield reclaim_case(prefix, count)
    count = QUICK[-1] if settings.quick else FOR_COMMAND
    with names(count) as prefix:
        yield command_case(prefix, count)
