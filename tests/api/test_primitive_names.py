"""Primitives in their own object, named or anonymous, and the removal of the name."""

import contextlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import pytest
from _primitives import KINDS, WITH_HEADER, at, made, name_of, named, use
from _processes import PATH, SHM, SOMEBODY, needs_root

from posixshm import Atomic, Barrier, Condition, Event, Lock, RLock, Semaphore, SharedMemory

with_header = pytest.mark.parametrize("kind", WITH_HEADER, ids=name_of)
kinds = pytest.mark.parametrize("kind", KINDS, ids=name_of)


def unnamed(kind):
    """Create a primitive for the processes of multiprocessing."""
    return kind(parties=2) if kind is Barrier else kind()


def file_of(kind, name):
    return f"{SHM}/sem.{name}" if kind is Semaphore else f"{SHM}/{name}"


# -- without a name -----------------------------------------------------------------------------


@with_header
def test_a_primitive_without_a_name_is_always_new(kind):
    before = os.listdir(SHM)
    first, second = unnamed(kind), named(kind, None, create=True)
    for thing in (first, second):
        use(thing)
        assert thing.name is None and thing.offset == 0 and thing.shm.name is None
        assert thing.uid == os.geteuid() and thing.stat().st_size == kind.nbytes
        assert "without a name" in repr(thing)
        with pytest.raises(ValueError, match="no name"):
            thing.unlink()
    assert os.listdir(SHM) == before
    if kind is Event:
        first.set()
        assert not second.is_set()
    first.close()
    use(second)


def meet(lock, barrier, event, semaphore, condition, counted):
    barrier.wait(60)
    for _ in range(500):
        with lock:
            counted.store(counted.load() + 1)
    assert semaphore.acquire(timeout=60)
    with condition:
        condition.notify_all()
    assert event.wait(60)


