"""Parties of a Barrier that arrive during an action or a reset. Run by test_barrier."""

import os
import threading

from posixshm import Atomic, Barrier, Event, SharedMemory

DEADLINE = 30


def spawn(body):
    """Fork a process that runs body() and exits with its result."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = body()
        finally:
            os._exit(status)
    return pid


def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def index_or_broken(barrier, timeout):
    """The index that wait() returns, or 50."""
    try:
        return barrier.wait(timeout)
    except threading.BrokenBarrierError:
        return 50


def late_parties():
    """A third party times out while an action runs; this does not break the current round."""
    shm = SharedMemory.anonymous(4096)
    going, go = (Event.at(shm, 512 + 128 * i, create=True) for i in range(2))

    def action():
        going.set()
        assert go.wait(DEADLINE)

    acting = Barrier.at(shm, 0, parties=2, action=action, create=True)
    plain = Barrier.at(shm)
    for late in plain, acting:
        for timeout in 0.1, 0, -1:
            going.clear()
            go.clear()
            parties = [spawn(lambda: index_or_broken(acting, DEADLINE)) for _ in range(2)]
            assert going.wait(DEADLINE)
            third = spawn(lambda late=late, timeout=timeout: index_or_broken(late, timeout))
            assert status_of(third) == 50
            assert not plain.broken and plain.n_waiting == 2
            go.set()
            assert sorted(map(status_of, parties)) == [0, 1]
            assert plain.broken, "the round of the late party is not broken"
            plain.reset()


def resets(rounds):
    """A party that a reset releases and that arrives again at once is in the next round."""
    shm = SharedMemory.anonymous(4096)
    barrier = Barrier.at(shm, 0, parties=3, create=True)
    released = [Atomic.at(shm, 1024 + 64 * i) for i in range(2)]

    def party(mine):
        while True:
            try:
                barrier.wait(DEADLINE)
                return 0
            except threading.BrokenBarrierError:
                mine.fetch_add(1)

    pids = [spawn(lambda mine=mine: party(mine)) for mine in released]
    for done in range(rounds + 1):
        while barrier.n_waiting < 2:
            assert all(mine.load() <= done for mine in released), "released without a reset"
            assert not barrier.broken
        if done < rounds:
            barrier.reset()
    assert barrier.wait(DEADLINE) == 2
    assert [status_of(pid) for pid in pids] == [0, 0]
    assert [mine.load() for mine in released] == [rounds, rounds]
