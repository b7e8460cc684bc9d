"""What the `posixshm` command looks at, and how it puts it on a terminal.

`rich` and `psutil` are imported where they are used: a command that needs neither
runs without them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import posixshm

MOUNT = Path("/dev/shm")


class Holder(NamedTuple):
    """A process that maps an object."""

    pid: int
    process: str
    user: str


class Entry(NamedTuple):
    """An object of /dev/shm."""

    name: str
    status: os.stat_result
    state: str  # "in use", "free" or "unknown"

    @property
    def key(self) -> tuple[int, int]:
        return self.status.st_dev, self.status.st_ino

    @property
    def mode(self) -> str:
        return f"{stat.S_IMODE(self.status.st_mode):04o}"

    @property
    def owner(self) -> str:
        try:
            return pwd.getpwuid(self.status.st_uid).pw_name
        except KeyError:
            return str(self.status.st_uid)

    @property
    def age(self) -> float:
        """Seconds since the object itself was last changed, as reclaim() counts."""
        return time.time() - self.status.st_ctime

    def record(self) -> dict[str, Any]:
        """The entry for --json, in bytes and seconds."""
        return {
            "name": self.name,
            "size": self.status.st_size,
            "allocated": self.status.st_blocks * 512,
            "mode": self.mode,
            "owner": self.owner,
            "uid": self.status.st_uid,
            "gid": self.status.st_gid,
            "age": round(self.age, 3),
            "state": self.state,
        }


def path_of(name: str) -> Path:
    """Where an object of that name lies. Only for looking; the core judges names."""
    name = name.removeprefix("/")
    too_long = len(os.fsencode(name)) > posixshm.NAME_MAX
    if name in ("", ".", "..") or "/" in name or "\0" in name or too_long:
        most = posixshm.NAME_MAX
        raise ValueError(f"bad name {name!r}: 1 to {most} bytes, no '/', and not '.' or '..'")
    return MOUNT / name


def states(prefix: str) -> dict[str, str]:
    """The state of each object whose name starts with prefix."""
    # A dry run says what could be removed, and removes nothing.
    found = (
        posixshm.reclaim(prefix, dry_run=True)
        if prefix
        else posixshm.reclaim(older_than=0, dry_run=True)
    )
    return {each.name: each.state for each in found}


def entries(prefix: str) -> list[Entry]:
    """The objects whose name starts with prefix, in the order of their names."""
    prefix = prefix.removeprefix("/")
    state = states(prefix)
    found = []
    for name in sorted(posixshm.listdir()):
        if name.startswith(prefix):
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                found.append(Entry(name, os.lstat(MOUNT / name), state.get(name, "unknown")))
    return found


def holders(
    keys: Collection[tuple[int, int]],
) -> tuple[dict[tuple[int, int], list[Holder]], int]:
    """Who maps each object, and how many processes could not be looked at.

    Objects are told by device and inode: the path in a process's list of mappings
    may be the name of another object by now.
    """
    import psutil

    found: dict[tuple[int, int], list[Holder]] = {key: [] for key in keys}
    silent = 0
    for process in psutil.process_iter(["name", "username"]):
        try:
            with open(f"/proc/{process.pid}/maps", errors="replace") as lines:
                mapped = {_key_of_mapping(line) for line in lines}
        except PermissionError:
            silent += 1
            continue
        except OSError:  # it has ended
            continue
        holder = Holder(process.pid, *(process.info[key] or "?" for key in ("name", "username")))
        for key in mapped & found.keys():
            found[key].append(holder)
    return found, silent


def _key_of_mapping(line: str) -> tuple[int, int]:
    _addresses, _rights, _offset, device, inode = line.split(maxsplit=5)[:5]
    major, minor = device.split(":")
    return os.makedev(int(major, 16), int(minor, 16)), int(inode)


def printable(text: str) -> str:
    """A name may hold any byte but '/' and NUL, also those that drive a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def size_text(count: float) -> str:
    units = ["KiB", "MiB", "GiB", "TiB"]
    unit = "B"
    while count >= 1024 and units:
        count /= 1024
        unit = units.pop(0)
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def age_text(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below columns; a title that starts with '>' is flush right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:  # never cut what another program reads
        console = Console(highlight=False, width=100_000)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            Text(printable(column.removeprefix(">"))),
            justify="right" if right else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
