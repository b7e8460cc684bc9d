"""The processes that use an object, as /proc shows them: proc(5).

An object is identified by its device and inode. The list of mappings of a process shows a name that
another object may have by now.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

_SHM = "/dev/shm"
Key = tuple[int, int]  # device and inode


class Holder(NamedTuple):
    """A process that uses an object: an item of the list that holders() returns."""

    pid: int
    """Process id."""
    uid: int
    """Effective user id."""
    command: str
    """The command line, or the name of the process in brackets."""
    how: tuple[str, ...]
    """One or more of 'map' (the process maps the object), 'fd' (the process has the object open)
    and 'use lock' (the process acquired the lock that protects the object from reclaim())."""


class Holders(list[Holder]):
    """A list of Holder, ordered by pid, that holders() returns."""

    uninspected: int
    """The number of processes in /proc that the caller cannot inspect. If it is 0, an empty list
    means that no process of this PID namespace uses the object."""

    def __init__(self, found: Collection[Holder] = (), uninspected: int = 0) -> None:
        super().__init__(found)
        self.uninspected = uninspected


def holders(name: str) -> Holders:
    """Return the processes that map an object, have it open, or hold its use lock: proc(5).

    name: of an object, or 'sem.NAME' for a POSIX semaphore.

    Returns a list of Holder(pid, uid, command, how). Its attribute uninspected is the number of
    processes that the caller cannot inspect, which are those of other users unless the caller is
    root. Processes of other PID namespaces, and those that the mount option hidepid hides, are not
    counted.

    Raises FileNotFoundError; OSError (EINVAL) if the name is not that of a regular file; ValueError
    for a bad name.
    """
    import errno
    import stat

    from . import exists

    exists(name)  # raises ValueError for a bad name
    try:
        status = os.lstat(f"{_SHM}/{name.removeprefix('/')}")
    except OSError as error:
        error.filename = name
        raise
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a shared memory object", name)
    key = (status.st_dev, status.st_ino)
    found, uninspected = scan({key})
    return Holders(found.get(key, ()), uninspected)


def scan(keys: Collection[Key]) -> tuple[dict[Key, list[Holder]], int]:
    """Return the holders of objects, and the number of processes that could not be inspected."""
    uses: dict[Key, dict[int, set[str]]] = {}
    refused = set()
    lockers = _lockers(keys)
    patterns = [_mapping_of(device) for device in {device for device, _ in keys}]
    for pid in _pids():
        try:
            for key, how in _uses(pid, keys, patterns):
                uses.setdefault(key, {}).setdefault(pid, set()).add(how)
        except PermissionError:
            refused.add(pid)
        except OSError:  # the process has ended
            continue
    for key, pids in lockers.items():
        for pid in pids:
            # The process that took the lock may have ended, and another one may have its pid now.
            if pid in uses.get(key, ()) or pid in refused:
                uses.setdefault(key, {}).setdefault(pid, set()).add("use lock")
    found = {
        key: [_holder(pid, how) for pid, how in sorted(pids.items())] for key, pids in uses.items()
    }
    return found, len(refused)


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def _mapping_of(device: int) -> tuple[int, bytes, re.Pattern[bytes]]:
    """Return the device, a part of each line of maps about it, and a pattern for the inode."""
    text = b"%02x:%02x" % (os.major(device), os.minor(device))
    return device, b" %b " % text, re.compile(rb"^\S+ \S+ \S+ %b (\d+)" % text, re.MULTILINE)


def _uses(
    pid: int, keys: Collection[Key], patterns: Collection[tuple[int, bytes, re.Pattern[bytes]]]
) -> Iterator[tuple[Key, str]]:
    with open(f"/proc/{pid}/maps", "rb", 0) as file:
        maps = file.read()
    for device, marker, pattern in patterns:
        if marker in maps:
            for inode in set(pattern.findall(maps)):
                if (device, int(inode)) in keys:
                    yield (device, int(inode)), "map"
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        try:
            status = os.stat(f"{folder}/{fd}")
        except FileNotFoundError:
            continue
        if (status.st_dev, status.st_ino) in keys:
            yield (status.st_dev, status.st_ino), "fd"


_LOCK = re.compile(rb"^\S+ FLOCK +\S+ +\S+ (\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE)


def _lockers(keys: Collection[Key]) -> dict[Key, set[int]]:
    """Return the processes that hold a flock(2) on the objects."""
    try:
        with open("/proc/locks", "rb", 0) as file:
            locks = file.read()
    except OSError:
        return {}
    found: dict[Key, set[int]] = {}
    for pid, major, minor, inode in _LOCK.findall(locks):
        key = (os.makedev(int(major, 16), int(minor, 16)), int(inode))
        if key in keys:
            found.setdefault(key, set()).add(int(pid))
    return found


def _holder(pid: int, how: Collection[str]) -> Holder:
    order = [each for each in ("map", "fd", "use lock") if each in how]
    return Holder(pid, uid_of(pid), command_of(pid), tuple(order))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", 0) as file:
            return file.read(65536)
    except OSError:  # the process has ended, or its files are hidden
        return b""


def uid_of(pid: int) -> int:
    """Return the effective user id of a process, or -1 if it has ended."""
    found = re.search(rb"^Uid:\s+\d+\s+(\d+)", _read(f"/proc/{pid}/status"), re.MULTILINE)
    return int(found[1]) if found else -1


def command_of(pid: int) -> str:
    """Return the command line of a process, or its name in brackets; '' if it has ended."""
    line = _read(f"/proc/{pid}/cmdline").rstrip(b"\0")
    if line:
        return os.fsdecode(line.replace(b"\0", b" "))
    name = os.fsdecode(_read(f"/proc/{pid}/comm").removesuffix(b"\n"))
    return f"[{name}]" if name else ""
