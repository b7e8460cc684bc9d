"""Cycles of guard() and its error."""

import os
import pickle

from _leaks import cycle, name, refused

from posixshm import PAGESIZE, BusError, SharedMemory, guard


def _truncated():
    shm = SharedMemory.create(name, 4 * PAGESIZE, delete=True)
    os.truncate(shm.path, PAGESIZE)
    return shm


@cycle("guard", "guard.__init__", "guard.__enter__", "guard.__exit__")
def _():
    with _truncated() as shm:
        with guard(shm, shm.buf, shm.view()), guard(shm):
            bytes(shm.buf[:10])
        block = guard(shm)
        for _ in range(2):
            try:
                with block:
                    bytes(shm.buf)
                    refused(block.__enter__)
            except BusError:
                continue
            raise AssertionError
        block.__enter__()
        bytes(shm.buf)
        del block
    refused(guard)
    refused(guard, nonsense=1)
    refused(guard(shm).__enter__)
    refused(guard(5).__enter__)
    refused(guard(memoryview(b"")).__enter__)


@cycle("BusError")
def _():
    try:
        with _truncated() as shm, guard(shm):
            bytes(shm.buf)
    except BusError as error:
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.errno, copy.filename) == (error.errno, error.filename)
