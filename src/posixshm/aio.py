"""Waiting for locks in asyncio without blocking the event loop.

A Lock, an RLock and an RWLock belong to the thread that acquired them, which must be the thread of
the event loop. The functions here try again and again, and the loop runs in between.

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

# Pauses between two tries, in seconds.
_SHORTEST = 0.0005
_LONGEST = 0.01


async def _until(attempt: Callable[[], bool], timeout: float | None) -> bool:
    """Call `attempt` until it succeeds, or `timeout` seconds (None: no limit) are over."""
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
    """Acquire `lock` for the event loop's thread: True, or False if it was not free in time.

    timeout: seconds; 0 or less: one try; None: no limit. recover: as for Lock.acquire. Tasks of one
    loop share its thread: a Lock that one of them holds is not free for the others, an RLock is.
    Raises as Lock.acquire; a task that is cancelled while it waits does not hold the lock.
    """
    return await _until(lambda: lock.acquire(False, recover=recover), timeout)


async def acquire_read(lock: RWLock, timeout: float | None = None) -> bool:
    """Acquire `lock` to read, as acquire() does."""
    return await _until(lambda: lock.acquire_read(False), timeout)


async def acquire_write(
    lock: RWLock, timeout: float | None = None, *, recover: bool = False
) -> bool:
    """Acquire `lock` to write, as acquire() does.

    Only a thread that waits keeps new readers out; readers that never pause can keep this waiting.
    """
    return await _until(lambda: lock.acquire_write(False, recover=recover), timeout)


def _check(got: bool) -> None:
    if not got:
        raise TimeoutError("the lock was not free in time")


@asynccontextmanager
async def hold(lock: Lock | RLock, timeout: float | None = None) -> AsyncIterator[None]:
    """`async with hold(lock):` acquires and releases it. TimeoutError: not free in time."""
    _check(await acquire(lock, timeout))
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def reading(lock: RWLock, timeout: float | None = None) -> AsyncIterator[None]:
    """`async with reading(lock):` as hold(), to read."""
    _check(await acquire_read(lock, timeout))
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def writing(lock: RWLock, timeout: float | None = None) -> AsyncIterator[None]:
    """`async with writing(lock):` as hold(), to write."""
    _check(await acquire_write(lock, timeout))
    try:
        yield
    finally:
        lock.release()
