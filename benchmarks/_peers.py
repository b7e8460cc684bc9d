"""The peers: posixshm, the standard library, and posix_ipc and numpy if they are installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import ModuleType

from _common import SHM_DIR

# numpy must not start a thread pool: a second thread makes every call with a descriptor slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

PREFIX = "posixshm-bench-"
STDLIB_UNTRACKED = "stdlib, track=False"


def optional(name: str) -> ModuleType | None:
    try:
        return __import__(name)
    except ImportError:
        return None


try:
    import posixshm as posixshm  # re-exported
except ImportError as error:
    print(f"cannot run: {error}; install posixshm first", file=sys.stderr)
    sys.exit(2)

# Not in a free-threaded build: the import would turn the GIL on for the whole process.
WITH_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
posix_ipc = optional("posix_ipc") if WITH_GIL else None
numpy = optional("numpy")

NO_POSIX_IPC = "posix_ipc + mmap: left out, " + (
    "not installed (pip install posix-ipc)" if WITH_GIL else "it needs the GIL"
)
NO_NUMPY = "left out: numpy is not installed (pip install numpy)"

# Before Python 3.13, which has track=False, the tracker registers every stdlib handle.
STDLIB_MAY_UNTRACK = sys.version_info >= (3, 13)


@contextmanager
def scratch_names() -> Iterator[Callable[[str], str]]:
    """Unique names for this process, which are removed at the end."""
    prefix = f"{PREFIX}{os.getpid()}-"
    try:
        yield lambda label: prefix + label
    finally:
        for path in SHM_DIR.glob(f"{prefix}*"):
            path.unlink(missing_ok=True)


@contextmanager
def stdlib_tracking(name: str) -> Iterator[None]:
    """Unregister a name that the tracker registered when the stdlib attached."""
    resource_tracker.register(f"/{name}", "shared_memory")
    try:
        yield
    finally:
        resource_tracker.unregister(f"/{name}", "shared_memory")


def versions() -> dict[str, str]:
    return {
        "posixshm": posixshm.__version__,
        "posix_ipc": posix_ipc.__version__ if posix_ipc else "left out",
        "numpy": numpy.__version__ if numpy else "left out",
    }
