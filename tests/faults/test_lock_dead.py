"""Lock and RLock whose owner died: each acquire() raises until one recovers the lock."""

import errno
import gc
import threading

import pytest
from _primitives import die_with, elsewhere, name_of

from posixshm import Lock, OwnerDiedError, RLock, SharedMemory

DEADLINE = 30
kinds = pytest.mark.parametrize("kind", [Lock, RLock], ids=name_of)


@pytest.fixture
def shm():
    with SharedMemory.anonymous(8192) as handle:
        yield handle


def assert_owner_died(lock):
    with pytest.raises(OwnerDiedError, match="recover") as caught:
        lock.acquire(timeout=DEADLINE)
    assert isinstance(caught.value, OSError) and caught.value.errno == errno.EOWNERDEAD
    with pytest.raises(RuntimeError):
        lock.release()  # the caller does not hold the lock


@kinds
def test_every_acquire_raises_until_one_recovers(kind, shm):
    lock = kind.at(shm, 0, create=True)
    others = [kind.at(shm) for _ in range(3)]
    die_with(lock.acquire)
    assert lock.locked()
    for thing in (lock, *others, lock):
        assert_owner_died(thing)
        with pytest.raises(OwnerDiedError):
            thing.acquire(False)
        with pytest.raises(OwnerDiedError), thing:
            raise AssertionError("the lock is not held")
        with pytest.raises(OwnerDiedError):
            elsewhere(thing.acquire, timeout=DEADLINE)
        assert not thing.locked()
    assert others[0].acquire(recover=True) is True
    assert others[0].recovered and not lock.recovered
    assert elsewhere(lock.acquire, False) is False
    others[0].release()
    for thing in (lock, *others):
        assert thing.acquire() and not thing.recovered
        thing.release()


@kinds
def test_recover_of_a_consistent_lock_only_acquires_it(kind, shm):
    lock = kind.at(shm, 0, create=True, on_owner_died=pytest.fail)
    assert lock.acquire(recover=True) and not lock.recovered
    assert elsewhere(lock.acquire, False, recover=True) is False
    lock.release()


@kinds
def test_a_process_that_is_killed_while_it_holds_the_lock(kind, name, start_python):
    code = f"""
from posixshm import {kind.__name__} as Kind, SharedMemory
lock = Kind.at(SharedMemory.open({name!r}))
lock.acquire()
print("held", flush=True)
input()
"""
    with SharedMemory.create(name, 4096, delete=True) as shm:
        lock = kind.at(shm, 0, create=True)
        for how in ("kill", "end", "kill"):
            child = start_python(code)
            child.hear("held")
            assert lock.acquire(timeout=0.02) is False
            waiter = []
            thread = threading.Thread(target=lambda w=waiter: w.append(_told(lock)))
            thread.start()
            child.kill() if how == "kill" else child.finish(check=False)
            thread.join(DEADLINE)
            assert waiter == ["told"]
            assert lock.acquire(recover=True, timeout=DEADLINE) and lock.recovered
            lock.release()


def _told(lock):
    try:
        lock.acquire(timeout=DEADLINE)
    except OwnerDiedError:
        return "told"


@kinds
def test_recover_repairs_and_goes_on(kind, shm):
    calls = []

    def repair(lock):
        assert lock.locked() and elsewhere(kind.at(shm).acquire, False) is False
        calls.append(lock)
        shm.buf[4096] = 1

    lock = kind.at(shm, 0, create=True, on_owner_died=repair)
    plain = kind.at(shm)
    die_with(lock.acquire)
    assert_owner_died(plain)
    with lock:
        assert calls == [lock] and shm.buf[4096] == 1 and lock.recovered
    with plain, kind.at(shm, 256, create=True):
        pass
    with lock:
        assert not lock.recovered
    assert calls == [lock]
    die_with(lock.acquire)
    assert lock.acquire(recover=True)  # on_owner_died is not called
    assert calls == [lock]
    lock.release()


@kinds
def test_a_recover_that_raises_leaves_the_lock_inconsistent(kind, shm):
    def fail(lock):
        raise KeyError("cannot")

    lock, other = kind.at(shm, 0, create=True, on_owner_died=fail), kind.at(shm)
    die_with(lock.acquire)
    for _ in range(3):
        with pytest.raises(KeyError, match="cannot"):
            lock.acquire()
        assert not lock.locked()
        with pytest.raises(KeyError, match="cannot"), lock:
            raise AssertionError
        assert_owner_died(other)
    assert other.acquire(recover=True)
    other.release()
    with lock:
        pass


@kinds
def test_recover_must_not_release(kind, shm):
    def release(lock):
        lock.release()

    lock = kind.at(shm, 0, create=True, on_owner_died=release)
    die_with(lock.acquire)
    with pytest.raises(RuntimeError, match="on_owner_died must not release"):
        lock.acquire(timeout=DEADLINE)
    assert_owner_died(kind.at(shm))
    assert lock.acquire(recover=True)
    lock.release()


