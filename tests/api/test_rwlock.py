"""RWLock: many readers or one writer, without starvation; a dead writer is reported."""

import errno
import threading
import time

import pytest
from _primitives import die_with, elsewhere
from _processes import PATH

from posixshm import OwnerDiedError, RWLock, SharedMemory

DEADLINE = 30
SLOTS = 64


@pytest.fixture
def shm():
    with SharedMemory.anonymous(16384) as handle:
        yield handle


@pytest.fixture
def lock(shm):
    return RWLock.at(shm, 0, create=True)


class Inside:
    """A thread that holds the lock until the block ends."""

    def __init__(self, acquire, release):
        self._go, come = threading.Event(), threading.Event()

        def body():
            assert acquire()
            come.set()
            self._go.wait(DEADLINE)
            release()

        self.thread = threading.Thread(target=body)
        self.thread.start()
        assert come.wait(DEADLINE)

    def leave(self):
        self._go.set()
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()


def can(lock, how):
    """Can another thread acquire the lock now?"""

    def body():
        if got := getattr(lock, how)(timeout=0):
            lock.release()
        return got

    return elsewhere(body)


def test_many_readers_or_one_writer(shm, lock):
    other = RWLock.at(shm)
    for thing in (lock, other):
        assert thing.acquire_read() is True
        for second in (lock, other):
            assert can(second, "acquire_read") and not can(second, "acquire_write")
        assert thing.release() is None
        assert thing.acquire_write() is True
        for second in (lock, other):
            assert not can(second, "acquire_read") and not can(second, "acquire_write")
            before = time.monotonic()
            assert elsewhere(second.acquire_read, True, 0.02) is False
            assert elsewhere(second.acquire_write, timeout=0.02) is False
            assert time.monotonic() - before >= 0.04
            assert elsewhere(second.acquire_read, False) is False
        thing.release()
        assert can(lock, "acquire_read") and can(other, "acquire_write")


def test_with(lock):
    with lock.read() as got, lock.read():
        assert got is lock
        assert can(lock, "acquire_read") and not can(lock, "acquire_write")
    with lock.write() as got:
        assert got is lock and not can(lock, "acquire_read")
    side = lock.write()
    for _ in range(3):
        with side:
            pass
    with pytest.raises(KeyError), lock.write():
        raise KeyError
    with pytest.raises(KeyError), lock.read():
        lock.release()
        raise KeyError
    with pytest.raises(RuntimeError), lock.read():
        lock.release()
    for how in (lock.read, lock.write):
        with lock.write():
            for timeout in (0, 0.02):

                def enter(how=how, timeout=timeout):
                    with how(timeout):
                        raise AssertionError

                with pytest.raises(TimeoutError, match="not free"):
                    elsewhere(enter)
        with how(timeout=0):
            pass
    assert can(lock, "acquire_write")


def test_releasing_a_lock_that_is_not_held(shm, lock):
    other = RWLock.at(shm)
    with pytest.raises(RuntimeError, match="not acquired"):
        lock.release()
    for side in (lock.read, lock.write):
        with side():
            for thing in (lock, other):
                with pytest.raises(RuntimeError, match="not acquired"):
                    elsewhere(thing.release)
            with pytest.raises(RuntimeError, match="not acquired"):
                other.release()
        with pytest.raises(RuntimeError, match="not acquired"):
            lock.release()


def test_a_thread_does_not_wait_for_itself(lock):
    with lock.write():
        for how in (lock.acquire_read, lock.acquire_write):
            with pytest.raises(OSError, match="itself") as caught:
                how()
            assert caught.value.errno == errno.EDEADLK
            assert how(False) is how(timeout=0) is how(timeout=0.02) is False
    with lock.read():
        with pytest.raises(OSError, match="itself") as caught:
            lock.acquire_write()
        assert caught.value.errno == errno.EDEADLK
        assert lock.acquire_write(timeout=0) is lock.acquire_write(timeout=0.02) is False
        assert can(lock, "acquire_read")  # the failed attempts hold nothing
    assert can(lock, "acquire_write")


def test_a_thread_may_read_more_than_once(lock):
    for depth in (2, 5, SLOTS):
        for _ in range(depth):
            assert lock.acquire_read(timeout=0)
        for _ in range(depth):
            assert not can(lock, "acquire_write")
            lock.release()
        assert can(lock, "acquire_write")


def test_more_readers_than_slots_wait(lock):
    for _ in range(SLOTS):
        assert lock.acquire_read(timeout=0)
    assert not can(lock, "acquire_read")
    assert elsewhere(lock.acquire_read, timeout=0.02) is False
    lock.release()
    assert can(lock, "acquire_read")
    for _ in range(SLOTS - 1):
        lock.release()
    assert can(lock, "acquire_write")


