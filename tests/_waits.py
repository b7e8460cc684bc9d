"""Every call that waits, each with the call that ends the wait: the cases of test_sync_waits.

A case is created in a segment. Then .block(timeout) blocks its caller until another thread calls
.unblock(). Both calls can be repeated alternately.
"""

import queue
import threading
import time

from posixshm import Atomic, Barrier, Condition, Event, Lock, RLock, RWLock, Semaphore

DEADLINE = 30


def until(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


class Other(threading.Thread):
    """A thread that calls the functions that do() passes to it, one after the other."""

    def __init__(self):
        super().__init__(daemon=True)
        self.orders = queue.SimpleQueue()
        self.results = queue.SimpleQueue()
        self.start()

    def run(self):
        while (order := self.orders.get()) is not None:
            try:
                self.results.put(order())
            except BaseException as error:
                self.results.put(error)

    def do(self, order):
        self.orders.put(order)
        result = self.results.get(timeout=DEADLINE)
        if isinstance(result, BaseException):
            raise result
        return result


class Case:
    acquires = False  # as Lock.acquire(): -1 means no limit; other negative values raise
    late = False  # what block() returns or raises after its timeout

    def __init__(self, shm):
        self.other = Other()
        self.prepare(shm)

    def end(self):
        self.other.orders.put(None)
        self.other.join(DEADLINE)

    def sane(self):
        """Check the primitive after an interrupted wait."""


class Acquiring(Case):
    """The other thread holds the lock; block() acquires it, and then the other thread again."""

    acquires = True

    def prepare(self, shm):
        self.lock = self.make(shm)
        self.other.do(self.take)

    def make(self, shm):
        raise NotImplementedError

    def take(self):
        assert self.lock.acquire(timeout=DEADLINE)

    def acquire(self, timeout):
        return self.lock.acquire(timeout=timeout)

    def block(self, timeout):
        if not self.acquire(timeout):
            return False
        self.lock.release()
        self.other.do(self.take)
        return True

    def unblock(self):
        self.other.do(self.lock.release)

    def end(self):
        self.unblock()
        super().end()


class LockAcquire(Acquiring):
    def make(self, shm):
        return Lock.at(shm, 0, create=True)


class RLockAcquire(Acquiring):
    def make(self, shm):
        return RLock.at(shm, 0, create=True)


class ConditionAcquire(Acquiring):
    def make(self, shm):
        return Condition.at(shm, 0, create=True)


class RWLockReadAgainstWriter(Acquiring):
    def make(self, shm):
        return RWLock.at(shm, 0, create=True)

    def take(self):
        assert self.lock.acquire_write(timeout=DEADLINE)

    def acquire(self, timeout):
        return self.lock.acquire_read(timeout=timeout)


class RWLockWriteAgainstWriter(RWLockReadAgainstWriter):
    def acquire(self, timeout):
        return self.lock.acquire_write(timeout=timeout)


class RWLockWriteAgainstReader(RWLockWriteAgainstWriter):
    def take(self):
        assert self.lock.acquire_read(timeout=DEADLINE)

    def sane(self):
        assert self.lock.acquire_read(timeout=DEADLINE)  # no writer blocks it
        self.lock.release()


class RWLockContext(RWLockReadAgainstWriter):
    late = TimeoutError

    def block(self, timeout):
        with self.lock.read(timeout):
            pass
        with self.lock.write(timeout):
            pass
        self.other.do(self.take)
        return True


class RWLockSlot(Acquiring):
    """Readers hold all 64 slots."""

    def make(self, shm):
        lock = RWLock.at(shm, 0, create=True)

        def fill():
            for _ in range(64):
                assert lock.acquire_read(timeout=0)
            lock.release()

        self.other.do(fill)
        return lock

    def take(self):
        assert self.lock.acquire_read(timeout=DEADLINE)

    def acquire(self, timeout):
        return self.lock.acquire_read(timeout=timeout)

    def unblock(self):
        # A waiting reader has picked a slot, and only the reader in that slot can free it.
        def leave():
            for _ in range(64):
                self.lock.release()

        self.other.do(leave)

    def block(self, timeout):
        if not self.acquire(timeout):
            return False
        self.lock.release()
        self.other.do(lambda: [self.take() for _ in range(64)])
        return True


class SemaphoreAcquire(Case):
    def prepare(self, shm):
        self.semaphore = Semaphore.at(shm, 0, create=True, value=0)

    def block(self, timeout):
        return self.semaphore.acquire(timeout=timeout)

    def unblock(self):
        self.semaphore.release()


class NamedSemaphoreAcquire(SemaphoreAcquire):
    def prepare(self, shm):
        self.semaphore = Semaphore(f"{shm.name}-semaphore", create=True, value=0)

    def end(self):
        self.semaphore.unlink()
        super().end()


class ConditionWait(Case):
    def prepare(self, shm):
        self.condition = Condition.at(shm, 0, create=True)

    notified = waiting = False

    def block(self, timeout):
        with self.condition:
            self.waiting = True  # the other thread sees it once wait() releases the lock
            try:
                return self.wait(timeout)
            finally:
                # After every outcome this thread holds the lock.
                assert self.other.do(lambda: self.condition.acquire(False)) is False
                self.notified = self.waiting = False

    def wait(self, timeout):
        return self.condition.wait(timeout)

    def unblock(self):
        def notify():
            with self.condition:
                if self.waiting:
                    self.notified = True
                    self.condition.notify()
                return self.waiting

        until(notify)

    def sane(self):
        with self.condition:
            assert self.condition.wait(0) is False


class ConditionWaitFor(ConditionWait):
    def wait(self, timeout):
        return self.condition.wait_for(lambda: self.notified, timeout)


class ConditionWaitGivenLock(ConditionWait):
    def prepare(self, shm):
        lock = Lock.at(shm, 512, create=True)
        self.condition = Condition.at(shm, 0, create=True, lock=lock)


class EventWait(Case):
    def prepare(self, shm):
        self.event = Event.at(shm, 0, create=True)

    def block(self, timeout):
        if got := self.event.wait(timeout):
            self.event.clear()
        return got

    def unblock(self):
        self.event.set()

    def sane(self):
        assert not self.event.is_set()


class BarrierWait(Case):
    late = threading.BrokenBarrierError
    action = None

    def prepare(self, shm):
        self.barrier = Barrier.at(shm, 0, parties=2, action=self.action, create=True)

    def block(self, timeout):
        try:
            return self.barrier.wait(timeout) == 0
        except threading.BrokenBarrierError:
            assert self.barrier.broken
            self.barrier.reset()
            raise

    def unblock(self):
        until(lambda: self.barrier.n_waiting == 1)
        assert self.barrier.wait(DEADLINE) == 1

    def sane(self):
        assert self.barrier.broken  # the interrupted party does not arrive
        self.barrier.reset()


class BarrierWaitForAction(BarrierWait):
    @staticmethod
    def action():
        pass


class AtomicWait(Case):
    format = "q"

    def prepare(self, shm):
        self.word = Atomic.at(shm, 0, self.format)

    def block(self, timeout):
        if got := self.word.wait(0, timeout):
            self.word.store(0)
        return got

    def unblock(self):
        self.word.store(1)
        self.word.notify()


class AtomicWait32(AtomicWait):
    format = "I"


CASES = [
    LockAcquire,
    RLockAcquire,
    ConditionAcquire,
    RWLockReadAgainstWriter,
    RWLockWriteAgainstWriter,
    RWLockWriteAgainstReader,
    RWLockContext,
    RWLockSlot,
    SemaphoreAcquire,
    NamedSemaphoreAcquire,
    ConditionWait,
    ConditionWaitFor,
    ConditionWaitGivenLock,
    EventWait,
    BarrierWait,
    BarrierWaitForAction,
    AtomicWait,
    AtomicWait32,
]
