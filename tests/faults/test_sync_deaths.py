"""Death at any instruction: no process hangs, no wake-up is lost, and acquire() raises.

POSIXSHM_ROUNDS is the number of deaths for each player of _deaths.
"""

import os

import pytest
from _deaths import PLAYERS
from _processes import PATH

ROUNDS = int(os.environ.get("POSIXSHM_ROUNDS", "200"))


@pytest.mark.long
@pytest.mark.timeout(120 + ROUNDS)
@pytest.mark.parametrize("player", PLAYERS)
def test_processes_are_killed_at_any_time(run_python, player):
    code = f"from _deaths import PLAYERS; PLAYERS[{player!r}]({ROUNDS})"
    print(run_python(code, env=PATH, timeout=100 + ROUNDS))


HELD = """
import os, signal, subprocess, sys, threading, time
from _primitives import *
from posixshm import OwnerDiedError, SharedMemory
shm = SharedMemory.create(sys.argv[1], 65536, delete=True)
kinds = {
    Lock: ("acquire", "acquire"),
    RLock: ("acquire", "acquire"),
    Condition: ("acquire", "acquire"),
    RWLock: ("acquire_write", "acquire_read"),
}
locks = [
    (at(kind, shm, 4096 * i, create=True), *how) for i, (kind, how) in enumerate(kinds.items())
]

def raises_owner_died(lock, take):
    try:
        getattr(lock, take)(timeout=20)
    except OwnerDiedError:
        return True
    raise AssertionError("OwnerDiedError was not raised")

def recover(lock):
    take = lock.acquire_write if isinstance(lock, RWLock) else lock.acquire
    assert take(recover=True)
    lock.release()
"""


def test_a_stopped_process_is_not_dead(run_python, name):
    code = f"""{HELD}
for lock, take, other in locks:
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        getattr(lock, take)()
        os.write(go, b"x")
        signal.pause()
    os.read(ready, 1)
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    for how in (take, other):
        before = time.monotonic()
        assert getattr(lock, how)(timeout=0.15) is False
        assert getattr(lock, how)(timeout=0) is False
        assert 0.15 <= time.monotonic() - before < 10
    os.kill(child, signal.SIGKILL)  # which ends a stopped process too
    assert raises_owner_died(lock, other) and raises_owner_died(lock, take)
    os.waitpid(child, 0)
    recover(lock)
"""
    run_python(code, name, env=PATH)


def test_exec_ends_the_owner(run_python, name):
    """The new program does not know the lock."""
    code = f"""{HELD}
for lock, take, other in locks:
    child = os.fork()
    if child == 0:
        getattr(lock, take)()
        os.execvp("sleep", ["sleep", "30"])
    deadline = time.monotonic() + 20
    while True:  # it may not have got it yet
        assert time.monotonic() < deadline
        try:
            if getattr(lock, other)(timeout=0.001):
                lock.release()
        except OwnerDiedError:
            break
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    recover(lock)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""
    run_python(code, name, env=PATH)


def test_a_thread_that_ends_while_its_process_continues(run_python, name):
    code = f"""{HELD}
for lock, take, other in locks:
    for _ in range(20):
        die_with(getattr(lock, take))
        assert raises_owner_died(lock, other) and raises_owner_died(lock, take)
        recover(lock)
    results = []
    waiting = [
        threading.Thread(target=lambda: results.append(raises_owner_died(lock, other)))
        for _ in range(4)
    ]
    held, end = threading.Event(), threading.Event()

    def hold():
        getattr(lock, take)()
        held.set()
        end.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20)
    for thread in waiting:
        thread.start()
    end.set()
    for thread in [holder, *waiting]:
        thread.join(20)
    assert results == [True] * 4
    recover(lock)
"""
    run_python(code, name, env=PATH)


def test_fork_while_another_thread_holds_the_lock(run_python, name):
    """The child does not have that thread or its locks, and cannot acquire them from the parent."""
    code = f"""{HELD}
for lock, take, other in locks:
    held, end = threading.Event(), threading.Event()

    def hold():
        getattr(lock, take)()
        held.set()
        end.wait(20)
        lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20)
    for how in (take, other):
        child = os.fork()
        if child == 0:
            assert getattr(lock, how)(timeout=0.05) is False
            try:
                lock.release()
            except RuntimeError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    waiter = os.fork()
    if waiter == 0:
        assert getattr(lock, take)(timeout=20)
        lock.release()
        os._exit(0)
    time.sleep(0.02)
    end.set()
    holder.join(20)
    assert os.waitpid(waiter, 0)[1] == 0
    assert getattr(lock, take)(timeout=20)
    lock.release()
"""
    run_python(code, name, env=PATH, options=["-W", "ignore::DeprecationWarning"])


def test_a_parent_that_dies_before_its_children(run_python, name):
    """Their acquire() raises OwnerDiedError, too."""
    code = f"""{HELD}
for lock, take, other in locks:
    ready, go = os.pipe()
    parent = os.fork()
    if parent == 0:
        getattr(lock, take)()
        if os.fork() == 0:
            os.write(go, b"1" if raises_owner_died(lock, other) else b"0")
            os._exit(0)
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    assert os.read(ready, 1) == b"1"
    recover(lock)
"""
    run_python(code, name, env=PATH)
