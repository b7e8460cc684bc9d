"""Barrier: parties wait for each other, generation after generation, or it breaks for all."""

import errno
import threading
import time
from threading import BrokenBarrierError

import pytest
from _primitives import elsewhere
from _processes import PATH

from posixshm import Barrier, SharedMemory

DEADLINE = 30


@pytest.fixture
def shm():
    with SharedMemory.anonymous(8192) as handle:
        yield handle


def until(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


class Waiting:
    """A thread in barrier.wait(), with its result or the class of its exception."""

    def __init__(self, barrier, *args):
        before = barrier.n_waiting

        def body():
            try:
                self.result = barrier.wait(*args)
            except Exception as error:
                self.result = type(error)

        self.thread = threading.Thread(target=body)
        self.thread.start()
        until(lambda: barrier.n_waiting == before + 1)

    def end(self):
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()
        return self.result


def test_one_party_alone(shm):
    barrier = Barrier.at(shm, 0, parties=1, create=True)
    assert [barrier.wait() for _ in range(5)] == [0] * 5
    assert barrier.wait(0) == 0
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (1, 0, False)


def test_the_number_of_parties_is_that_of_the_creator(shm):
    barrier = Barrier.at(shm, 0, parties=3, create=True)
    assert barrier.parties == Barrier.at(shm).parties == Barrier.at(shm, parties=3).parties == 3
    for create in (False, True):
        with pytest.raises(ValueError, match="3 parties, not 4"):
            Barrier.at(shm, 0, parties=4, create=create, exist_ok=create)
    assert Barrier.at(shm, 1024, parties=32767, create=True).parties == 32767


def test_each_generation_has_each_index_once(shm, run_threads):
    barrier = Barrier.at(shm, 0, parties=5, create=True)
    rounds = []

    def party():
        own = Barrier.at(shm)
        return [(barrier if i % 2 else own).wait(DEADLINE) for i in range(200)]

    rounds = list(zip(*run_threads(*[party] * 5), strict=True))
    assert all(sorted(places) == [0, 1, 2, 3, 4] for places in rounds)
    assert barrier.n_waiting == 0 and not barrier.broken


def test_only_the_last_party_runs_its_action(shm):
    done = []
    with_action = Barrier.at(shm, 0, parties=2, action=lambda: done.append(1), create=True)
    without = Barrier.at(shm)
    first = Waiting(with_action)
    assert without.wait() == 1 and first.end() == 0
    assert done == []
    first = Waiting(without)
    assert with_action.wait() == 1 and first.end() == 0
    assert done == [1]


def test_an_action_that_raises_breaks_the_barrier(shm):
    barrier = Barrier.at(shm, 0, parties=3, action=lambda: 1 / 0, create=True)
    others = [Waiting(barrier), Waiting(barrier)]
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    assert [other.end() for other in others] == [BrokenBarrierError] * 2
    assert barrier.broken and barrier.n_waiting == 0


def test_a_party_that_arrives_during_the_action_waits_for_the_next_round(shm):
    going, go = threading.Event(), threading.Event()

    def action():
        going.set()
        assert go.wait(DEADLINE)

    barrier = Barrier.at(shm, 0, parties=2, action=action, create=True)
    plain = Barrier.at(shm)
    first = Waiting(barrier)
    results = []
    second = threading.Thread(target=lambda: results.append(barrier.wait(DEADLINE)))
    second.start()
    assert going.wait(DEADLINE)
    third = threading.Thread(target=lambda: results.append(plain.wait(DEADLINE)))
    third.start()
    time.sleep(0.05)
    assert results == []
    go.set()
    second.join(DEADLINE)
    assert first.end() == 0 and results == [1]
    until(lambda: plain.n_waiting == 1)
    assert plain.wait(DEADLINE) == 1
    third.join(DEADLINE)
    assert results == [1, 0]


def test_a_party_that_is_late_for_an_action_breaks_only_its_own_round(run_python):
    run_python("from children import barrier_rounds; barrier_rounds.late_parties()", env=PATH)


def test_a_reset_is_one_step_for_the_parties_it_releases(run_python):
    run_python("from children import barrier_rounds; barrier_rounds.resets(2000)", env=PATH)


def test_a_timeout_breaks_the_barrier(shm):
    barrier = Barrier.at(shm, 0, parties=3, create=True)
    other = Waiting(barrier, DEADLINE)
    before = time.monotonic()
    with pytest.raises(BrokenBarrierError):
        barrier.wait(0.05)
    assert time.monotonic() - before >= 0.05
    assert other.end() is BrokenBarrierError and barrier.broken
    for thing in (barrier, Barrier.at(shm)):
        with pytest.raises(BrokenBarrierError):
            thing.wait()
        assert thing.broken
    barrier.reset()
    assert not barrier.broken and barrier.n_waiting == 0
    with pytest.raises(BrokenBarrierError):
        barrier.wait(0)
    barrier.reset()
    others = [Waiting(barrier), Waiting(barrier)]
    assert barrier.wait() == 2
    assert sorted(other.end() for other in others) == [0, 1]


def test_a_default_timeout(shm):
    barrier = Barrier.at(shm, 0, parties=2, timeout=0.02, create=True)
    for args in ((), (None,)):
        with pytest.raises(BrokenBarrierError):
            barrier.wait(*args)
        barrier.reset()
    other = Waiting(barrier, DEADLINE)
    time.sleep(0.05)
    assert barrier.wait() == 1 and other.end() == 0
    with pytest.raises(BrokenBarrierError):  # the default belongs to the object
        Barrier.at(shm).wait(0.05)


def test_abort_and_reset_raise_in_the_waiters(shm):
    barrier = Barrier.at(shm, 0, parties=3, create=True)
    for end in (barrier.abort, barrier.reset, Barrier.at(shm).abort, Barrier.at(shm).reset):
        others = [Waiting(barrier), Waiting(barrier)]
        end()
        assert [other.end() for other in others] == [BrokenBarrierError] * 2
        assert barrier.broken is (end.__name__ == "abort")
        barrier.reset()
        barrier.reset()
        assert barrier.n_waiting == 0 and not barrier.broken
    barrier.abort()
    barrier.abort()
    with pytest.raises(BrokenBarrierError):
        barrier.wait(0)


def test_a_reset_raises_in_its_waiters_although_later_rounds_succeeded(shm):
    """Even a waiter that wakes up late gets the error."""
    barrier = Barrier.at(shm, 0, parties=2, create=True)
    for _ in range(50):
        other = Waiting(barrier)
        barrier.reset()
        pair = Waiting(barrier)
        assert barrier.wait(DEADLINE) == 1
        assert pair.end() == 0
        assert other.end() is BrokenBarrierError


def test_arguments(shm):
    barrier = Barrier.at(shm, 0, parties=1, create=True)
    with pytest.raises(ValueError, match="timeout"):
        barrier.wait(float("nan"))
    with pytest.raises(ValueError, match="timeout"):
        Barrier.at(shm, timeout=float("nan"))
    for bad in ("1", True, 1j, []):
        with pytest.raises(TypeError, match="timeout"):
            barrier.wait(bad)
        with pytest.raises(TypeError, match="timeout"):
            Barrier.at(shm, timeout=bad)
    for call in (barrier.abort, barrier.reset):
        with pytest.raises(TypeError):
            call(1)
    assert not barrier.broken
    for good in (None, 0, -1, -0.5, float("-inf"), 1e300, float("inf")):
        assert barrier.wait(good) == Barrier.at(shm, timeout=good).wait() == 0


def test_an_action_that_uses_its_own_barrier(shm):
    barrier = Barrier.at(shm, 0, parties=1, action=lambda: barrier.wait(1), create=True)
    with pytest.raises((OSError, BrokenBarrierError)):
        barrier.wait()
    assert barrier.broken
    barrier.reset()
    seen = []
    looking = Barrier.at(shm, action=lambda: seen.append(looking.n_waiting))
    assert elsewhere(looking.wait) == 0
    assert seen == [1] and not looking.broken


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("timeout", [None, 30, 0])
def test_an_action_that_waits_for_its_own_barrier_gets_an_error(name, timeout, other):
    """The same holds for another object of the barrier, which does not have the action."""
    barriers = []
    barriers += [Barrier(name, parties=1, action=lambda: barriers[-1].wait(timeout), create=True)]
    barriers += [Barrier(name)] if other else []
    with pytest.raises(OSError, match="action") as caught:
        barriers[0].wait()
    assert caught.value.errno == errno.EDEADLK
    assert repr(name) in str(caught.value) and "after" in str(caught.value)
    assert barriers[0].broken
    barriers[0].unlink()


def test_between_processes(run_python):
    code = """
import os
from posixshm import Barrier, SharedMemory
shm = SharedMemory.anonymous(8192)
PARTIES, ROUNDS = 4, 500
counts = shm.buf[4096:4160].cast("q")

def action():
    counts[7] += 1
    assert set(counts[:PARTIES]) == {counts[7]}, list(counts)

barrier = Barrier.at(shm, 0, parties=PARTIES, action=action, timeout=30, create=True)
children = []
for who in range(PARTIES):
    children.append(os.fork())
    if not children[-1]:
        for i in range(ROUNDS):
            counts[who] += 1
            barrier.wait()
            assert counts[7] == i + 1
            Barrier.at(shm).wait(30)
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * PARTIES
assert counts[7] == ROUNDS
"""
    run_python(code, env=PATH)


def test_a_party_that_is_killed_in_its_action_breaks_the_barrier(run_python):
    code = """
import os, threading
from posixshm import Barrier, SharedMemory
shm = SharedMemory.anonymous(8192)
barrier = Barrier.at(shm, 0, parties=2, action=lambda: os._exit(9), create=True)
plain = Barrier.at(shm)
for waiting in (plain, Barrier.at(shm, action=print)):
    child = os.fork()
    if child == 0:
        while not plain.n_waiting:
            pass
        barrier.wait(30)
    try:
        waiting.wait(30)
    except threading.BrokenBarrierError:
        assert plain.broken
    else:
        raise SystemExit("it does not know")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    try:
        waiting.wait()
    except threading.BrokenBarrierError:
        plain.reset()
    assert not plain.broken
"""
    run_python(code, env=PATH)


def test_a_party_that_is_killed_while_it_waits_counts_as_arrived(run_python):
    code = """
import os, signal
from posixshm import Barrier, SharedMemory
shm = SharedMemory.anonymous(8192)
barrier = Barrier.at(shm, 0, parties=2, create=True)
for _ in range(3):
    child = os.fork()
    if child == 0:
        barrier.wait(30)
    while not barrier.n_waiting:
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert barrier.n_waiting == 1
    assert barrier.wait(30) == 1
"""
    run_python(code, env=PATH)
