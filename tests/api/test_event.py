"""Event: a flag that wakes all its waiters."""

import threading
import time

import pytest
from _processes import PATH

from posixshm import Event, SharedMemory

DEADLINE = 30


@pytest.fixture
def event():
    with SharedMemory.anonymous(4096) as shm:
        yield Event.at(shm, 128, create=True)


def test_a_flag(event):
    assert event.is_set() is False and event.wait(0) is False
    for _ in range(3):
        assert event.set() is None and event.is_set() is True
        assert event.wait() is event.wait(0) is event.wait(timeout=5) is True
    for _ in range(3):
        assert event.clear() is None and event.is_set() is False
        assert event.wait(0) is event.wait(0.01) is False


def test_arguments(event):
    with pytest.raises(ValueError, match="timeout"):
        event.wait(float("nan"))
    for over in (-1, -1.0, -0.001, float("-inf")):
        assert event.wait(over) is False
    for bad in ("1", b"", True, False, 1j, []):
        with pytest.raises(TypeError, match="timeout"):
            event.wait(bad)
    for call in (event.set, event.clear, event.is_set):
        with pytest.raises(TypeError):
            call(1)
    event.set()
    for good in (None, 0, 0.0, 1e300, float("inf"), 10**12):
        assert event.wait(good) is True


def test_set_wakes_all_waiters(event, run_threads):
    barrier = threading.Barrier(9)

    def wait():
        barrier.wait(DEADLINE)
        return event.wait(DEADLINE)

    def wake():
        barrier.wait(DEADLINE)
        time.sleep(0.05)  # most of them sleep at this time
        before = time.monotonic()
        event.set()
        return before

    *woken, _ = run_threads(*[wait] * 8, wake)
    assert woken == [True] * 8


def test_a_waiter_wakes_although_the_flag_was_cleared_again(event, run_threads):
    """A waiter does not miss a flag that was set only for a short time."""
    ready = threading.Barrier(3)
    begun = []

    def wait():
        for _ in range(50):
            ready.wait(DEADLINE)
            begun.append(1)
            assert event.wait(DEADLINE) is True

    def blink():
        for i in range(50):
            ready.wait(DEADLINE)
            deadline = time.monotonic() + DEADLINE
            while len(begun) < 2 * (i + 1):
                assert time.monotonic() < deadline
            time.sleep(0.005)  # so that they wait
            event.set()
            event.clear()

    run_threads(wait, wait, blink)


def test_bytes_written_before_set_are_visible_after_wait(run_python):
    """Ping-pong between two processes over a plain value."""
    code = """
import os
from posixshm import Event, SharedMemory
shm = SharedMemory.anonymous(8192)
ping, pong = (Event.at(shm, 128 * i, create=True) for i in range(2))
value = shm.buf[4096:4104].cast("q")
ROUNDS = 3000
child = os.fork()
if child == 0:
    for i in range(ROUNDS):
        assert ping.wait(30)
        ping.clear()
        assert value[0] == 2 * i + 1, value[0]
        value[0] += 1
        pong.set()
    os._exit(0)
for i in range(ROUNDS):
    value[0] += 1
    ping.set()
    assert pong.wait(30)
    pong.clear()
    assert value[0] == 2 * i + 2
assert os.waitpid(child, 0)[1] == 0
"""
    run_python(code, env=PATH)


def test_a_setter_that_is_killed_before_it_wakes_the_waiters(run_python):
    """The waiter sees the flag after a poll interval, without a wake-up."""
    code = """
import os, struct, threading, time
from posixshm import Event, SharedMemory
shm = SharedMemory.anonymous(4096)
event = Event.at(shm, 0, create=True)
result = []
thread = threading.Thread(target=lambda: result.append(event.wait(30)))
thread.start()
time.sleep(0.1)
before = time.monotonic()
(word,) = struct.unpack_from("I", shm.buf, 0)
struct.pack_into("I", shm.buf, 0, word + 1)  # as far as it came
thread.join(30)
assert result == [True] and time.monotonic() - before < 5
"""
    run_python(code, env=PATH)
