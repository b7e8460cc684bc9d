"""The failures of multiprocessing that the README lists, one program each; argv[1] is its name."""

import os
import signal
import subprocess
import sys
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory

from _processes import private_shm, shm_names


def array_after_close():
    import numpy as np

    shm = SharedMemory(create=True, size=1 << 20)
    array = np.ndarray(shm.size, "u1", shm.buf)
    shm.unlink()
    shm.close()
    array.sum()


def full():
    private_shm("size=1m")
    shm = SharedMemory(create=True, size=4 << 20)
    print("created", flush=True)
    for offset in range(0, shm.size, 4096):
        shm.buf[offset] = 1


def reader_exits():
    private_shm()
    shm = SharedMemory(create=True, size=4096)
    reader = f"from multiprocessing.shared_memory import SharedMemory as S; S({shm.name!r})"
    # The resource tracker inherits the pipe of standard error, so this waits for both processes.
    subprocess.run([sys.executable, "-c", reader], check=True, stderr=subprocess.PIPE)
    print(len(shm_names()), "left")


def job_is_killed():
    private_shm()
    job = "from multiprocessing.shared_memory import SharedMemory as S; import os; "
    job += "S(create=True, size=4096); os.killpg(0, 9)"
    done = subprocess.run([sys.executable, "-c", job], start_new_session=True)
    assert done.returncode == -signal.SIGKILL
    print(len(shm_names()), "left")


def owner_is_killed():
    context = get_context("fork")
    lock = context.Lock()
    process = context.Process(target=lambda: lock.acquire() and os.kill(os.getpid(), 9))
    process.start()
    process.join()
    print(lock.acquire(timeout=1.0))


globals()[sys.argv[1]]()
