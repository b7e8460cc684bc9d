"""The life of an object: a statement for each contender, in which `name` and `size` are free."""

from __future__ import annotations

import mmap
import os
from typing import Any

from . import peers
from .harness import Batch, Case, Contender, Goal, Kind, control_of, python_batch
from .peers import floor, posix_ipc, posixshm

# A statement and its names, by the contender.
Cycles = dict[str, tuple[Kind, str, dict[str, Any]]]


def creating() -> Cycles:
    ours = "shm = create(name, size)\nshm.close()\nshm.unlink()"
    stdlib = "shm = create(name, True, size, **options)\nshm.close()\nshm.unlink()"
    half_made = """\
fd = os.open(folder + name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
os.ftruncate(fd, size)
map = mmap(fd, size)
os.close(fd)
map.close()
os.unlink(folder + name)"""
    of_stdlib = {"create": peers.StdlibSharedMemory, "options": peers.UNTRACKED}
    of_os = {"os": os, "mmap": mmap.mmap, "folder": f"{peers.SHM_DIR}/"}
    found: Cycles = {
        "floor": ("floor", ours, {"create": floor().Segment.create}),
        "posixshm": ("posixshm", ours, {"create": posixshm.SharedMemory.create}),
        "os and mmap, half-made": ("peer", half_made, of_os),
        "standard library": ("peer", stdlib, of_stdlib),
    }
    if posix_ipc:
        of_ipc = {"create": posix_ipc.SharedMemory, "flags": posix_ipc.O_CREX, "mmap": mmap.mmap}
        ipc = """\
shm = create('/' + name, flags, size=size)
map = mmap(shm.fd, size)
shm.close_fd()
map.close()
shm.unlink()"""
        found["posix_ipc and mmap"] = "peer", ipc, of_ipc
    return found


def anonymous() -> Cycles:
    ours = "shm = make(size)\nshm.close()"
    return {
        "floor": ("floor", ours, {"make": floor().Segment.anonymous}),
        "posixshm": ("posixshm", ours, {"make": posixshm.SharedMemory.anonymous}),
        "mmap(-1), without a descriptor": ("peer", ours, {"make": lambda n: mmap.mmap(-1, n)}),
    }


def attaching() -> Cycles:
    """The object exists."""
    ours = "shm = attach(name)\nshm.close()"
    stdlib = "shm = attach(name, **options)\nshm.close()"
    of_stdlib = {"attach": peers.StdlibSharedMemory, "options": peers.UNTRACKED}
    found: Cycles = {
        "floor": ("floor", ours, {"attach": floor().Segment.attach}),
        "posixshm": ("posixshm", ours, {"attach": posixshm.SharedMemory.open}),
        "standard library": ("peer", stdlib, of_stdlib),
    }
    if posix_ipc:
        ipc = """\
shm = attach('/' + name)
map = mmap(shm.fd, shm.size)
shm.close_fd()
map.close()"""
        of_ipc = {"attach": posix_ipc.SharedMemory, "mmap": mmap.mmap}
        found["posix_ipc and mmap"] = "peer", ipc, of_ipc
    return found


def cycle_case(
    title: str, found: Cycles, raw: Batch, goal: float | None, name: str, size: int, **options: Any
) -> Case:
    contenders = [
        Contender(who, python_batch(statement, **names, name=name, size=size), kind)
        for who, (kind, statement, names) in found.items()
    ]
    contenders += [Contender("raw C", raw, "raw C"), control_of(contenders[0])]
    return Case(title, contenders, [Goal("posixshm", goal, "floor")] if goal else [], **options)
