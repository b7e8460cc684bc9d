"""What does it cost to attach to an object by its name, and to close it?"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from .harness import Case, Contender, Goal, Settings, c_batch, control_of, pinned, python_batch
from .peers import (
    UNTRACKED,
    StdlibSharedMemory,
    floor,
    posix_ipc,
    posixshm,
    scratch_names,
    stdlib_tracking,
)

SIZE = 64 << 10
IPC = "shm = SharedMemory('/' + name)\nmap = mmap(shm.fd, shm.size)\nshm.close_fd()\nmap.close()"


def attach_case(name: str) -> Case:
    native = floor()
    statement = "shm = attach(name)\nshm.close()"
    of_floor = Contender(
        "floor", python_batch(statement, attach=native.Segment.attach, name=name), "floor"
    )
    case = Case(
        "attach and close",
        [
            of_floor,
            Contender(
                "posixshm",
                python_batch(statement, attach=posixshm.SharedMemory.open, name=name),
                "posixshm",
            ),
            Contender("raw C", c_batch(native.raw_attach, name, SIZE), "raw C"),
            Contender(
                "standard library",
                python_batch(
                    "shm = SharedMemory(name, **options)\nshm.close()",
                    SharedMemory=StdlibSharedMemory,
                    name=name,
                    options=UNTRACKED,
                ),
            ),
        ],
        [Goal("posixshm", 1.05, "floor")],
    )
    if posix_ipc:
        ipc = python_batch(IPC, SharedMemory=posix_ipc.SharedMemory, mmap=mmap.mmap, name=name)
        case.contenders.append(Contender("posix_ipc and mmap", ipc))
    case.contenders.append(control_of(of_floor))
    return case


def cases(settings: Settings) -> Iterator[Case]:
    with scratch_names() as names, pinned(settings.cpu):
        name = names()
        with posixshm.SharedMemory.create(name, SIZE), stdlib_tracking(name):
            yield attach_case(name)
