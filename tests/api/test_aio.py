"""posixshm.aio: asyncio tasks wait for locks while the event loop runs."""

import asyncio
import contextlib
import threading
import time

import pytest
from _primitives import die_with, name_of

from posixshm import (
    Atomic,
    Barrier,
    Condition,
    Event,
    Lock,
    OwnerDiedError,
    RLock,
    RWLock,
    Semaphore,
    SharedMemory,
    aio,
)

DEADLINE = 30
locks = pytest.mark.parametrize("kind", [Lock, RLock], ids=name_of)
WAYS = {
    "Lock": (Lock, aio.acquire, aio.hold),
    "RLock": (RLock, aio.acquire, aio.hold),
    "RWLock, to read": (RWLock, aio.acquire_read, aio.reading),
    "RWLock, to write": (RWLock, aio.acquire_write, aio.writing),
}


@pytest.fixture
def shm():
    with SharedMemory.anonymous(65536) as handle:
        yield handle


@pytest.fixture(params=WAYS)
def way(request, shm):
    """(lock, acquire, hold): a placed lock, and the functions that acquire it."""
    kind, acquire, hold = WAYS[request.param]
    return kind.at(shm, 0, create=True), acquire, hold


class Elsewhere:
    """A context in which another thread holds the lock, to write if it is an RWLock."""

    def __init__(self, lock):
        self.lock, self.begun, self.go = lock, threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._body)

    def _body(self):
        take = getattr(self.lock, "acquire_write", None) or self.lock.acquire
        take()
        self.begun.set()
        self.go.wait(DEADLINE)
        self.lock.release()

    def __enter__(self):
        self.thread.start()
        assert self.begun.wait(DEADLINE)
        return self

    def __exit__(self, *_):
        self.go.set()
        self.thread.join(DEADLINE)


@contextlib.asynccontextmanager
async def ticking():
    """A list that grows while the event loop runs."""
    ticks = []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.001)

    task = asyncio.create_task(tick())
    try:
        yield ticks
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run(coroutine):
    async def within():
        async with asyncio.timeout(DEADLINE):
            return await coroutine

    return asyncio.run(within())


def test_a_free_lock_is_acquired_at_once(way):
    lock, acquire, hold = way

    async def main():
        for timeout in (None, 0, 0.0, 1, 1e300, float("inf")):
            assert await acquire(lock, timeout) is True
            lock.release()
            async with hold(lock, timeout) as got:
                assert got is None
            with pytest.raises(RuntimeError):
                lock.release()
        with pytest.raises(KeyError):
            async with hold(lock):
                raise KeyError
        with pytest.raises(RuntimeError):
            lock.release()

    run(main())


def test_the_loop_runs_while_it_waits(way):
    lock, acquire, hold = way

    async def main():
        async with ticking() as ticks:
            with Elsewhere(lock) as other:
                waiting = asyncio.create_task(acquire(lock))
                while len(ticks) < 30:
                    await asyncio.sleep(0.001)
                assert not waiting.done()
                other.go.set()
                assert await waiting is True
                lock.release()

    run(main())


def test_timeouts(way):
    lock, acquire, hold = way

    async def main():
        with Elsewhere(lock):
            for timeout in (0, 0.03, -1, -0.5, float("-inf")):
                before = time.monotonic()
                assert await acquire(lock, timeout) is False
                assert timeout <= time.monotonic() - before < max(timeout, 0) + 5
                with pytest.raises(TimeoutError):
                    async with hold(lock, timeout):
                        raise AssertionError
        with pytest.raises(ValueError, match="timeout"):
            await acquire(lock, float("nan"))
        with pytest.raises(ValueError, match="timeout"):
            async with hold(lock, float("nan")):
                raise AssertionError
        for bad in ("1", 1j, [], b""):
            with pytest.raises(TypeError):
                await acquire(lock, bad)
        assert await acquire(lock, 0)
        lock.release()

    run(main())


def test_a_cancelled_task_does_not_hold_the_lock(way):
    lock, acquire, hold = way

    async def main():
        with Elsewhere(lock):
            for _ in range(10):
                task = asyncio.create_task(acquire(lock))
                await asyncio.sleep(0.002)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), hold(lock):
                    raise AssertionError
        with pytest.raises(RuntimeError):
            lock.release()
        assert await acquire(lock, DEADLINE)
        lock.release()

    run(main())


