"""Waiting for locks in asyncio without blocking the event loop.

A Lock, an RLock and an RWLock belong to the thread that acquired them, which must be the thread of
the event loop. The functions of this module try to acquire the lock at intervals of 0.5 to 10 ms,
and other tasks run in between.

An Event, a Semaphore, a Barrier and an Atomic do not have an owner, so a thread can wait for them:
`await asyncio.to_thread(event.wait, timeout)`. A function that acquires a Condition, waits for it
and releases it can run in such a thread as well. Give a timeout: if the task is cancelled, the
thread continues to wait, and asyncio.run() waits for the thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

from ._core import Lock, RLock, RWLock

__all__ = ["acquire", "acquire_read", "acquire_write", "hold", "reading", "writing"]

# Intervals between two attempts, in seconds.
_SHORTEST = 0.0005
_LONGEST = 0.01


async def _until(attempt: Callable[[], bool], timeout: float | None) -> bool:
    """Call `attempt` until it returns True, for at most `timeout` seconds (None: no limit)."""
    if timeout is not None and not (timeout < 0 or timeout >= 0):  # NaN
        raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")
    deadline = None if timeout is None else monotonic() + timeout
    pause = _SHORTEST
    while not attempt():
        if deadline is None:
            left = pause
        else:
            left = deadline - monotonic()
            if left <= 0:
                return False
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST)
    return True


async def acquire(
    lock: Lock | RLock, timeout: float | None = None, *, recover: bool = False
) -> bool:
    """Acquire `lock` for the thread of the event loop.

    timeout: seconds; 0 or less: one attempt; None: no limit. recover: as for Lock.acquire.

    Returns True, or False if the lock was not free in time. The tasks of a loop share its thread:
    while one task holds a Lock, other tasks cannot acquire it; an RLock they can acquire again. A
    task that is cancelled while it waits does not hold the lock. Raises as Lock.acquire does, and
    ValueError for a bad timeout.
    """
    return await _until(lambda: lock.acquire(False, recover=recover), timeout)


async def acquire_read(lock: RWLock, timeout: float | None = None) -> bool:
    """Acquire `lock` to read. Parameters and result as for acquire()."""
    return await _until(lambda: lock.acquire_read(False), timeout)


async def acquire_write(
    lock: RWLock, timeout: float | None = None, *, recover: bool = False
) -> bool:
    """Acquire `lock` to write. Parameters and result as for acquire().

    This does not keep new readers out while it waits, as a waiting thread does, so readers that
    overlap all the time can delay it indefinitely.
    """
    return await _until(lambda: lock.acquire_write(False, recover=recover), timeout)


def _check(got: bool) -> None:
    if not got:
        raise TimeoutError("the lock was not free in time")


@asynccontextmanager
async def hold(lock: Lock | RLock, timeout: float | None = None) -> AsyncIterator[None]:
    """Acquire `lock` for an `async with` block. Raises TimeoutError if it was not free in time."""
    _check(await acquire(lock, timeout))
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def reading(lock: RWLock, timeout: float | None = None) -> AsyncIterator[None]:
    """Acquire `lock` to read for an `async with` block, as hold() does."""
    _check(await acquire_read(lock, timeout))
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def writing(lock: RWLock, timeout: float | None = None) -> AsyncIterator[None]:
    """Acquire `lock` to write for an `async with` block, as hold() does."""
    _check(await acquire_write(lock, timeout))
    try:
        yield
    finally:
        lock.release()
