"""Primitives in read-only memory can be read and waited for, and change nothing."""

import pickle

import pytest
from _primitives import READABLE, made
from _processes import PATH, needs_root

from posixshm import Atomic, Barrier, Event, Lock, RLock, Semaphore, SharedMemory

DEADLINE = 30

VIEW = """
import sys
from _processes import SOMEBODY, become
from posixshm import Atomic, Barrier, Event, Lock, Semaphore, SharedMemory
if sys.argv[2] == "another user":
    become(SOMEBODY)
shm = SharedMemory.open(sys.argv[1], readonly=True, owner="any")
number, event = Atomic.at(shm, 0), Event.at(shm, 128)
semaphore, barrier = Semaphore.at(shm, 256), Barrier.at(shm, 512)
lock = Lock.at(shm, 1024)
assert not event.is_set() and number.load() == 0 and not event.wait(0)
print("ready", flush=True)
assert number.wait(0, 30) and number.load() == 7
assert event.wait(30) and event.is_set()
assert semaphore.value == 3 and lock.locked()
assert (barrier.parties, barrier.n_waiting, barrier.broken) == (2, 0, True)
"""


@pytest.mark.parametrize("user", ["this user", "another user"])
def test_a_viewer_sees_changes_and_waits_for_them(user, name, start_python):
    if user == "another user":
        needs_root()
    with SharedMemory.create(name, 4096, mode=0o644, delete=True) as shm:
        number, event = Atomic.at(shm, 0), Event.at(shm, 128, create=True)
        Semaphore.at(shm, 256, value=3, create=True)
        barrier = Barrier.at(shm, 512, parties=2, create=True)
        lock = Lock.at(shm, 1024, create=True)
        viewer = start_python(VIEW, name, user, env=PATH)
        viewer.hear("ready")
        lock.acquire()
        barrier.abort()
        number.store(7)
        number.notify()
        event.set()
        viewer.finish()
        lock.release()


WRITES = {
    Lock: ["acquire", "__enter__"],
    RLock: ["acquire", "__enter__"],
    Event: ["set", "clear"],
    Barrier: ["wait", "abort", "reset"],
    Semaphore: ["acquire", "release", "__enter__"],
    Atomic: [
        *("store", "exchange", "compare_exchange"),
        *("fetch_add", "fetch_sub", "fetch_and", "fetch_or", "fetch_xor"),
    ],
}
ARGUMENTS = {"compare_exchange": (0, 1)}


@pytest.mark.parametrize("kind", READABLE)
def test_methods_that_write_are_refused_and_change_nothing(kind, name):
    with SharedMemory.create(name, 4096, delete=True) as shm:
        made(kind, shm, 64)
        before = shm.buf.tobytes()
        with SharedMemory.open(name, readonly=True) as reader:
            for where in (reader, reader.map()):
                thing = kind.at(where, 64)
                for method in WRITES[kind]:
                    arguments = ARGUMENTS.get(method, (1,) if kind is Atomic else ())
                    with pytest.raises(PermissionError, match="read-only.*readonly=True"):
                        getattr(thing, method)(*arguments)
            other = pickle.loads(pickle.dumps(kind.at(reader, 64)))
            with pytest.raises(PermissionError):
                getattr(other, WRITES[kind][0])(*((1,) if kind is Atomic else ()))
            assert repr(thing)
            if kind is Event:
                thing.close()
                with pytest.raises(ValueError, match="closed"):
                    thing.set()
        assert shm.buf.tobytes() == before
