"""What does it cost to save an array as an object, by its size, and to load it?"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

from .harness import Batch, Case, Contender, Goal, Settings, control_of, timed
from .peers import (
    SHM_DIR,
    UNTRACKED,
    StdlibSharedMemory,
    floor,
    numpy,
    optional,
    posixshm,
    room_for,
    scratch_names,
    size_text,
    stdlib_tracking,
)

PROCESSES = 1


def npy_head(array: Any) -> bytes:
    head = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(
        head, numpy.lib.format.header_data_from_array_1_0(array)
    )
    return head.getvalue()


def save_case(size: int, name: str) -> Case:
    array = numpy.arange(size // 8, dtype="d")
    head, path = npy_head(array), SHM_DIR / name

    def remove() -> None:
        os.unlink(path)

    def by(work: Any) -> Batch:
        return timed(work, remove)

    of_floor = Contender("floor, pwrite", by(lambda: floor().raw_save(name, head, array)), "floor")
    return Case(
        f"save an array of {size_text(size)}",
        [
            of_floor,
            Contender(
                "posixshm.array.save", by(lambda: posixshm.array.save(name, array)), "posixshm"
            ),
            Contender("numpy.save", by(lambda: numpy.save(path.open("xb"), array))),
            control_of(of_floor),
        ],
        [Goal("posixshm.array.save", 1.05, "floor, pwrite")] if size == 1 << 30 else [],
        chart="save",
        x=size,
        once=True,
    )


def load_case(name: str, size: int) -> Case:
    """Attach to an array, read an item, and close it."""
    path, native, shared_array = SHM_DIR / name, floor(), optional("SharedArray")
    other = f"{name}-shared-array"

    def by_floor() -> Any:
        segment = native.Segment.attach(name)
        item = numpy.frombuffer(segment.map, "d", offset=128)[0]
        segment.close()
        return item

    def by_stdlib() -> Any:
        shm = StdlibSharedMemory(name, **UNTRACKED)
        item = numpy.ndarray(size // 8, "d", shm.buf, 128)[0]
        shm.close()
        return item

    contenders = [
        Contender("floor", timed(by_floor), "floor"),
        Contender("posixshm.array.load", timed(lambda: posixshm.array.load(name)[0]), "posixshm"),
        Contender("numpy.load, mapped", timed(lambda: numpy.load(path, "r")[0])),
        Contender("standard library", timed(by_stdlib)),
    ]
    if shared_array:
        shared_array.create(f"shm://{other}", size // 8, "d")
        attach = timed(lambda: shared_array.attach(f"shm://{other}")[0])
        contenders.append(Contender("SharedArray", attach))
    contenders.append(control_of(contenders[0]))
    return Case(f"load an array of {size_text(size)}", contenders, once=True)


def cases(settings: Settings) -> Iterator[Case]:
    if not numpy:
        return

    sizes = (64 << 10, 1 << 20) if settings.quick else (64 << 10, 1 << 20, 32 << 20, 1 << 30)
    for size in sizes:
        if room_for(3 * size):
            with scratch_names() as names:
                yield save_case(size, names())
    with scratch_names() as names:
        name = names()
        posixshm.array.save(name, numpy.arange((1 << 20) / 8))
        with stdlib_tracking(name):
            yield load_case(name, 1 << 20)
