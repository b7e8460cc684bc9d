"""A container: a PID namespace whose processes use the objects in /dev/shm.

Run by test_primitive_renewed.
"""

import os
import signal
import sys
from pathlib import Path

import _processes
from _primitives import at, named

from posixshm import Atomic, Barrier, Condition, Event, Lock, RLock, RWLock, Semaphore, SharedMemory

COUNTS = 8192 * 7  # offset of the counters of serve()
KINDS = [Lock, RLock, Condition, RWLock, Barrier, Event, Semaphore]


def contain(work):
    """Call work() in a process of a new PID namespace, which lasts until the standard input ends.

    Print a line when the process has ended. The first process of the namespace uses no object.
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
    """Create or attach to everything, as any number of processes of a service do at their start."""
    shm = SharedMemory.create(f"{name}-segment", 1 << 16, exist_ok=True)
    placed = [at(kind, shm, 8192 * i, create=True, exist_ok=True) for i, kind in enumerate(KINDS)]
    own = [named(kind, f"{name}-{kind.__name__}", create=True, exist_ok=True) for kind in KINDS]
    return shm, placed, own


def acquire(thing, **keywords):
    """Acquire a lock or semaphore; use a barrier or an event as a single process can."""
    if isinstance(thing, RWLock):
        return thing.acquire_write(**keywords)
    if isinstance(thing, Barrier | Event):
        return not thing.broken if isinstance(thing, Barrier) else not thing.set()
    return thing.acquire(**keywords)


def hold_all(name, end):
    """Acquire everything, optionally wait for a line, and kill this process."""
    _, placed, own = begin(name)
    for thing in placed + own:
        assert acquire(thing, timeout=10)
    if end == "waits":
        print("holding", flush=True)
        sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)


def serve(name):
    """Increment a counter under each lock; two processes call this at the same time."""
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
