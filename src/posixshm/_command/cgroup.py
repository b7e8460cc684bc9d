"""The memory limit of the control group of this process: cgroups(7).

Shared memory counts against the group of the process that touched it first.
"""

from __future__ import annotations

import os
from typing import NamedTuple

_ROOT = "/sys/fs/cgroup"
_NO_LIMIT = 1 << 60  # version 1 writes "no limit" as a number just below 2**63


class Limit(NamedTuple):
    """All in bytes. used: by the group. shared: of that, shared memory; None if unknown."""

    limit: int
    used: int
    shared: int | None


def memory_limit() -> Limit | None:
    """Return the lowest limit of the process's group and its ancestors, or None."""
    best: Limit | None = None
    for folder, files in _folders():
        limit, used = (_number(f"{folder}/{file}") for file in files)
        if limit is None or used is None or limit >= _NO_LIMIT:
            continue
        if best is None or limit - used < best.limit - best.used:
            best = Limit(limit, used, _shared(f"{folder}/memory.stat"))
    return best


def _folders() -> list[tuple[str, tuple[str, str]]]:
    found = []
    for line in _text("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, files = _ROOT, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base = f"{_ROOT}/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # In a container the path may be one of the host, which is not there.
        while True:
            found.append((os.path.normpath(base + path), files))
            if path in ("", "/"):
                break
            path = os.path.dirname(path)
    return found


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _shared(path: str) -> int | None:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key in ("shmem", "total_shmem") and value.isdigit():
            return int(value)
    return None
