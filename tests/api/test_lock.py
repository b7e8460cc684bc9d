"""Lock and RLock: mutual exclusion between threads and between processes."""

import errno
import gc
import time

import pytest
from _primitives import elsewhere, name_of
from _processes import PATH

from posixshm import Lock, OwnerDiedError, RLock, SharedMemory

DEADLINE = 30
kinds = pytest.mark.parametrize("kind", [Lock, RLock], ids=name_of)


@pytest.fixture
def shm():
    with SharedMemory.anonymous(8192) as handle:
        yield handle


# -- live owners --------------------------------------------------------------------------------


@kinds
def test_only_one_owner_holds_a_lock(kind, shm):
    lock, other = kind.at(shm, 0, create=True), kind.at(shm)
    assert not lock.locked() and not other.locked()
    assert lock.acquire() is True
    assert lock.locked() and other.locked()
    for thing in (lock, other):
        assert elsewhere(thing.acquire, False) is False
        assert elsewhere(thing.acquire, timeout=0) is False
        assert elsewhere(thing.acquire, True, 0.02) is False
    assert lock.release() is None
    assert not lock.locked()
    assert elsewhere(other.acquire, timeout=0) is True  # and ends while it holds the lock
    with pytest.raises(OwnerDiedError):
        other.acquire(timeout=DEADLINE)
    assert other.acquire(recover=True)
    other.release()


@kinds
def test_with(kind, shm):
    lock = kind.at(shm, 0, create=True)
    with lock as got:
        assert got is True and lock.locked()
    assert not lock.locked()
    with pytest.raises(KeyError):
        with lock:
            raise KeyError
    assert not lock.locked()
    with pytest.raises(RuntimeError, match="not acquired"):
        with lock:
            lock.release()
    with pytest.raises(KeyError):  # the error of release() does not replace it
        with lock:
            lock.release()
            raise KeyError


@kinds
def test_releasing_a_lock_that_is_not_held(kind, shm):
    lock, other = kind.at(shm, 0, create=True), kind.at(shm)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not acquired"):
            lock.release()
    with lock:
        for thing in (lock, other):
            with pytest.raises(RuntimeError, match="not acquired"):
                elsewhere(thing.release)
        with pytest.raises(RuntimeError, match="not acquired"):
            other.release()  # this thread holds the lock, but by another object
        assert lock.locked()
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_lock_is_not_acquired_twice_by_one_thread(shm):
    lock, other = Lock.at(shm, 0, create=True), Lock.at(shm)
    with lock:
        for thing in (lock, other):
            for call in ((), (True,), (True, -1), (True, None)):
                with pytest.raises(OSError, match="itself") as caught:
                    thing.acquire(*call)
                assert caught.value.errno == errno.EDEADLK
            assert thing.acquire(False) is thing.acquire(timeout=0) is False
            start = time.monotonic()
            assert thing.acquire(timeout=0.05) is False
            assert 0.05 <= time.monotonic() - start < DEADLINE
        with pytest.raises(OSError), lock:
            pass
        assert lock.locked()
    assert not lock.locked()


def test_an_rlock_is_released_as_often_as_it_was_acquired(shm):
    lock = RLock.at(shm, 0, create=True)
    for depth in (1, 2, 3, 100):
        for _ in range(depth):
            assert lock.acquire(timeout=0)
        for _ in range(depth):
            assert elsewhere(lock.acquire, False) is False
            assert lock.locked()
            lock.release()
        assert not lock.locked()
        with pytest.raises(RuntimeError):
            lock.release()
    with lock, lock:
        pass
    assert not lock.locked()