def test_a_thread_that_reads_too_often_gets_an_error_with_the_limit(shm, lock):
    """The error does not just state that the thread would wait for itself."""
    others = [Inside(lock.acquire_read, lock.release) for _ in range(3)]
    for _ in range(SLOTS - len(others)):
        assert lock.acquire_read()
    assert lock.acquire_read(timeout=0.02) is False
    leaving = threading.Thread(target=others.pop().leave)
    leaving.start()
    assert lock.acquire_read()  # the rest belongs to another reader
    leaving.join(DEADLINE)
    for other in others:
        other.leave()
        assert lock.acquire_read()
    for reader in (lock, RWLock.at(shm)):
        assert reader.acquire_read(blocking=False) is False
        assert reader.acquire_read(timeout=0.02) is False
        with pytest.raises(OSError, match=f"{SLOTS} times.*release") as caught:
            reader.acquire_read()
        assert caught.value.errno == errno.EDEADLK
        assert "RWLock at offset 0" in str(caught.value)
    for _ in range(SLOTS):
        lock.release()
    assert can(lock, "acquire_write")


def test_no_writer_starves(lock):
    """Readers overlap without a pause, so that the lock always has a reader."""
    stop = threading.Event()

    def read():
        while not stop.is_set():
            with lock.read():
                time.sleep(0.002)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
        time.sleep(0.0005)
    try:
        for _ in range(20):
            assert lock.acquire_write(timeout=DEADLINE)
            lock.release()
    finally:
        stop.set()
        for reader in readers:
            reader.join(DEADLINE)


def test_a_writer_that_waits_keeps_new_readers_out(lock):
    reader = Inside(lock.acquire_read, lock.release)
    writing = []
    writer = threading.Thread(
        target=lambda: (writing.append(lock.acquire_write(timeout=DEADLINE)), lock.release())
    )
    writer.start()
    deadline = time.monotonic() + DEADLINE
    while can(lock, "acquire_read"):
        assert time.monotonic() < deadline
    assert not writing
    reader.leave()
    writer.join(DEADLINE)
    assert writing == [True] and can(lock, "acquire_read")


