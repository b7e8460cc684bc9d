"""What does it cost to create an object, close it and unlink it, by its size?"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

from .harness import Case, Contender, Goal, Settings, c_batch, control_of, pinned, python_batch
from .peers import (
    SHM_DIR,
    UNTRACKED,
    StdlibSharedMemory,
    floor,
    posix_ipc,
    posixshm,
    scratch_names,
    size_text,
)

SIZES = (4 << 10, 64 << 10, 1 << 20, 16 << 20)

HALF_MADE = (
    "fd = os.open(path, flags, 0o600)\nos.ftruncate(fd, size)\nmap = mmap(fd, size)\n"
    "os.close(fd)\nmap.close()\nos.unlink(path)"
)
IPC = (
    "shm = SharedMemory('/' + name, O_CREX, size=size)\nmap = mmap(shm.fd, size)\n"
    "shm.close_fd()\nmap.close()\nshm.unlink()"
)


def create_case(size: int, name: str) -> Case:
    native = floor()
    both = {"name": name, "size": size}
    case = Case(
        f"create, close and unlink {size_text(size)}",
        [
            Contender(
                "floor",
                python_batch(
                    "shm = create(name, size)\nshm.close()\nshm.unlink()",
                    create=native.Segment.create,
                    **both,
                ),
                "floor",
            ),
            Contender(
                "posixshm",
                python_batch(
                    "shm = create(name, size)\nshm.close()\nshm.unlink()",
                    create=posixshm.SharedMemory.create,
                    **both,
                ),
                "posixshm",
            ),
            Contender("raw C", c_batch(native.raw_create, name, size), "raw C"),
            Contender(
                "os and mmap, half-made",
                python_batch(
                    HALF_MADE,
                    os=os,
                    mmap=mmap.mmap,
                    path=str(SHM_DIR / name),
                    flags=os.O_CREAT | os.O_EXCL | os.O_RDWR,
                    size=size,
                ),
            ),
            Contender(
                "standard library",
                python_batch(
                    "shm = SharedMemory(name, True, size, **options)\nshm.close()\nshm.unlink()",
                    SharedMemory=StdlibSharedMemory,
                    options=UNTRACKED,
                    **both,
                ),
            ),
        ],
        [Goal("posixshm", 1.1, "floor")] if size == SIZES[0] else [],
        chart="create",
        x=size,
    )
    if posix_ipc:
        ipc = {"SharedMemory": posix_ipc.SharedMemory, "O_CREX": posix_ipc.O_CREX}
        case.contenders.append(
            Contender("posix_ipc and mmap", python_batch(IPC, mmap=mmap.mmap, **ipc, **both))
        )
    case.contenders.append(control_of(case.contenders[0]))
    return case


def anonymous_case(size: int) -> Case:
    native = floor()
    statement = "shm = make(size)\nshm.close()"
    of_floor = Contender(
        "floor", python_batch(statement, make=native.Segment.anonymous, size=size), "floor"
    )
    return Case(
        f"create and close {size_text(size)} without a name",
        [
            of_floor,
            Contender(
                "posixshm",
                python_batch(statement, make=posixshm.SharedMemory.anonymous, size=size),
                "posixshm",
            ),
            Contender("raw C", c_batch(native.raw_anonymous, "floor", size), "raw C"),
            Contender(
                "mmap(-1), without a descriptor",
                python_batch("map = mmap(-1, size)\nmap.close()", mmap=mmap.mmap, size=size),
            ),
            control_of(of_floor),
        ],
        [Goal("posixshm", 1.1, "floor")],
    )


def cases(settings: Settings) -> Iterator[Case]:
    with scratch_names() as name, pinned(settings.cpu):
        for size in SIZES[:2] if settings.quick else SIZES:
            yield create_case(size, name())
        yield anonymous_case(SIZES[0])
