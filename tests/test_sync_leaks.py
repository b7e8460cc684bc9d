"""Opening, using, failing, pickling and closing primitives for long leaves everything flat."""

import pytest
from _primitives import CELLS, KINDS, name_of
from _processes import PATH

START = """
import contextlib, gc, io, os, pickle, sys, warnings
from _primitives import *
from posixshm import OwnerDiedError, SharedMemory
name = sys.argv[1]
shm = SharedMemory.create(name, 65536, delete=True)
mapping = shm.map()

def blocks():
    gc.collect()
    gc.collect()
    # The interpreter's cache of attributes keeps the names that it was asked for, and unpickling
    # asks for a new string each time.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        sys._clear_type_cache()
    return sys.getallocatedblocks()

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

def holdings():
    with open("/proc/self/maps") as maps:
        mapped = sum("/dev/shm/" in line or "/memfd:" in line for line in maps)
    return len(os.listdir("/proc/self/fd")), mapped, len(os.listdir("/dev/shm"))

def counts(kind):
    return [sys.getrefcount(what) for what in (shm, mapping, kind, shm.buf.obj)]

def flat(kind, cycle, times):
    for _ in range(max(10, times // 10)):
        cycle()
    for attempt in range(5):  # caches of the interpreter's grow once; a leak grows every time
        before = blocks(), resident(), holdings(), counts(kind)
        for _ in range(times):
            cycle()
        after = blocks(), resident(), holdings(), counts(kind)
        assert after[2:] == before[2:], (before, after)
        grown = after[0] - before[0], after[1] - before[1]
        if grown[0] < times / 4 and grown[1] < (1 << 18) + 100 * times:
            return
    raise AssertionError(f"{grown} blocks and bytes in {times} cycles")

def refused(function, *args, **keywords):
    try:
        function(*args, **keywords)
    except (OSError, ValueError, TypeError, OverflowError, RuntimeError, KeyError):
        return
    raise AssertionError(f"{function} was not refused")
"""


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_opening_using_pickling(run_python, name, kind):
    code = f"""{START}
kind = {kind.__name__}
made(kind, shm)

def cycle():
    for where in (shm, mapping):
        thing = kind.at(where)
        use(thing)
        repr(thing)
        with contextlib.suppress(AttributeError):
            thing.close()
    thing = kind.at(shm)
    copy = pickle.loads(pickle.dumps(thing))
    use(copy)

flat(kind, cycle, 600)
"""
    run_python(code, name, env=PATH)


@pytest.mark.parametrize("kind", CELLS, ids=name_of)
def test_making_and_unlinking_named_ones(run_python, name, kind):
    code = f"""{START}
kind = {kind.__name__}

def cycle():
    thing = named(kind, name + "-named", create=True)
    use(thing)
    other = named(kind, name + "-named", create=True, exist_ok=True)
    copy = pickle.loads(pickle.dumps(other))
    use(copy)
    refused(named, kind, name + "-named", create=True)
    thing.unlink()
    refused(named, kind, name + "-named")
    refused(pickle.loads, pickle.dumps(thing))
    thing.close()

flat(kind, cycle, 300)
"""
    run_python(code, name, env=PATH)


