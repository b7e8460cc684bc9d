"""A process that uses a primitive whose words another process overwrites. Run by test_sync_hostile.

Every call must return or raise an exception of the library in time, for all values of the words.
"""

import struct
import sys
import threading
import time

from _processes import ready

from posixshm import Barrier, Condition, Event, Semaphore, SharedMemory

SECONDS = 2.0
SHORT = 0.005  # seconds; for timeouts
LATE = 5.0  # seconds; a longer call is a hang


def in_time(call):
    begun = time.monotonic()
    try:
        call()
    except (OSError, threading.BrokenBarrierError):
        pass
    took = time.monotonic() - begun
    assert took < LATE, f"{call} took {took} s"


def semaphore(made):
    return [
        lambda: made.acquire(False),
        lambda: made.acquire(timeout=SHORT),
        lambda: made.release(),
        lambda: made.release(1000),
        lambda: 0 <= made.value < 2**31 or 1 / 0,
    ]


def barrier(made):
    return [
        lambda: made.wait(0),
        lambda: made.wait(SHORT),
        made.reset,
        made.abort,
        lambda: made.broken,
        lambda: made.n_waiting,
        lambda: made.parties,
    ]


def condition(made):
    def held(call):
        def body():
            with made:
                call()

        return body

    return [
        held(lambda: made.wait(0)),
        held(lambda: made.wait(SHORT)),
        held(lambda: made.wait_for(lambda: False, SHORT)),
        held(lambda: made.notify(3)),
        held(made.notify_all),
    ]


def event(made):
    return [made.is_set, lambda: made.wait(SHORT), made.set, made.clear]


# Kind: how to create it, the offsets of its words, and its calls.
KINDS = {
    "Semaphore": (lambda shm: Semaphore.at(shm, value=1, create=True), (0, 64), semaphore),
    "Barrier": (lambda shm: Barrier.at(shm, parties=2, create=True), (0, 64), barrier),
    "Barrier with an action": (
        lambda shm: Barrier.at(shm, parties=2, action=lambda: None, create=True),
        (0, 64),
        barrier,
    ),
    "Condition": (lambda shm: Condition.at(shm, create=True), (128, 16), condition),
    "Event": (lambda shm: Event.at(shm, create=True), (0, 64), event),
}


def play(calls):
    """Make all calls in two threads."""
    errors = []

    def body():
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                for call in calls:
                    in_time(call)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body) for _ in range(2)]
    ready()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def main():
    name, kind = sys.argv[1:]
    if kind == "named Semaphore":
        play(semaphore(Semaphore(name)))
        return
    with SharedMemory.open(name) as shm:
        make, _, calls = KINDS[kind]
        play(calls(make(shm)))


def corrupt_semaphore():
    """Set each word of a sem_t to each value that code may treat specially."""
    name, where = sys.argv[1:]
    if where == "named":
        made = Semaphore(name, value=1, create=True, delete=True)
        shm = SharedMemory.open(f"sem.{name}")
    else:
        shm = SharedMemory.create(name, 4096, delete=True)
        made = Semaphore.at(shm, value=1, create=True)
    good = shm.buf[:16].tobytes()
    for value in (0, 1):
        for index in range(4):
            for number in (0, 1, 2, 127, 128, 129, 2**31 - 1, 2**31, 2**32 - 1):
                shm.buf[:16] = good
                struct.pack_into("I", shm.buf, 0, value)
                struct.pack_into("I", shm.buf, 4 * index, number)
                print(value, index, number, flush=True)
                for call in semaphore(made):
                    in_time(call)
    shm.buf[:16] = good
    assert made.acquire(timeout=0) and not made.acquire(timeout=0.01)
    shm.close()
