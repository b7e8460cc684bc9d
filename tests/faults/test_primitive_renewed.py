"""Primitives of an ended container, whose PID namespace does not exist any more, are renewed."""

import errno

import pytest
from _primitives import at, use
from _processes import PATH, go, needs_mounts
from children.container import COUNTS, KINDS, begin, unlink_all

from posixshm import Atomic, Barrier, Condition, Event, Lock, RLock, RWLock, Semaphore, SharedMemory

OF_THREADS = [Lock, RLock, Condition, RWLock, Barrier]  # which store process ids


def start_container(start_python, name, end):
    needs_mounts()
    code = f"from children.container import *; contain(lambda: hold_all({name!r}, {end!r}))"
    return start_python(code, env=PATH)


def refused(make, match):
    with pytest.raises(OSError, match=match) as caught:
        make()
    assert caught.value.errno == errno.EXDEV


def test_a_killed_service_starts_again(start_python, name):
    """All processes start at once in another PID namespace, while the old one still exists."""
    old = start_container(start_python, name, "killed")
    old.hear("ended -9")
    for kind in OF_THREADS:
        refused(lambda kind=kind: kind(f"{name}-{kind.__name__}"), "exist_ok=True")
    code = f"from children.container import *; from _processes import *; ready(); serve({name!r})"
    children = [start_python(code, env=PATH) for _ in range(2)]
    go(*children)
    for child in children:
        child.finish()
    shm, placed, own = begin(name)
    for i, thing in enumerate(placed + own):
        if isinstance(thing, Lock | RLock | Condition | RWLock):
            assert Atomic.at(shm, COUNTS + 8 * i).load() == 2 * 50
        if not isinstance(thing, Event | Semaphore):
            use(thing)
    unlink_all(name)
    old.finish()


@pytest.mark.long
def test_a_primitive_in_use_is_not_renewed(start_python, name):
    old = start_container(start_python, name, "waits")
    old.hear("holding")
    with SharedMemory.open(f"{name}-segment") as shm:
        before = bytes(shm.buf)
        options = {"create": True, "exist_ok": True}
        for i, kind in enumerate(KINDS):
            if kind in OF_THREADS:
                refused(lambda i=i, kind=kind: at(kind, shm, 8192 * i, **options), "still uses")
                if kind is Lock:  # each waits for a second for other processes that try
                    refused(lambda: Lock(f"{name}-Lock", **options), "still uses")
        assert bytes(shm.buf) == before
        # Primitives that do not contain process ids are shared as before.
        assert Event.at(shm, 8192 * KINDS.index(Event)).is_set()
        assert Semaphore(f"{name}-Semaphore").value == 0
    old.say("end")
    old.hear("ended -9")
    _, placed, own = begin(name)
    for thing in placed + own:
        if not isinstance(thing, Event | Semaphore):
            use(thing)
    unlink_all(name)
    old.finish()


@pytest.mark.parametrize("way", ["named", "anonymous", "map"])
def test_a_shared_descriptor_does_not_prove_a_use(start_python, name, way):
    """A child in another PID namespace has made the lock through its parent's descriptor."""
    needs_mounts()
    code = f"""
from children.container import *
import errno
if {way!r} == "anonymous":
    shm = SharedMemory.anonymous(4096)
else:
    shm = SharedMemory.create({name!r}, 4096, delete=True)
ready = Event.at(shm, 1024, create=True)
if os.fork() == 0:
    def work():
        lock = Lock.at(shm, 0, create=True)
        assert lock.acquire(timeout=10)
        ready.set()
        sys.stdin.readline()
        lock.release()
    contain(work)
assert ready.wait(30)
place = shm.map() if {way!r} == "map" else shm
for handle in (place, SharedMemory.open({name!r})) if {way!r} == "named" else (place,):
    try:
        Lock.at(handle, 0, create=True, exist_ok=True)
    except OSError as error:
        assert error.errno == errno.EXDEV, error
    else:
        raise AssertionError("it was made anew under its owner")
print("refused", flush=True)
os.wait()
"""
    child = start_python(code, env=PATH)
    child.hear("refused")
    child.say("end")
    child.hear("ended 0")
    child.finish()
