"""How long until another process has read an item of every page of an array, by its size?

A way to hand an array over is a function that is called before the second process is forked. It
returns an iterator, each of whose items this process sends, and the function with which the second
process reads the array of an item.
"""

from __future__ import annotations

import itertools
import multiprocessing
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .harness import Batch, CannotRun, Case, Contender, Kind, Settings, now
from .peers import (
    UNTRACKED,
    StdlibSharedMemory,
    floor,
    numpy,
    optional,
    posixshm,
    room_for,
    scratch_names,
    size_text,
    stdlib_create,
)
from .processes import children

PROCESSES = 1
SIZES, QUICK = (4 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20), (64 << 10, 1 << 20)
AT_ONCE = 5  # the largest number of copies of an array in memory
PAGE = 512  # items in a page
ANSWER = struct.Struct("d")

MP = multiprocessing.get_context("fork")

Way = Callable[[str, Any], tuple[Iterator[Any], Callable[[Any], float]]]


def look(array: Any) -> float:
    """Read an item of every page."""
    return float(array[::PAGE].sum())


# -- the ways ------------------------------------------------------------------


def saved(name: str, source: Any) -> Any:
    """Save each array under one name, replacing the previous array."""

    def give() -> Iterator[None]:
        while True:
            posixshm.array.save(name, source, replace=True)
            yield

    return give(), lambda _: look(posixshm.array.load(name))


def kept(name: str, source: Any) -> Any:
    """Both processes keep one array, into which each new array is copied."""
    array = posixshm.array.create(None, source.shape, source.dtype)

    def give() -> Iterator[None]:
        while True:
            numpy.copyto(array, source)
            yield

    return give(), lambda _: look(array)


def by_reference(name: str, source: Any) -> Any:
    """The array is in shared memory from the start."""
    array = posixshm.array.save(name, source)

    def give() -> Iterator[Any]:
        while True:
            array[0] = source[0]
            yield array

    return give(), look


def by_value(name: str, source: Any) -> Any:
    return itertools.repeat(source), look


def by_floor(name: str, source: Any) -> Any:
    """A new object for each array."""

    def give() -> Iterator[None]:
        while True:
            shm = floor().Segment.create(name, source.nbytes)
            try:
                numpy.copyto(numpy.frombuffer(shm.map), source)
                yield
            finally:
                shm.close()
                shm.unlink()

    return give(), lambda _: look(numpy.frombuffer(floor().Segment.attach(name).map))


def by_stdlib(name: str, source: Any) -> Any:
    def array_of(shm: Any) -> Any:
        return numpy.ndarray(source.shape, source.dtype, shm.buf)

    def give() -> Iterator[None]:
        while True:
            shm = stdlib_create(name, source.nbytes)
            try:
                numpy.copyto(array_of(shm), source)
                yield
            finally:
                shm.close()
                shm.unlink()

    def take(_: Any) -> float:
        # From 3.15 on a forked child has its own tracker, which would report the name as leaked.
        shm = StdlibSharedMemory(name, **UNTRACKED)
        try:
            return look(array_of(shm))
        finally:
            shm.close()

    return give(), take


def by_shared_array(name: str, source: Any) -> Any:
    module = optional("SharedArray")

    def give() -> Iterator[None]:
        while True:
            array = module.create(f"shm://{name}", source.shape, source.dtype)
            try:
                numpy.copyto(array, source)
                yield
            finally:
                module.delete(name)

    return give(), lambda _: look(module.attach(f"shm://{name}"))


def by_torch(name: str, source: Any) -> Any:
    """The queue of torch moves a tensor into shared memory and sends a descriptor."""

    def give() -> Iterator[Any]:
        while True:
            tensor = optional("torch").from_numpy(source)
            yield tensor

    return give(), lambda tensor: look(tensor.numpy())


def ways() -> dict[str, tuple[Kind, Way, Any]]:
    """Each with its queue, or None to send by a pipe."""
    found: dict[str, tuple[Kind, Way, Any]] = {
        "floor, a new object": ("floor", by_floor, None),
        "posixshm, save and load": ("posixshm", saved, None),
        "posixshm, an array that both keep": ("posixshm", kept, None),
        "posixshm, a reference": ("posixshm", by_reference, None),
        "standard library": ("peer", by_stdlib, None),
        "multiprocessing.Queue": ("peer", by_value, MP.Queue()),
        "multiprocessing.Pipe": ("peer", by_value, None),
    }
    if optional("SharedArray"):
        found["SharedArray"] = "peer", by_shared_array, None
    if torch := optional("torch"):
        torch.set_num_threads(1)
        queue = torch.multiprocessing.get_context("fork").Queue()
        found["torch.multiprocessing.Queue"] = "peer", by_torch, queue
    return found


# -- the exchange --------------------------------------------------------------


class Exchange:
    """A way with its second process, and the pipe for the answers."""

    def __init__(self, way: Way, queue: Any, name: str, source: Any) -> None:
        self.items, self.take = way(name, source)
        far, near = MP.Pipe(duplex=False)
        self.receive: Callable[[], Any] = queue.get if queue else far.recv
        self.send: Callable[[Any], None] = queue.put if queue else near.send
        self.answers, self.back = MP.Pipe(duplex=False)
        self.source, self.number = source, 0

    def live(self) -> None:
        while True:
            self.back.send_bytes(ANSWER.pack(self.take(self.receive())))

    def batch(self, n: int) -> float:
        took = 0
        source = self.source
        for _ in range(n):
            self.number += 1
            source[0] = self.number
            expected = self.number + look(source) - source[0]
            start = now()
            self.send(next(self.items))
            (answer,) = ANSWER.unpack(self.answers.recv_bytes())
            took += now() - start
            if answer != expected:
                raise CannotRun(f"{answer} came for {expected}")
        return took


def copy_batch(source: Any) -> Batch:
    target = numpy.zeros_like(source)

    def batch(n: int) -> float:
        start = now()
        for _ in range(n):
            numpy.copyto(target, source)
            look(target)
        return now() - start

    return batch


@contextmanager
def handover_case(size: int, name: Callable[[], str]) -> Iterator[Case]:
    source = numpy.arange(size // 8, dtype="d")
    exchanges = {
        title: (kind, Exchange(way, queue, name(), source))
        for title, (kind, way, queue) in ways().items()
    }
    with children([exchange.live for _, exchange in exchanges.values()]):
        yield Case(
            f"hand over an array of {size_text(size)}",
            [
                Contender("raw C, memcpy in one process", copy_batch(source), "raw C"),
                *(Contender(title, x.batch, kind) for title, (kind, x) in exchanges.items()),
                Contender("memcpy, once more", copy_batch(source), "control"),
            ],
            chart="handover",
            x=size,
            once=size > 1 << 20,
        )
    for _, exchange in exchanges.values():
        if hasattr(exchange.items, "close"):
            exchange.items.close()  # removes the last object


def cases(settings: Settings) -> Iterator[Case]:
    if not numpy:
        return
    for size in QUICK if settings.quick else SIZES:
        if room_for(AT_ONCE * size):
            with scratch_names() as name, handover_case(size, name) as case:
                yield case
