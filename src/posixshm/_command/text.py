"""How names, sizes, ages and owners are written."""

from __future__ import annotations

import grp
import os
import pwd
import sys
import time


def printable(text: str) -> str:
    """Return a text without control characters, and without characters that cannot be encoded.

    A name may contain any byte but '/' and NUL.
    """
    if text.isascii() and text.isprintable():
        return text
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def size_text(count: float) -> str:
    units = ["KiB", "MiB", "GiB", "TiB", "PiB"]
    unit = "B"
    while round(count, 1) >= 1024 and units:
        count /= 1024
        unit = units.pop(0)
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def age_text(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def time_text(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


_users: dict[int, str] = {}
_groups: dict[int, str] = {}


def user_text(uid: int) -> str:
    if uid not in _users:
        try:
            _users[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            _users[uid] = str(uid)
    return _users[uid]


def group_text(gid: int) -> str:
    if gid not in _groups:
        try:
            _groups[gid] = grp.getgrgid(gid).gr_name
        except KeyError:
            _groups[gid] = str(gid)
    return _groups[gid]


def how_many(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
