"""The resources of open segments: descriptors, threads, helper processes; counted, not timed.

Each peer is counted in its own process, so that it does not use a helper process of another peer.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from multiprocessing.shared_memory import SharedMemory as StdlibSharedMemory
from pathlib import Path
from typing import Any

from _common import verdict
from _peers import (
    NO_POSIX_IPC,
    STDLIB_MAY_UNTRACK,
    STDLIB_UNTRACKED,
    posix_ipc,
    posixshm,
    scratch_names,
)

SEGMENTS = 100


def children() -> int:
    """The number of children of this process."""
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The command in parentheses may contain parentheses; state and parent follow the last
            # one.
            found += int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid()
    return found


def holdings() -> dict[str, int]:
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "processes": children(),
    }


def hold(who: str, name: str, stack: ExitStack) -> None:
    """Create a segment that remains open until the stack is closed."""
    if who == "posixshm":
        stack.enter_context(posixshm.SharedMemory.create(name, mmap.PAGESIZE, delete=True))
    elif who.startswith("stdlib"):
        options: dict[str, Any] = {"track": False} if who == STDLIB_UNTRACKED else {}
        stdlib = StdlibSharedMemory(name, True, mmap.PAGESIZE, **options)
        stack.callback(stdlib.unlink)
        stack.callback(stdlib.close)
    elif posix_ipc:
        ipc = posix_ipc.SharedMemory(f"/{name}", posix_ipc.O_CREX, size=mmap.PAGESIZE)
        stack.callback(ipc.unlink)
        stack.enter_context(mmap.mmap(ipc.fd, mmap.PAGESIZE))
        ipc.close_fd()
    else:
        raise ValueError(who)


def count(who: str) -> dict[str, int]:
    with scratch_names() as name, ExitStack() as stack:
        before = holdings()
        for i in range(SEGMENTS):
            hold(who, name(str(i)), stack)
        after = holdings()
    return {what: after[what] - before[what] for what in after}


def count_all() -> list[dict[str, Any]]:
    """Count each peer in a fresh process."""
    whos = ["posixshm", "stdlib"]
    whos += [STDLIB_UNTRACKED] if STDLIB_MAY_UNTRACK else []
    whos += ["posix_ipc + mmap"] if posix_ipc else []
    counted = []
    for who in whos:
        command = [sys.executable, __file__, who]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row: dict[str, Any] = {"contender": who, **json.loads(output), "met": None}
        if who == "posixshm":
            row["met"] = (row["descriptors"], row["threads"], row["processes"]) == (SEGMENTS, 0, 0)
        counted.append(row)
    return counted


def print_counted(counted: list[dict[str, Any]]) -> None:
    print(f"\nwhat {SEGMENTS} open segments hold (counted)")
    width = max(len(row["contender"]) for row in counted)
    print(f"  {'':{width}}  descriptors  threads  processes")
    for row in counted:
        print(
            f"  {row['contender']:{width}}  {row['descriptors']:>11}  {row['threads']:>7}"
            f"  {row['processes']:>9}  {verdict(row['met'])}".rstrip()
        )
    print(f"  target: posixshm {SEGMENTS} descriptors, no thread, no process")
    if not posix_ipc:
        print(f"  {NO_POSIX_IPC}")


if __name__ == "__main__":
    print(json.dumps(count(sys.argv[1])))
