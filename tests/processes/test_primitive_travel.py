"""Primitives in other processes and interpreters: pickled, forked, created by many at once."""

import concurrent.futures
import multiprocessing
import os
import pickle

import pytest
from _primitives import KINDS, die_with, made, name_of, named, use
from _processes import PATH

from posixshm import (
    PAGESIZE,
    Atomic,
    Barrier,
    Condition,
    Event,
    Lock,
    RLock,
    RWLock,
    Semaphore,
    SharedMemory,
)

kinds = pytest.mark.parametrize("kind", KINDS, ids=name_of)


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 4 * PAGESIZE, delete=True) as handle:
        yield handle


# -- pickling -----------------------------------------------------------------------------------


def repair(lock):
    """A function of the module, so that it can be pickled."""


def segment_of(kind, name):
    return (
        SharedMemory.anonymous(8 * PAGESIZE)
        if kind == "anonymous"
        else SharedMemory.create(name, 8 * PAGESIZE, delete=True)
    )


def all_made(shm):
    return [made(kind, shm, 4096 * i) for i, kind in enumerate(KINDS)]


def in_child(things):
    """Use each primitive in another process."""
    for thing in things:
        use(thing)
    lock, condition, event, semaphore, word = (
        things[KINDS.index(kind)] for kind in (Lock, Condition, Event, Semaphore, Atomic)
    )
    with lock, condition:
        word.fetch_add(1)
        event.set()
        semaphore.release()
    return os.getpid()


def check(things, times):
    event, semaphore, word = (things[KINDS.index(kind)] for kind in (Event, Semaphore, Atomic))
    assert event.is_set() and semaphore.value == 1 + times and word.load() == times
    for thing in things:
        use(thing)


