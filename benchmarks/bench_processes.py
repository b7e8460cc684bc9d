"""How do create and unlink scale with the number of processes, each with its own names?"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

from .harness import Case, Contender, Settings
from .peers import (
    PREFIX,
    SHM_DIR,
    UNTRACKED,
    StdlibSharedMemory,
    floor,
    posix_ipc,
    posixshm,
    scratch_names,
)
from .processes import Race, racing

SIZE = 4 << 10


def repeated(cycle: Callable[[str], Any], turns: int = 1) -> Callable[[int, memoryview], int]:
    def count(number: int, running: memoryview) -> int:
        done, name = 0, f"{PREFIX}race-{number}-{os.getpid()}"
        while running[1]:
            cycle(name)
            done += turns
        return done

    return count


def by_posixshm(name: str) -> None:
    shm = posixshm.SharedMemory.create(name, SIZE)
    shm.close()
    shm.unlink()


def by_floor(name: str) -> None:
    shm = floor().Segment.create(name, SIZE)
    shm.close()
    shm.unlink()


def by_raw_c(name: str) -> None:
    floor().raw_create(name, SIZE, 10)


def by_stdlib(name: str) -> None:
    shm = StdlibSharedMemory(name, True, SIZE, **UNTRACKED)
    shm.close()
    shm.unlink()


def by_mmap(name: str) -> None:
    path = SHM_DIR / name
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    os.ftruncate(fd, SIZE)
    map = mmap.mmap(fd, SIZE)
    os.close(fd)
    map.close()
    os.unlink(path)


def by_posix_ipc(name: str) -> None:
    shm = posix_ipc.SharedMemory(f"/{name}", posix_ipc.O_CREX, size=SIZE)
    map = mmap.mmap(shm.fd, SIZE)
    shm.close_fd()
    map.close()
    shm.unlink()


def cases(settings: Settings) -> Iterator[Case]:
    counts = {
        "floor": (repeated(by_floor), "floor"),
        "posixshm": (repeated(by_posixshm), "posixshm"),
        "raw C": (repeated(by_raw_c, 10), "raw C"),
        "os and mmap, half-made": (repeated(by_mmap), "peer"),
        "standard library": (repeated(by_stdlib), "peer"),
    }
    if posix_ipc:
        counts["posix_ipc and mmap"] = repeated(by_posix_ipc), "peer"
    counts["floor, once more"] = repeated(by_floor), "control"
    for processes in (1, 2) if settings.quick else (1, 2, 4, 8):
        seconds = 0.005 if settings.quick else 0.05
        races = {name: Race(count, processes, seconds) for name, (count, _) in counts.items()}
        with scratch_names(), racing(list(races.values())):
            yield Case(
                f"create, close and unlink 4 KiB, {processes} processes",
                [Contender(name, races[name].batch, kind) for name, (_, kind) in counts.items()],
                chart="processes",
                x=processes,
                once=True,
            )
