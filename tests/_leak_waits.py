"""Cycles of the calls of primitives: acquire, wait and notify, with every outcome."""

import signal
from contextlib import suppress
from threading import BrokenBarrierError

from _leaks import cycle, misused, name, read, refused
from _primitives import OWNED, die_with, elsewhere, made

from posixshm import (
    Barrier,
    Condition,
    Event,
    Lock,
    OwnerDiedError,
    RLock,
    RWLock,
    Semaphore,
    SharedMemory,
)

shm = SharedMemory.create(name + "-waits", 65536, delete=True)
places = {kind: 4096 * i for i, kind in enumerate((*OWNED, RWLock, Event, Barrier, Semaphore))}
things = {kind: made(kind, shm, place) for kind, place in places.items()}
rwlock, event, barrier, semaphore = list(things.values())[3:]
condition = things[Condition]
closed = {kind: kind.at(shm, place) for kind, place in places.items()}
for thing in closed.values():
    thing.close()
WRONG_TIMEOUTS = ("", float("nan"))


def fail(*_):
    raise KeyError


signal.signal(signal.SIGALRM, fail)


def interrupted(wait):
    """The call ends with the exception of a signal handler."""
    with suppress(KeyError):
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        wait()
        raise AssertionError("no signal came")


def each(*methods, times=60):
    """For a function: a cycle of these methods for each kind of lock that a thread owns."""

    def add(function):
        for kind in OWNED:

            def run(kind=kind):
                function(things[kind], closed[kind])

            cycle(*(f"{kind.__name__}.{method}" for method in methods), times=times)(run)
        return function

    return add


@each("acquire", "release")
def _(lock, closed):
    assert lock.acquire() and lock.acquire(False) is isinstance(lock, (RLock, Condition))
    for options in ((False,), (True, 0), (True, 0.0002)):
        assert elsewhere(lock.acquire, *options) is False
    assert not elsewhere(lock.acquire, timeout=0, recover=True)
    refused(elsewhere, lock.release)  # that thread does not hold it
    if isinstance(lock, Lock):
        refused(lock.acquire)
    else:
        lock.release()
    lock.release()
    refused(lock.release)
    for wrong in WRONG_TIMEOUTS:
        refused(lock.acquire, timeout=wrong)
    refused(lock.acquire, False, 5)
    refused(closed.acquire)
    refused(closed.release)
    misused(lock.acquire)
    misused(lock.release)


@each("__enter__", "__exit__")
def _(lock, closed):
    with lock:
        pass
    with suppress(KeyError), lock:
        fail()
    refused(closed.__enter__)
    refused(closed.__exit__, None, None, None)
    refused(lock.__exit__, None, None, None)
    misused(lock.__enter__)


@cycle("Lock.locked", "RLock.locked")
def _():
    for kind in (Lock, RLock):
        assert things[kind].locked() is closed[kind].locked() is False
        misused(things[kind].locked)


@cycle("Lock.recovered", "RLock.recovered", "RWLock.recovered", "Condition.acquire",
       "Condition.recovered", times=40)  # fmt: skip
def dead_owners():
    for kind in (*OWNED, RWLock):
        good, bad, plain = (kind.at(shm, places[kind], on_owner_died=id),
                            kind.at(shm, places[kind], on_owner_died=fail), things[kind])  # fmt: skip
        take = (lambda lock: lock.acquire_write) if kind is RWLock else (lambda lock: lock.acquire)
        for how in ({}, {"recover": True}):
            die_with(take(plain))
            with suppress(OwnerDiedError):
                take(plain)(timeout=20)
                raise AssertionError
            with suppress(KeyError):
                take(bad)(timeout=20)
                raise AssertionError
            lock = plain if how else good
            assert take(lock)(timeout=20, **how)
            read(lock, "recovered")
            lock.release()


@cycle("RWLock.acquire_read", "RWLock.acquire_write", "RWLock.release")
def _():
    assert rwlock.acquire_read() and elsewhere(
        lambda: rwlock.acquire_read() and rwlock.release() is None
    )
    for options in ((False,), (True, 0), (True, 0.0002)):
        assert elsewhere(rwlock.acquire_write, *options) is False
    refused(rwlock.acquire_write)
    rwlock.release()
    assert rwlock.acquire_write()
    for options in ((False,), (True, 0), (True, 0.0002)):
        assert elsewhere(rwlock.acquire_read, *options) is False
    refused(rwlock.acquire_read)
    refused(elsewhere, rwlock.release)
    rwlock.release()
    refused(rwlock.release)
    for wrong in WRONG_TIMEOUTS:
        refused(rwlock.acquire_read, timeout=wrong)
        refused(rwlock.acquire_write, timeout=wrong)
    for method in ("acquire_read", "acquire_write", "release"):
        refused(getattr(closed[RWLock], method))
        misused(getattr(rwlock, method))


