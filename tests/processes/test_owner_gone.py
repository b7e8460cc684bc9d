"""A lock whose object was deallocated, or whose owner's death the kernel did not mark."""

import gc
import threading
import time
from functools import partial

import pytest
from _primitives import elsewhere, name_of

from posixshm import Condition, Lock, OwnerDiedError, RLock, RWLock, SharedMemory

DEADLINE = 30
HOW_TO_ACQUIRE = {RWLock: "acquire_write"}
kinds = pytest.mark.parametrize("kind", [Lock, RLock, Condition, RWLock], ids=name_of)


def acquire(lock, **keywords):
    keywords = {"timeout": DEADLINE} | keywords
    if isinstance(lock, Condition):
        lock = lock.lock
    return getattr(lock, HOW_TO_ACQUIRE.get(type(lock), "acquire"))(**keywords)


def assert_owner_died(lock):
    for keywords in ({}, {"timeout": 0}):
        with pytest.raises(OwnerDiedError, match="recover"):
            acquire(lock, **keywords)


def assert_recovers(lock):
    assert acquire(lock, recover=True)
    lock.release()
    assert acquire(lock, timeout=0)
    lock.release()


@pytest.fixture
def shm():
    with SharedMemory.anonymous(8192) as handle:
        yield handle


class Worker:
    """A thread that runs the functions it gets, one at a time."""

    def __init__(self):
        self._wanted = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._function = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while True:
            self._wanted.acquire()
            function, self._function = self._function, None
            if function is None:
                return
            function()
            del function
            self._done.release()

    def do(self, function):
        self._function = function
        del function
        self._wanted.release()
        assert self._done.acquire(timeout=DEADLINE)

    def end(self):
        self._wanted.release()
        self._thread.join(DEADLINE)


@pytest.fixture
def worker():
    thread = Worker()
    yield thread
    thread.end()


# -- the object was deallocated -------------------------------------------------------------------


@kinds
def test_the_next_owner_gets_an_error_if_the_object_is_deallocated(kind, shm, name, run_python):
    with SharedMemory.create(name, 8192, delete=True) as shm:
        other = kind.at(shm, create=True)
        for _ in range(2):
            lock = kind.at(shm)
            assert acquire(lock)
            del lock
            assert_owner_died(other)
            said = run_python(
                f"""
from posixshm import {kind.__name__} as Kind, OwnerDiedError, SharedMemory
lock = Kind.at(SharedMemory.open({name!r}))
try:
    getattr(lock, "acquire_write" if hasattr(lock, "acquire_write") else "acquire")()
except OwnerDiedError:
    print("told")
"""
            )
            assert said == "told\n"
            assert_recovers(other)


def test_the_next_owner_gets_an_error_at_any_depth_of_an_rlock(shm):
    other = RLock.at(shm, create=True)
    lock = RLock.at(shm)
    for _ in range(3):
        lock.acquire()
    del lock
    assert_owner_died(other)
    assert_recovers(other)


def test_a_waiter_gets_an_error_when_the_object_is_deallocated(shm):
    other, lock = Lock.at(shm, create=True), Lock.at(shm)
    assert lock.acquire()
    told = []
    thread = threading.Thread(target=lambda: told.append(raises_elsewhere(other)))
    thread.start()
    while not thread.is_alive():
        pass
    del lock
    thread.join(DEADLINE)
    assert told == [True]
    assert_recovers(other)


def raises_elsewhere(lock):
    try:
        acquire(lock)
    except OwnerDiedError:
        return True


def test_the_slot_of_a_reader_is_free_if_its_object_is_deallocated(shm, worker):
    other = RWLock.at(shm, create=True)
    reader = RWLock.at(shm)
    assert reader.acquire_read() and reader.acquire_read()
    worker.do(reader.acquire_read)  # in a thread that continues to run
    assert other.acquire_write(timeout=0.02) is False
    del reader
    for _ in range(2):
        assert other.acquire_write(timeout=0)
        other.release()
        assert elsewhere(lambda: other.acquire_read(timeout=0) and other.release() is None)
        worker.do(lambda: use_another_lock(shm))


@kinds
def test_the_memory_is_unmapped_with_the_object_that_holds_a_lock(kind, name, worker):
    def maps():
        with open("/proc/self/maps") as lines:
            return sum(name in line for line in lines)

    SharedMemory.create(name, 8192).close()
    shm = SharedMemory.open(name)
    try:
        lock = kind.at(shm, create=True)
        assert acquire(lock)
        shm.close()
        del shm
        gc.collect()
        assert maps() == 1
        del lock
        gc.collect()
        assert maps() == 0
        shm = SharedMemory.open(name)
        lock = kind.at(shm)
        assert_owner_died(lock)
        worker.do(partial(acquire, lock, recover=True))
        shm.close()
        del shm, lock
        gc.collect()
        assert maps() == 1  # the thread that holds it still runs
        with SharedMemory.anonymous(8192) as other:
            worker.do(lambda: use_another_lock(other))
        assert maps() == 0
    finally:
        SharedMemory.open(name).unlink()


def use_another_lock(shm):
    with Lock.at(shm, 4096, create=True, exist_ok=True):
        pass


