"""A process whose threads wait for a Condition that no process notifies. Run by test_condition."""

import sys
import threading

from posixshm import Condition, SharedMemory

THREADS = 100


def wait_for_the_end(name):
    """Print a line once all threads wait; end when the standard input does."""
    shm = SharedMemory.open(name)
    waiting = threading.Semaphore(0)

    def wait():
        with (mine := Condition.at(shm)):
            waiting.release()
            mine.wait(60)

    threads = [threading.Thread(target=wait) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for _ in threads:
        waiting.acquire()
    condition = Condition.at(shm)
    with condition:  # the last thread has released the lock, so all wait
        print("waiting", flush=True)
    sys.stdin.read()
    with condition:
        condition.notify_all()
