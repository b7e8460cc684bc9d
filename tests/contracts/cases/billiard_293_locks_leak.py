# celery/billiard#293, shinezyy/gem5_data_proc#8, dm4ml/motion#297, pytorch/pytorch#14768: processes
# create and drop thousands of locks, events and counters, and some are killed. They must leave no
# file in /dev/shm, descriptor or mapping, and 3,000 locks at a time must need fewer than 3,000
# descriptors.
import multiprocessing as mp
import os
import signal
import time

from _run import main


def usage():
    with open("/proc/self/maps") as maps:
        return len(os.listdir("/proc/self/fd")), sum(1 for _ in maps)


def hold():
    from posixshm import Event, Lock, SharedMemory
    kept = []
    for _ in range(200):
        shm = SharedMemory.anonymous(4096)
        kept.append((Lock.at(shm, create=True), Event.at(shm, 2048, create=True)))
    time.sleep(60)


def native():
    from posixshm import Event, Lock, SharedMemory
    for _ in range(10):
        Lock.at(SharedMemory.anonymous(4096), create=True)
    before = usage()
    for _ in range(5000):
        shm = SharedMemory.anonymous(4096)
        lock, event = Lock.at(shm, create=True), Event.at(shm, 2048, create=True)
        with lock:
            event.set()
    del shm, lock, event
    after = usage()
    assert after[0] <= before[0] + 1 and after[1] <= before[1] + 4, (before, after)
    process = mp.Process(target=hold)
    process.start()
    time.sleep(1)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert os.listdir("/dev/shm") == [], os.listdir("/dev/shm")
    many = SharedMemory.anonymous(3000 * Lock.alignment * (Lock.nbytes // Lock.alignment + 1))
    step = Lock.alignment * (Lock.nbytes // Lock.alignment + 1)
    locks = [Lock.at(many, step * i, create=True) for i in range(3000)]
    assert usage()[0] <= before[0] + 3
    for lock in locks:
        with lock:
            pass


def native_named():
    from posixshm import Lock, Semaphore
    before = usage()
    for number in range(2000):
        lock = Lock(f"rep-lock-{number}", create=True)
        semaphore = Semaphore(f"rep-sem-{number}", create=True)
        lock.unlink()
        semaphore.unlink()
    del lock, semaphore
    after = usage()
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 8, (before, after)


if __name__ == "__main__":
    main(native=native, native_named=native_named)