def test_recover_of_an_rlock_may_acquire_it_again(shm):
    def repair(lock):
        with lock, lock:
            assert not lock.recovered

    lock, other = RLock.at(shm, 0, create=True, on_owner_died=repair), RLock.at(shm)
    for told_before in (False, True):
        die_with(lock.acquire)
        if told_before:
            assert_owner_died(other)
        with lock:
            assert lock.recovered
        assert not lock.locked()
        with other:
            pass

    def fail(lock):
        assert lock.acquire(timeout=0) and lock.acquire(timeout=0)
        raise KeyError

    bad = RLock.at(shm, 0, on_owner_died=fail)
    die_with(other.acquire)
    with pytest.raises(KeyError):
        bad.acquire()
    assert not bad.locked()  # at any depth that on_owner_died reached
    assert other.acquire(recover=True)
    other.release()


def test_recover_of_a_lock_cannot_acquire_it_again(shm):
    def repair(lock):
        assert not lock.acquire(timeout=0)
        lock.acquire()

    lock = Lock.at(shm, 0, create=True, on_owner_died=repair)
    die_with(lock.acquire)
    with pytest.raises(OSError) as caught:
        lock.acquire()
    assert caught.value.errno == errno.EDEADLK
    assert lock.acquire(recover=True)
    lock.release()


@kinds
def test_a_death_during_the_repair_leaves_the_lock_inconsistent(kind, name, run_python):
    code = f"""
import os, signal
from posixshm import {kind.__name__} as Kind, SharedMemory
shm = SharedMemory.open({name!r})
%s
"""
    with SharedMemory.create(name, 4096, delete=True) as shm:
        lock = kind.at(shm, 0, create=True)
        for dying in (
            "Kind.at(shm).acquire(); os._exit(0)",
            "Kind.at(shm, 0, on_owner_died=lambda lock: os._exit(0)).acquire()",
            "Kind.at(shm, 0, on_owner_died=lambda lock: os._exit(0)).acquire()",
            "Kind.at(shm).acquire(recover=True); os._exit(0)",
        ):
            run_python(code % dying)
            assert_owner_died(lock)
        assert lock.acquire(recover=True)
        lock.release()


def test_an_rlock_that_was_held_more_than_once(shm):
    lock = RLock.at(shm, 0, create=True)
    die_with(lambda: [lock.acquire() for _ in range(5)])
    assert_owner_died(lock)
    assert lock.acquire(recover=True)
    assert lock.acquire() and lock.recovered  # acquired again, the lock is still a recovered one
    lock.release()
    lock.release()
    assert not lock.locked()


@kinds
def test_a_new_thread_is_not_taken_for_a_dead_one(kind, shm):
    """The C library reuses the stack and the pthread_t of a thread that ended."""
    lock, other = kind.at(shm, 0, create=True), kind.at(shm)
    for _ in range(20):
        die_with(lock.acquire)
        with pytest.raises(RuntimeError):
            elsewhere(lock.release)
        assert other.acquire(recover=True)
        other.release()

        def use():
            assert lock.acquire(timeout=DEADLINE)
            lock.release()
            with pytest.raises(RuntimeError):
                lock.release()

        elsewhere(use)
        assert not lock.locked()


def test_several_locks_at_once_in_any_order(shm):
    """The C library keeps all mutexes of a thread in one list, across segments."""
    with SharedMemory.anonymous(8192) as second:
        locks = [
            kind.at(segment, 256 * i, create=True)
            for i, kind in enumerate([Lock, RLock] * 8)
            for segment in (shm, second)
        ]
        for shift in range(0, len(locks), 5):
            for lock in locks:
                assert lock.acquire(timeout=0)
            for lock in locks[shift:] + locks[:shift]:
                lock.release()
        die_with(lambda: [lock.acquire() for lock in locks])
        for lock in reversed(locks):
            assert_owner_died(lock)
            assert lock.acquire(recover=True)
        gc.collect()
        for lock in locks:
            lock.release()


def test_a_child_forked_while_another_thread_recovers_can_release(run_python, name):
    code = """
import os, signal, sys, threading
from posixshm import Lock, SharedMemory
with SharedMemory.create(sys.argv[1], 4096, delete=True) as shm:
    begun, go = threading.Event(), threading.Event()
    lock = Lock.at(shm, create=True, on_owner_died=lambda lock: (begun.set(), go.wait(30)))
    if os.fork() == 0:
        lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    thread = threading.Thread(target=lambda: (lock.acquire(), lock.release()))
    thread.start()
    assert begun.wait(30)
    ask, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(ask, 1)
        with lock:
            pass
        os._exit(0)
    go.set()
    thread.join()
    os.write(tell, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lock.acquire(timeout=30)
    lock.release()
"""
    run_python(code, name, options=["-W", "ignore::DeprecationWarning"])
