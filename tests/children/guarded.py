"""Helpers of the processes of test_guard: an object that another process truncates."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

from posixshm import PAGESIZE, BusError, SharedMemory, guard

name = sys.argv[1]
path = f"/dev/shm/{name}"
PAGES = 8
SIZE = PAGES * PAGESIZE
FILL = b"\x07"


def make(size=SIZE, **options):
    """Create an object whose bytes are all 7. Its name is removed with the handle."""

    def fill(view):
        view[:size] = FILL * size

    return SharedMemory.create(name, size, delete=True, init=fill, **options)


def truncate(size, where=path):
    """Truncate the object in another process."""
    subprocess.run(["truncate", "-s", str(size), where], check=True)


@contextlib.contextmanager
def bus_error(start=PAGESIZE, end=SIZE):
    """A block that must raise BusError with this range of lost bytes."""
    try:
        yield
    except BusError as error:
        assert error.errno == 14 and isinstance(error, OSError), error
        assert f"bytes {start} to {end}" in str(error), error
        return
    raise AssertionError("no BusError")


def is_handled(signal=7):
    """Does this process have a handler for SIGBUS?"""
    status = Path("/proc/self/status").read_text()
    caught = int(re.search(r"SigCgt:\s*(\w+)", status).group(1), 16)
    return bool(caught >> (signal - 1) & 1)


def elsewhere():
    """Truncated memory that this process has mapped without the library."""
    import mmap

    fd = os.memfd_create("elsewhere")
    os.ftruncate(fd, PAGESIZE)
    memory = mmap.mmap(fd, PAGESIZE)
    os.ftruncate(fd, 0)
    os.close(fd)
    return memory


__all__ = [
    "FILL",
    "PAGES",
    "PAGESIZE",
    "SIZE",
    "BusError",
    "SharedMemory",
    "bus_error",
    "elsewhere",
    "guard",
    "is_handled",
    "make",
    "name",
    "path",
    "truncate",
]