@cycle("RWLock.read", "RWLock.write")
def _():
    for side in (rwlock.read, rwlock.write):
        with side():
            refused(elsewhere, rwlock.write(0).__enter__)
        with suppress(KeyError), side(5):
            fail()
        unused = side(None)
        ring = [unused]
        ring.append(ring)
        refused(side().__exit__, None, None, None)
        for wrong in WRONG_TIMEOUTS:
            refused(lambda wrong=wrong, side=side: side(wrong).__enter__())
        misused(side)
    refused(lambda: closed[RWLock].read().__enter__())


@cycle("Condition.wait", "Condition.wait_for", times=40)
def _():
    with condition:
        for timeout in (0, 0.0002):
            assert condition.wait(timeout) is False
            assert condition.wait_for(list, timeout) == []
        assert condition.wait_for(lambda: name) == name
        with suppress(KeyError):
            condition.wait_for(fail)
        for wrong in WRONG_TIMEOUTS:
            refused(condition.wait, wrong)
            refused(condition.wait_for, list, wrong)
        interrupted(condition.wait)
        refused(condition.wait_for, 5)
        misused(condition.wait)
        misused(condition.wait_for)
    refused(condition.wait, 0)
    refused(condition.wait_for, list)
    refused(closed[Condition].wait)
    refused(closed[Condition].wait_for, list)


@cycle("Condition.notify", "Condition.notify_all", "Condition.lock")
def _():
    with condition:
        condition.notify()
        condition.notify(5)
        condition.notify_all()
        for wrong in ("", -1, 1.5, 2**70):
            refused(condition.notify, wrong)
        misused(condition.notify)
        misused(condition.notify_all)
    refused(condition.notify)
    refused(condition.notify_all)
    refused(closed[Condition].notify)
    read(condition, "lock")
    own = Condition.at(shm, 45056, create=True, lock=things[Lock])
    assert own.lock is things[Lock]
    own.close()
    shm.buf[45056:49152] = bytes(4096)


@cycle("Event.set", "Event.is_set", "Event.clear", "Event.wait")
def _():
    event.set()
    assert event.is_set() and event.wait() and event.wait(0)
    event.clear()
    for timeout in (0, 0.0002):
        assert event.wait(timeout) is False
    interrupted(event.wait)
    for wrong in WRONG_TIMEOUTS:
        refused(event.wait, wrong)
    for method in ("set", "is_set", "clear", "wait"):
        misused(getattr(event, method))
        refused(getattr(closed[Event], method))


@cycle("Barrier.wait", "Barrier.abort", "Barrier.reset")
def _():
    for timeout in (0, 0.0002):
        with suppress(BrokenBarrierError):
            barrier.wait(timeout)
            raise AssertionError
        barrier.reset()
    barrier.abort()
    refused(barrier.wait)
    barrier.reset()
    interrupted(barrier.wait)
    barrier.reset()
    for wrong in WRONG_TIMEOUTS:
        refused(barrier.wait, wrong)
    for method in ("wait", "abort", "reset"):
        misused(getattr(barrier, method))
        refused(getattr(closed[Barrier], method))
    alone = Barrier.at(shm, 45056, parties=1, action=lambda: None, create=True)
    assert alone.wait() == 0
    failing = Barrier.at(shm, 45056, action=fail, timeout=5)
    with suppress(KeyError):
        failing.wait()
        raise AssertionError
    alone.close(), failing.close()
    shm.buf[45056:49152] = bytes(4096)


@cycle("Barrier.parties", "Barrier.n_waiting", "Barrier.broken", "Semaphore.value")
def _():
    read(barrier, "parties", "n_waiting", "broken")
    read(closed[Barrier], "parties")
    read(semaphore, "value")
    refused(getattr, closed[Semaphore], "value")


@cycle("Semaphore.acquire", "Semaphore.release", "Semaphore.__enter__", "Semaphore.__exit__")
def _():
    with semaphore:
        for options in ((False,), (True, 0), (True, 0.0002)):
            assert semaphore.acquire(*options) is False
        interrupted(semaphore.acquire)
    with suppress(KeyError), semaphore:
        fail()
    semaphore.release(5)
    for _ in range(5):
        assert semaphore.acquire()
    for wrong in WRONG_TIMEOUTS:
        refused(semaphore.acquire, timeout=wrong)
    for wrong in ("", 0, -1, 1.5, 2**70, 2**31):
        refused(semaphore.release, wrong)
    for method in ("acquire", "release", "__enter__"):
        misused(getattr(semaphore, method))
        refused(getattr(closed[Semaphore], method))
    refused(closed[Semaphore].__exit__, None, None, None)
