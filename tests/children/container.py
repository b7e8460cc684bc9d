"""A container: a PID namespace of its own, whose processes use what lies in /dev/shm.

Run by test_primitive_renewed.
"""

import os
import signal
import sys
from pathlib import Path

import _processes
from _primitives import at, named

from posixshm import Atomic, Barrier, Condition, Event, Lock, RLock, RWLock, Semaphore, SharedMemory

COUNTS = 8192 * 7  # where serve() counts
KINDS = [Lock, RLock, Condition, RWLock, Barrier, Event, Semaphore]


def contain(work):
    """Call work() in a process of a new PID namespace, which lasts until the standard input ends.

    A line says that the process has ended. The namespace's first process uses nothing.
    """
    CLONE_NEWPID, CLONE_NEWUSER = 0x20000000, 0x10000000
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _processes._check(_processes._libc.unshare(CLONE_NEWPID))
    else:
        _processes._check(_processes._libc.unshare(CLONE_NEWPID | CLONE_NEWUSER))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    first = os.fork()
    if first:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]))
    worker = os.fork()
    if worker == 0:
        work()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    print(f"ended {status}", flush=True)
    sys.stdin.read()
    os._exit(0)


def begin(name):
    """The lines that any number of processes of a service begin with."""
    shm = SharedMemory.create(f"{name}-segment", 1 << 16, exist_ok=True)
    placed = [at(kind, shm, 8192 * i, create=True, exist_ok=True) for i, kind in enumerate(KINDS)]
    own = [named(kind, f"{name}-{kind.__name__}", create=True, exist_ok=True) for kind in KINDS]
    return shm, placed, own


def acquire(thing, **keywords):
    """Acquire what can be; the rest as it is used by one process alone."""
    if isinstance(thing, RWLock):
        return thing.acquire_write(**keywords)
    if isinstance(thing, Barrier | Event):
        return not thing.broken if isinstance(thing, Barrier) else not thing.set()
    return thing.acquire(**keywords)


def hold_all(name, end):
    """Hold everything, and be killed, or wait for that."""
    _, placed, own = begin(name)
    for thing in placed + own:
        assert acquire(thing, timeout=10)
    if end == "waits":
        print("holding", flush=True)
        sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)


def serve(name):
    """Two of these at once: each counts under each of the locks."""
    shm, placed, own = begin(name)
    for i, thing in enumerate(placed + own):
        counted = Atomic.at(shm, COUNTS + 8 * i)
        if isinstance(thing, Lock | RLock | Condition | RWLock):
            for _ in range(50):
                assert acquire(thing, timeout=30)
                counted.store(counted.load() + 1)
                thing.release()
        elif isinstance(thing, Barrier):
            thing.wait(30)


def unlink_all(name):
    SharedMemory.open(f"{name}-segment").unlink()
    for kind in KINDS:
        kind(f"{name}-{kind.__name__}").unlink()
