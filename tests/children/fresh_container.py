"""A service in a container, which is killed while it holds its locks: a child of test_fresh.

numpy is imported in the container, because a process with threads cannot enter a user namespace.
"""

import os
import signal

from children.container import contain

from posixshm import Lock, RWLock


def serve(name, number):
    stale = {"exist_ok": True, "stale": "replace"}

    def work():
        from posixshm import array

        lock = Lock(f"{name}-lock", create=True, **stale)
        rwlock = RWLock(f"{name}-rwlock", create=True, **stale)
        frames = array.create(f"{name}-frames", 10 + int(number), "u1", **stale)
        assert lock.acquire(timeout=0) and rwlock.acquire_write(timeout=0)
        assert not frames.any()
        frames[:] = 1
        made = (lock.shm, rwlock.shm, frames.shm)
        print(*("new" if shm.created else "attached" for shm in made), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    contain(work)
