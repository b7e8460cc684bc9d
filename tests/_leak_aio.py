"""Cycles of posixshm.aio, in one event loop."""

import asyncio
import atexit
import contextlib

from _leaks import cycle, misused, refused
from _primitives import Lock, RLock, RWLock, die_with, elsewhere, made

from posixshm import OwnerDiedError, SharedMemory, aio

shm = SharedMemory.anonymous(65536)
lock, rlock, rwlock = (made(kind, shm, 4096 * i) for i, kind in enumerate((Lock, RLock, RWLock)))
closed = {kind: kind.at(shm, 4096 * i) for i, kind in enumerate((Lock, RLock, RWLock))}
for thing in closed.values():
    thing.close()
loop = asyncio.new_event_loop()
atexit.register(loop.close)


def run(coroutine):
    return loop.run_until_complete(asyncio.wait_for(coroutine, 60))


async def cancelled(wait):
    """A task is cancelled while it waits."""
    task = asyncio.ensure_future(wait)
    await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def waits(acquire, thing):
    """Every outcome of acquiring a lock that another thread may hold."""
    assert not await acquire(thing, 0)
    assert not await acquire(thing, 0.0005)
    await cancelled(acquire(thing))


@cycle("aio.acquire", times=40)
def _():
    for thing in (lock, rlock):
        assert run(aio.acquire(thing))
        elsewhere(lambda thing=thing: asyncio.run(waits(aio.acquire, thing)))
        thing.release()
        die_with(thing.acquire)
        with contextlib.suppress(OwnerDiedError):
            run(aio.acquire(thing))
            raise AssertionError
        assert run(aio.acquire(thing, 5, recover=True))
        thing.release()
        for wrong in ("", float("nan")):
            refused(run, aio.acquire(thing, wrong))
        refused(run, aio.acquire(closed[type(thing)]))
    misused(aio.acquire)


@cycle("aio.acquire_read", "aio.acquire_write", times=40)
def _():
    for acquire in (aio.acquire_read, aio.acquire_write):
        assert run(acquire(rwlock, 5))
        elsewhere(lambda: asyncio.run(waits(aio.acquire_write, rwlock)))
        rwlock.release()
        for wrong in ("", float("nan")):
            refused(run, acquire(rwlock, wrong))
        refused(run, acquire(closed[RWLock]))
        misused(acquire)
    rwlock.acquire_write()
    elsewhere(lambda: asyncio.run(waits(aio.acquire_read, rwlock)))
    rwlock.release()


async def holding(hold, thing, fails=False):
    async with hold(thing, 0.0005):
        if fails:
            raise KeyError


@cycle("aio.hold", "aio.reading", "aio.writing", times=40)
def _():
    ways = ((aio.hold, lock), (aio.hold, rlock), (aio.reading, rwlock), (aio.writing, rwlock))
    for hold, thing in ways:
        run(holding(hold, thing))
        refused(run, holding(hold, thing, fails=True))
        refused(run, holding(hold, closed[type(thing)]))
        take = getattr(thing, "acquire_write", None) or thing.acquire
        assert take()
        refused(elsewhere, lambda hold=hold, thing=thing: asyncio.run(holding(hold, thing)))
        thing.release()
        misused(hold)