@pytest.mark.parametrize("kind", CELLS, ids=name_of)
def test_being_refused(run_python, name, kind):
    code = f"""{START}
kind = {kind.__name__}
made(kind, shm)
shm.buf[8192:12288] = b"\\xa5" * 4096
reader = SharedMemory.open(name, readonly=True)
closed = SharedMemory.open(name)
closed.close()
wrong = Event if kind is not Event else Lock

def cycle():
    refused(at, kind, shm, 0, create=True)
    refused(at, kind, shm, 16384)
    refused(at, kind, shm, 8192, create=True)
    refused(at, kind, shm, 7, create=True)
    refused(at, kind, shm, 65536, create=True)
    refused(at, kind, reader)
    refused(at, kind, closed)
    refused(wrong.at, shm)
    refused(kind.at, None)
    refused(kind.at, shm, 0, exist_ok=True)
    refused(kind.at, shm, 0, nonsense=True)
    refused(kind, "a/b", create=True)
    refused(kind, name + "-absent")
    refused(kind, 5)
    refused(kind, name, nonsense=True)
    if kind in (Lock, RLock, Condition, RWLock):
        refused(kind.at, shm, recover=5)
    if kind is Barrier:
        refused(kind.at, shm, parties=7)
        refused(kind.at, shm, action=5)
        refused(kind.at, shm, timeout=-1)
    if kind is Condition:
        refused(kind.at, shm, lock=5)
        refused(kind.at, shm, recover=print, lock=Lock.at(shm, 32768, create=True, exist_ok=True))
    thing = kind.at(shm, 0)
    thing.close()
    refused(pickle.dumps, thing)
    refused(pickle.dumps, kind.at(mapping))
    refused(thing.unlink)

flat(kind, cycle, 300)
"""
    run_python(code, name, env=PATH)


@pytest.mark.parametrize(
    "kind", [kind for kind in CELLS if hasattr(kind, "recovered")], ids=name_of
)
def test_dead_owners(run_python, name, kind):
    code = f"""{START}
kind = {kind.__name__}

def fail(lock):
    raise KeyError

made(kind, shm)
good, bad, plain = kind.at(shm, 0, recover=id), kind.at(shm, 0, recover=fail), kind.at(shm)
take = lambda lock: (lock.acquire_write if kind is RWLock else lock.acquire)

def cycle():
    for how in ({{}}, {{"recover": True}}):
        die_with(take(plain))
        refused(take(plain), timeout=20)
        refused(take(bad), timeout=20)
        lock = good if not how else plain
        assert take(lock)(timeout=20, **how)
        if kind is not RLock:
            refused(take(lock))
        lock.release()
        refused(lock.release)

flat(kind, cycle, 150)
"""
    run_python(code, name, env=PATH)


def test_waits_that_end_in_every_way(run_python, name):
    code = f"""{START}
import signal
from threading import BrokenBarrierError
lock, rlock, rw = (made(kind, shm, 4096 * i) for i, kind in enumerate((Lock, RLock, RWLock)))
condition, event, barrier = (
    made(kind, shm, 16384 + 256 * i) for i, kind in enumerate((Condition, Event, Barrier))
)
semaphore = Semaphore.at(shm, 20480, create=True, value=0)
word = Atomic.at(shm, 24576)

def wait(function, *args):
    with contextlib.suppress(TimeoutError, BrokenBarrierError):
        assert not function(*args)

def handler(*_):
    raise KeyError

signal.signal(signal.SIGALRM, handler)

def cycle():
    for timeout in (0, 0.0005):
        wait(event.wait, timeout)
        wait(barrier.wait, timeout)
        barrier.reset()
        wait(semaphore.acquire, True, timeout)
        wait(word.wait, 0, timeout)
        with condition:
            wait(condition.wait, timeout)
            assert condition.wait_for(list, timeout) == []
            with contextlib.suppress(ZeroDivisionError):
                condition.wait_for(lambda: 1 / 0)
        with rw.read(timeout):
            wait(rw.acquire_write, False)
        with rw.write(timeout):
            wait(rw.acquire_read, True, 0)
        with lock:
            wait(lock.acquire, False)
            with contextlib.suppress(OSError):
                lock.acquire()
        word.compare_exchange(5, 6)
        with contextlib.suppress(OverflowError):
            word.store(2**70)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    with contextlib.suppress(KeyError):
        event.wait(20)
        raise AssertionError
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    with contextlib.suppress(KeyError), condition:
        condition.wait(20)
        raise AssertionError

flat(Lock, cycle, 150)
"""
    run_python(code, name, env=PATH)
