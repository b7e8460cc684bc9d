"""The guides to restarts and containers: ends of processes, a shared /dev/shm, and workers."""

import os
import signal

import pytest
from _primitives import at
from _processes import PATH, SHM, needs_mounts

from posixshm import (
    Atomic,
    Barrier,
    Condition,
    Event,
    Lock,
    RLock,
    RWLock,
    Semaphore,
    SharedMemory,
    exists,
    reclaim,
    sem_unlink,
)

# -- ends of processes --------------------------------------------------------------------------

MAKE = """
    import os, signal, sys
    import posixshm
    from posixshm import SharedMemory
    name = sys.argv[1]
    deleted = SharedMemory.create(name + "-delete", 10, delete=True)
    last = SharedMemory.create(name + "-last", 10, delete="last")
    tracked = SharedMemory.create(name + "-track", 10, track=True)
    plain = SharedMemory.create(name + "-plain", 10)
    nameless = SharedMemory.anonymous(10), SharedMemory.unlinked(10)
"""
# A signal that arrives before the read also ends the read; signal.pause() would wait for another one.
WAIT = """reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    print('made', flush=True)
    os.read(reading, 1)
"""

# How a process ends; whether the name of an object with delete=True remains (likewise with
# delete="last" if no other process uses it); and whether it remains with track=True.
ENDS = {
    "close()": ("deleted.close(), last.close(), tracked.close(), plain.close()", False, False),
    "the end of the program": ("", False, False),
    "sys.exit()": ("sys.exit(3)", False, False),
    "an exception": ("1 / 0", False, False),
    "SIGINT": ("WAIT", False, False),
    "SIGTERM, with a handler": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n    WAIT",
        False,
        False,
    ),
    "SIGTERM": ("WAIT", True, False),
    "os._exit()": ("os._exit(0)", True, False),
    "exec": ("os.execv('/bin/sh', ['sh', '-c', 'exit 0'])", True, False),
    "SIGKILL": ("WAIT", True, False),
    "SIGKILL to all its processes": ("WAIT", True, True),
}


@pytest.mark.parametrize("end", ENDS)
def test_names_that_remain_after_a_process_ended(start_python, name, end):
    code, deleted_left, tracked_left = ENDS[end]
    # The resource tracker keeps the standard error open, so finish() also waits for its end.
    child = start_python(MAKE + "    " + code.replace("WAIT", WAIT), name)
    if "WAIT" in code:
        child.hear("made")
        number = getattr(signal, end.split()[0].rstrip(","))
        os.killpg(child.pid, number) if "all" in end else child.signal(number)
    child.finish(check=False)
    left = {part for part in ("delete", "last", "track", "plain") if exists(f"{name}-{part}")}
    wanted = {"plain"}
    wanted |= {"delete", "last"} if deleted_left else set()
    wanted |= {"track"} if tracked_left else set()
    assert left == wanted
    assert {found.name for found in reclaim(name) if found.removed} == {
        f"{name}-{part}" for part in wanted
    }


def test_reclaim_before_the_first_process_starts(start_python, name):
    """After a service was killed, its next start removes unused objects and keeps objects in
    use."""
    for part in ("a", "b"):
        child = start_python(
            "import sys; from posixshm import SharedMemory\n"
            "shm = SharedMemory.create(sys.argv[1], 10)\n"
            "print('made', flush=True)\n"
            "sys.stdin.read()",
            f"{name}-{part}",
        )
        child.hear("made")
        if part == "a":
            child.kill()
    assert {found.name: found.state for found in reclaim(name)} == {
        f"{name}-a": "free",
        f"{name}-b": "in use",
    }
    child.kill()
    assert [found.removed for found in reclaim(name)] == [True]


# -- systemd ------------------------------------------------------------------------------------


def test_a_name_that_another_program_removed(name):
    """As RemoveIPC= of systemd does. The memory remains, and only calls that need the name fail."""
    with SharedMemory.create(name, 10, delete=True) as shm:
        os.unlink(f"{SHM}/{name}")
        shm.buf[0] = 5
        assert shm.buf[0] == 5 and shm.size == 10
        assert not shm.is_linked()
        with pytest.raises(FileNotFoundError):
            SharedMemory.open(name)
        with pytest.raises(FileNotFoundError):
            shm.unlink()
        with SharedMemory.create(name, 20) as fresh:
            shm.close()
            assert exists(name)  # the name refers to another object
            fresh.unlink()


# -- containers ---------------------------------------------------------------------------------


def test_two_containers_with_one_dev_shm(run_python, name):
    """In other PID namespaces, primitives without an owner work, locks are refused, and reclaim()
    sees that the object is in use."""
    needs_mounts()
    shm = SharedMemory.create(name, 1 << 15)
    shm.buf[-1] = 77
    kinds = Event, Semaphore, Lock, RLock, Condition, Barrier, RWLock
    made = [at(kind, shm, 2304 * i, create=True) for i, kind in enumerate(kinds)]
    Atomic.at(shm, 20000, "q").store(5)
    Semaphore(name, create=True)
    made[0].set()
    try:
        run_python(
            """
            import errno, sys
            from children.container import contain
            from posixshm import *
            def work():
                name = sys.argv[1]
                shm = SharedMemory.open(name)
                assert shm.buf[-1] == 77
                assert Event.at(shm, 0).wait(timeout=0)
                assert Semaphore.at(shm, 2304).acquire(timeout=0)
                assert Semaphore(name).acquire(timeout=0)
                assert Atomic.at(shm, 20000, "q").fetch_add(1) == 5
                for i, kind in enumerate([Lock, RLock, Condition, Barrier, RWLock], 2):
                    try:
                        kind.at(shm, 2304 * i)
                    except OSError as error:
                        assert error.errno == errno.EXDEV, error
                    else:
                        raise AssertionError(kind)
                shm.close()
                assert [found.state for found in reclaim(name)] == ["in use"]
                print("worked", flush=True)
            contain(work)
            """,
            name,
            env=PATH,
        )
        assert Atomic.at(shm, 20000, "q").load() == 6
    finally:
        shm.unlink()
        sem_unlink(name)


# -- pre-fork servers ---------------------------------------------------------------------------


def test_workers_that_are_forked(start_python, name):
    """The master creates everything before it forks. The death of a worker affects no other
    process, and the names are removed when the master ends."""
    server = start_python(
        """
        import os, signal, sys
        from posixshm import Lock, OwnerDiedError, SharedMemory
        name = sys.argv[1]
        table = SharedMemory.create(name, 4096, delete=True)
        lock = Lock.at(table, 0, create=True)

        def fork(work):
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                work()
                os._exit(0)
            return pid

        def count():
            try:
                lock.acquire(timeout=30)
            except OwnerDiedError:
                lock.acquire(timeout=30, recover=True)
            table.buf[1000] += 1
            lock.release()

        def die():
            lock.acquire()
            os.kill(os.getpid(), signal.SIGKILL)

        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        assert os.waitstatus_to_exitcode(os.waitpid(fork(die), 0)[1]) == -signal.SIGKILL
        for worker in [fork(count) for _ in range(3)]:
            assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
        assert table.buf[1000] == 3 and table.is_linked()
        print("served", flush=True)
        signal.pause()
        """,
        name,
    )
    server.hear("served")
    server.signal(signal.SIGTERM)
    server.finish()
    assert not exists(name)
