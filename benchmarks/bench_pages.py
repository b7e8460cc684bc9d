"""What does it cost to create a large object and to write to each of its pages?"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .harness import Batch, Case, Contender, Goal, Settings, now
from .peers import SHM_DIR, floor, posixshm, room_for, scratch_names, size_text, stdlib_create

PROCESSES = 1
SIZES = (1 << 20, 16 << 20, 128 << 20, 1 << 30)
STDLIB = "standard library"


def huge_pages() -> str:
    """The mount option of /dev/shm for huge pages."""
    options = [
        line.split()[3]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[1] == str(SHM_DIR)
    ]
    found = re.search(r"huge=(\w+)", options[-1]) if options else None
    return found[1] if found else "never"


def pages_case(name: str, size: int) -> Case:
    threads = min(8, len(os.sched_getaffinity(0)))
    touch = floor().touch

    def raw(how: str, threads: int) -> Batch:
        return lambda _: floor().raw_pages(size, how, threads)

    def ours(**options: Any) -> Batch:
        def batch(_: int) -> float:
            start = now()
            shm = posixshm.SharedMemory.create(name, size, **options)
            touch(shm)
            took = now() - start
            shm.close()
            shm.unlink()
            return took

        return batch

    def stdlib(_: int) -> float:
        start = now()
        shm = stdlib_create(name, size)
        touch(shm.buf)
        took = now() - start
        shm.close()
        shm.unlink()
        return took

    allowed = huge_pages() != "never"
    if not allowed:
        warnings.simplefilter("ignore", RuntimeWarning)  # the library says so, too
    goals = [Goal("posixshm, populate=True", 0.5, STDLIB)]
    goals += [Goal("posixshm, huge_pages=True", 0.15, STDLIB)] if allowed else []
    return Case(
        f"create {size_text(size)} and write to each page",
        [
            Contender(STDLIB, stdlib),
            Contender("posixshm", ours(), "posixshm"),
            Contender("posixshm, reserve=False", ours(reserve=False), "posixshm"),
            Contender("posixshm, populate=True", ours(populate=True), "posixshm"),
            Contender("posixshm, huge_pages=True", ours(huge_pages=True), "posixshm"),
            Contender("floor, populated by 1 thread", raw("populate", 1), "floor"),
            Contender(f"floor, populated by {threads} threads", raw("populate", threads), "floor"),
            Contender(f"floor, huge pages by {threads} threads", raw("huge", threads), "floor"),
            Contender("raw C, ftruncate", raw("ftruncate", 0), "raw C"),
            Contender("raw C, fallocate", raw("fallocate", 0), "raw C"),
            Contender(f"{STDLIB}, once more", stdlib, "control"),
        ],
        goals if size == SIZES[-1] else [],
        chart="pages",
        x=size,
        once=True,
        remark="" if allowed else "/dev/shm is mounted with huge=never",
    )


def cases(settings: Settings) -> Iterator[Case]:
    for size in SIZES[1:2] if settings.quick else SIZES:
        if room_for(2 * size):
            with scratch_names() as name:
                yield pages_case(name(), size)
