"""The result of a check of `posixshm doctor`."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """check: what was checked. verdict: 'ok', 'note' or 'problem'. meaning: why it matters.
    advice: what to do; '' if nothing."""

    check: str
    value: str
    verdict: str
    meaning: str
    advice: str = ""


def read(path: str) -> str | None:
    """Return the text of a file in /proc, /sys or /etc, or None."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo."""

    point: str
    kind: str
    options: list[str]


def mount_of(path: str) -> Mount | None:
    """Return the mount at a path: the last one, which hides the others."""
    found = None
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if len(fields) >= 6 and len(more) >= 3 and fields[4] == path:
            found = Mount(path, more[0], fields[5].split(",") + more[2].split(","))
    return found


def option(mount: Mount | None, name: str) -> str | None:
    """Return the value of a mount option: '' without a value, None if it is not set."""
    for each in mount.options if mount else ():
        key, _, value = each.partition("=")
        if key == name:
            return value
    return None
