"""The effects of a process with write access on other processes, and their limits.

The writer of these tests overwrites the object with random bytes as fast as it can. A process that
reads data, arrays, atomics and events there gets values or exceptions, in time, and does not crash.
"""

import pickle
import time

import numpy as np
import pytest
from _processes import PATH, rounds

from posixshm import Atomic, Event, Lock, SharedMemory, View, array
from posixshm import shared_memory as dropin

WRITE = "from children import hostile_writer; hostile_writer.main()"
SECONDS = rounds(0.3, 2.0)  # of each test
FORMATS = ["b", "B", "?", "h", "I", "q", "Q", "e", "f", "d", "4s", "5p", "c", "F", "D", "<i", ">d"]


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 65536, delete=True) as handle:
        yield handle


@pytest.fixture
def attack(start_python):
    """attack(name, offset, length): start a writer, which has begun to write on return."""

    def attack(name, offset, length, seed=1):
        writer = start_python(WRITE, name, offset, length, seed, env=PATH)
        writer.hear("ready")
        return writer

    return attack


def for_a_while(play):
    """Call play() repeatedly; return the number of calls."""
    end, times = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        play()
        times += 1
    assert times > 0
    return times


def test_bytes_and_views_can_be_read_while_they_change(shm, attack):
    writer = attack(shm.name, 0, 4096)
    views = [shm.view(fmt, (64,)) for fmt in FORMATS]
    views.append(shm.view("<hi3s", (4, 8)))
    numbers = np.frombuffer(shm.buf, "f8")

    def play():
        assert len(bytes(shm.buf)) == shm.size
        for view in views:
            assert len(view.tolist()) == view.shape[0] and len(view.tobytes()) == view.nbytes
        assert numbers.copy().shape == numbers.shape

    with np.errstate(all="ignore"):
        for_a_while(play)
    writer.finish()


@pytest.mark.long
@pytest.mark.parametrize("fmt", ["q", "Q", "I", "i"])
def test_atomics_answer_with_a_number_in_time(fmt, shm, attack):
    writer = attack(shm.name, 0, 64)
    atomic = Atomic.at(shm, 0, fmt)

    def play():
        assert isinstance(atomic.load(), int)
        atomic.store(5)
        assert isinstance(atomic.fetch_add(1), int)
        assert isinstance(atomic.compare_exchange(5, 6), tuple | bool)
        begun = time.monotonic()
        atomic.wait(atomic.load(), timeout=0.01)
        assert time.monotonic() - begun < 5
        atomic.notify()

    for_a_while(play)
    writer.finish()


def test_events_answer_in_time(shm, attack):
    event = Event.at(shm, 0, create=True)
    writer = attack(shm.name, 0, Event.nbytes)

    def play():
        begun = time.monotonic()
        for call in (
            event.is_set,
            lambda: event.wait(timeout=0.01),
            event.set,
            event.clear,
            lambda: Event.at(shm, 0),
        ):
            try:
                call()
            except (ValueError, OSError):  # the header has changed
                pass
        assert time.monotonic() - begun < 5

    for_a_while(play)
    writer.finish()


def test_an_array_that_changes_is_an_array_or_an_error(name, attack):
    made = array.save(name, np.arange(1000.0))
    try:
        writer = attack(name, 0, made.shm.size)
        found = errors = 0

        def play():
            nonlocal found, errors
            try:
                loaded = array.load(name)
            except (ValueError, OSError, EOFError):
                errors += 1
            else:
                # The array has the shape of the header at that time, and is within the object.
                assert loaded.nbytes <= made.shm.size
                loaded.copy()
                found += 1

        for_a_while(play)
        writer.finish()
        assert errors > 0
        # An existing array keeps its shape, regardless of the header.
        assert made.shape == (1000,) and made.copy().shape == (1000,)
    finally:
        made.shm.unlink()


@pytest.mark.long
def test_a_list_that_changes_is_a_list_or_an_error(names, attack):
    made = dropin.ShareableList([1, 2.0, "three", b"four", None, True] * 20, name=names())
    try:
        writer = attack(made.shm.name, 0, made.shm.size)
        errors = 0

        def play():
            nonlocal errors
            try:
                other = dropin.ShareableList(name=made.shm.name)
                try:
                    list(other)
                    _ = other.format
                finally:
                    other.shm.close()
            except (ValueError, OSError, IndexError):
                errors += 1

        for_a_while(play)
        writer.finish()
        assert errors > 0
    finally:
        made.shm.close()
        made.shm.unlink()


def test_a_lock_that_another_process_keeps_times_out(shm, start_python):
    lock = Lock.at(shm, 0, create=True)
    keeper = start_python(
        """
        import sys
        from posixshm import Lock, SharedMemory
        lock = Lock.at(SharedMemory.open(sys.argv[1]))
        lock.acquire()
        print("ready", flush=True)
        sys.stdin.readline()
        """,
        shm.name,
    )
    keeper.hear("ready")
    assert not lock.acquire(timeout=0.05)
    keeper.finish(check=False)


def test_truncated_memory_can_be_read_by_pread(shm, start_python):
    """A named object can be truncated. os.pread() then returns less, but access to memory is a
    SIGBUS."""
    import os

    start_python("import os, sys; os.truncate('/dev/shm/' + sys.argv[1], 4096)", shm.name).finish()
    assert os.pread(shm.fileno(), 8192, 0) == bytes(4096)
    # An anonymous object is sealed, so that it cannot be truncated.
    with SharedMemory.anonymous(8192) as sealed, pytest.raises(PermissionError):
        os.ftruncate(sealed.fileno(), 4096)


def test_reading_needs_no_write_permission(shm):
    """A reader has a read-only descriptor and does not change the object."""
    with SharedMemory.open(shm.name, readonly=True) as reader:
        view = reader.view("q", (8,))
        for store in (
            lambda: view.__setitem__(0, 1),
            lambda: reader.buf.__setitem__(0, 1),
            lambda: np.asarray(view).__setitem__(0, 1),
        ):
            with pytest.raises((TypeError, ValueError)):
                store()
        assert isinstance(view, View) and pickle.loads(pickle.dumps(reader)).readonly
    assert bytes(shm.buf) == bytes(shm.size)