@kinds
@pytest.mark.parametrize("how", ["uses a lock", "ends"])
def test_the_object_of_a_lock_that_another_thread_holds(kind, how, shm, worker):
    """Only that thread can release the lock; until then waiters do not hang."""
    other = kind.at(shm, create=True)
    lock = kind.at(shm)
    worker.do(partial(acquire, lock))
    assert acquire(other, timeout=0.02) is False
    waiter = []
    thread = threading.Thread(target=lambda: waiter.append(raises_elsewhere(other)))
    thread.start()
    del lock
    gc.collect()
    thread.join(DEADLINE)
    assert waiter == [True]
    assert_owner_died(other)
    with pytest.raises(OwnerDiedError, match="still runs"):
        acquire(other, recover=True)
    if how == "ends":
        worker.end()
        while True:
            try:
                acquire(other)
            except OwnerDiedError as error:
                if "still runs" not in str(error):
                    break
    else:
        worker.do(lambda: use_another_lock(shm))
    assert_owner_died(other)
    assert_recovers(other)


@kinds
def test_the_main_thread_releases_a_deallocated_lock_by_itself(kind, shm):
    other, lock = kind.at(shm, create=True), kind.at(shm)
    assert acquire(lock)
    holder = [lock]
    del lock
    elsewhere(holder.clear)
    for _ in range(100):
        pass  # the interpreter runs pending calls
    with pytest.raises(OwnerDiedError, match="half changed"):
        elsewhere(acquire, other)
    assert_recovers(other)


@kinds
@pytest.mark.parametrize("end", ["", "sys.exit(0)", "os._exit(0)", "shm.close(); del shm"])
def test_a_process_that_ends_while_it_holds_the_lock(kind, end, name, run_python):
    with SharedMemory.create(name, 8192, delete=True) as shm:
        other = kind.at(shm, create=True)
        run_python(
            f"""
import os, sys
from posixshm import {kind.__name__} as Kind, SharedMemory
shm = SharedMemory.open({name!r})
lock = Kind.at(shm)
getattr(lock, "acquire_write" if hasattr(lock, "acquire_write") else "acquire")()
{end}
"""
        )
        assert_owner_died(other)
        assert_recovers(other)


# -- deaths that the kernel did not mark -----------------------------------------------------------


@kinds
@pytest.mark.parametrize("waits", [False, True], ids=["gets an error", "waits"])
def test_one_corrupted_lock_does_not_hide_the_death_of_its_owner(kind, waits, name, start_python):
    """The kernel stops at the first overwritten mutex in the list of a thread."""
    with SharedMemory.create(name, 8192, delete=True) as shm:
        lock = kind.at(shm, create=True)
        Lock.at(shm, 4096, create=True)
        child = start_python(
            f"""
from posixshm import {kind.__name__} as Kind, Lock, SharedMemory
shm = SharedMemory.open({name!r})
lock, corrupted = Kind.at(shm), Lock.at(shm, 4096)
getattr(lock, "acquire_write" if hasattr(lock, "acquire_write") else "acquire")()
corrupted.acquire()
shm.buf[4096:4136] = bytes([0xA5]) * 40
print("held", flush=True)
input()
"""
        )
        child.hear("held")
        assert acquire(lock, timeout=0.02) is False
        told = []
        thread = threading.Thread(target=lambda: told.append(raises_elsewhere(lock)))
        if waits:
            thread.start()
        child.kill()
        if waits:
            thread.join(DEADLINE)
            assert told == [True]
        assert_owner_died(lock)
        assert_recovers(lock)


def test_one_corrupted_slot_does_not_hide_the_death_of_a_reader(name, start_python):
    with SharedMemory.create(name, 8192, delete=True) as shm:
        lock = RWLock.at(shm, create=True)
        Lock.at(shm, 4096, create=True)
        child = start_python(
            f"""
from posixshm import Lock, RWLock, SharedMemory
shm = SharedMemory.open({name!r})
lock, corrupted = RWLock.at(shm), Lock.at(shm, 4096)
lock.acquire_read()
corrupted.acquire()
shm.buf[4096:4136] = bytes([0xA5]) * 40
print("held", flush=True)
input()
"""
        )
        child.hear("held")
        assert lock.acquire_write(timeout=0.02) is False
        child.kill()
        assert lock.acquire_write(timeout=DEADLINE)
        lock.release()


def test_locks_left_to_a_thread_that_runs_do_not_slow_down_others(worker):
    number = 1000
    with SharedMemory.anonymous(number * Lock.nbytes) as shm:
        left, mine = [], Lock()

        def acquire_all():
            for i in range(number):
                left.append(Lock.at(shm, i * Lock.nbytes, create=True))
                left[-1].acquire()

        def time_used():
            begin = time.perf_counter()
            for _ in range(500):
                with mine:
                    pass
            return time.perf_counter() - begin

        worker.do(acquire_all)
        before = min(time_used() for _ in range(5))
        left.clear()
        gc.collect()
        assert min(time_used() for _ in range(5)) < 50 * before
        assert_owner_died(Lock.at(shm))
