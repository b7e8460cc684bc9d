"""Creating and attaching primitives, placed or named: arguments, errors and contents."""

import errno
import os
import struct
import threading

import pytest
from _primitives import KINDS, OWNED, READABLE, WITH_HEADER, at, made, name_of, named, use
from _processes import PATH, SHM

from posixshm import (
    PAGESIZE,
    PROT_READ,
    Atomic,
    Barrier,
    Condition,
    Event,
    Lock,
    MemoryMap,
    RLock,
    RWLock,
    Semaphore,
    SharedMemory,
    sem_unlink,
)

kinds = pytest.mark.parametrize("kind", KINDS, ids=name_of)
with_header = pytest.mark.parametrize("kind", WITH_HEADER, ids=name_of)


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 4 * PAGESIZE, delete=True) as handle:
        yield handle


def path_of(kind, name):
    return f"{SHM}/sem.{name}" if kind is Semaphore else f"{SHM}/{name}"


# -- at() ---------------------------------------------------------------------------------------


@with_header
def test_a_created_primitive_can_be_attached(kind, shm):
    first = at(kind, shm, 128, create=True)
    second = at(kind, shm, 128)
    with SharedMemory.open(shm.name) as other:
        third = at(kind, other, offset=128)
    fourth = at(kind, shm.map(), 128)  # a MemoryMap
    for thing in (first, second, third, fourth):
        use(thing)
        assert type(thing) is kind and thing.name is None and not thing.closed
    assert first.offset == third.offset == fourth.offset == 128
    if kind is Event:
        first.set()
        assert second.is_set() and third.is_set() and fourth.is_set()
    if kind is Semaphore:
        first.release(4)
        assert fourth.value == 5


def test_an_atomic_needs_no_creation(shm):
    word = Atomic.at(shm, 8)
    word.store(-5)
    assert struct.unpack_from("q", shm.buf, 8) == (-5,)
    assert Atomic.at(shm, 8).load() == -5 and Atomic.at(shm, 8, "Q").load() == 2**64 - 5
    assert word.offset == 8
    with pytest.raises(TypeError):
        Atomic(shm)


@kinds
def test_size_and_alignment_are_true(kind, shm):
    """A primitive needs .nbytes bytes at a multiple of its alignment."""
    assert type(kind.nbytes) is type(kind.alignment) is int
    assert kind.nbytes % 8 == 0 and kind.alignment in (8, 64)
    last = shm.size - kind.nbytes
    assert last % kind.alignment == 0
    thing = made(kind, shm, last)
    use(thing)
    assert bytes(shm.buf[:last]) == bytes(last)  # no byte outside was written
    for offset in (last + kind.alignment, shm.size, shm.size + 64, 2**62):
        with pytest.raises(ValueError, match="past the end"):
            made(kind, shm, offset)
    for offset in (1, 4 if kind is Atomic else 8, kind.alignment + 1, last - 1):
        with pytest.raises(ValueError, match="multiple"):
            made(kind, shm, offset)
    for offset in (-1, -kind.alignment, -(2**63)):
        with pytest.raises(ValueError, match="offset"):
            made(kind, shm, offset)
    with pytest.raises((ValueError, OverflowError), match="offset"):
        made(kind, shm, 2**64)
    for offset in (1.0, "0", None, b"", True):
        with pytest.raises(TypeError, match="offset"):
            made(kind, shm, offset)


@with_header
def test_creating_a_primitive_does_not_change_its_neighbours(kind, shm):
    shm.buf[:64] = shm.buf[64 + kind.nbytes : 128 + kind.nbytes] = b"\xa5" * 64
    use(at(kind, shm, 64, create=True))
    assert (
        bytes(shm.buf[:64]) == bytes(shm.buf[64 + kind.nbytes : 128 + kind.nbytes]) == b"\xa5" * 64
    )


@with_header
def test_a_primitive_is_created_only_once(kind, shm):
    with pytest.raises(FileNotFoundError, match=f"{kind.__name__}.*64") as caught:
        at(kind, shm, 64)
    assert caught.value.errno == errno.ENOENT and caught.value.filename == shm.name
    first = at(kind, shm, 64, create=True)
    with pytest.raises(FileExistsError, match=f"{kind.__name__}.*64") as caught:
        at(kind, shm, 64, create=True)
    assert caught.value.errno == errno.EEXIST
    use(at(kind, shm, 64, create=True, exist_ok=True))
    use(first)
    with pytest.raises(ValueError, match="exist_ok"):
        at(kind, shm, 64, exist_ok=True)


