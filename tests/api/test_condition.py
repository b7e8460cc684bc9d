"""Condition: each notify wakes a waiter, also if other processes die."""

import errno
import threading
import time

import pytest
from _primitives import die_with, elsewhere
from _processes import PATH, rounds

from posixshm import Condition, Lock, OwnerDiedError, RLock, SharedMemory

DEADLINE = 30


@pytest.fixture
def shm():
    with SharedMemory.anonymous(16384) as handle:
        yield handle


LOCKS = {
    "its own": lambda shm: None,
    "a Lock": lambda shm: Lock.at(shm, 8192, create=True),
    "an RLock": lambda shm: RLock.at(shm, 8192, create=True),
}


@pytest.fixture(params=LOCKS)
def condition(shm, request):
    return Condition.at(shm, 0, create=True, lock=LOCKS[request.param](shm))


class Waiters:
    """Threads that wait; all of them wait when start() returns."""

    def __init__(self, condition, timeout=DEADLINE):
        self.condition, self.timeout = condition, timeout
        self.threads, self.woken = [], []
        self.coming = 0

    def start(self, count):
        for _ in range(count):
            thread = threading.Thread(target=self._wait)
            thread.start()
            self.threads.append(thread)
        deadline = time.monotonic() + DEADLINE
        while True:
            with self.condition:  # each counted waiter has released the lock since
                if self.coming == len(self.threads):
                    return
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def _wait(self):
        with self.condition:
            self.coming += 1
            self.woken.append(self.condition.wait(self.timeout))

    def expect(self, count):
        """Wait until `count` waiters were woken, and check 20 ms later that no more were."""
        deadline = time.monotonic() + DEADLINE
        while len(self.woken) < count:
            assert time.monotonic() < deadline, f"{len(self.woken)} of {count} were woken"
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(self.woken) == count and all(self.woken)

    def join(self):
        for thread in self.threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()


def test_a_condition_has_the_methods_of_its_lock(condition):
    assert isinstance(condition.lock, Lock | RLock) and condition.lock is condition.lock
    assert condition.acquire() is True and condition.lock.locked()
    assert elsewhere(condition.acquire, False) is False
    assert elsewhere(condition.acquire, timeout=0.01) is False
    condition.release()
    assert condition.acquire(timeout=0, recover=True)
    condition.release()
    with condition as got:
        assert got is True and condition.lock.locked()
    assert not condition.lock.locked()
    for what in ("acquire", "release"):
        with pytest.raises(TypeError):
            getattr(condition, what)(nonsense=1)


def test_notify_wakes_the_requested_number_of_waiters(condition):
    waiters = Waiters(condition)
    waiters.start(6)
    with condition:
        condition.notify(0)
        condition.notify()
        assert waiters.woken == []  # no waiter continues before the lock is released
    waiters.expect(1)
    with condition:
        condition.notify(2)
    waiters.expect(3)
    with condition:
        condition.notify(1)
        condition.notify(1)
    waiters.expect(5)
    with condition:
        condition.notify(2**31 - 1)
    waiters.expect(6)
    waiters.join()


def test_notify_all_wakes_all_earlier_waiters(condition):
    waiters = Waiters(condition)
    for round in (1, 2, 3):
        waiters.start(5)
        with condition:
            condition.notify_all()
        waiters.expect(5 * round)
    waiters.join()


def test_a_notify_is_not_kept_for_later_waiters(condition):
    with condition:
        condition.notify()
        condition.notify_all()
        condition.notify(5)
        assert condition.wait(0.02) is False
        assert condition.wait(0) is False
    waiters = Waiters(condition)
    waiters.start(2)
    with condition:
        condition.notify(1)
        condition.notify(1)
        # Both notifications are for the two earlier waiters.
        assert condition.wait(0.05) is False
    waiters.expect(2)
    waiters.join()
    with condition:
        condition.notify_all()
        assert condition.wait(0.02) is False


def test_a_waiter_that_timed_out_takes_no_notification(condition):
    for timeout in (0, 0.01, 0.03):
        with condition:
            before = time.monotonic()
            assert condition.wait(timeout) is False
            assert time.monotonic() - before >= timeout
    waiters = Waiters(condition)
    waiters.start(3)
    with condition:
        assert condition.wait(0.01) is False
        condition.notify(1)
    waiters.expect(1)
    with condition:
        condition.notify_all()
    waiters.expect(3)
    waiters.join()


def test_wait_releases_the_lock_and_acquires_it_again(condition):
    seen = []

    def change():
        with condition:
            seen.append(condition.lock.locked())
            condition.notify()

    with condition:
        thread = threading.Thread(target=change)
        thread.start()
        assert condition.wait(DEADLINE) is True
        assert seen == [True]
        assert elsewhere(condition.acquire, False) is False
    thread.join(DEADLINE)
    assert not condition.lock.locked()


