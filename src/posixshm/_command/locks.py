"""The threads that hold the locks of a primitive, from its memory and /proc.

The layouts are those of csrc/posix: lock.h, rwlock.h and barrier.h.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Any, NamedTuple

from posixshm._command.kinds import Reader, Tag
from posixshm._holders import command_of

_THREAD = 0x3FFFFFFF  # of the word of a robust mutex: futex(2)
_DIED = 0x40000000
_MUTEX = 48  # bytes
_LINE, _LINES, _LINES_AT = 64, 32, 192
_SLOTS_IN_LINE, _SLOT = 2, 16
_ENTRY_AT, _WRITING = 128, 2
_RUNNER_AT = 128
_STATES = {"T": "stopped", "t": "stopped", "Z": "ended", "X": "ended", "D": "in a system call"}


class Owner(NamedTuple):
    """A thread that holds a lock. pid: of its process; None if it has ended or cannot be seen.

    state: 'running', 'stopped', 'ended', 'in a system call' or 'unknown'. role: 'owner', 'reader',
    'writer' or 'action'.
    """

    role: str
    thread: int
    pid: int | None
    command: str
    state: str

    def text(self) -> str:
        if self.pid is None:
            ended = "which has ended" if self.state == "ended" else "of another PID namespace"
            return f"thread {self.thread}, {ended}"
        thread = "" if self.thread == self.pid else f", thread {self.thread}"
        return f"pid {self.pid} ({self.command}){thread}, {self.state}"


def owners(tag: Tag, read: Reader) -> list[Owner]:
    """Return the threads that hold the locks of the primitive at offset 0 of the object."""
    if tag.type in ("Lock", "RLock", "Condition"):
        return _mutex("owner", read(0, 64), tag)
    if tag.type == "Barrier":
        return _mutex("action", read(_RUNNER_AT, _MUTEX), tag)
    if tag.type != "RWLock":
        return []
    (entry,) = struct.unpack("=I", read(_ENTRY_AT, 4).ljust(4, b"\0"))
    found = _mutex("writer", read(0, 64), tag) if entry & _WRITING else []
    lines = read(_LINES_AT, _LINES * _LINE)
    for line in range(0, len(lines) // _LINE * _LINE, _LINE):
        for slot in range(_SLOTS_IN_LINE):
            (word,) = struct.unpack_from("=Q", lines, line + slot * _SLOT)
            if word & _THREAD:
                found.append(_owner("reader", word & _THREAD, tag.space))
    return found


def _mutex(role: str, data: bytes, tag: Tag) -> list[Owner]:
    place = 0 if tag.library == 1 else 4  # musl: the second word
    if len(data) < place + 4:
        return []
    (word,) = struct.unpack_from("=I", data, place)
    thread = word & _THREAD
    if thread == 0:
        return [Owner(role, 0, None, "", "ended")] if word & _DIED else []
    return [_owner(role, thread, tag.space)]


def _owner(role: str, thread: int, space: int) -> Owner:
    try:
        if space not in (0, os.stat("/proc/self/ns/pid").st_ino):
            return Owner(role, thread, None, "", "unknown")
        with open(f"/proc/{thread}/status", "rb", 0) as file:
            status = file.read(65536)
    except FileNotFoundError:
        return Owner(role, thread, None, "", "ended")
    except OSError:
        return Owner(role, thread, None, "", "unknown")
    pid = re.search(rb"^Tgid:\s+(\d+)", status, re.MULTILINE)
    state = re.search(rb"^State:\s+(\S)", status, re.MULTILINE)
    if pid is None or state is None:
        return Owner(role, thread, None, "", "unknown")
    word = _STATES.get(state[1].decode("ascii", "replace"), "running")
    return Owner(role, thread, int(pid[1]), command_of(int(pid[1])), word)


def more_of(tag: Tag, read: Reader) -> dict[str, Any]:
    """Return the other fields of `stat --json` for a primitive."""
    found: dict[str, Any] = {}
    if tag.type in ("Lock", "RLock", "Condition"):
        (inconsistent,) = struct.unpack("=I", read(48, 4).ljust(4, b"\0"))
        found["inconsistent"] = inconsistent != 0
    if tag.type == "Condition":
        _, _, _, waiters = struct.unpack("=IIII", read(128, 16).ljust(16, b"\0"))
        found["waiting"] = waiters
    if tag.type == "Barrier":
        (state,) = struct.unpack("=Q", read(0, 8).ljust(8, b"\0"))
        found["waiting"] = state & 0xFFFF
    return found