@with_header
def test_another_kind_of_primitive_is_a_clear_error(kind, shm):
    at(kind, shm, 0, create=True)
    before = bytes(shm.buf)
    for other in WITH_HEADER:
        if other is kind:
            continue
        for keywords in ({}, {"create": True}, {"create": True, "exist_ok": True}):
            with pytest.raises(ValueError, match=rf"an? {kind.__name__}.*an? {other.__name__}"):
                at(other, shm, 0, **keywords)
    assert bytes(shm.buf) == before


@with_header
@pytest.mark.parametrize("where", [0, 60, 64, 67])
def test_other_bytes_are_refused_and_not_changed(kind, shm, where):
    shm.buf[where] = 0xA5
    before = bytes(shm.buf)
    for keywords in ({}, {"create": True}, {"create": True, "exist_ok": True}):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            at(kind, shm, 0, **keywords)
        assert type(caught.value) is ValueError or not keywords
    assert bytes(shm.buf) == before
    for pattern in (b"\xff", b"PSHM", b"\x01\x00\x00\x00"):
        shm.buf[: kind.nbytes] = pattern * (kind.nbytes // len(pattern))
        before = bytes(shm.buf)
        for keywords in ({}, {"create": True}, {"create": True, "exist_ok": True}):
            with pytest.raises((ValueError, OSError)):
                at(kind, shm, 0, **keywords)
        assert bytes(shm.buf) == before


@with_header
def test_a_primitive_of_another_build_is_refused(kind, shm):
    at(kind, shm, 0, create=True)
    for where in (68, 71, 72, 74):  # version, C library, size of a mutex, of a semaphore
        shm.buf[where] ^= 0x40
        for keywords in ({}, {"create": True, "exist_ok": True}):
            with pytest.raises(OSError) as caught:
                at(kind, shm, 0, **keywords)
            assert caught.value.errno == errno.ENOEXEC
        shm.buf[where] ^= 0x40
    shm.buf[76] ^= 1  # the PID namespace: semaphores and events do not have an owner
    if kind in (Semaphore, Event):
        use(at(kind, shm))
    else:
        with pytest.raises(OSError, match="namespace") as caught:
            at(kind, shm)
        assert caught.value.errno == errno.EXDEV


@with_header
def test_an_overwritten_primitive_raises_an_error(kind, shm):
    thing = at(kind, shm, 0, create=True)
    shm.buf[64:80] = bytes(16)
    with pytest.raises(OSError, match="written over") as caught:
        use(thing) if kind is not Barrier else thing.wait()
    assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize("kind", OWNED, ids=name_of)
def test_a_held_lock_that_is_overwritten_does_not_crash(run_python, kind):
    """The library does not follow its links in the list of the thread's locks."""
    code = f"""
from contextlib import suppress
from _primitives import *
from posixshm import SharedMemory
for start, end in ((0, 128), (0, 64), (8, 40), (24, 40), (64, 128)):
    for byte in (0, 1, 0xa5, 0xff):
        shm = SharedMemory.anonymous(4096)
        lock = {kind.__name__}.at(shm, 0, create=True)
        neighbour = Lock.at(shm, 1024, create=True)
        lock.acquire()
        neighbour.acquire()
        before = bytes(shm.buf[:192])
        shm.buf[start:end] = bytes([byte]) * (end - start)
        try:
            lock.release()
        except (OSError, RuntimeError):
            shm.buf[:192] = before
            with suppress(RuntimeError):  # it is released already if the list could be mended
                lock.release()
        neighbour.release()
"""
    run_python(code, env=PATH)


@pytest.mark.parametrize("kind", OWNED, ids=name_of)
def test_a_held_lock_with_a_changed_count_keeps_its_memory(run_python, kind):
    """The C library links the thread's next lock to a mutex that it counts as locked."""
    code = f"""
from _primitives import *
from posixshm import SharedMemory
for word in range(0, 24, 4):
    for count in (0, 2, 5):
        for depth in (1, 2) if {kind.__name__} is not Lock else (1,):
            shm = SharedMemory.anonymous(4096)
            lock = {kind.__name__}.at(shm, 0, create=True)
            for _ in range(depth):
                lock.acquire()
            shm.buf[word : word + 4] = count.to_bytes(4, "little")
            try:
                for _ in range(depth):
                    lock.release()
            except (OSError, RuntimeError):
                pass
            del lock, shm
            neighbour = Lock.at(SharedMemory.anonymous(4096), create=True)
            with neighbour:
                pass
"""
    run_python(code, env=PATH)


@kinds
def test_bad_segments_and_segments_that_cannot_be_written(kind, shm):
    made(kind, shm, 0)
    for wrong in (None, 1, "name", shm.buf, bytearray(8192), shm.fileno(), kind):
        with pytest.raises(TypeError, match="SharedMemory or a MemoryMap"):
            kind.at(wrong)
    mapping = shm.map()
    mapping.protect(PROT_READ)
    with SharedMemory.open(shm.name, readonly=True) as reader:
        mappings = [mapping, shm.map(readonly=True), MemoryMap(shm.fileno(), readonly=True)]
        for where in [reader, *mappings]:
            if kind in READABLE:  # see test_sync_readonly
                assert at(kind, where)
            else:
                with pytest.raises(PermissionError, match="read-only"):
                    at(kind, where)
            if kind is not Atomic:
                with pytest.raises(PermissionError, match="read-only"):
                    at(kind, where, create=True, exist_ok=True)
    with SharedMemory.open(shm.name) as other:
        pass
    with pytest.raises(ValueError, match="closed"):
        kind.at(other)
    with pytest.raises(TypeError):
        kind.at()
    with pytest.raises(TypeError):
        kind.at(shm, 0, nonsense=1)
    with pytest.raises(TypeError):
        kind.at(shm, 0, "q", True)


@with_header
def test_bad_flags(kind, shm, names):
    name = names()

    class Raising:
        def __bool__(self):
            raise KeyError("from __bool__")

    for keyword in ("create", "exist_ok"):
        with pytest.raises(KeyError, match="__bool__"):
            kind.at(shm, 0, **{"create": True, keyword: Raising()})
        with pytest.raises(KeyError, match="__bool__"):
            kind(name, **{"create": True, keyword: Raising()})
    assert bytes(shm.buf) == bytes(shm.size)
    assert not os.path.exists(path_of(kind, name))


@pytest.mark.parametrize("kind", [Lock, RLock, Condition, RWLock], ids=name_of)
def test_recover_must_be_callable(kind, shm, names):
    for bad in (1, "f", True, [print]):
        with pytest.raises(TypeError, match="on_owner_died"):
            kind.at(shm, 0, create=True, on_owner_died=bad)
        with pytest.raises(TypeError, match="on_owner_died"):
            kind(names(), create=True, on_owner_died=bad)
    assert bytes(shm.buf) == bytes(shm.size)
    use(kind.at(shm, 0, create=True, on_owner_died=None))
    use(kind.at(shm, 0, on_owner_died=print))


def test_arguments_of_single_kinds(shm):
    for bad in (-1, 2**31, 2**64):
        with pytest.raises((ValueError, OverflowError), match="value"):
            Semaphore.at(shm, 0, create=True, value=bad)
    for bad in (1.0, "1", None, True):
        with pytest.raises(TypeError, match="value"):
            Semaphore.at(shm, 0, create=True, value=bad)
    for bad in (0, -1, 32768, 2**64):
        with pytest.raises((ValueError, OverflowError), match="parties"):
            Barrier.at(shm, 0, create=True, parties=bad)
    for bad in (1.0, "1", True):
        with pytest.raises(TypeError, match="parties"):
            Barrier.at(shm, 0, create=True, parties=bad)
    with pytest.raises(ValueError, match="parties"):
        Barrier.at(shm, 0, create=True)
    with pytest.raises(TypeError, match="action"):
        Barrier.at(shm, 0, create=True, parties=2, action=5)
    with pytest.raises(ValueError, match="timeout"):
        Barrier.at(shm, 0, create=True, parties=2, timeout=float("nan"))
    with pytest.raises(TypeError, match="lock"):
        Condition.at(shm, 0, create=True, lock=threading.Lock())
    with pytest.raises(ValueError, match="on_owner_died"):
        Condition.at(shm, 0, create=True, on_owner_died=print, lock=Lock.at(shm, 1024, create=True))
    for bad in ("", "z", "qq", "b", "l", "\0"):
        with pytest.raises(ValueError, match="format"):
            Atomic.at(shm, 0, bad)
    for bad in (None, 1, b"q"):
        with pytest.raises(TypeError, match="format"):
            Atomic.at(shm, 0, bad)
    shm.buf[1024 : 1024 + Lock.nbytes] = bytes(Lock.nbytes)
    assert bytes(shm.buf) == bytes(shm.size)


# -- named --------------------------------------------------------------------------------------


@with_header
def test_a_named_primitive(kind, name):
    with pytest.raises(FileNotFoundError) as caught:
        named(kind, name)
    assert caught.value.filename == name
    thing = named(kind, name, create=True, mode=0o640)
    try:
        assert thing.name == name and thing.offset == 0 and not thing.closed
        assert os.stat(path_of(kind, name)).st_mode & 0o7777 == 0o640
        assert repr(thing).startswith(f"<posixshm.{kind.__name__} {name!r}: ")
        with pytest.raises(FileExistsError):
            named(kind, name, create=True)
        for other in (named(kind, name), named(kind, "/" + name, create=True, exist_ok=True)):
            use(other)
            assert other.name == name
            other.close()
            other.close()
            assert other.closed and "closed" in repr(other)
        use(thing)
    finally:
        thing.unlink()
    assert not os.path.exists(path_of(kind, name))
    use(thing)  # a process that has the primitive open still uses it
    with pytest.raises(FileNotFoundError):
        thing.unlink()
    second = named(kind, name, create=True)
    with pytest.raises(FileNotFoundError):
        thing.unlink()  # it does not remove the name of another primitive
    assert os.path.exists(path_of(kind, name))
    second.unlink()
    thing.close()
    second.close()


@with_header
def test_the_mode_does_not_depend_on_the_umask(kind, name):
    old = os.umask(0o777)
    try:
        thing = named(kind, name, create=True, mode=0o622)
    finally:
        os.umask(old)
    assert os.stat(path_of(kind, name)).st_mode & 0o7777 == 0o622
    thing.unlink()
    for bad in (-1, 0o10000, 2**40):
        with pytest.raises((ValueError, OverflowError), match="mode"):
            named(kind, name, create=True, mode=bad)
    for bad in ("600", None, 1.0):
        with pytest.raises(TypeError, match="mode"):
            named(kind, name, create=True, mode=bad)


@with_header
def test_bad_names(kind):
    for bad in ("", "/", ".", "..", "a/b", "a\0b", "x" * 256, "\udcff/"):
        for keywords in ({}, {"create": True}):
            with pytest.raises(ValueError, match="name"):
                named(kind, bad, **keywords)
    for bad in (1, b"name", True, Lock()):
        with pytest.raises(TypeError, match="name"):
            named(kind, bad, create=True)


@with_header
def test_a_name_of_another_kind_of_object(kind, name):
    with open(path_of(kind, name), "wb") as file:
        file.write(b"some text" * 1000)
    try:
        if kind is Semaphore:  # a bare sem_t, without a header
            os.truncate(path_of(kind, name), 3)
        for keywords in ({}, {"create": True, "exist_ok": True}):
            with pytest.raises((ValueError, OSError)):
                named(kind, name, **keywords)
        with pytest.raises(FileExistsError):
            named(kind, name, create=True)
        with open(path_of(kind, name), "rb") as file:
            assert file.read(3) == b"som"
    finally:
        os.unlink(path_of(kind, name))


def test_a_named_primitive_of_another_kind(name):
    lock = Lock(name, create=True)
    try:
        for kind in (RLock, Condition, Event, Barrier, RWLock):
            for keywords in ({}, {"create": True, "exist_ok": True}):
                # The error for a smaller object states its size.
                with pytest.raises((ValueError, FileExistsError)):
                    named(kind, name, **keywords)
        with SharedMemory.open(name) as shm:  # it is also a segment, with the lock at offset 0
            placed = Lock.at(shm)
            use(placed)
            with pytest.raises(ValueError, match="no name"):
                placed.unlink()
    finally:
        lock.unlink()


def test_sem_unlink(name):
    Semaphore(name, create=True).close()
    sem_unlink(name)
    with pytest.raises(FileNotFoundError) as caught:
        sem_unlink("/" + name)
    assert caught.value.errno == errno.ENOENT
    for bad in ("", "a/b", "x" * 252, "x" * 256):
        with pytest.raises(ValueError, match="name"):
            sem_unlink(bad)
        with pytest.raises(ValueError, match="name"):
            Semaphore(bad, create=True)
    with pytest.raises(TypeError):
        sem_unlink(b"name")


@with_header
def test_a_closed_primitive_raises_value_error(kind, shm):
    thing = at(kind, shm, 0, create=True)
    thing.close()
    thing.close()
    assert thing.closed and "closed" in repr(thing)
    calls = {
        Lock: ["acquire"],
        RLock: ["acquire"],
        Condition: ["acquire", "wait", "notify", "notify_all", "__enter__"],
        Event: ["set", "clear", "is_set", "wait"],
        Barrier: ["wait", "abort", "reset"],
        RWLock: ["acquire_read", "acquire_write"],
        Semaphore: ["acquire", "release", "__enter__"],
    }
    for call in calls[kind]:
        with pytest.raises(ValueError, match="closed"):
            getattr(thing, call)()
    use(at(kind, shm))
