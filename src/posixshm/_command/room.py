"""`posixshm df`: the free space in /dev/shm, and how much each user uses."""

from __future__ import annotations

import argparse
import os
from typing import Any

from posixshm._command.cgroup import memory_limit
from posixshm._command.listing import print_json
from posixshm._command.objects import MOUNT
from posixshm._command.table import Column, print_table
from posixshm._command.text import size_text, user_text


class Owner:
    """The space that the objects of a user use."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.objects = self.size = self.allocated = 0

    def record(self) -> dict[str, Any]:
        return {"owner": user_text(self.uid), **vars(self)}


def _owners() -> list[Owner]:
    """Return the users that own objects, beginning with the largest."""
    found: dict[int, Owner] = {}
    seen = set()
    with os.scandir(MOUNT) as files:
        for each in files:
            try:
                status = each.stat(follow_symlinks=False)
                if not each.is_file(follow_symlinks=False):
                    continue
            except FileNotFoundError:  # removed since it was listed
                continue
            owner = found.setdefault(status.st_uid, Owner(status.st_uid))
            owner.objects += 1
            if status.st_ino not in seen:  # an object may have two names
                owner.size += status.st_size
                owner.allocated += status.st_blocks * 512
                if status.st_nlink > 1:
                    seen.add(status.st_ino)
    return sorted(found.values(), key=lambda owner: (-owner.allocated, owner.uid))


def record() -> dict[str, Any]:
    """Return the fields of --json."""
    owners = _owners()
    allocated = sum(owner.allocated for owner in owners)
    mount = os.statvfs(MOUNT)
    # A tmpfs that has no limit says 0 blocks, or 0 inodes.
    limited, counted = mount.f_blocks > 0, mount.f_files > 0
    unit = mount.f_frsize
    used = (mount.f_blocks - mount.f_bfree) * unit if limited else allocated
    limit = memory_limit()
    return {
        "path": MOUNT,
        "size": mount.f_blocks * unit if limited else None,
        "used": used,
        "free": mount.f_bavail * unit if limited else None,
        "inodes": mount.f_files if counted else None,
        "inodes_free": mount.f_favail if counted else None,
        "objects": sum(owner.objects for owner in owners),
        "objects_size": sum(owner.size for owner in owners),
        "objects_bytes": allocated,
        "without_name": max(used - allocated, 0),
        "owners": [owner.record() for owner in owners],
        "container": None if limit is None else limit._asdict(),
    }


def df(args: argparse.Namespace) -> int:
    found = record()
    if args.json:
        print_json(found)
        return 0

    def size(key: str) -> str:
        return "no limit" if found[key] is None else size_text(found[key])

    def count(key: str) -> str:
        return "no limit" if found[key] is None else str(found[key])

    columns = [
        Column("MOUNT"),
        Column("SIZE", right=True, rank=1),
        Column("USED", right=True),
        Column("FREE", right=True),
        Column("INODES", right=True, rank=4),
        Column("FREE INODES", right=True, rank=3),
        Column("OBJECTS", right=True, rank=2),
    ]
    row = [MOUNT, size("size"), size("used"), size("free")]
    row += [count("inodes"), count("inodes_free"), str(found["objects"])]
    print_table(columns, [row])
    if found["owners"]:
        print()
        columns = [
            Column("OWNER"),
            Column("OBJECTS", right=True, rank=2),
            Column("SIZE", right=True, rank=1),
            Column("ALLOCATED", right=True),
        ]
        rows = [
            [
                each["owner"],
                str(each["objects"]),
                size_text(each["size"]),
                size_text(each["allocated"]),
            ]
            for each in found["owners"]
        ]
        print_table(columns, rows)
    _print_more(found)
    return 0


def _print_more(found: dict[str, Any]) -> None:
    if found["without_name"]:
        print(f"\nObjects whose names were removed take {size_text(found['without_name'])}.")
    limit = found["container"]
    if limit is not None:
        most, used = size_text(limit["limit"]), size_text(limit["used"])
        shared = "" if limit["shared"] is None else f", {size_text(limit['shared'])} of it shared"
        print(f"\nMemory limit of this control group: {most} ({used} used{shared}).")
