"""The contenders of bench_arrays.py: ways to pass an array from one process to another.

Each is used in both processes: this process calls hand_over(), and the forked process calls take().
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory as StdlibSharedMemory
from typing import Any

from _peers import STDLIB_MAY_UNTRACK, WITH_GIL, numpy, optional, posixshm

MP = multiprocessing.get_context("fork")

if numpy:
    import posixshm.array  # noqa: F811

torch = optional("torch") if WITH_GIL else None
shared_array = optional("SharedArray") if WITH_GIL else None

MISSING = [
    f"{what}: left out, "
    + (f"not installed (pip install {what})" if WITH_GIL else "it needs the GIL")
    for what, module in {"torch": torch, "SharedArray": shared_array}.items()
    if module is None
]

Look = Callable[[Any], float]


class Peer:
    """A way to pass arrays. `name` is the name of its object in /dev/shm."""

    def __init__(self, name: str, source: Any) -> None:
        self.name, self.source = name, source
        self.far, self.near = MP.Pipe(duplex=False)

    def hand_over(self) -> None:
        """Put the source's items where take() finds them, and notify take()."""
        raise NotImplementedError

    def take(self, look: Look) -> float:
        """Wait for the array and read it in place."""
        raise NotImplementedError

    def taken(self) -> None:
        """Called when the other process has read the array."""

    def close(self) -> None:
        """Remove everything."""


class Saved(Peer):
    """Save each array under one name, replacing the previous array."""

    def hand_over(self) -> None:
        posixshm.array.save(self.name, self.source, replace=True)
        self.near.send_bytes(b"!")

    def take(self, look: Look) -> float:
        self.far.recv_bytes()
        return look(posixshm.array.load(self.name))

    def close(self) -> None:
        posixshm.shm_unlink(self.name)


class Kept(Peer):
    """Both processes keep one array, into which each new array is copied."""

    def __init__(self, name: str, source: Any) -> None:
        super().__init__(name, source)
        self.array = posixshm.array.create(None, source.shape, source.dtype)

    def hand_over(self) -> None:
        numpy.copyto(self.array, self.source)
        self.near.send_bytes(b"!")

    def take(self, look: Look) -> float:
        self.far.recv_bytes()
        return look(self.array)


class ByReference(Peer):
    """The array is in shared memory from the start, and a reference is sent."""

    def __init__(self, name: str, source: Any) -> None:
        super().__init__(name, source)
        self.array = posixshm.array.save(name, source)

    def hand_over(self) -> None:
        self.array[0] = self.source[0]
        self.near.send(self.array)

    def take(self, look: Look) -> float:
        return look(self.far.recv())

    def close(self) -> None:
        posixshm.shm_unlink(self.name)


class Piped(Peer):
    def hand_over(self) -> None:
        self.near.send(self.source)

    def take(self, look: Look) -> float:
        return look(self.far.recv())


class Queued(Peer):
    def __init__(self, name: str, source: Any) -> None:
        super().__init__(name, source)
        self.queue = MP.Queue()

    def hand_over(self) -> None:
        self.queue.put(self.source)

    def take(self, look: Look) -> float:
        return look(self.queue.get())

    def close(self) -> None:
        self.queue.close()
        self.queue.join_thread()


class Stdlib(Peer):
    # From 3.15 on a forked child has its own tracker, which would report the name as leaked.
    attaching = {"track": False} if STDLIB_MAY_UNTRACK else {}

    def hand_over(self) -> None:
        self.shm = StdlibSharedMemory(self.name, True, self.source.nbytes)
        numpy.copyto(self.array_of(self.shm), self.source)
        self.near.send_bytes(b"!")

    def array_of(self, shm: StdlibSharedMemory) -> Any:
        return numpy.ndarray(self.source.shape, self.source.dtype, shm.buf)

    def take(self, look: Look) -> float:
        self.far.recv_bytes()
        shm = StdlibSharedMemory(self.name, **self.attaching)
        try:
            return look(self.array_of(shm))
        finally:
            shm.close()

    def taken(self) -> None:
        self.shm.close()
        self.shm.unlink()


class SharedArrays(Peer):
    def hand_over(self) -> None:
        array = shared_array.create(f"shm://{self.name}", self.source.shape, self.source.dtype)
        numpy.copyto(array, self.source)
        self.near.send_bytes(b"!")

    def take(self, look: Look) -> float:
        self.far.recv_bytes()
        return look(shared_array.attach(f"shm://{self.name}"))

    def taken(self) -> None:
        shared_array.delete(self.name)


class Tensors(Queued):
    """torch's queue moves a tensor into shared memory and sends a descriptor."""

    def __init__(self, name: str, source: Any) -> None:
        super().__init__(name, source)
        self.queue = torch.multiprocessing.get_context("fork").Queue()

    def hand_over(self) -> None:
        self.tensor = torch.from_numpy(self.source)
        self.queue.put(self.tensor)

    def take(self, look: Look) -> float:
        return look(self.queue.get().numpy())

    def taken(self) -> None:
        del self.tensor


def peers() -> dict[str, type[Peer]]:
    found: dict[str, type[Peer]] = {
        "posixshm array.save, array.load": Saved,
        "posixshm array that both keep": Kept,
        "posixshm array by reference, no copy": ByReference,
        "multiprocessing Queue": Queued,
        "multiprocessing Pipe": Piped,
        "stdlib SharedMemory": Stdlib,
    }
    if shared_array:
        found["SharedArray"] = SharedArrays
    if torch:
        torch.set_num_threads(1)

        found["torch.multiprocessing Queue"] = Tensors
    return found
