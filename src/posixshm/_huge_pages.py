"""Whether the kernel gives transparent huge pages to shared memory, and if not, why:
https://docs.kernel.org/admin-guide/mm/transhuge.html

The mount option huge= of /dev/shm applies to its objects, shmem_enabled to memfds; but its values
"deny" and "force" apply to both.
"""

from __future__ import annotations

import re
import sys
import warnings

_MOUNT = "/dev/shm"
_ENABLED = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
_USEFUL = ("always", "within_size", "advise")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def settings() -> tuple[str | None, str | None]:
    """shmem_enabled, and huge= of the mount of /dev/shm; None if that cannot be read."""
    chosen = re.search(r"\[(\S+)\]", _read(_ENABLED))
    option = None
    for line in _read("/proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        if mount.split()[4:5] == [_MOUNT] and system.startswith("tmpfs "):
            found = re.search(r"[ ,]huge=(\w+)", system)
            option = found[1] if found else "never"
    return chosen[1] if chosen else None, option


def obstacle(memfd: bool) -> str | None:
    """Why huge_pages=True has no effect and what to do, or None if it has one, or may have."""
    enabled, option = settings()
    if enabled == "deny" or (memfd and enabled == "never"):
        return f"{_ENABLED} is {enabled!r}. As root: echo advise > {_ENABLED}"
    if memfd or enabled == "force" or option is None or option in _USEFUL:
        return None
    return f"{_MOUNT} is mounted with huge={option}. As root: mount -o remount,huge=advise {_MOUNT}"


def warn(memfd: bool) -> None:
    """Warn the caller of the package if huge_pages=True has no effect."""
    text = obstacle(memfd)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame, level = frame.f_back, level + 1
    if text is not None:
        warnings.warn(f"huge_pages=True has no effect: {text}", RuntimeWarning, level)
