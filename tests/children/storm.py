"""Eight threads call methods of the same objects at random while the process forks, for some seconds.

    python storm.py library|control SECONDS SEED

Each forked child calls every method once and exits. `control` is the same program with objects of
the standard library: if it hangs as well, the interpreter is the cause. A child that does not exit
within 20 seconds gets SIGABRT, prints its stacks, and the program exits with status 3.
"""

import contextlib
import faulthandler
import gc
import mmap
import os
import pickle
import random
import signal
import sys
import threading
import time
import weakref

THREADS = 8
PATIENCE = 20  # seconds; a longer wait is a hang
SHM = "/dev/shm/"


def library_calls(stem):
    import posixshm
    from posixshm import (
        Atomic,
        Barrier,
        Condition,
        Event,
        Lock,
        MemoryMap,
        RLock,
        RWLock,
        Semaphore,
        SharedMemory,
    )

    shm = SharedMemory.create(f"{stem}-shared", 1 << 16, max_size=1 << 20)
    place = SharedMemory.anonymous(1 << 16)
    lock = Lock.at(place, 0, create=True)
    rlock = RLock.at(place, 1024, create=True)
    rwlock = RWLock.at(place, 2048, create=True)
    condition = Condition.at(place, 8192, create=True)
    event = Event.at(place, 16384, create=True)
    semaphore = Semaphore.at(place, 17408, value=2, create=True)
    barrier = Barrier.at(place, 18432, parties=3, create=True)
    atomic = Atomic.at(place, 20480)
    view = shm.view("i4")
    kept = threading.local()  # a forked child would wait for the lock of a shared container

    def fresh():
        return f"{stem}-{os.getpid()}-{threading.get_native_id()}-{random.random()}"

    def held(acquire, release):
        def call():
            if acquire(timeout=0.01):
                release()

        return call

    def create():
        with SharedMemory.create(fresh(), 5000, delete=True) as one:
            one.buf[0] = 1
            one.rename(fresh())

    def link():
        with SharedMemory.unlinked(5000) as one:
            one.link(fresh())
            one.unlink()

    def grow():
        with SharedMemory.anonymous(5000, max_size=1 << 20) as one:
            one.resize(50_000)
            kept.buf = one.buf

    def detach():
        os.close(SharedMemory.anonymous(5000).detach())

    def take():
        kept.map = shm.map()
        kept.map[0:10].tolist()

    def barrier_call():
        try:
            barrier.wait(timeout=0.01)
        except threading.BrokenBarrierError:
            barrier.reset()

    def wait():
        if condition.acquire(timeout=0.01):
            try:
                condition.wait(0.001)
                condition.notify()
            finally:
                condition.release()

    calls = [create, link, grow, detach, take, barrier_call, wait]
    calls += [
        held(lock.acquire, lock.release),
        held(rlock.acquire, rlock.release),
        held(rwlock.acquire_read, rwlock.release),
        held(rwlock.acquire_write, rwlock.release),
        held(semaphore.acquire, semaphore.release),
        event.set,
        event.clear,
        lambda: event.wait(0.001),
        event.is_set,
        atomic.load,
        lambda: atomic.store(7),
        lambda: SharedMemory.open(shm.name).close(),
        lambda: SharedMemory.open(shm.name, readonly=True).buf,
        lambda: pickle.loads(pickle.dumps(shm)).close(),
        lambda: MemoryMap(shm.fileno()).resident,
        lambda: kept.buf[0],
        lambda: view.__setitem__(3, view[2] + 1),
        lambda: view[1:9:2].tolist(),
        lambda: kept.map.__setitem__(slice(0, 3), b"abc"),
        lambda: (shm.stat(), shm.mode, shm.size, shm.is_linked(), repr(shm)),
        lambda: (shm.refresh(), shm.sync(), shm.populate(), shm.resident),
        lambda: posixshm.listdir(),
        lambda: posixshm.reclaim(f"{stem}-none", dry_run=True),
        gc.collect,
    ]
    return calls, shm.unlink


def control_calls(stem):
    path = f"{SHM}{stem}-shared"
    with open(path, "wb") as file:
        file.write(bytes(1 << 16))
    kept = threading.local()
    lock, rlock, event = threading.Lock(), threading.RLock(), threading.Event()

    def fresh():
        return f"{SHM}{stem}-{os.getpid()}-{threading.get_native_id()}-{random.random()}"

    def held(primitive):
        def call():
            if primitive.acquire(timeout=0.01):
                primitive.release()

        return call

    def create():
        name, other = fresh(), fresh()
        with open(name, "w+b", buffering=0) as file:
            file.write(bytes(5000))
            kept.map = mmap.mmap(file.fileno(), 5000)
            weakref.finalize(kept.map, int)  # as delete=True does
        os.rename(name, other)
        os.unlink(other)

    def grow():
        fd = os.memfd_create("storm")
        os.ftruncate(fd, 50_000)
        kept.buf = memoryview(mmap.mmap(fd, 50_000))
        os.close(fd)

    calls = [create, grow, held(lock), held(rlock)]  # the calls that have a timeout
    calls += [
        lambda: os.stat(path),
        lambda: os.listdir(SHM),
        lambda: pickle.loads(pickle.dumps(path)),
        lambda: kept.buf[0],
        lambda: kept.map.__setitem__(slice(0, 3), b"abc"),
        lambda: repr(kept),
        lambda: bytes(kept.map[0:10]),
        event.is_set,
        gc.collect,
    ]
    return calls, lambda: os.unlink(path)


def attempt(call):
    # Other threads close, resize and rename the same objects.
    with contextlib.suppress(ValueError, BufferError, OSError, RuntimeError, AttributeError):
        call()


def in_child(calls):
    for call in calls:
        attempt(call)
    os._exit(0)


def wait_for(pid):
    deadline = time.monotonic() + PATIENCE
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)  # faulthandler prints the stacks
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.001)


def main(kind, seconds, seed):
    faulthandler.enable()
    random.seed(seed)
    sys.setswitchinterval(0.0001)
    stem = f"{os.environ.get('POSIXSHM_TEST_PREFIX', 'storm-')}{os.getpid()}"
    calls, clean_up = {"library": library_calls, "control": control_calls}[kind](stem)
    for call in calls:  # import now: a forked child would wait for the import of another thread
        attempt(call)
    end = time.monotonic() + seconds
    done = [0] * THREADS

    def work(index):
        chance = random.Random(seed * THREADS + index)
        while time.monotonic() < end:
            attempt(chance.choice(calls))
            done[index] += 1

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    forks, status = 0, 0
    while time.monotonic() < end and status == 0:
        pid = os.fork()
        if pid == 0:
            in_child(calls)
        forks += 1
        status = wait_for(pid)
    for thread in threads:
        thread.join(PATIENCE)
    hung = [thread.name for thread in threads if thread.is_alive()]
    if hung:
        faulthandler.dump_traceback(all_threads=True)
    clean_up()
    print(f"{kind}: {sum(done)} calls, {forks} forks, last child {status}, hung {hung}", flush=True)
    os._exit(3 if hung or status != 0 else 0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