@pytest.mark.parametrize("which", ["its own", "an RLock"])
def test_wait_releases_a_lock_that_was_acquired_more_than_once(shm, which):
    condition = Condition.at(shm, 0, create=True, lock=LOCKS[which](shm))

    def change():
        with condition:
            condition.notify()

    for depth in (1, 2, 5):
        for _ in range(depth):
            condition.acquire()
        thread = threading.Thread(target=change)
        thread.start()
        assert condition.wait(DEADLINE) is True
        thread.join(DEADLINE)
        for _ in range(depth):
            assert elsewhere(condition.acquire, False) is False
            condition.release()
        assert not condition.lock.locked()
        with pytest.raises(RuntimeError):
            condition.release()


def test_without_the_lock(condition):
    for call in (
        condition.wait,
        condition.notify,
        condition.notify_all,
        lambda: condition.wait(0),
        lambda: condition.wait_for(pytest.fail),
        lambda: condition.notify(3),
    ):
        with pytest.raises(RuntimeError, match="un-acquired"):
            call()
        with condition, pytest.raises(RuntimeError, match="un-acquired"):
            elsewhere(call)
    with pytest.raises(RuntimeError, match="not acquired"):
        condition.release()


def test_arguments(condition):
    with condition:
        with pytest.raises(ValueError, match="timeout"):
            condition.wait(float("nan"))
        with pytest.raises(ValueError, match="timeout"):
            condition.wait_for(list, float("nan"))
        for over in (0, -1, -0.5, float("-inf")):
            assert condition.wait(over) is False
            assert condition.wait_for(list, over) == []
            assert condition.wait_for(lambda: 5, over) == 5
        for bad in ("1", True, 1j, [], b""):
            with pytest.raises(TypeError, match="timeout"):
                condition.wait(bad)
            with pytest.raises(TypeError, match="timeout"):
                condition.wait_for(list, bad)
        for bad in (-1, 2**31, 2**70):
            with pytest.raises((ValueError, OverflowError), match="n"):
                condition.notify(bad)
        for bad in (1.0, "1", None, True):
            with pytest.raises(TypeError, match="n"):
                condition.notify(bad)
        with pytest.raises(TypeError):
            condition.wait_for()
        with pytest.raises(TypeError):
            condition.wait_for(5, 0)
        with pytest.raises(TypeError):
            condition.notify_all(1)
        assert condition.lock.locked()


def test_wait_for(condition):
    state = [0]

    def count():
        while state[0] < 5:
            with condition:
                state[0] += 1
                condition.notify_all()

    with condition:
        assert condition.wait_for(lambda: "at once", 0) == "at once"
        before = time.monotonic()
        assert condition.wait_for(lambda: [], 0.05) == []  # the last value of the predicate
        assert time.monotonic() - before >= 0.05
        assert condition.wait_for(lambda: 0, 0) == 0
        thread = threading.Thread(target=count)
        thread.start()
        assert condition.wait_for(lambda: state[0] == 5 and "five", DEADLINE) == "five"
        assert elsewhere(condition.acquire, False) is False
    thread.join(DEADLINE)


def test_wait_for_propagates_exceptions_of_its_predicate(condition):
    class NoTruth:
        def __bool__(self):
            raise LookupError

    with condition:
        with pytest.raises(ZeroDivisionError):
            condition.wait_for(lambda: 1 / 0)
        with pytest.raises(LookupError):
            condition.wait_for(NoTruth)
        assert elsewhere(condition.acquire, False) is False
    with pytest.raises(RuntimeError):
        with condition:
            condition.wait_for(lambda: condition.release())
    assert not condition.lock.locked()


def test_all_processes_must_use_the_same_lock(shm):
    lock = Lock.at(shm, 8192, create=True)
    first = Condition.at(shm, 0, create=True, lock=lock)
    second = Condition.at(shm, 256, create=True, lock=lock)  # two conditions with one lock
    other = Condition.at(shm, 0, lock=Lock.at(shm, 8192))
    assert first.lock is lock is second.lock and other.lock is not lock
    waiters, others = Waiters(first), Waiters(second)
    waiters.start(2)
    others.start(2)
    with other:
        other.notify()
    waiters.expect(1)
    with lock:
        second.notify_all()
        first.notify_all()
    waiters.expect(2)
    others.expect(2)
    waiters.join()
    others.join()


def test_the_lock_is_free_while_all_wait(start_python, name):
    """A waiter does not acquire the lock to find out whether the owner died."""
    with SharedMemory.create(name, 4096, delete=True) as shm:
        condition = Condition.at(shm, create=True)
        child = start_python(
            "import sys; from children import idle_waiters;"
            "idle_waiters.wait_for_the_end(sys.argv[1])",
            name,
            env=PATH,
        )
        child.hear("waiting")
        with condition:  # the thread that printed the line has released the lock
            pass
        end = time.monotonic() + rounds(0.2, 1.0)
        tries = 0
        while time.monotonic() < end:
            for _ in range(1000):
                tries += 1
                assert condition.acquire(False), f"not free at attempt {tries}"
                condition.release()
        child.finish()


