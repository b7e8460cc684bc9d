"""A program that uses the package, for a strict type checker. It is checked, and never run."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import posixshm
from posixshm import (
    Atomic,
    Condition,
    Holder,
    Lock,
    MemoryMap,
    Reclaimed,
    RWLock,
    Semaphore,
    SharedMemory,
    View,
    array,
    holders,
    listdir,
    reclaim,
    shared_memory,
)


class Frames(SharedMemory):
    """A subclass, which its constructors return."""


def objects(name: str) -> None:
    with Frames.create(name, 1 << 20, mode=0o640, init=lambda buf: None) as frames:
        assert_type(frames, Frames)
        assert_type(frames.buf, memoryview)
        assert_type(frames.name, str | None)
        assert_type(frames.map(readonly=True), MemoryMap)
        assert_type(frames.view("<f4", (3, 4)), View)
        assert_type(frames.view("<f4", (3, 4)).numpy(), NDArray[Any])
        np.frombuffer(frames.buf, "f4")
        memoryview(frames)
    Frames.create(name, 8, exist_ok=True, stale="replace").close()
    Frames.create(name, 8, replace=True, delete="last").close()
    SharedMemory.create(name, 8, delete="first")  # type: ignore[arg-type]
    SharedMemory.create(name, 8, exist_ok=True, stale="new")  # type: ignore[arg-type]
    assert_type(Frames.open(name, readonly=True, timeout=1.5), Frames)
    assert_type(Frames.open(name, owner={0, "root"}, mode_at_most=0o600, size_at_least=8), Frames)
    assert_type(SharedMemory.anonymous(np.int64(10)), SharedMemory)
    assert_type(listdir(), list[str])
    assert_type(holders("frames")[0], Holder)
    assert_type(holders("frames").uninspected, int)
    assert_type(reclaim("frames-", older_than=60.0)[0], Reclaimed)
    with SharedMemory.unlinked(10, acl="user:alice:rw") as unlinked:
        assert_type(unlinked.getfacl(numeric=True), str)
        unlinked.setfacl(None)
        unlinked.setfacl(7)  # type: ignore[arg-type]
    SharedMemory.create(name, "10")  # type: ignore[arg-type]
    SharedMemory.open(name, mode=0o600)  # type: ignore[call-arg]


def items(mapping: MemoryMap) -> None:
    assert_type(mapping[0], int)
    assert_type(mapping[:4], memoryview)
    mapping[0] = 1
    mapping[:4] = b"abcd"
    mapping[0] = b"a"  # type: ignore[call-overload]


def guarded(shm: SharedMemory, array: NDArray[np.uint8]) -> None:
    try:
        with posixshm.guard(shm, shm.map(), shm.view(), shm.buf, array):
            assert_type(bytes(shm.buf), bytes)
    except posixshm.BusError as error:
        assert_type(error.errno, int | None)
    posixshm.guard(3)  # type: ignore[arg-type]


def primitives(shm: SharedMemory) -> None:
    lock = Lock.at(shm, 0, create=True, on_owner_died=lambda lock: lock.release())
    assert_type(lock.acquire(timeout=0.5), bool)
    with lock, RWLock("name", create=True, acl="g::rw").read():
        pass
    assert_type(Condition.at(shm, 64, create=True).wait_for(lambda: 5, 1.0), int)
    assert_type(Semaphore("name", create=True, value=2).acquire(False), bool)
    assert_type(Atomic.at(shm, 256, "q").fetch_add(1), int)


def arrays(name: str) -> None:
    made = array.create(name, (3, 4), np.float32)
    assert_type(made, array.SharedArray[Any])
    assert_type(made.shm, SharedMemory)
    floats: array.SharedArray[np.float32] = made
    assert_type(floats.dtype, np.dtype[np.float32])
    array.create(name, 3, track=True, exist_ok=True, owner="self", acl="u:1:r")
    array.save(name, [1.0], exist_ok=True, stale="error", delete="last")
    with array.save(name, [1.0], replace=True) as saved:
        assert_type(saved[:1], Any)
        saved.unlink()
    assert_type(array.list(), list[str])
    assert_type(
        posixshm.array.load(name, mode_at_most=0o600), array.SharedArray[Any]
    )  # without an import of its own


def dropped_in(shm: shared_memory.SharedMemory) -> None:
    assert_type(shm.buf, memoryview | None)  # as typeshed has it
    assert_type(shared_memory.ShareableList([1, 2])[0], int)
