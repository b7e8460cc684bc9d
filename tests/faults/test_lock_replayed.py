"""Bytes of locks that are copied and restored later: a checkpoint of memory with locks."""

import threading

import pytest
from _primitives import elsewhere

from posixshm import Lock, SharedMemory

# The other lock was released in between, so it is not in the thread's list.
RESTORED = """
import gc
from posixshm import Lock, SharedMemory
shm, other = SharedMemory.anonymous(4096), SharedMemory.anonymous(4096)
first = Lock.at(other if {apart} else shm, 128, create=True)
second = Lock.at(shm, 0, create=True)
first.acquire(), second.acquire()
saved = bytes(shm.buf)
first.release()
shm.buf[:] = saved
for lock in second, first:
    try:
        lock.release()
    except (OSError, RuntimeError):
        pass
else:
    del lock
del first, second
shm.close(), other.close()
del shm, other
gc.collect()
for _ in range(10):
    with Lock():
        pass
print("ended")
"""


# All locks are in one checkpoint, and the middle one is released.
MIDDLE = """
import gc
from posixshm import Lock, SharedMemory
shm = SharedMemory.anonymous(4096)
locks = [Lock.at(shm, 128 * i, create=True) for i in range(3)]
for lock in locks:
    lock.acquire()
saved = bytes(shm.buf)
locks[1].release()
shm.buf[:] = saved
for i in {order}:
    try:
        locks[i].release()
    except (OSError, RuntimeError):
        pass
del lock, locks
shm.close()
del shm
gc.collect()
for _ in range(10):
    with Lock():
        pass
print("ended")
"""


# The lock was free, and its thread acquires it again through another object.
FREE = """
import gc
from posixshm import Lock, SharedMemory
shm = SharedMemory.anonymous(4096)
lock, other = Lock.at(shm, create=True), Lock.at(shm)
saved = bytes(shm.buf)
lock.acquire()
shm.buf[:] = saved
for method in other.acquire, other.release, lock.release:
    try:
        method()
    except (OSError, RuntimeError) as error:
        print(type(error).__name__, end=" ")
del lock, other, method
shm.close()
del shm
gc.collect()
for _ in range(10):
    with Lock():
        pass
print("ended")
"""

ANOTHER_THREAD = """
import gc, threading
from posixshm import Lock, SharedMemory
shm = SharedMemory.anonymous(4096)
lock = Lock.at(shm, create=True)
saved = bytes(shm.buf)
lock.acquire()
shm.buf[:] = saved
def use():
    with lock:
        pass
thread = threading.Thread(target=use)
thread.start()
thread.join()
del lock
shm.close()
del shm
gc.collect()
for _ in range(10):
    with Lock():
        pass
print("ended")
"""


def test_the_memory_is_kept_if_another_thread_acquired_the_lock(run_python):
    assert run_python(ANOTHER_THREAD).strip() == "ended"


# The barrier is restored while a thread runs its action, so another thread can use it.
BARRIER = """
import gc, threading
from posixshm import Barrier, Lock, SharedMemory
shm = SharedMemory.anonymous(4096)
entered, leave, gone = (threading.Event() for _ in range(3))
def action():
    if threading.current_thread() is not threading.main_thread():
        entered.set()
        leave.wait()
def run():
    try:
        barrier.wait()
    except threading.BrokenBarrierError:
        print("overtaken", end=" ")
    leave.clear()
    entered.set()
    gone.wait()
    for _ in range(10):
        with there:
            pass
there = Lock()  # a new one might be mapped where the barrier was
barrier = Barrier.at(shm, parties=1, action=action, create=True)
saved = bytes(shm.buf)
thread = threading.Thread(target=run)
thread.start()
entered.wait()
entered.clear()
shm.buf[:] = saved
barrier.wait()
leave.set()
entered.wait()
del barrier
shm.close()
del shm
gc.collect()
gone.set()
thread.join()
print("ended")
"""


def test_the_memory_of_a_barrier_is_kept_if_another_thread_runs_its_action(run_python):
    assert run_python(BARRIER).split() == ["overtaken", "ended"]


def test_a_restored_lock_is_not_acquired_twice_by_its_thread(run_python):
    assert run_python(FREE).split() == ["OSError", "RuntimeError", "OSError", "ended"]


@pytest.mark.parametrize("apart", [True, False])
def test_the_c_library_does_not_follow_restored_links(apart, run_python):
    assert run_python(RESTORED.format(apart=apart)).strip() == "ended"


@pytest.mark.parametrize("order", [(0, 2), (2, 0), (2, 1, 0), (0, 1, 2)], ids=str)
def test_the_memory_is_kept_if_a_lock_in_the_middle_was_released(order, run_python):
    assert run_python(MIDDLE.format(order=order)).strip() == "ended"


# Offsets of the lock word and of the links in glibc's pthread_mutex_t.
@pytest.mark.parametrize("member", [0, 24, 32], ids=["word", "back", "forward"])
@pytest.mark.parametrize("order", [(1,), (1, 0), (0, 1), (2, 1)], ids=str)
def test_an_overwritten_lock_does_not_disturb_its_neighbours(member, order):
    with SharedMemory.anonymous(4096) as shm:
        locks = [Lock.at(shm, 128 * i, create=True) for i in range(3)]
        wrong = []

        def release(number):
            try:
                locks[number].release()
            except OSError:
                wrong.append(number)

        def pass_through(lock):
            return lock.acquire(timeout=5) and lock.release() is None

        def hold_and_release():
            for lock in locks:
                lock.acquire()
            shm.buf[member : member + 8] = bytes(8)
            for number in order:
                release(number)
            for number in set(order) - {0}:
                if not elsewhere(pass_through, locks[number]):
                    wrong.append(number)
            for number in set(range(3)) - set(order):
                release(number)

        thread = threading.Thread(target=hold_and_release)
        thread.start()
        thread.join()
        assert set(wrong) <= {0}