def test_a_task_that_is_cancelled_inside_releases_the_lock(way):
    lock, acquire, hold = way

    async def main():
        inside = asyncio.Event()

        async def holding():
            async with hold(lock):
                inside.set()
                await asyncio.sleep(DEADLINE)

        task = asyncio.create_task(holding())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await acquire(lock, 0)
        lock.release()

    run(main())


def test_a_lock_serializes_tasks_of_one_loop(shm):
    lock = Lock.at(shm, 0, create=True)
    inside = []

    async def work():
        for _ in range(20):
            async with aio.hold(lock):
                inside.append(1)
                assert len(inside) == 1
                await asyncio.sleep(0)
                inside.pop()

    async def main():
        await asyncio.gather(*[work() for _ in range(4)])

    run(main())
    assert not lock.locked()


def test_readers_beside_each_other_and_a_writer_alone(shm):
    lock = RWLock.at(shm, 0, create=True)
    readers, most = [], []

    async def read():
        async with aio.reading(lock):
            readers.append(1)
            most.append(len(readers))
            await asyncio.sleep(0.005)
            readers.pop()

    async def write():
        async with aio.writing(lock):
            assert not readers
            await asyncio.sleep(0.002)
            assert not readers

    async def main():
        await asyncio.gather(*[read() for _ in range(5)], write(), *[read() for _ in range(5)])

    run(main())
    assert max(most) > 1


@locks
def test_a_dead_owner(kind, shm):
    lock = kind.at(shm, 0, create=True)

    async def main():
        die_with(lock.acquire)
        for _ in range(2):
            with pytest.raises(OwnerDiedError):
                await aio.acquire(lock, DEADLINE)
            with pytest.raises(OwnerDiedError):
                async with aio.hold(lock):
                    raise AssertionError
        assert await aio.acquire(lock, recover=True) and lock.recovered
        lock.release()

    run(main())


def test_a_dead_writer(shm):
    lock = RWLock.at(shm, 0, create=True)

    async def main():
        die_with(lock.acquire_write)
        for function in (aio.acquire_read, aio.acquire_write):
            with pytest.raises(OwnerDiedError):
                await function(lock, DEADLINE)
        assert await aio.acquire_write(lock, recover=True) and lock.recovered
        lock.release()
        async with aio.reading(lock):
            pass

    run(main())


def test_primitives_without_an_owner_are_awaited_in_a_thread(shm):
    event = Event.at(shm, 0, create=True)
    semaphore = Semaphore.at(shm, 256, create=True, value=0)
    barrier = Barrier.at(shm, 512, create=True, parties=2)
    word = Atomic.at(shm, 1024)
    condition = Condition.at(shm, 2048, create=True)
    waiting = []

    def wait_for_it():
        with condition:
            waiting.append(1)
            return condition.wait(DEADLINE)

    async def main():
        async with ticking() as ticks, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(asyncio.to_thread(function, *args))
                for function, *args in (
                    (event.wait, DEADLINE),
                    (semaphore.acquire, True, DEADLINE),
                    (barrier.wait, DEADLINE),
                    (word.wait, 0, DEADLINE),
                    (wait_for_it,),
                )
            ]
            while len(ticks) < 30 or not waiting or not barrier.n_waiting:
                await asyncio.sleep(0.001)
            assert not any(task.done() for task in tasks)
            event.set()
            semaphore.release()
            assert barrier.wait(DEADLINE) == 1
            word.store(1)
            word.notify()
            with condition:
                condition.notify()
        assert [task.result() for task in tasks] == [True, True, 0, True, True]

    run(main())


def test_a_thread_still_waits_after_its_task_is_cancelled(shm):
    """Only the awaited event or the timeout ends the wait of the thread, as documented."""
    event = Event.at(shm, 0, create=True)
    begun, results = threading.Event(), []

    def wait():
        begun.set()
        results.append(event.wait(DEADLINE))

    async def main():
        task = asyncio.create_task(asyncio.to_thread(wait))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert results == []
        event.set()

    run(main())
    assert results == [True]


def test_the_public_names_of_aio():
    public = {
        name
        for name, value in vars(aio).items()
        if getattr(value, "__module__", None) == aio.__name__
    }
    assert {name for name in public if not name.startswith("_")} == set(aio.__all__)
    for name in aio.__all__:
        assert getattr(aio, name).__doc__
