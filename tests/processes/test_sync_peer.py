"""A C program uses the semaphores, mutexes and words with the functions of the C library.

tests/unit/peer_sync.c knows their offsets but does not use this library.
"""

import subprocess
import threading

import pytest
from _primitives import die_with, elsewhere, name_of
from _processes import PATH, SHM, build_c, needs_mounts

from posixshm import Atomic, Condition, Lock, OwnerDiedError, RLock, Semaphore, SharedMemory

DEADLINE = 60
ROUNDS = 2000


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build_c("peer_sync.c", tmp_path_factory.mktemp("peer"))


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 16384, delete=True) as handle:
        yield handle


class Peer:
    def __init__(self, *args):
        self.process = subprocess.Popen(
            [str(arg) for arg in args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.watch = threading.Timer(DEADLINE, self.process.kill)
        self.watch.start()

    def ready(self):
        assert self.process.stdout.readline() == "ready\n"

    def end(self):
        out, _ = self.process.communicate()
        self.watch.cancel()
        self.watch.join()
        assert self.process.returncode == 0
        return out


@pytest.fixture
def start(program):
    """start(mode, ...): start the program, which must exit with 0."""
    peers = []

    def start(*args):
        peers.append(Peer(program, *args))
        return peers[-1]

    yield start
    for peer in peers:
        if peer.process.returncode is None:
            peer.process.kill()
            peer.process.communicate()
            peer.watch.cancel()
            peer.watch.join()


def path(shm):
    return f"{SHM}/{shm.name}"


def test_placed_semaphores(shm, start):
    ping = Semaphore.at(shm, 0, create=True, value=0)
    pong = Semaphore.at(shm, 4096, create=True, value=0)
    peer = start("semaphores", path(shm), 0, 4096, ROUNDS)
    peer.ready()
    for _ in range(ROUNDS):
        ping.release()
        assert pong.acquire(timeout=DEADLINE)
    peer.end()
    assert (ping.value, pong.value) == (0, 0)


def test_named_semaphores(names, start):
    ping, pong = (Semaphore(names(), create=True, value=0) for _ in range(2))
    try:
        peer = start("named", "/" + ping.name, "/" + pong.name, ROUNDS)
        peer.ready()
        for _ in range(ROUNDS):
            ping.release()
            assert pong.acquire(timeout=DEADLINE)
        peer.end()
        assert (ping.value, pong.value) == (0, 0)
    finally:
        ping.unlink()
        pong.unlink()


KINDS = pytest.mark.parametrize(
    ("kind", "keywords"),
    [
        (Lock, {}),
        (RLock, {}),
        (Condition, {}),
    ],
    ids=name_of,
)


@KINDS
def test_the_mutex_of_a_lock(shm, start, kind, keywords):
    lock = kind.at(shm, 256, create=True, **keywords)
    counter = shm.buf[8192:8200].cast("q")
    peer = start("mutex", path(shm), 256, 8192, 20 * ROUNDS)
    peer.ready()
    for _ in range(20 * ROUNDS):
        with lock:
            counter[0] += 1
    peer.end()
    assert counter[0] == 40 * ROUNDS
    counter.release()


@KINDS
def test_a_c_program_that_dies_while_it_holds_the_lock(shm, start, kind, keywords):
    lock = kind.at(shm, 256, create=True, **keywords)
    peer = start("die", path(shm), 256)
    peer.ready()
    assert lock.acquire(timeout=0.02) is False
    assert getattr(lock, "lock", lock).locked()
    peer.end()
    for _ in range(2):
        with pytest.raises(OwnerDiedError):
            lock.acquire(timeout=DEADLINE)
    assert lock.acquire(recover=True)
    lock.release()


@KINDS
def test_a_c_program_that_gets_eownerdead(shm, start, kind, keywords):
    lock = kind.at(shm, 256, create=True, **keywords)
    die_with(lock.acquire)
    # A joined thread may still exist in the kernel.
    peer = start("inherit", path(shm), 256)
    assert peer.end() == "EOWNERDEAD\n"
    assert not getattr(lock, "lock", lock).locked()
    assert lock.acquire(timeout=DEADLINE)  # repaired by the C program
    assert elsewhere(lock.acquire, False) is False
    lock.release()


@pytest.mark.parametrize("format", "iIqQ")
def test_a_word(shm, start, format):
    word = Atomic.at(shm, 512, format)
    peer = start("word4" if format in "iI" else "word8", path(shm), 512, ROUNDS)
    peer.ready()
    for i in range(ROUNDS):
        word.fetch_add(1)
        word.notify()
        while (seen := word.load()) % 2 == 1:
            assert word.wait(seen, DEADLINE)
        assert seen == 2 * i + 2
    peer.end()
    assert word.load() == 2 * ROUNDS


# A program without this library recovers the mutex of a killed owner and locks it again. Then only
# the mutex itself, in shared memory, has the id of the thread.
TAKEN_OVER = """
import ctypes, errno, gc, os, signal, threading, time
from _processes import address_of, private_processes, private_shm
from posixshm import Lock, OwnerDiedError, SharedMemory
libc = ctypes.CDLL(None)
{alone}
shm = SharedMemory.anonymous(4096)
lock = Lock.at(shm, create=True)
mutex = ctypes.c_void_p(address_of(shm.buf))
def start(body, *args):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body(*args)
            status = 0
        finally:
            os._exit(status)
    return pid
def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def call(name):
    return getattr(libc, f"pthread_mutex_{{name}}")(mutex)
def die():
    {die}
    os.kill(os.getpid(), signal.SIGKILL)
def inherit():
    assert [call("lock"), call("consistent"), call("unlock")] == [errno.EOWNERDEAD, 0, 0]
def hold():
    assert call("lock") == 0
    os.close(leave[1])
    os.write(here[1], b"x")
    os.read(leave[0], 1)
    assert call("unlock") == 0
dead = start(die)
assert end(dead) == -signal.SIGKILL
assert end(start(inherit)) == 0
then = time.monotonic()
while time.monotonic() < then + 0.03:  # until /proc tells another start
    pass
here, leave = os.pipe(), os.pipe()
{again}
pid = start(hold)
assert os.read(here[0], 1) == b"x"
{check}
assert lock.acquire(timeout=0.2) is False, "it is held"
os.write(leave[1], b"x")
assert end(pid) == 0
"""
IDS_MATCH = """
with open("/proc/sys/kernel/ns_last_pid", "w") as last:
    last.write(str(dead - 1))
"""


def test_a_c_program_that_has_the_id_of_an_owner_that_died(run_python):
    needs_mounts()
    code = TAKEN_OVER.format(
        alone="private_shm(), private_processes()",
        die="lock.acquire()",
        again=IDS_MATCH,
        check="assert pid == dead",
    )
    run_python(code + "assert lock.acquire(timeout=30)\nlock.release()\n", env=PATH)


def test_a_c_program_after_an_owner_whose_object_was_deallocated(run_python):
    die = """
    global lock
    def acquire():
        lock.acquire()
        acquired.set()
        os.read(leave[0], 1)
    leave, acquired = os.pipe(), threading.Event()
    threading.Thread(target=acquire).start()
    acquired.wait()
    del lock
    gc.collect()"""
    code = TAKEN_OVER.format(alone="", die=die, again="", check="")
    told = """
try:
    lock.acquire(timeout=30)
except OwnerDiedError as error:
    assert "died while" in str(error)
assert lock.acquire(recover=True)
lock.release()
"""
    run_python(code + told, env=PATH)
