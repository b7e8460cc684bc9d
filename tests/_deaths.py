"""The players of test_sync_deaths: processes are killed at random times while others go on.

A child imports this and calls one of the players. Each player kills one victim in each round. The
survivors must finish every round within the deadline, and must be notified of each death that
matters.
"""

import contextlib
import os
import random
import signal
import threading
import time
import traceback

from _primitives import WITH_HEADER, at, use

from posixshm import (
    Atomic,
    Barrier,
    Condition,
    Event,
    OwnerDiedError,
    RWLock,
    Semaphore,
    SharedMemory,
)

DEADLINE = 20  # seconds; a longer wait is a hang
KINDS = {kind.__name__: kind for kind in WITH_HEADER}
chance = random.Random(os.environ.get("POSIXSHM_SEED", "1"))


def until(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.0002)
    return value


def spawn(body):
    """Fork a process that runs body() and exits."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


class Stage:
    """A segment with room for the primitives and a few words, and the survivors."""

    def __init__(self):
        self.shm = SharedMemory.anonymous(1 << 16)
        self.words = self.shm.buf[32768:32896].cast("q")  # plain: under the lock
        self.on_stage = Atomic.at(self.shm, 40960)
        self.stop = Atomic.at(self.shm, 40968)
        self.counts = [Atomic.at(self.shm, 41024 + 8 * i) for i in range(8)]
        self.survivors = []

    def survivor(self, step):
        """Start a process that calls step() until `stop` is set."""

        def body():
            while not self.stop.load():
                step()

        self.survivors.append(spawn(body))

    def check_survivors(self):
        for pid in self.survivors:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "a survivor has failed"

    def victim(self, body, longest=0.003):
        """Run body() in a process, and kill the process at a random time."""
        self.on_stage.store(0)

        def enter():
            self.on_stage.store(1)
            while True:
                body()

        pid = spawn(enter)
        until(self.on_stage.load, "the victim did not start")
        if chance.random() < 0.8:
            time.sleep(chance.random() ** 2 * longest)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"the victim failed: {status}"

    def rounds(self, least, notified):
        """Yield at least this many rounds, and more until the survivors were notified in one of a
        hundred: whether the victim dies with the lock is chance."""
        deadline = time.monotonic() + least + 60
        played = 0
        while played < least or notified.load() <= least / 100:
            assert time.monotonic() < deadline, "no victim died with the lock"
            yield played
            played += 1
            self.check_survivors()
        print(f"notified {notified.load()} times in {played} rounds")

    @contextlib.contextmanager
    def playing(self, wake=lambda: None):
        try:
            yield
            self.check_survivors()
            self.stop.store(1)
            wake()
            deadline = time.monotonic() + DEADLINE
            for pid in self.survivors:
                while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
                    assert time.monotonic() < deadline, "a survivor did not end"
                    time.sleep(0.001)
                assert done[1] == 0, done
            self.survivors.clear()
        finally:
            for pid in self.survivors:
                os.kill(pid, signal.SIGKILL)


def lock(kind, rounds):
    """Two words are equal whenever the lock is free; if they may differ, OwnerDiedError is
    raised."""
    stage = Stage()
    lock = at(KINDS[kind], stage.shm, 0, create=True)
    first, second, inside = range(3)
    words, notified = stage.words, stage.counts[0]

    def step():
        try:
            assert lock.acquire(timeout=DEADLINE), "it was not free in time"
        except OwnerDiedError:
            notified.fetch_add(1)
            assert lock.acquire(timeout=DEADLINE, recover=True)
            if getattr(lock, "recovered", True):
                words[second], words[inside] = words[first], 0
        assert words[first] == words[second] and words[inside] == 0, ("no error", list(words[:3]))
        words[inside] = os.getpid()
        words[first] += 1
        words[second] += 1
        words[inside] = 0
        lock.release()

    def nested():
        with lock:
            words[inside] = os.getpid()
            with lock if kind == "RLock" else contextlib.nullcontext():
                words[first] += 1
            words[second] += 1
            words[inside] = 0

    def victim():
        with contextlib.suppress(OwnerDiedError):
            nested()

    for _ in range(2):
        stage.survivor(step)
    with stage.playing():
        for _ in stage.rounds(rounds, notified):
            stage.victim(victim)
            step()


def rwlock(rounds):
    """As lock(); readers that are killed change nothing."""
    stage = Stage()
    rw = RWLock.at(stage.shm, 0, create=True)
    words, notified = stage.words, stage.counts[0]

    def repair():
        notified.fetch_add(1)
        assert rw.acquire_write(timeout=DEADLINE, recover=True)
        if rw.recovered:
            words[1] = words[0]
        assert words[0] == words[1]
        rw.release()

    def check():
        assert words[0] == words[1], list(words[:2])

    def read():
        try:
            assert rw.acquire_read(timeout=DEADLINE), "no reader in time"
        except OwnerDiedError:
            return repair()
        check()
        rw.release()

    def write(pause=0):
        try:
            assert rw.acquire_write(timeout=DEADLINE), "no writer in time"
        except OwnerDiedError:
            return repair()
        check()
        words[0] += 1
        if pause:
            time.sleep(pause)
        words[1] += 1
        rw.release()

    def slowly():
        write(0.0005)

    def pausing(step):
        return lambda: (step(), time.sleep(0.0002))  # so that the victim gets the lock, too

    stage.survivor(pausing(read))
    stage.survivor(pausing(write))
    with stage.playing():
        for i in stage.rounds(rounds, notified):
            stage.victim([slowly, read, write][i % 3])
            read()
            write()


def condition(rounds):
    """Every item is taken by a survivor, although processes are killed while they wait or
    notify."""
    stage = Stage()
    condition = Condition.at(stage.shm, 0, create=True)
    words, taken = stage.words, stage.counts[0]

    @contextlib.contextmanager
    def held():
        try:
            assert condition.acquire(timeout=DEADLINE), "it was not free in time"
        except OwnerDiedError:
            assert condition.acquire(timeout=DEADLINE, recover=True)
            condition.notify_all()  # the process that died may have received the wake-up
        try:
            yield
        except OwnerDiedError:  # raised by a wait, which did not acquire the lock
            assert condition.acquire(timeout=DEADLINE, recover=True)
            condition.notify_all()
        condition.release()

    def take():
        with held():
            assert condition.wait_for(lambda: words[0] > 0 or stage.stop.load(), DEADLINE), "hung"
            if words[0] > 0:
                words[0] -= 1
                taken.fetch_add(1)

    def put():
        with held():
            words[0] += 1
            condition.notify()

    def put_many():
        with held():
            words[0] += 3
            condition.notify_all()

    def empty():
        with held():
            return words[0] == 0

    def end():
        with held():
            condition.notify_all()

    for _ in range(2):
        stage.survivor(take)
    with stage.playing(end):
        for i in range(rounds):
            stage.victim([take, put, put_many][i % 3], longest=0.002)
            put()
            until(empty, "a wake-up was lost")
            stage.check_survivors()
    assert taken.load() >= rounds / 2
    print(f"took {taken.load()} in {rounds} rounds")


def event(rounds):
    """All waiters return once it is set, although the setter or another waiter was killed."""
    stage = Stage()
    events = [Event.at(stage.shm, 128 * i, create=True) for i in range(2)]
    rounds_done = stage.counts[:2]

    def waiter(done):
        def step():
            which = events[done.load() % 2]
            assert which.wait(DEADLINE) or stage.stop.load(), "not woken"
            done.fetch_add(1)

        return step

    def end():
        for each in events:
            each.set()

    for done in rounds_done:
        stage.survivor(waiter(done))
    with stage.playing(end):
        for i in range(rounds):
            now, then = events[i % 2], events[(i + 1) % 2]
            then.clear()
            stage.victim(now.set if i % 3 else now.wait, longest=0.0005)
            if i % 3 == 0 or not now.is_set():
                assert i % 3 or not now.is_set()
                now.set()
            until(lambda i=i: all(done.load() == i + 1 for done in rounds_done), "not woken")
            stage.check_survivors()


def barrier(rounds):
    """Whether or not the victim arrived, wait() of the others returns for both or raises for
    both."""
    stage = Stage()
    barrier = Barrier.at(stage.shm, 0, parties=3, create=True)
    acting = Barrier.at(stage.shm, 0, action=lambda: time.sleep(0.0005))
    passed, broken, on = stage.counts[:3]

    def body(mine):
        seen = 0
        while not stage.stop.load():
            if on.load() == seen:
                on.wait(seen, 0.05)
                continue
            seen += 1
            try:
                mine.wait(DEADLINE)
                passed.fetch_add(1)
            except threading.BrokenBarrierError:
                broken.fetch_add(1)

    stage.survivors += [spawn(lambda: body(barrier)), spawn(lambda: body(acting))]
    with stage.playing():
        for i in range(rounds):
            before = passed.load(), broken.load()
            on.fetch_add(1)
            on.notify()

            def once(i=i):
                with contextlib.suppress(threading.BrokenBarrierError):
                    (acting if i % 2 else barrier).wait(DEADLINE)
                while True:
                    time.sleep(1)

            stage.victim(once, longest=0.0015)

            def over(before=before):
                return passed.load() + broken.load() == sum(before) + 2

            def stuck():
                return over() or barrier.n_waiting == 2

            until(stuck, "wait() of a survivor neither returned nor raised")
            if not over():
                time.sleep(0.002)  # the survivor with an action may be the last to arrive
                if not over():
                    barrier.abort()
            until(over, "wait() of a survivor did not raise")
            now = passed.load() - before[0], broken.load() - before[1]
            assert now in ((2, 0), (0, 2)), now
            if now == (0, 2):
                assert barrier.broken
            barrier.reset()
            assert not barrier.broken and barrier.n_waiting == 0
            stage.check_survivors()
    print(f"passed {passed.load()}, broken {broken.load()} in {rounds} rounds")


def semaphore(rounds):
    """Each release() wakes a survivor: a waiter that was killed takes no permit."""
    stage = Stage()
    semaphore = Semaphore.at(stage.shm, 0, create=True, value=0)
    got = stage.counts[0]

    def step():
        assert semaphore.acquire(timeout=DEADLINE), "not woken"
        got.fetch_add(1)

    for _ in range(2):
        stage.survivor(step)
    with stage.playing(lambda: semaphore.release(2)):
        for i in range(rounds):
            stage.victim(lambda: semaphore.acquire(timeout=DEADLINE), longest=0.001)
            semaphore.release(1 + i % 3)
            expected = sum(1 + j % 3 for j in range(i + 1))
            until(lambda expected=expected: got.load() == expected, "one was lost")
            assert semaphore.value == 0
            stage.check_survivors()


def atomic(rounds):
    """Waiters see a change although the process that made it was killed before it notified."""
    stage = Stage()
    done = stage.counts[:2]
    words = [Atomic.at(stage.shm, 0, "i"), Atomic.at(stage.shm, 8, "Q")]

    def waiter(word, done):
        def step():
            seen = done.load()
            if word.wait(seen, DEADLINE):
                done.store(word.load())
            else:
                assert stage.stop.load(), "not woken"

        return step

    def end():
        for word in words:
            word.fetch_add(1)
            word.notify()

    for word, mine in zip(words, done, strict=True):
        stage.survivor(waiter(word, mine))
    with stage.playing(end):
        for i in range(rounds):

            def change():
                for word in words:
                    word.fetch_add(1)
                    word.notify(1)

            def wait():
                for word in words:
                    word.wait(word.load(), 0.001)

            stage.victim(change if i % 2 else wait, longest=0.0003)
            until(
                lambda: all(m.load() == w.load() for m, w in zip(done, words, strict=True)),
                "a change was not seen",
            )
            stage.check_survivors()


def making(rounds):
    """If the creator of a primitive is killed, the primitive is complete, or the next process
    creates it."""
    stage = Stage()
    size = 4096
    shm = SharedMemory.anonymous(size * len(WITH_HEADER))
    ends = []
    for _ in range(rounds):
        shm.buf[:] = bytes(shm.size)

        def make():
            for i, kind in enumerate(WITH_HEADER):
                at(kind, shm, size * i, create=True, exist_ok=True)

        stage.victim(make, longest=0.0002)
        left = 0
        for i, kind in enumerate(WITH_HEADER):
            try:
                thing = at(kind, shm, size * i)
                left += 1
            except FileNotFoundError:
                thing = at(kind, shm, size * i, create=True, exist_ok=True)
            use(thing)
            del thing
        ends.append(left)
    print("made before the kill:", {n: ends.count(n) for n in sorted(set(ends))})


PLAYERS = {
    "Lock": lambda rounds: lock("Lock", rounds),
    "RLock": lambda rounds: lock("RLock", rounds),
    "Condition's lock": lambda rounds: lock("Condition", rounds),
    "RWLock": rwlock,
    "Condition": condition,
    "Event": event,
    "Barrier": barrier,
    "Semaphore": semaphore,
    "Atomic": atomic,
    "making": making,
}