@kinds
def test_arguments(kind, shm):
    lock = kind.at(shm, 0, create=True)
    with pytest.raises(ValueError, match="timeout"):
        lock.acquire(False, 1)
    with pytest.raises(ValueError, match="timeout"):
        lock.acquire(blocking=False, timeout=0)
    for bad in (-2, -0.001, float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="timeout"):
            lock.acquire(True, bad)
    for bad in ("1", b"1", [], True, False, 1j, object()):
        with pytest.raises(TypeError, match="timeout"):
            lock.acquire(True, bad)
    for args, keywords in (((1, 2, 3), {}), ((), {"wait": 1}), ((True,), {"blocking": True})):
        with pytest.raises(TypeError):
            lock.acquire(*args, **keywords)
    with pytest.raises(TypeError):
        lock.release(1)
    assert not lock.locked()
    for good in ((False, -1), (True, -1), (True, -1.0), (True, None), (0,), (1, 1e300), (True, 0)):
        assert lock.acquire(*good) is True
        lock.release()


@kinds
def test_two_threads_do_not_hold_a_lock_at_once(kind, shm, run_threads):
    lock = kind.at(shm, 0, create=True)
    counter = memoryview(shm.buf)[4096:4104].cast("q")

    def add():
        mine = kind.at(shm)
        for i in range(2000):
            with mine if i % 2 else lock:
                counter[0] += 1

    run_threads(*[add] * 4)
    assert counter[0] == 8000
    counter.release()


@kinds
def test_two_processes_do_not_hold_a_lock_at_once(run_python, kind):
    code = f"""
import os
from posixshm import {kind.__name__} as Kind, SharedMemory
shm = SharedMemory.anonymous(8192)
lock = Kind.at(shm, 0, create=True)
counter = shm.buf[4096:4104].cast("q")
children = []
for _ in range(4):
    children.append(os.fork())
    if not children[-1]:
        for i in range(3000):
            with lock:
                counter[0] += 1
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
assert counter[0] == 12000 and not lock.locked(), counter[0]
"""
    run_python(code, env=PATH)


@kinds
def test_two_threads_that_wait_for_each_other_time_out(run_python, kind):
    code = f"""
import os
from posixshm import Barrier, {kind.__name__} as Kind, SharedMemory
shm = SharedMemory.anonymous(8192)
one, two = (Kind.at(shm, at, create=True) for at in (0, 256))
both = Barrier.at(shm, 1024, parties=2, create=True)
child = os.fork()
mine, other = (one, two) if child else (two, one)
with mine:
    both.wait(20)
    assert other.acquire(timeout=0.3) is False
    assert other.acquire(timeout=0) is False
    both.wait(20)
assert other.acquire(timeout=20)
other.release()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    run_python(code, env=PATH)


@kinds
def test_an_owner_that_does_not_exist(run_python, kind):
    """The owner is the id of a thread that has ended, or never existed."""
    code = f"""
import errno, struct
from posixshm import {kind.__name__} as Kind, SharedMemory
shm = SharedMemory.anonymous(4096)
lock = Kind.at(shm, create=True)
before = bytes(shm.buf[:64])
for at in (0, 4):  # where one C library or the other has it
    shm.buf[at : at + 4] = struct.pack("I", 0x3FFFFFFE)  # no thread has that number
    try:
        lock.acquire(timeout=0.1)
    except OSError as error:
        assert error.errno in (errno.EBADMSG, errno.EOWNERDEAD), error
    else:
        if lock.locked():
            lock.release()
    shm.buf[:64] = before
    with lock:
        pass
"""
    run_python(code, env=PATH)


def test_an_rlock_is_acquired_again_by_the_same_object_only(name):
    """The mapping of the other object may be unmapped while the mutex is in the thread's list."""
    with SharedMemory.create(name, 4096, delete=True) as shm:
        first, other = RLock.at(shm, create=True), Lock.at(shm, 256, create=True)
        second_shm = SharedMemory.open(name)
        second = RLock.at(second_shm)
        for one, two in ((first, second), (second, first)):
            with one:
                with pytest.raises(OSError) as caught:
                    two.acquire()
                assert caught.value.errno == errno.EDEADLK
                assert two.acquire(False) is False
                assert one.acquire() and first.locked() and second.locked()
                one.release()
            assert not first.locked()
        del one, two, second
        second_shm.close()
        del second_shm
        gc.collect()
        with other, first:
            pass
