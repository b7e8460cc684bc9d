"""The objects in /dev/shm: their names, their states and their contents."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import posixshm
from posixshm import _core, _holders
from posixshm._command.kinds import Kind, kind_of
from posixshm._command.text import user_text

MOUNT = "/dev/shm"
SEMAPHORE = "sem."
_WILDCARD = re.compile(r"[*?[]")
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME


class Found(NamedTuple):
    """The result of _core._inspect() for a file in /dev/shm."""

    name: str
    state: str  # "in use", "free" or "unknown"
    acl: bool
    head: bytes | None
    device: int
    inode: int
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    allocated: int
    changed: float

    @property
    def key(self) -> tuple[int, int]:
        return self.device, self.inode


class Entry:
    """An object, with the processes that use it."""

    __slots__ = ("found", "holders", "kind", "state", "uninspected")

    def __init__(
        self, found: Found, holders: list[_holders.Holder], uninspected: int, kind: Kind | None
    ) -> None:
        self.found = found
        self.holders = holders
        self.kind = kind
        # /proc may show that a process uses an object which this process may not open.
        self.state = "in use" if found.state == "unknown" and holders else found.state
        self.uninspected = uninspected if self.state == "unknown" else 0

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def mode_text(self) -> str:
        return f"{stat.S_IMODE(self.found.mode):04o}{'+' if self.found.acl else ''}"

    @property
    def kind_text(self) -> str:
        return "-" if self.kind is None else self.kind.label

    @property
    def state_text(self) -> str:
        if self.state == "in use" and self.holders:
            return f"in use ({len(self.holders)})"
        if self.state == "unknown" and self.uninspected:
            return f"unknown ({self.uninspected} not inspected)"
        return self.state

    def age(self, now: float) -> float:
        """Seconds since the status of the object was last changed, as for reclaim()."""
        return now - self.found.changed

    def record(self, now: float) -> dict[str, Any]:
        """Return the entry for --json, in bytes and seconds."""
        found = self.found
        return {
            "name": found.name,
            "kind": None if self.kind is None else self.kind.label,
            "content": None if self.kind is None else self.kind.content,
            "size": found.size,
            "allocated": found.allocated,
            "mode": f"{stat.S_IMODE(found.mode):04o}",
            "acl": found.acl,
            "owner": user_text(found.uid),
            "uid": found.uid,
            "gid": found.gid,
            "age": round(self.age(now), 3),
            "state": self.state,
            "pids": [holder.pid for holder in self.holders],
            "uninspected": self.uninspected,
        }


def path_of(name: str) -> str:
    """Return the path of an object. Raises ValueError for a bad name.

    Unlike the library's names it may contain bytes that are not text.
    """
    plain = name.removeprefix("/")
    most = posixshm.NAME_MAX
    if plain in ("", ".", "..") or "/" in plain or "\0" in plain or len(os.fsencode(plain)) > most:
        raise ValueError(f"bad name {name!r}: 1 to {most} bytes, no '/', and not '.' or '..'")
    return f"{MOUNT}/{plain}"


def is_text(name: str) -> bool:
    """Return whether the library accepts a name."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def file_names() -> list[str]:
    """Return the names of all objects and semaphores, in no particular order."""
    with os.scandir(MOUNT) as found:
        return [each.name for each in found if each.is_file(follow_symlinks=False)]


def is_pattern(text: str) -> bool:
    return _WILDCARD.search(text) is not None


def matcher(pattern: str | None) -> Callable[[str], bool]:
    """Return whether a name matches a pattern, or begins with a text without wildcards.

    The name of a semaphore may match with or without its 'sem.'.
    """
    pattern = (pattern or "").removeprefix("/")
    if pattern == "":
        return lambda name: True
    if not is_pattern(pattern):
        return lambda name: (
            name.removeprefix(SEMAPHORE).startswith(pattern) or name.startswith(pattern)
        )
    match = re.compile(fnmatch.translate(pattern)).match
    return lambda name: bool(match(name) or match(name.removeprefix(SEMAPHORE)))


def expand(names: list[str]) -> list[str]:
    """Replace patterns by names. A name may itself contain the characters of a pattern.

    A pattern that matches no name stays, as in a shell.
    """
    every = select() if any(map(is_pattern, names)) else []
    found: list[str] = []
    for name in names:
        if is_pattern(name) and not os.path.lexists(f"{MOUNT}/{name.removeprefix('/')}"):
            found += list(filter(matcher(name), every)) or [name]
        else:
            found.append(name)
    return list(dict.fromkeys(found))


def select(*patterns: str | None) -> list[str]:
    """Return the names that match all the patterns, in order."""
    names = file_names()
    for pattern in patterns:
        if pattern:
            names = list(filter(matcher(pattern), names))
    return sorted(names)


def entries(names: Iterable[str], *, kinds: bool = True) -> list[Entry]:
    """Return the objects with these names that exist, in the same order."""
    rows = [Found._make(row) for row in _core._inspect(list(names))]
    used = {each.key for each in rows if each.state != "free"}
    holders, uninspected = _holders.scan(used) if used else ({}, 0)
    return [
        Entry(row, holders.get(row.key, []), uninspected, _kind(row) if kinds else None)
        for row in rows
    ]


def _kind(found: Found) -> Kind | None:
    if found.head is None:
        return None
    with Reader(found) as read:
        return kind_of(found.name, found.head, found.size, read)


class Reader:
    """Return a function read(place, length) for an object; it returns b"" if the name changed."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._fd = -1

    def __enter__(self) -> Reader:
        return self

    def __call__(self, place: int, length: int) -> bytes:
        try:
            if self._fd < 0:
                self._fd = os.open(f"{MOUNT}/{self._found.name}", _READ)
            status = os.fstat(self._fd)
            if (status.st_dev, status.st_ino) != self._found.key:
                return b""
            return os.pread(self._fd, length, place)
        except OSError:
            return b""

    def __exit__(self, *error: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def now() -> float:
    return time.time()
