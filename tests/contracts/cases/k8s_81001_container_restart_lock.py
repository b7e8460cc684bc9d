# kubernetes/kubernetes#81001, blakeblackshear/frigate#927 and #945: a container of a pod crashes
# and is started again, with the old /dev/shm and a new PID namespace. A service that begins with
# the line of the README for any number of processes must start again.
import subprocess
import sys
import time

from _run import main

BEGIN = """
import os
from posixshm import Barrier, Condition, Event, Lock, RLock, RWLock, Semaphore, SharedMemory
shm = SharedMemory.create("rep-state", 4096, exist_ok=True)
lock = Lock("rep-lock", create=True, exist_ok=True, on_owner_died=lambda lock: None)
rwlock = RWLock("rep-rwlock", create=True, exist_ok=True, on_owner_died=lambda lock: None)
condition = Condition("rep-condition", create=True, exist_ok=True, on_owner_died=lambda lock: None)
barrier = Barrier("rep-barrier", 2, create=True, exist_ok=True)
placed = Lock.at(shm, 1024, create=True, exist_ok=True, on_owner_died=lambda lock: None)
assert lock.acquire(timeout=5) and rwlock.acquire_write(timeout=5) and condition.acquire(timeout=5)
assert placed.acquire(timeout=5)
os.kill(os.getpid(), 9) if {crash} else os._exit(0)
"""

RECLAIM = """
import posixshm
posixshm.reclaim("rep-")
"""


def container(code):
    """Run as process 1 of a new PID namespace, with the current /dev/shm."""
    return subprocess.run(
        ["unshare", "-p", "-f", "--kill-child", "--mount-proc", sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )


def restart(first_line):
    # process 1 cannot kill itself by SIGKILL, so it exits while it holds the locks
    crashing = BEGIN.format(crash="True").replace("os.kill(os.getpid(), 9)", "os._exit(1)")
    assert container(crashing).returncode == 1
    # Other containers start in between: the kernel reuses the number of a PID namespace that ended,
    # and the new namespace would look like the old one.
    others = [subprocess.Popen(["unshare", "-p", "-f", "--kill-child", "sleep", "30"])
              for _ in range(12)]
    time.sleep(0.5)
    try:
        again = container(first_line + BEGIN.format(crash="False"))
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert again.returncode == 0, again.stdout.strip().splitlines()[-1]


def native():
    restart("")


def native_reclaim():
    restart(RECLAIM)


if __name__ == "__main__":
    main(native=native, native_reclaim=native_reclaim, left_is_wrong=False)