@pytest.mark.parametrize(
    "method", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.long)]
)
def test_primitives_without_a_name_are_shared_through_multiprocessing(method):
    context = multiprocessing.get_context(method)
    lock, barrier, event, condition = Lock(), Barrier(parties=3), Event(), Condition()
    semaphore = Semaphore(value=2)
    counted = Atomic.at(SharedMemory.anonymous(8))
    arguments = (lock, barrier, event, semaphore, condition, counted)
    processes = [context.Process(target=meet, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    barrier.wait(60)
    with condition:
        event.set()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
        process.close()
    assert counted.load() == 1000 and semaphore.value == 0


@with_header
def test_a_primitive_without_a_name_is_pickled_by_multiprocessing_only(kind):
    thing = unnamed(kind)
    with pytest.raises(TypeError, match="multiprocessing"):
        pickle.dumps(thing)
    use(thing)


# -- options without a name or without create ---------------------------------------------------


@with_header
def test_options_that_have_no_effect_are_refused(kind, name):
    for option in ({"exist_ok": True}, {"delete": True}, {"track": True}, {"mode": 0o600}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} goes with a name"):
            named(kind, None, create=True, **option)
        with pytest.raises(ValueError, match=f"{next(iter(option))} goes with create=True"):
            kind(name, **option)
    with pytest.raises(ValueError, match="owner goes with a name"):
        named(kind, None, create=True, owner="self")


def test_the_value_of_a_semaphore_is_never_ignored(name):
    with pytest.raises(ValueError, match="create=True"):
        Semaphore(name, 5)
    with pytest.raises(ValueError, match="create=True"):
        Semaphore.at(SharedMemory.anonymous(4096), value=5)
    with pytest.raises(TypeError, match=r"Semaphore\(value="):
        Semaphore(5)
    with pytest.raises(TypeError, match=r"Barrier\(parties="):
        Barrier(2)
    with pytest.raises(TypeError, match=r"Condition\(lock="):
        Condition(RLock())
    semaphore = Semaphore(name, 5, create=True, delete=True)
    assert semaphore.value == 5 and Semaphore(name).value == 5
    assert Semaphore(value=7).value == 7


# -- with a name --------------------------------------------------------------------------------


@with_header
def test_attributes_of_the_object_of_a_primitive(kind, name):
    thing = named(kind, name, create=True, mode=0o640, delete=True)
    for one in (thing, named(kind, name)):
        stat, file = one.stat(), os.stat(file_of(kind, name))
        assert (stat.st_ino, stat.st_uid, stat.st_mode) == (file.st_ino, file.st_uid, file.st_mode)
        assert one.uid == file.st_uid and one.shm.mode == 0o640 and one.shm.is_linked()
        assert isinstance(one.shm, SharedMemory)
    thing.close()
    for closed in (thing.stat, lambda: thing.uid):
        with pytest.raises(ValueError, match="closed"):
            closed()


@kinds
def test_a_placed_primitive_has_its_segment(kind, name):
    with SharedMemory.create(name, 8192, delete=True) as shm:
        thing = made(kind, shm, 128)
        assert thing.shm is shm
        memory = shm.map()
        in_map = kind.at(memory, 128)
        assert in_map.shm is memory
        if kind is not Atomic:
            assert thing.uid == shm.uid and thing.stat() == shm.stat()
            for asked in (in_map.stat, lambda: in_map.uid):
                with pytest.raises(ValueError, match="MemoryMap"):
                    asked()


@with_header
@pytest.mark.parametrize("end", ["close", "drop", "exit"])
def test_delete_removes_the_name_with_the_object(kind, end, name, run_python):
    if end == "exit":
        arguments = f"{kind.__name__}, {name!r}, create=True, delete=True"
        code = f"from _primitives import *; x = named({arguments})"
        run_python(f"{code}; import os; assert os.path.exists({file_of(kind, name)!r})", env=PATH)
    else:
        thing = named(kind, name, create=True, delete=True)
        named(kind, name).close()  # another object that opened it removes nothing
        assert os.path.exists(file_of(kind, name))
        if end == "close":
            thing.close()
        del thing
    assert not os.path.exists(file_of(kind, name))


@with_header
def test_track_removes_the_name_when_its_creator_was_killed(kind, name):
    code = f"""
import os, signal
from _primitives import *
named({kind.__name__}, {name!r}, create=True, track=True)
assert os.path.exists({file_of(kind, name)!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    # The tracker also has the pipe, which it closes after it has removed the name.
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == -9, output
    assert not os.path.exists(file_of(kind, name)), output


@with_header
def test_exist_ok_refuses_a_primitive_of_another_user(kind, name):
    needs_root()
    thing = named(kind, name, create=True, mode=0o666)
    try:
        os.chown(file_of(kind, name), SOMEBODY, SOMEBODY)
        for keywords in ({}, {"owner": "self"}, {"owner": SOMEBODY + 1}):
            with pytest.raises(PermissionError, match=str(SOMEBODY)):
                named(kind, name, create=True, exist_ok=True, **keywords)
        with pytest.raises(PermissionError, match=str(SOMEBODY)):
            kind(name, owner="self")
        for keywords in (
            {},
            {"owner": SOMEBODY},
            {"create": True, "exist_ok": True, "owner": "any"},
            {"create": True, "exist_ok": True, "owner": {SOMEBODY}},
        ):
            other = named(kind, name, **keywords)
            assert other.uid == SOMEBODY
            use(other)
    finally:
        thing.unlink()


@with_header
def test_a_failed_creation_leaves_nothing(kind, name, monkeypatch):
    """Creation fails without a free descriptor, or if the mode forbids the creator to open the
    object."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        with contextlib.suppress(OSError):
            while True:
                kept.append(os.open("/dev/null", os.O_RDONLY))
        for free in range(4):
            try:
                named(kind, name, create=True).unlink()
                break
            except OSError:
                assert not os.path.exists(file_of(kind, name)), free
            os.close(kept.pop())
        else:
            raise AssertionError("the creation did not succeed")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in kept:
            os.close(fd)
    assert not os.path.exists(file_of(kind, name))


def test_a_mode_without_permissions_does_not_stop_the_creator(run_python, name):
    """The creator cannot open the primitive again, but can use the object that it has created."""
    needs_root()
    code = f"""
import os
from _primitives import *
os.setgid({SOMEBODY}); os.setuid({SOMEBODY})
for kind in WITH_HEADER:
    thing = named(kind, {name!r}, create=True, mode=0o400)
    use(thing)
    thing.unlink()
"""
    run_python(code, env=PATH)


# -- repr ---------------------------------------------------------------------------------------


def test_repr_of_each_primitive(name):
    lock, rlock, event, semaphore, barrier = Lock(), RLock(), Event(), Semaphore(value=3), None
    for thing in (lock, rlock, Condition()):
        assert repr(thing).endswith("without a name: unlocked>")
        with thing:
            assert repr(thing).endswith("without a name: locked>")
    assert repr(event) == "<posixshm.Event without a name: unset>"
    event.set()
    assert repr(event) == "<posixshm.Event without a name: set>"
    assert repr(semaphore) == "<posixshm.Semaphore without a name: value=3>"
    barrier = Barrier(parties=2)
    thread = threading.Thread(target=barrier.wait, args=(60,))
    thread.start()
    while barrier.n_waiting == 0:
        pass
    assert repr(barrier) == "<posixshm.Barrier without a name: waiters=1/2>"
    barrier.wait(60)
    thread.join()
    barrier.abort()
    assert repr(barrier) == "<posixshm.Barrier without a name: broken>"
    from posixshm import RWLock

    rw = RWLock(name, create=True, delete=True)
    with rw.read():
        assert repr(rw) == f"<posixshm.RWLock {name!r}: readers=1>"
    with rw.write():
        assert repr(rw) == f"<posixshm.RWLock {name!r}: writing>"
    rw.close()
    assert repr(rw) == f"<posixshm.RWLock {name!r}: closed>"
    word = Atomic.at(SharedMemory.anonymous(64), 8)
    word.store(-5)
    assert repr(word) == "<posixshm.Atomic at offset 8: value=-5>"


# -- other contents -------------------------------------------------------------------------------


@with_header
def test_the_message_names_the_other_primitive(kind, name):
    with SharedMemory.create(name, 16384, delete=True) as shm:
        other = Event if kind is not Event else Lock
        at(other, shm, 4096, create=True)
        shm.buf[: len(b"\x93NUMPY")] = b"\x93NUMPY"
        with pytest.raises(
            ValueError, match=rf"array .* at offset 0 of '{name}', not an? {kind.__name__}"
        ):
            kind.at(shm, 0)
        with pytest.raises(ValueError, match=rf"an? {other.__name__} at offset 4096 of '{name}'"):
            kind.at(shm, 4096)
        if kind is not Semaphore:  # a name that refers to another object
            with pytest.raises(ValueError, match=rf"an array .* in the object '{name}'"):
                kind(name)
        with pytest.raises(FileNotFoundError, match=rf"no {kind.__name__} at offset 6400 of"):
            kind.at(shm, 6400)


@pytest.mark.parametrize("kind", [k for k in WITH_HEADER if k is not Semaphore], ids=name_of)
def test_the_error_distinguishes_a_semaphore_from_another_primitive(kind, name):
    there = named(kind, name, create=True)
    with pytest.raises(FileNotFoundError, match=rf"There is an? {kind.__name__} .*named semaphore"):
        Semaphore(name)
    there.unlink()
    with pytest.raises(FileNotFoundError, match=r"No object has this name; Semaphore\("):
        Semaphore(name)
    semaphore = Semaphore(name, create=True)
    with pytest.raises(FileNotFoundError, match=rf"named semaphore .* no {kind.__name__};"):
        kind(name)
    semaphore.unlink()
    with pytest.raises(FileNotFoundError, match=rf"No object has this name; {kind.__name__}\("):
        kind(name)


def test_the_error_distinguishes_a_semaphore_from_shared_memory(name):
    for size in (8, 16384):  # shorter and longer than the header of a primitive
        with SharedMemory.create(name, size, mode=0o200 if size == 8 else 0o600, delete=True):
            with pytest.raises(FileNotFoundError, match="There is a shared memory .* no named sem"):
                Semaphore(name)
    with SharedMemory.create(name, 16384, delete=True) as shm:
        Semaphore.at(shm, create=True)
        with pytest.raises(FileNotFoundError, match="There is a shared memory .* no named sem"):
            Semaphore(name)
    long = "n" * 255  # too long for a semaphore
    with pytest.raises(FileNotFoundError, match="No object has this name"):
        Lock(long)
