"""The objects of /dev/shm: which there are, what state they are in, and what they contain."""

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
    """What _core._inspect() says of a file of /dev/shm."""

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
        # What this process may not open another one may be seen to use.
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
        """Seconds since the object itself was last changed, as reclaim() counts."""
        return now - self.found.changed

    def record(self, now: float) -> dict[str, Any]:
        """The entry for --json, in bytes and seconds."""
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
    """Where an object of that name lies. Raises ValueError for a bad name.

    Unlike the library's names it may contain bytes that are not text.
    """
    plain = name.removeprefix("/")
    most = posixshm.NAME_MAX
    if plain in ("", ".", "..") or "/" in plain or "\0" in plain or len(os.fsencode(plain)) > most:
        raise ValueError(f"bad name {name!r}: 1 to {most} bytes, no '/', and not '.' or '..'")
    return f"{MOUNT}/{plain}"


def is_text(name: str) -> bool:
    """Whether it is a name for the library."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def file_names() -> list[str]:
    """The names of all objects and semaphores, in no order."""
    with os.scandir(MOUNT) as found:
        return [each.name for each in found if each.is_file(follow_symlinks=False)]


def is_pattern(text: str) -> bool:
    return _WILDCARD.search(text) is not None


def matcher(pattern: str | None) -> Callable[[str], bool]:
    """Whether a name matches a pattern, or begins with a text that contains no wildcard.

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
    """Names in place of patterns; a name may itself contain the characters of a pattern.

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
    """The names that match all the patterns, in order."""
    names = file_names()
    for pattern in patterns:
        if pattern:
            names = list(filter(matcher(pattern), names))
    return sorted(names)


def entries(names: Iterable[str], *, kinds: bool = True) -> list[Entry]:
    """The objects of these names that are there, in the same order."""
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
    """read(place, length): bytes of an object, unseen; none if its name is another object's now."""

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
