"""What do a memoryview, an array or a tensor of shared memory cost, and an item of a View?"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

from .harness import Batch, Case, Contender, Goal, Settings, control_of, pinned, python_batch
from .peers import numpy, optional, posixshm, scratch_names, stdlib_create

SIZE = 64 << 10


def case(title: str, goal: float, *contenders: tuple[str, Batch]) -> Case:
    """The first contender is not posixshm's; each of posixshm's must meet the goal."""
    made = [
        Contender(name, batch, "posixshm" if name.startswith("posixshm") else "peer")
        for name, batch in contenders
    ]
    goals = [Goal(c.name, goal, made[0].name) for c in made if c.kind == "posixshm"]
    return Case(title, [*made, control_of(made[0])], goals, loop=True)


def call(statement: str, x: Any, **names: Any) -> Batch:
    return python_batch(statement, x=x, **names)


def buffer_cases(name: str) -> Iterator[Case]:
    plain, shm = bytearray(SIZE), posixshm.SharedMemory.anonymous(SIZE)
    stdlib, memory = stdlib_create(name, SIZE), mmap.mmap(-1, SIZE)
    statements = {"memoryview of a buffer": ("make(x)", memoryview)}
    if numpy:
        statements["numpy.frombuffer of a buffer"] = "make(x)", numpy.frombuffer
    for title, (statement, make) in statements.items():
        yield case(
            title,
            1.1,
            ("bytearray", call(statement, plain, make=make)),
            ("posixshm.SharedMemory", call(statement, shm, make=make)),
            ("posixshm.MemoryMap", call(statement, shm.map(), make=make)),
            ("mmap", call(statement, memory, make=make)),
            ("standard library, buf", call(statement, stdlib.buf, make=make)),
        )
    yield case(
        "an attribute buf",
        1.5,
        ("memoryview(bytearray)", call("make(x)", plain, make=memoryview)),
        ("posixshm, a new view each time", call("x.buf", shm)),
        ("standard library, one view for all", call("x.buf", stdlib)),
    )
    items, view = memoryview(plain).cast("d"), shm.view("d")
    for title, statement in (("read an item", "x[3]"), ("write an item", "x[3] = 1.5")):
        yield case(
            title,
            1.5,
            ("memoryview", call(statement, items)),
            ("posixshm.View", call(statement, view)),
        )
    stdlib.close()
    stdlib.unlink()


def array_cases() -> Iterator[Case]:
    plain, shm = bytearray(SIZE), posixshm.SharedMemory.anonymous(SIZE)
    view, f4 = shm.view("f"), numpy.dtype("f4")
    yield case(
        "an array of numpy",
        1.5,
        ("frombuffer(bytearray)", call("make(x, f4)", plain, make=numpy.frombuffer, f4=f4)),
        ("posixshm.View.numpy()", call("x.numpy()", view)),
        ("posixshm.View, asarray", call("make(x)", view, make=numpy.asarray)),
        ("posixshm.View, frombuffer", call("make(x, f4)", view, make=numpy.frombuffer, f4=f4)),
        ("posixshm.View, from_dlpack", call("make(x)", view, make=numpy.from_dlpack)),
        ("from_dlpack(array)", call("make(x)", view.numpy(), make=numpy.from_dlpack)),
    )
    if torch := optional("torch"):
        float32 = torch.float32
        make = {"make": torch.frombuffer, "f": float32}
        yield case(
            "a tensor of torch, by the buffer",
            1.5,
            ("frombuffer(bytearray)", call("make(x, dtype=f)", plain, **make)),
            ("posixshm.View, frombuffer", call("make(x, dtype=f)", view, **make)),
        )
        yield case(
            "a tensor of torch, by DLPack",
            1.5,
            ("from_dlpack(array)", call("make(x)", view.numpy(), make=torch.from_dlpack)),
            ("posixshm.View, from_dlpack", call("make(x)", view, make=torch.from_dlpack)),
        )


def cases(settings: Settings) -> Iterator[Case]:
    with scratch_names() as name, pinned(settings.cpu):
        yield from buffer_cases(name())
        if numpy:
            yield from array_cases()
