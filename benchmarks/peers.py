"""The contenders' modules, and names for their objects."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module, metadata
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory as _SharedMemory
from pathlib import Path
from types import ModuleType
from typing import Any

import posixshm as posixshm  # re-exported

# numpy must not start a thread pool: a second thread makes every call with a descriptor slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHM_DIR = Path("/dev/shm")
PREFIX = f"posixshm-bench-{os.getpid()}-"

# Not in a free-threaded build: the import would turn the GIL on for the whole process.
WITH_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
NEED_GIL = ("posix_ipc", "SharedArray", "atomicshm", "torch")
PACKAGES = ("numpy", *NEED_GIL)
left_out: dict[str, str] = {}


def optional(name: str) -> Any:
    """The module, or None."""
    if name in NEED_GIL and not WITH_GIL:
        left_out[name] = "needs the GIL"
        return None
    try:
        return import_module(name)
    except ImportError:
        left_out[name] = "not installed"
        return None


StdlibSharedMemory = _SharedMemory
numpy = optional("numpy")
if numpy:
    import posixshm.array
posix_ipc = optional("posix_ipc")


def versions() -> dict[str, str]:
    """Of posixshm and the peers, without importing them."""
    found = {"posixshm": posixshm.__version__}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def floor() -> ModuleType:
    from . import native

    return native.load()


# From Python 3.13 on; earlier, the tracker registers every handle of the standard library.
UNTRACKED: dict[str, Any] = {"track": False} if sys.version_info >= (3, 13) else {}


@contextmanager
def scratch_names() -> Iterator[Callable[[], str]]:
    """Unique names for this process, which are removed at the end."""
    numbers = itertools.count()
    try:
        yield lambda: f"{PREFIX}{next(numbers)}"
    finally:
        for path in SHM_DIR.glob(f"{PREFIX}*"):
            path.unlink(missing_ok=True)


@contextmanager
def stdlib_tracking(name: str) -> Iterator[None]:
    """Unregister a name that the tracker registered when the standard library attached."""
    resource_tracker.register(f"/{name}", "shared_memory")
    try:
        yield
    finally:
        resource_tracker.unregister(f"/{name}", "shared_memory")


def stdlib_create(name: str, size: int) -> Any:
    return _SharedMemory(name, True, size)


def room_for(size: int) -> bool:
    """Are this many bytes of memory and of /dev/shm free?"""
    mount = os.statvfs(SHM_DIR)
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return mount.f_bavail * mount.f_frsize > size and available * 1024 > size + size // 4


def size_text(size: int) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size // scale} {unit}"
    return f"{size} B"