@pytest.mark.long
@pytest.mark.parametrize("segment", ["named", "anonymous"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_placed_primitives_are_pickled_with_their_segment(method, segment, name):
    context = multiprocessing.get_context(method)
    with segment_of(segment, name) as shm:
        things = all_made(shm)
        processes = [context.Process(target=in_child, args=(things,)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
            process.close()
        check(things, 2)


@pytest.mark.long
@pytest.mark.parametrize("segment", ["named", "anonymous"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_primitives_are_sent_through_an_executor(method, segment, name):
    context = multiprocessing.get_context(method)
    with segment_of(segment, name) as shm:
        things = all_made(shm)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            pids = [
                future.result(60) for future in [pool.submit(in_child, things) for _ in range(4)]
            ]
        assert os.getpid() not in pids
        check(things, 4)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_named_primitives_are_pickled_by_name(method, names):
    things = []
    for kind in KINDS[:-1]:
        things.append(named(kind, names(), create=True))
    try:
        process = multiprocessing.get_context(method).Process(target=use_all, args=(things,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        process.close()
        for thing in things:
            other = pickle.loads(pickle.dumps(thing))
            assert type(other) is type(thing) and other.name == thing.name
            use(other)
            other.close()
    finally:
        for thing in things:
            thing.unlink()
    for thing in things:
        with pytest.raises(FileNotFoundError):
            pickle.loads(pickle.dumps(thing))
        thing.close()
        with pytest.raises(FileNotFoundError):  # a closed primitive can be pickled by its name
            pickle.loads(pickle.dumps(thing))


def use_all(things):
    for thing in things:
        assert thing.name
        use(thing)


@kinds
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_copy_is_the_same_primitive(kind, protocol, shm):
    thing = made(kind, shm, 128)
    copy = pickle.loads(pickle.dumps(thing, protocol))
    assert type(copy) is kind and copy is not thing and copy.offset == 128
    use(copy)
    together = pickle.loads(pickle.dumps([thing, thing, shm], protocol))
    assert together[0] is together[1]
    together[2].close()
    with pytest.raises(TypeError, match="MemoryMap"):
        pickle.dumps(kind.at(shm.map(), 128))


def test_options_are_pickled(shm):
    lock = Lock.at(shm, 0, create=True, on_owner_died=repair)
    given = Condition.at(shm, 256, create=True, lock=lock)
    own = Condition.at(shm, 512, create=True, on_owner_died=repair)
    barrier = Barrier.at(shm, 1024, create=True, parties=1, action=acted.append_one, timeout=0.5)
    rwlock = RWLock.at(shm, 4096, create=True, on_owner_died=repair)
    word = Atomic.at(shm, 2048, "I")
    copies = pickle.loads(pickle.dumps([lock, given, own, barrier, rwlock, word]))
    assert copies[1].lock is copies[0]
    assert type(copies[2].lock) is RLock and copies[5].format == "I"
    assert copies[3].parties == 1
    acted.clear()
    assert copies[3].wait() == 0 and acted == [1]
    for thing in (lock, own, rwlock):
        take = thing.acquire_write if thing is rwlock else thing.acquire
        die_with(take)
        copy = pickle.loads(pickle.dumps(thing))
        again = copy.acquire_write if thing is rwlock else copy.acquire
        assert again(timeout=30)  # recover was called
        copy.release()
        assert take()  # so that no lock seems held here
        thing.release()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(Lock.at(shm, 0, on_owner_died=lambda lock: None))


class Acted(list):
    def append_one(self):
        acted.append(1)

    def __reduce__(self):
        return "acted"


acted = Acted()


def test_forged_pickles_are_refused(shm):
    opener, (kind, segment, offset, own_name, options) = Lock.at(shm, 0, create=True).__reduce__()
    assert (kind, segment, offset, own_name) == (Lock, shm, 0, False)
    for wrong in (
        (int, segment, offset, own_name, options),
        (type, segment, offset, own_name, options),
        ("Lock", segment, offset, own_name, options),
        (RLock, segment, offset, own_name, options),
        (Lock, "segment", offset, own_name, options),
        (Lock, segment, 7, own_name, options),
        (Lock, segment, -64, own_name, options),
        (Lock, segment, 64, own_name, options),
        (Lock, segment, offset, own_name, None),
        (Lock, "segment", offset, True, options),
        (Atomic, segment, offset, True, options),
        (Lock, segment, offset, own_name, {"nonsense": 1}),
        (Lock, segment, offset, own_name, {1: 1}),
        (),
    ):
        with pytest.raises((TypeError, ValueError, FileNotFoundError)):
            opener(*wrong)


def test_pickling_the_own_lock_of_a_condition_raises_a_hint(shm):
    with pytest.raises(TypeError, match="pickle the condition"):
        pickle.dumps(Condition.at(shm, 0, create=True).lock)


# -- fork, and other interpreters ---------------------------------------------------------------


def test_a_forked_child_does_not_hold_the_locks_of_its_parent(run_python):
    code = """
import os
from _primitives import *
from posixshm import SharedMemory
shm = SharedMemory.anonymous(65536)
for i, kind in enumerate((Lock, RLock, Condition)):
    lock = at(kind, shm, 1024 * i, create=True)
    go, came = (Event.at(shm, 8192 + 256 * i + 128 * j, create=True) for j in (0, 1))
    lock.acquire()
    child = os.fork()
    if child == 0:
        try:
            lock.release()
        except RuntimeError:
            pass
        else:
            os._exit(1)
        assert not lock.acquire(timeout=0) and not lock.acquire(timeout=0.05)
        came.set()
        assert go.wait(30) and lock.acquire(timeout=30)
        lock.release()
        if kind is Condition:
            with lock:
                assert not lock.wait(0.01)
        os._exit(0)
    assert came.wait(30)
    lock.release()
    go.set()
    assert os.waitpid(child, 0)[1] == 0
    with lock:
        pass
rw = RWLock.at(shm, 32768, create=True)
for take in (rw.acquire_read, rw.acquire_write):
    take()
    child = os.fork()
    if child == 0:
        try:
            rw.release()
        except RuntimeError:
            assert not rw.acquire_write(timeout=0.05)
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    rw.release()
    assert rw.acquire_write(timeout=0)
    rw.release()
"""
    run_python(code, env=PATH)


def test_a_child_that_exits_does_not_release_the_locks_of_its_parent(run_python):
    code = """
import os, sys
from posixshm import Lock, SharedMemory
shm = SharedMemory.anonymous(4096)
lock = Lock.at(shm, 0, create=True)
lock.acquire()
if os.fork() == 0:
    sys.exit()
assert os.wait()[1] == 0
assert lock.locked()
lock.release()
assert lock.acquire(timeout=0) and not lock.recovered
lock.release()
"""
    run_python(code, env=PATH)


def test_sub_interpreters(run_python, name):
    code = """
import gc, os, sys, threading
from _processes import unchanged
from children.interpreters import *
from posixshm import Lock, Semaphore, SharedMemory
shm = SharedMemory.create(name, 65536, delete=True)
lock = Lock.at(shm, 0, create=True)
lock.acquire()
run_in_new('''
from posixshm import SharedMemory, Lock, RLock, Condition, Event, Barrier, RWLock, Semaphore, Atomic
with SharedMemory.open(name) as shm:
    lock = Lock.at(shm)
    assert not lock.acquire(timeout=0)
    for kind in (RLock, Condition):
        with kind.at(shm, 4096, create=True) as held:
            assert held
        shm.buf[4096:8192] = bytes(4096)
    Event.at(shm, 4096, create=True).set()
    assert Barrier.at(shm, 8192, create=True, parties=1).wait() == 0
    with RWLock.at(shm, 12288, create=True).read() as rw:
        assert type(rw) is RWLock
    semaphore = Semaphore(name, create=True, value=3)
    assert semaphore.acquire()
    semaphore.unlink()
    assert Atomic.at(shm, 32768).fetch_add(1) == 0
''')
lock.release()
"""
    run_python(code, name, env=PATH)


# -- creating at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[:-1], ids=name_of)
def test_eight_processes_create_a_primitive_at_once(run_python, kind, name):
    """With exist_ok all processes have the same primitive; without it, only one succeeds."""
    code = f"""
import os, sys
from _primitives import *
from posixshm import SharedMemory
kind = {kind.__name__}
ROUNDS, PROCESSES = 40, 8
shm = SharedMemory.anonymous(1 << 20)
meeting = Barrier.at(shm, 0, create=True, parties=PROCESSES, timeout=30)
made = Atomic.at(shm, 1024)
children = []
for _ in range(PROCESSES):
    child = os.fork()
    if child == 0:
        for round in range(ROUNDS):
            meeting.wait()
            use_it = at(kind, shm, 4096 * (2 * round + 1), create=True, exist_ok=True)
            if kind is not Barrier:
                use(use_it) if kind is not Event else use_it.set()
            try:
                at(kind, shm, 4096 * (2 * round + 2), create=True)
            except FileExistsError:
                pass
            else:
                made.fetch_add(1)
            own = named(kind, f"{name}-{{round}}", create=True, exist_ok=True)
            if kind is Event:
                own.set()
            elif kind is not Barrier:
                use(own)
            place = meeting.wait()
            if place == 0:
                own.unlink()
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * PROCESSES
assert made.load() == ROUNDS, made.load()
"""
    run_python(code, env=PATH)