def test_arguments(lock):
    for acquire in (lock.acquire_read, lock.acquire_write):
        with pytest.raises(ValueError, match="timeout"):
            acquire(False, 1)
        for bad in (-2, -0.001, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                acquire(True, bad)
            with pytest.raises(ValueError, match="timeout"):
                lock.read(bad)
        for bad in ("1", b"1", [], True, 1j):
            with pytest.raises(TypeError, match="timeout"):
                acquire(True, bad)
            with pytest.raises(TypeError, match="timeout"):
                lock.write(bad)
        for good in ((True, -1), (True, None), (0,), (1, 1e300), (True, float("inf")), (True, 0)):
            assert acquire(*good) is True
            lock.release()
    with pytest.raises(TypeError):
        lock.acquire_read(recover=True)
    for good in (-1, None, 0, 1e300):
        with lock.read(good), lock.read(timeout=good):
            pass
    with pytest.raises(TypeError):
        type(lock.read())()


def test_between_processes(run_python):
    """A writer is always alone, and readers never see a writer."""
    code = """
import os
from posixshm import RWLock, SharedMemory
shm = SharedMemory.anonymous(16384)
lock = RWLock.at(shm, 0, create=True)
pair = shm.buf[8192:8208].cast("q")
children = []
for who in range(4):
    children.append(os.fork())
    if not children[-1]:
        for i in range(500):
            if (i + who) % 3:
                with lock.read(30):
                    assert pair[0] == pair[1]
            else:
                with lock.write(30):
                    pair[0] += 1
                    pair[1] += 1
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
assert pair[0] == pair[1] == sum(not (i + who) % 3 for i in range(500) for who in range(4))
"""
    run_python(code, env=PATH)


# -- dead owners ---------------------------------------------------------------------------------


def assert_owner_died(lock):
    for acquire in (lock.acquire_read, lock.acquire_write):
        for keywords in ({"timeout": DEADLINE}, {"blocking": False}, {}):
            with pytest.raises(OwnerDiedError, match="recover") as caught:
                acquire(**keywords)
            assert caught.value.errno == errno.EOWNERDEAD
    for side in (lock.read, lock.write):
        with pytest.raises(OwnerDiedError), side(DEADLINE):
            raise AssertionError
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_dead_reader_leaves_nothing_to_repair(lock):
    for count in (1, 3, SLOTS):
        die_with(lambda count=count: [lock.acquire_read() for _ in range(count)])
        with lock.write(DEADLINE):
            assert not lock.recovered
        for _ in range(SLOTS):
            assert lock.acquire_read(timeout=DEADLINE)
        for _ in range(SLOTS):
            lock.release()


def test_after_a_dead_writer_every_acquire_raises(shm, lock):
    others = [RWLock.at(shm) for _ in range(2)]
    die_with(lock.acquire_write)
    for thing in (lock, *others, lock):
        assert_owner_died(thing)
        elsewhere(assert_owner_died, thing)
    assert others[0].acquire_write(recover=True) is True
    assert others[0].recovered and not lock.recovered
    assert not can(lock, "acquire_read")
    others[0].release()
    for thing in (lock, *others):
        with thing.read(), thing.read():
            pass
        with thing.write():
            assert not thing.recovered
    assert lock.acquire_write(recover=True)  # without a dead owner
    assert not lock.recovered
    lock.release()


def test_recovering_while_others_read(shm, lock):
    """A recovering writer waits for the readers; if it times out, the next acquire raises."""
    reader_of = RWLock.at(shm)
    die_with(lock.acquire_write)
    assert lock.acquire_write(recover=True)
    lock.release()
    reader = Inside(reader_of.acquire_read, reader_of.release)
    assert lock.acquire_write(timeout=0.02, recover=True) is False
    assert lock.acquire_write(False, recover=True) is False
    reader.leave()
    with lock.write(DEADLINE):
        pass


@pytest.mark.parametrize("how", ["acquire_read", "acquire_write"])
def test_recover_repairs_and_goes_on(shm, how):
    calls = []

    def repair(lock):
        assert not can(RWLock.at(shm), "acquire_read")
        calls.append(lock)

    lock, plain = RWLock.at(shm, 0, create=True, on_owner_died=repair), RWLock.at(shm)
    die_with(lock.acquire_write)
    assert_owner_died(plain)
    assert getattr(lock, how)(timeout=DEADLINE) is True
    assert calls == [lock] and lock.recovered
    assert can(plain, "acquire_read") is (how == "acquire_read")
    lock.release()
    with plain.write(), pytest.raises(RuntimeError):
        lock.release()
    assert calls == [lock]


@pytest.mark.parametrize("how", ["acquire_read", "acquire_write"])
def test_a_recover_that_fails_leaves_the_lock_inconsistent(shm, how):
    def fail(lock):
        raise KeyError

    def release(lock):
        lock.release()

    def wait(lock):
        assert not lock.acquire_read(timeout=0)
        lock.acquire_read()

    plain = RWLock.at(shm, 0, create=True)
    for function, error in ((fail, KeyError), (release, RuntimeError), (wait, OSError)):
        lock = RWLock.at(shm, 0, on_owner_died=function)
        die_with(plain.acquire_write)
        for _ in range(2):
            with pytest.raises(error):
                getattr(lock, how)(timeout=DEADLINE)
            assert_owner_died(plain)
        assert lock.acquire_write(recover=True)
        lock.release()
        with lock.read(), plain.read():
            pass
        with plain.write():  # so that the dead thread does not seem to hold it
            pass


def test_processes_that_are_killed(start_python, name):
    code = """
import sys
from posixshm import RWLock, SharedMemory
lock = RWLock.at(SharedMemory.open(sys.argv[1]))
getattr(lock, sys.argv[2])()
print("inside", flush=True)
input()
"""
    with SharedMemory.create(name, 8192, delete=True) as segment:
        lock = RWLock.at(segment, 0, create=True)
        for how in ("acquire_read", "acquire_write") * 2:
            child = start_python(code, name, how)
            child.hear("inside")
            assert not lock.acquire_write(timeout=0.02)
            child.kill()
            if how == "acquire_read":
                assert lock.acquire_write(timeout=DEADLINE) and not lock.recovered
            else:
                with pytest.raises(OwnerDiedError):
                    lock.acquire_read(timeout=DEADLINE)
                assert lock.acquire_write(recover=True) and lock.recovered
            lock.release()


def test_a_writer_that_is_killed_while_it_waits_was_not_writing(run_python):
    code = """
import os, signal, time
from posixshm import RWLock, SharedMemory
shm = SharedMemory.anonymous(8192)
lock = RWLock.at(shm, 0, create=True)
for _ in range(3):
    with lock.read():
        child = os.fork()
        if child == 0:
            lock.acquire_write()
        reader = os.fork()
        if reader == 0:
            while lock.acquire_read(timeout=0):  # until the writer waits, which keeps readers out
                lock.release()
            os._exit(0)
        assert os.waitpid(reader, 0)[1] == 0
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with lock.read(30):
        pass
    with lock.write(30):
        assert not lock.recovered
"""
    run_python(code, env=PATH)
