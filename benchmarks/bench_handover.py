"""How long until another process has read an item of every page of an array, by its size?

Both processes use the same contender: this process calls hand_over(), the forked process take().
"""

from __future__ import annotations

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
)
from .processes import children

PROCESSES = 1
SIZES, QUICK = (4 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20), (64 << 10, 1 << 20)
AT_ONCE = 5  # the largest number of copies of an array in memory
PAGE = 512  # items in a page
ANSWER = struct.Struct("d")

MP = multiprocessing.get_context("fork")


def look(array: Any) -> float:
    """Read an item of every page."""
    return float(array[::PAGE].sum())


class Peer:
    """A way to pass arrays. `name` is the name of its object in /dev/shm."""

    kind: Kind = "peer"

    def __init__(self, name: str, source: Any) -> None:
        self.name, self.source = name, source
        self.far, self.near = MP.Pipe(duplex=False)

    def hand_over(self) -> None:
        """Put the source's items where take() finds them, and notify take()."""
        raise NotImplementedError

    def take(self) -> float:
        """Wait for the array and read it in place."""
        raise NotImplementedError

    def taken(self) -> None:
        """Called when the other process has read the array."""


class Saved(Peer):
    """Save each array under one name, replacing the previous array."""

    kind = "posixshm"

    def hand_over(self) -> None:
        posixshm.array.save(self.name, self.source, replace=True)
        self.near.send_bytes(b"!")

    def take(self) -> float:
        self.far.recv_bytes()
        return look(posixshm.array.load(self.name))


class Kept(Peer):
    """Both processes keep one array, into which each new array is copied."""

    kind = "posixshm"

    def __init__(self, name: str, source: Any) -> None:
        super().__init__(name, source)
        self.array = posixshm.array.create(None, source.shape, source.dtype)

    def hand_over(self) -> None:
        numpy.copyto(self.array, self.source)
        self.near.send_bytes(b"!")

    def take(self) -> float:
        self.far.recv_bytes()
        return look(self.array)


class ByReference(Peer):
    """The array is in shared memory from the start, and a reference is sent."""

    kind = "posixshm"

    def __init__(self, name: str, source: Any) -> None:
        super().__init__(name, source)
        self.array = posixshm.array.save(name, source)

    def hand_over(self) -> None:
        self.array[0] = self.source[0]
        self.near.send(self.array)

    def take(self) -> float:
        return look(self.far.recv())


class Floored(Peer):
    """A new object for each array."""

    kind = "floor"

    def hand_over(self) -> None:
        self.shm = floor().Segment.create(self.name, self.source.nbytes)
        numpy.copyto(numpy.frombuffer(self.shm.map), self.source)
        self.near.send_bytes(b"!")

    def take(self) -> float:
        self.far.recv_bytes()
        return look(numpy.frombuffer(floor().Segment.attach(self.name).map))

    def taken(self) -> None:
        self.shm.close()
        self.shm.unlink()


class Piped(Peer):
    def hand_over(self) -> None:
        self.near.send(self.source)

    def take(self) -> float:
        return look(self.far.recv())


class Queued(Peer):
    def __init__(self, name: str, source: Any) -> None:
        super().__init__(name, source)
        self.queue = MP.Queue()

    def hand_over(self) -> None:
        self.queue.put(self.source)

    def take(self) -> float:
        return look(self.queue.get())


class Stdlib(Peer):
    def hand_over(self) -> None:
        self.shm = StdlibSharedMemory(self.name, True, self.source.nbytes)
        numpy.copyto(self.array_of(self.shm), self.source)
        self.near.send_bytes(b"!")

    def array_of(self, shm: StdlibSharedMemory) -> Any:
        return numpy.ndarray(self.source.shape, self.source.dtype, shm.buf)

    def take(self) -> float:
        self.far.recv_bytes()
        # From 3.15 on a forked child has its own tracker, which would report the name as leaked.
        shm = StdlibSharedMemory(self.name, **UNTRACKED)
        try:
            return look(self.array_of(shm))
        finally:
            shm.close()

    def taken(self) -> None:
        self.shm.close()
        self.shm.unlink()


def peers() -> dict[str, type[Peer]]:
    found: dict[str, type[Peer]] = {
        "floor, a new object": Floored,
        "posixshm, save and load": Saved,
        "posixshm, an array that both keep": Kept,
        "posixshm, a reference": ByReference,
        "standard library": Stdlib,
        "multiprocessing.Queue": Queued,
        "multiprocessing.Pipe": Piped,
    }
    if shared_array := optional("SharedArray"):

        class SharedArrays(Peer):
            def hand_over(self) -> None:
                where = f"shm://{self.name}"
                array = shared_array.create(where, self.source.shape, self.source.dtype)
                numpy.copyto(array, self.source)
                self.near.send_bytes(b"!")

            def take(self) -> float:
                self.far.recv_bytes()
                return look(shared_array.attach(f"shm://{self.name}"))

            def taken(self) -> None:
                shared_array.delete(self.name)

        found["SharedArray"] = SharedArrays
    if torch := optional("torch"):
        torch.set_num_threads(1)

        class Tensors(Queued):
            """torch's queue moves a tensor into shared memory and sends a descriptor."""

            def __init__(self, name: str, source: Any) -> None:
                super().__init__(name, source)
                self.queue = torch.multiprocessing.get_context("fork").Queue()

            def hand_over(self) -> None:
                self.tensor = torch.from_numpy(self.source)
                self.queue.put(self.tensor)

            def take(self) -> float:
                return look(self.queue.get().numpy())

            def taken(self) -> None:
                del self.tensor

        found["torch.multiprocessing.Queue"] = Tensors
    return found


class Exchange:
    """A contender with its second process, and the pipe for the answers."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.answers, self.back = MP.Pipe(duplex=False)
        self.number = 0

    def live(self) -> None:
        while True:
            self.back.send_bytes(ANSWER.pack(self.peer.take()))

    def batch(self, n: int) -> float:
        took = 0
        source = self.peer.source
        for _ in range(n):
            self.number += 1
            source[0] = self.number
            expected = self.number + look(source) - source[0]
            start = now()
            self.peer.hand_over()
            (answer,) = ANSWER.unpack(self.answers.recv_bytes())
            self.peer.taken()
            took += now() - start
            if answer != expected:
                raise CannotRun(f"{type(self.peer).__name__}: {answer} came for {expected}")
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
    exchanges = {title: Exchange(kind(name(), source)) for title, kind in peers().items()}
    with children([exchange.live for exchange in exchanges.values()]):
        yield Case(
            f"hand over an array of {size_text(size)}",
            [
                Contender("raw C, memcpy in one process", copy_batch(source), "raw C"),
                *(Contender(title, x.batch, x.peer.kind) for title, x in exchanges.items()),
                Contender("memcpy, once more", copy_batch(source), "control"),
            ],
            chart="handover",
            x=size,
            once=size > 1 << 20,
        )


def cases(settings: Settings) -> Iterator[Case]:
    if not numpy:
        return

    for size in QUICK if settings.quick else SIZES:
        if room_for(AT_ONCE * size):
            with scratch_names() as name, handover_case(size, name) as case:
                yield case
