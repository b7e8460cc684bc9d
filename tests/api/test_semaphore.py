"""Semaphore: a POSIX semaphore, named or placed, which other programs can use."""

import ctypes
import errno
import os
import pickle
import threading
import time

import pytest
from _primitives import elsewhere
from _processes import PATH, SHM

from posixshm import SEM_VALUE_MAX, Semaphore, SharedMemory, sem_unlink

DEADLINE = 30
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def shm():
    with SharedMemory.anonymous(4096) as handle:
        yield handle


@pytest.fixture
def run_peer(run_python):
    """run_peer(code, name): run code with posix_ipc in another process, which may turn the GIL
    on."""

    def run(code, name):
        start = """
import pickle, sys, threading
import posix_ipc
from posixshm import Semaphore
name = sys.argv[1]

def refused(error, function, *args, **keywords):
    try:
        function(*args, **keywords)
    except error:
        return
    raise AssertionError(f"not {error}")
"""
        run_python(start + code, name, options=["-W", "ignore"])

    return run


@pytest.fixture(params=["placed", "named"])
def make(request, shm, names):
    """make(value): a new semaphore, and a function that opens it again."""
    made = []

    def make(value):
        if request.param == "placed":
            offset = 128 * len(made)
            made.append(Semaphore.at(shm, offset, create=True, value=value))
            return made[-1], lambda: Semaphore.at(shm, offset)
        name = names()
        made.append(Semaphore(name, create=True, value=value))
        return made[-1], lambda: Semaphore(name)

    yield make
    if request.param == "named":
        for semaphore in made:
            semaphore.unlink()


def test_a_semaphore_counts(make):
    semaphore, again = make(2)
    other = again()
    assert semaphore.value == other.value == 2
    assert semaphore.acquire() is True and other.acquire(timeout=0) is True
    assert semaphore.value == 0
    for thing in (semaphore, other):
        assert thing.acquire(False) is thing.acquire(timeout=0) is False
        before = time.monotonic()
        assert thing.acquire(True, 0.02) is False
        assert time.monotonic() - before >= 0.02
    assert semaphore.release() is None
    other.release(3)
    other.release(n=1)
    assert semaphore.value == 5
    assert elsewhere(semaphore.acquire)  # it does not have an owner
    with other as got:
        assert got is True and semaphore.value == 3
    assert semaphore.value == 4
    with pytest.raises(KeyError), semaphore:
        raise KeyError
    assert other.value == 4


def test_the_default_value_is_one(shm, name):
    assert Semaphore.at(shm, 0, create=True).value == 1
    semaphore = Semaphore(name, create=True)
    assert semaphore.value == 1
    semaphore.unlink()


def test_limits(make):
    assert SEM_VALUE_MAX == os.sysconf("SC_SEM_VALUE_MAX") == 2**31 - 1
    semaphore, _ = make(SEM_VALUE_MAX)
    with pytest.raises(OSError, match=str(SEM_VALUE_MAX)) as caught:
        semaphore.release()
    assert caught.value.errno == errno.EOVERFLOW and caught.value.filename == semaphore.name
    assert semaphore.value == SEM_VALUE_MAX
    for _ in range(3):
        assert semaphore.acquire()
    with pytest.raises(OSError):
        semaphore.release(4)
    assert semaphore.value == SEM_VALUE_MAX - 3
    semaphore.release(3)
    for bad in (0, -1, 2**31, 2**64):
        with pytest.raises((ValueError, OverflowError), match="n "):
            semaphore.release(bad)
    for bad in (1.0, "1", None, True):
        with pytest.raises(TypeError, match="n "):
            semaphore.release(bad)
    other, _ = make(0)
    assert other.acquire(timeout=0) is False
    other.release(1_500_000)  # in one step
    with pytest.raises(OSError):
        other.release(SEM_VALUE_MAX)
    assert other.value == 1_500_000


