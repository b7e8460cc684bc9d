"""What does it cost to create an object, close it and unlink it, by its size?"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any

from . import peers
from .harness import (
    Case,
    Contender,
    Goal,
    Kind,
    Settings,
    c_batch,
    control_of,
    pinned,
    python_batch,
)
from .peers import floor, posix_ipc, posixshm, scratch_names, size_text

SIZES = (4 << 10, 64 << 10, 1 << 20, 16 << 20)

OURS = "shm = create(name, size)\nshm.close()\nshm.unlink()"
STDLIB = "shm = create(name, True, size, **options)\nshm.close()\nshm.unlink()"
HALF_MADE = """\
fd = os.open(folder + name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
os.ftruncate(fd, size)
map = mmap(fd, size)
os.close(fd)
map.close()
os.unlink(folder + name)"""
IPC = """\
shm = create('/' + name, flags, size=size)
map = mmap(shm.fd, size)
shm.close_fd()
map.close()
shm.unlink()"""


def cycles() -> dict[str, tuple[Kind, str, dict[str, Any]]]:
    """The statement of each contender and its names; name and size are the case's."""
    found: dict[str, tuple[Kind, str, dict[str, Any]]] = {
        "floor": ("floor", OURS, {"create": floor().Segment.create}),
        "posixshm": ("posixshm", OURS, {"create": posixshm.SharedMemory.create}),
        "os and mmap, half-made": (
            "peer",
            HALF_MADE,
            {"os": os, "mmap": mmap.mmap, "folder": f"{peers.SHM_DIR}/"},
        ),
        "standard library": (
            "peer",
            STDLIB,
            {"create": peers.StdlibSharedMemory, "options": peers.UNTRACKED},
        ),
    }
    if posix_ipc:
        names = {"create": posix_ipc.SharedMemory, "flags": posix_ipc.O_CREX, "mmap": mmap.mmap}
        found["posix_ipc and mmap"] = "peer", IPC, names
    return found


def create_case(size: int, name: str) -> Case:
    both = {"name": name, "size": size}
    contenders = [
        Contender(who, python_batch(statement, **names, **both), kind)
        for who, (kind, statement, names) in cycles().items()
    ]
    contenders.append(Contender("raw C", c_batch(floor().raw_create, name, size), "raw C"))
    contenders.append(control_of(contenders[0]))
    goals = [Goal("posixshm", 1.1, "floor")] if size == SIZES[0] else []
    title = f"create, close and unlink {size_text(size)}"
    return Case(title, contenders, goals, chart="create", x=size)


def anonymous_case(size: int) -> Case:
    statement = "shm = make(size)\nshm.close()"
    makers: dict[str, tuple[Any, Kind]] = {
        "floor": (floor().Segment.anonymous, "floor"),
        "posixshm": (posixshm.SharedMemory.anonymous, "posixshm"),
        "mmap(-1), without a descriptor": (lambda size: mmap.mmap(-1, size), "peer"),
    }
    contenders = [
        Contender(who, python_batch(statement, make=make, size=size), kind)
        for who, (make, kind) in makers.items()
    ]
    raw = c_batch(floor().raw_anonymous, "floor", size)
    contenders += [Contender("raw C", raw, "raw C"), control_of(contenders[0])]
    title = f"create and close {size_text(size)} without a name"
    return Case(title, contenders, [Goal("posixshm", 1.1, "floor")])


def cases(settings: Settings) -> Iterator[Case]:
    with scratch_names() as name, pinned(settings.cpu):
        for size in SIZES[:2] if settings.quick else SIZES:
            yield create_case(size, name())
        yield anonymous_case(SIZES[0])