# -- dead owners ---------------------------------------------------------------------------------


def test_a_waiter_gets_an_error_if_an_owner_died(condition):
    results = []

    def wait():
        try:
            with condition:
                results.append("waits")
                condition.wait(DEADLINE)
        except OwnerDiedError as error:
            results.append(error.errno)

    thread = threading.Thread(target=wait)
    thread.start()
    deadline = time.monotonic() + DEADLINE
    while not results:
        assert time.monotonic() < deadline

    def die():
        condition.acquire()
        condition.notify_all()

    die_with(die)
    thread.join(DEADLINE)
    assert results == ["waits", errno.EOWNERDEAD]
    with pytest.raises(OwnerDiedError):
        condition.acquire(timeout=DEADLINE)
    assert condition.acquire(recover=True) and condition.recovered and condition.lock.recovered
    condition.notify_all()
    assert condition.wait(0.01) is False
    condition.release()


def test_recover_of_the_own_lock_of_a_condition(shm):
    calls = []
    condition = Condition.at(shm, 0, create=True, on_owner_died=calls.append)
    die_with(condition.acquire)
    with condition:
        assert calls == [condition.lock] and condition.recovered is condition.lock.recovered is True
        condition.notify()
    with condition:
        assert condition.recovered is condition.lock.recovered is False
    assert Condition.at(shm).recovered is False


def test_between_processes(run_python):
    """A queue of length 1: each item passes once, and each process ends."""
    code = """
import os
from posixshm import Condition, SharedMemory
shm = SharedMemory.anonymous(8192)
condition = Condition.at(shm, 0, create=True)
full, total, taken = (shm.buf[4096 + 8 * i : 4104 + 8 * i].cast("q") for i in range(3))
ITEMS = 2000
children = []
for who in range(4):
    children.append(os.fork())
    if children[-1]:
        continue
    if who < 2:
        for i in range(ITEMS):
            with condition:
                assert condition.wait_for(lambda: not full[0], 30) is True
                full[0] = i + 1
                condition.notify_all() if i % 2 else condition.notify(3)
    else:
        while True:
            with condition:
                assert condition.wait_for(lambda: full[0] or taken[0] == 2 * ITEMS, 30)
                if not full[0]:
                    break
                total[0] += full[0]
                taken[0] += 1
                full[0] = 0
                condition.notify_all()
    os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
assert total[0] == ITEMS * (ITEMS + 1), total[0]
"""
    run_python(code, env=PATH)


@pytest.mark.parametrize("recovers", [False, True])
def test_a_waiter_gets_an_error_when_an_owner_dies(run_python, name, recovers):
    """The error also arrives if only waiters exist, so that no process acquires the lock."""
    code = """
import os, signal, sys, threading
from posixshm import Atomic, Condition, OwnerDiedError, SharedMemory
with SharedMemory.create(sys.argv[1], 4096, delete=True) as shm:
    ready = Atomic.at(shm, 1024)
    recovers = sys.argv[2] == "True"
    recover = (lambda lock: ready.store(1)) if recovers else None
    condition = Condition.at(shm, create=True, on_owner_died=recover)
    results, waiting = [], threading.Semaphore(0)

    def wait():
        mine = Condition.at(shm, on_owner_died=recover)
        try:
            with mine:
                waiting.release()
                results.append(mine.wait_for(ready.load, 30))
        except OwnerDiedError:
            results.append("told")

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert waiting.acquire(timeout=30)
    child = os.fork()
    if child == 0:
        condition.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    for thread in threads:
        thread.join(20)
    assert results == ([1, 1] if recovers else ["told", "told"]), results
    if not recovers:
        assert condition.acquire(recover=True)
        condition.release()
    with condition:
        pass
"""
    run_python(code, name, recovers, options=["-W", "ignore::DeprecationWarning"])


def test_an_interrupt_is_not_lost_if_the_owner_died(run_python, name):
    """The lock was not acquired, which the error states; the interrupt is its context."""
    code = """
import os, signal, sys
from posixshm import Condition, OwnerDiedError, SharedMemory
with SharedMemory.create(sys.argv[1], 4096, delete=True) as shm:
    condition = Condition.at(shm, create=True)

    def interrupt(*_):
        child = os.fork()
        if child == 0:
            condition.acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        raise KeyboardInterrupt("by a signal")

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with condition:
            condition.wait(20)
    except OwnerDiedError as error:
        assert repr(error.__context__) == repr(KeyboardInterrupt("by a signal")), error.__context__
    else:
        raise AssertionError("OwnerDiedError was not raised")
    assert condition.acquire(recover=True)
    condition.release()
"""
    run_python(code, name)
