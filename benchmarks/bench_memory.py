"""What does an open object hold: private memory, descriptors, threads, helper processes?

Counted, not timed, in a process of its own for each contender.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .harness import Case, Contender, Goal, Kind, Settings, constant
from .peers import UNTRACKED, StdlibSharedMemory, floor, posix_ipc, posixshm, scratch_names

COUNT = 300
OF_PYMALLOC = 512  # bytes: larger blocks are of malloc


def by_posix_ipc(name: str) -> Any:
    shm = posix_ipc.SharedMemory(f"/{name}", posix_ipc.O_CREX, size=mmap.PAGESIZE)
    return shm, mmap.mmap(shm.fd, mmap.PAGESIZE)


MAKERS: dict[str, tuple[Callable[[str], Any], Kind]] = {
    "floor": (lambda name: floor().Segment.create(name, mmap.PAGESIZE), "floor"),
    "posixshm": (lambda name: posixshm.SharedMemory.create(name, mmap.PAGESIZE), "posixshm"),
    "standard library": (
        lambda name: StdlibSharedMemory(name, True, mmap.PAGESIZE, **UNTRACKED),
        "peer",
    ),
}
if posix_ipc:
    MAKERS["posix_ipc and mmap"] = by_posix_ipc, "peer"


def allocated() -> int:
    """The bytes that malloc has handed out; the small blocks of Python are not among them."""
    fields = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")

    class Mallinfo2(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in (*fields, "fordblks", "keepcost")]

    mallinfo2 = ctypes.CDLL(None).mallinfo2  # glibc 2.33
    mallinfo2.restype = Mallinfo2
    return int(mallinfo2().uordblks)


def children() -> int:
    """The number of children of this process."""
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The command in parentheses may contain parentheses.
            found += int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid()
    return found


def held() -> dict[str, int]:
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "processes": children(),
    }


def count(who: str) -> dict[str, float]:
    """The resources of one object, as the mean of COUNT, without its name."""
    make, _ = MAKERS[who]
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(limit, 5 * COUNT), most), most))
    with scratch_names() as name:
        first = make(name())  # starts what the first object needs
        names = [[name() for _ in range(COUNT)] for _ in range(2)]
        objects: list[Any] = [None] * (2 * COUNT)
        gc.disable()
        before, malloc = held(), allocated()
        for i in range(COUNT):
            objects[i] = make(names[0][i])
        malloc, after = allocated() - malloc, held()
        tracemalloc.start()
        for i in range(COUNT):
            objects[COUNT + i] = make(names[1][i])
        traces = tracemalloc.take_snapshot().traces
        small = sum(trace.size for trace in traces if trace.size <= OF_PYMALLOC)
        tracemalloc.stop()
        del first
    found = {what: float(after[what] - before[what]) / COUNT for what in before}
    return {"bytes": (small + malloc) / COUNT, **found}


def counted(who: str) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, who]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    counts: dict[str, float] = json.loads(done.stdout)
    return counts


def cases(_: Settings) -> Iterator[Case]:
    found = {who: counted(who) for who in MAKERS}

    def case(title: str, what: str, goal: Goal) -> Case:
        contenders = [
            Contender(who, constant(found[who][what]), kind) for who, (_, kind) in MAKERS.items()
        ]
        unit = "B" if what == "bytes" else "count"
        return Case(title, contenders, [goal], unit=unit, once=True, rounds=1)

    yield case("private memory of an open object", "bytes", Goal("posixshm", 200))
    yield case("descriptors of an open object", "descriptors", Goal("posixshm", 1))
    yield case("threads of an open object", "threads", Goal("posixshm", 0))
    yield case("processes of an open object", "processes", Goal("posixshm", 0))


if __name__ == "__main__":
    print(json.dumps(count(sys.argv[1])))