def test_arguments_of_acquire(make):
    semaphore, _ = make(1)
    for timeout in (1, 0, -1):
        with pytest.raises(ValueError, match="timeout"):
            semaphore.acquire(False, timeout)
    with pytest.raises(ValueError, match="timeout"):
        semaphore.acquire(True, float("nan"))
    for bad in ("1", b"1", [], True, 1j):
        with pytest.raises(TypeError, match="timeout"):
            semaphore.acquire(True, bad)
    assert semaphore.value == 1
    for good in ((), (True, -1), (True, None), (0,), (1, 1e300), (True, float("inf")), (True, 0)):
        assert semaphore.acquire(*good) is True
        for over in (0, -1, -0.001, float("-inf")):
            assert semaphore.acquire(timeout=over) is False
        semaphore.release()


def test_release_wakes_the_requested_number_of_waiters(make):
    semaphore, _ = make(0)
    woken = []
    threads = [
        threading.Thread(target=lambda: woken.append(semaphore.acquire(timeout=DEADLINE)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    for n in (2, 3):
        semaphore.release(n)
        deadline = time.monotonic() + DEADLINE
        while len(woken) < (2 if n == 2 else 5):
            assert time.monotonic() < deadline
        time.sleep(0.02)
        assert len(woken) == (2 if n == 2 else 5)
    for thread in threads:
        thread.join(DEADLINE)
    assert woken == [True] * 5 and semaphore.value == 0


def test_a_process_that_is_killed_before_its_wake_up_call_has_released_it(make, run_threads):
    """A waiter without a timeout sees the value, though no process wakes it."""
    semaphore, _ = make(0)
    waiting = threading.Event()

    def wait():
        waiting.set()
        return semaphore.acquire()

    def release_without_a_wake():
        waiting.wait(DEADLINE)
        time.sleep(0.05)  # it probably sleeps at this time
        semaphore.shm.buf[:1] = b"\1"

    assert run_threads(wait, release_without_a_wake) == [True, None]
    assert semaphore.value == 0


def test_a_signal_that_another_thread_receives_ends_a_wait_without_a_timeout(run_python, name):
    """It does not interrupt the system call, like a signal that arrives just before the sleep."""
    code = """
import os, signal, sys, threading, time
from posixshm import Semaphore, SharedMemory
with SharedMemory.create(sys.argv[1], 4096, delete=True) as shm:
    semaphore = Semaphore.at(shm, value=0, create=True)
    sent, took = [], []

    def send():
        time.sleep(0.1)
        sent.append(time.monotonic())
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    for _ in range(5):
        thread = threading.Thread(target=send)
        try:
            thread.start()
            semaphore.acquire()
        except KeyboardInterrupt:
            took.append(time.monotonic() - sent[-1])
        thread.join()
    assert len(took) == 5 and min(took) < 0.1, took
"""
    run_python(code, name)


def test_between_processes(run_python):
    code = """
import os
from posixshm import Semaphore, SharedMemory
shm = SharedMemory.anonymous(4096)
free, full = (Semaphore.at(shm, 128 * i, create=True, value=8 * (i == 0)) for i in range(2))
children = []
for who in range(4):
    children.append(os.fork())
    if not children[-1]:
        for _ in range(2000):
            first, second = (free, full) if who % 2 else (full, free)
            assert first.acquire(timeout=30)
            second.release()
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
assert (free.value, full.value) == (8, 0)
"""
    run_python(code, env=PATH)


# -- semaphores of other programs ---------------------------------------------------------------


def test_a_placed_semaphore_is_a_sem_t(shm):
    """At its offset: sem_post(3) and sem_trywait(3) work on that address."""
    semaphore = Semaphore.at(shm, 256, create=True, value=1)
    view = (ctypes.c_char * 1).from_buffer(shm.buf, 256)
    address = ctypes.c_void_p(ctypes.addressof(view))
    assert libc.sem_post(address) == 0 and semaphore.value == 2
    assert libc.sem_trywait(address) == 0 and semaphore.value == 1
    assert semaphore.acquire() and libc.sem_trywait(address) == -1
    assert ctypes.get_errno() == errno.EAGAIN
    del view


def test_posix_ipc_opens_our_semaphores(run_peer, name):
    code = """
ours = Semaphore(name, create=True, value=3, mode=0o640)
theirs = posix_ipc.Semaphore("/" + name)
assert theirs.value == 3
theirs.acquire()
assert ours.value == 2
ours.release(2)
assert theirs.value == 4
for _ in range(4):
    theirs.acquire(0)
refused(posix_ipc.BusyError, theirs.acquire, 0)
assert ours.acquire(timeout=0) is False
thread = threading.Thread(target=theirs.acquire)
thread.start()
ours.release()
thread.join(30)
assert not thread.is_alive() and ours.value == 0
theirs.close()
posix_ipc.unlink_semaphore("/" + name)
refused(FileNotFoundError, Semaphore, name)
"""
    run_peer(code, name)


def test_semaphores_of_posix_ipc_can_be_opened(run_peer, name):
    code = """
theirs = posix_ipc.Semaphore("/" + name, posix_ipc.O_CREX, initial_value=2)
for ours in (Semaphore(name), Semaphore(name, create=True, exist_ok=True, value=9)):
    assert ours.value == 2
    assert ours.acquire(timeout=0) and theirs.value == 1
    theirs.release()
    ours.close()
refused(FileExistsError, Semaphore, name, create=True)
ours = pickle.loads(pickle.dumps(Semaphore(name)))
assert ours.value == 2
theirs.close()
ours.unlink()
refused(posix_ipc.ExistentialError, posix_ipc.Semaphore, "/" + name)
"""
    run_peer(code, name)


def test_the_file_of_a_named_semaphore(name):
    semaphore = Semaphore(name, create=True, mode=0o604)
    status = os.stat(f"{SHM}/sem.{name}")
    assert (status.st_mode & 0o7777, status.st_uid) == (0o604, os.geteuid())
    assert status.st_size == 32 or status.st_size == 16  # sizeof(sem_t), as sem_open(3) creates it
    semaphore.unlink()
    longest = name + "x" * (251 - len(name))
    semaphore = Semaphore(longest, create=True)
    assert semaphore.name == longest
    sem_unlink(longest)
    with pytest.raises(ValueError, match="251"):
        Semaphore(longest + "x", create=True)


def test_another_semaphore_of_the_same_name(name):
    first = Semaphore(name, create=True, value=1)
    data = pickle.dumps(first)
    first.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)
    second = Semaphore(name, create=True, value=2)
    with pytest.raises(OSError, match="another") as caught:
        pickle.loads(data)
    assert caught.value.errno == errno.ESTALE and caught.value.filename == f"sem.{name}"
    with pytest.raises(FileNotFoundError, match="another"):
        first.unlink()
    assert (first.value, second.value) == (1, 2)
    second.unlink()


def test_a_symbolic_link_and_a_directory_are_refused(name, tmp_path):
    path = f"{SHM}/sem.{name}"
    (tmp_path / "file").write_bytes(bytes(64))
    os.symlink(tmp_path / "file", path)
    try:
        for keywords in ({}, {"create": True}, {"create": True, "exist_ok": True}):
            with pytest.raises(OSError):
                Semaphore(name, **keywords)
    finally:
        os.unlink(path)
    os.mkdir(path)
    try:
        with pytest.raises(OSError):
            Semaphore(name)
    finally:
        os.rmdir(path)
    assert (tmp_path / "file").read_bytes() == bytes(64)


def test_closing_a_semaphore_does_not_affect_another_object(name):
    """sem_open(3) maps a semaphore once per process, so sem_close(3) could unmap it for other
    objects."""
    semaphores = [Semaphore(name, create=True, exist_ok=True) for _ in range(5)]
    semaphores[0].unlink()
    while semaphores:
        semaphores.pop(len(semaphores) // 2).close()
        for semaphore in semaphores:
            with semaphore:
                pass
