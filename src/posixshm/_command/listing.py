"""`posixshm ls`, `stat` and `holders`."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any

import posixshm
from posixshm import _holders
from posixshm._command import locks
from posixshm._command.kinds import tag_of
from posixshm._command.objects import Entry, Reader, entries, now, path_of, select
from posixshm._command.table import Column, print_fields, print_table
from posixshm._command.text import (
    age_text,
    group_text,
    how_many,
    is_terminal,
    printable,
    size_text,
    time_text,
    user_text,
)

COLUMNS = [
    Column("NAME", least=16, middle=True),
    Column("KIND", rank=3, least=12),
    Column("SIZE", right=True, rank=1),
    Column("ALLOCATED", right=True, rank=7),
    Column("MODE", rank=5),
    Column("OWNER", rank=4, least=8),
    Column("AGE", right=True, rank=6),
    Column("STATE", least=8),
]

SORTS: dict[str, Callable[[Entry], Any]] = {
    "name": lambda each: each.name,
    "size": lambda each: -each.found.size,
    "allocated": lambda each: -each.found.allocated,
    "age": lambda each: each.found.changed,
    "owner": lambda each: user_text(each.found.uid),
    "kind": lambda each: each.kind_text,
    "state": lambda each: each.state,
}


def rows_of(found: list[Entry]) -> list[list[str]]:
    when = now()
    return [
        [
            each.name,
            each.kind_text,
            size_text(each.found.size),
            size_text(each.found.allocated),
            each.mode_text,
            user_text(each.found.uid),
            age_text(each.age(when)),
            each.state_text,
        ]
        for each in found
    ]


def print_json(value: dict[str, Any] | Sequence[object]) -> None:
    """Return one line for each item of a list, or field of an object."""
    import json

    if isinstance(value, dict):
        lines = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
        print("{\n" + ",\n".join(lines) + "\n}")
    else:
        encode = json.JSONEncoder().encode
        print("[" + "".join("\n" + encode(item) + "," for item in value)[:-1] + "\n]")


def ls(args: argparse.Namespace) -> int:
    names = select(args.pattern)
    if args.quiet and args.sort == "name" and not args.json:
        _print_names(names[::-1] if args.reverse else names, args.null)
        return 0
    found = entries(names)
    found.sort(key=SORTS[args.sort])
    if args.reverse:
        found.reverse()
    if args.json:
        when = now()
        print_json([each.record(when) for each in found])
    elif args.quiet:
        _print_names([each.name for each in found], args.null)
    elif found:
        print_table(COLUMNS, rows_of(found))
    return 0


def _print_names(names: list[str], null: bool) -> None:
    """Return a text as it is for another program, without control characters for a terminal."""
    end = "\0" if null else "\n"
    if is_terminal(1) and not null:
        names = [printable(name) for name in names]
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode("".join(name + end for name in names)))


def the_entry(name: str) -> Entry:
    """Return the object called name. Raises OSError or ValueError."""
    path = path_of(name)
    try:
        status = os.lstat(path)
    except OSError as error:
        error.filename = name
        raise
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a shared memory object", name)
    found = entries([name.removeprefix("/")])
    if not found:  # removed since
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return found[0]


def holders_of(entry: Entry) -> posixshm.Holders:
    found, uninspected = _holders.scan({entry.found.key})
    return posixshm.Holders(found.get(entry.found.key, ()), uninspected)


def show(args: argparse.Namespace) -> int:
    entry = the_entry(args.name)
    found = entry.found
    holders = holders_of(entry)
    content: dict[str, Any] | None = None
    owners: list[locks.Owner] = []
    if entry.kind is not None and found.head is not None:
        content = dict(entry.kind.content)
        tag = tag_of(found.head, found.size)
        if tag is not None and content["type"] == tag.type:
            with Reader(found) as read:
                owners = locks.owners(tag, read)
                content |= locks.more_of(tag, read)
            content["held_by"] = [owner._asdict() for owner in owners]
    record = entry.record(now()) | {
        "content": content,
        "inode": found.inode,
        "device": f"{os.major(found.device)}:{os.minor(found.device)}",
        "links": found.links,
        "changed": found.changed,
        "holders": [holder._asdict() for holder in holders],
        "uninspected": holders.uninspected,
    }
    if args.json:
        print_json(record)
        return 0
    rows = _rows(entry, record)
    if content is not None:
        rows += _content_rows(content, owners)
    rows += _holder_rows(holders)
    print_fields([("name", entry.name), *rows])
    return 0


def _rows(entry: Entry, record: dict[str, Any]) -> list[tuple[str, str]]:
    found = entry.found
    acl = ", with an access control list" if found.acl else ""
    links = how_many(found.links, "name")
    return [
        ("kind", entry.kind_text if entry.kind else "not known: its bytes cannot be read"),
        ("size", f"{found.size} bytes ({size_text(found.size)})"),
        ("allocated", f"{found.allocated} bytes ({size_text(found.allocated)})"),
        ("mode", f"{entry.mode_text} ({stat.filemode(found.mode)}){acl}"),
        ("owner", f"{user_text(found.uid)} (uid {found.uid})"),
        ("group", f"{group_text(found.gid)} (gid {found.gid})"),
        ("inode", f"{found.inode} on device {record['device']}, {links}"),
        ("changed", f"{time_text(found.changed)} ({age_text(record['age'])} ago)"),
        ("state", entry.state_text),
    ]


def _content_rows(content: dict[str, Any], owners: list[locks.Owner]) -> list[tuple[str, str]]:
    rows = []
    for key in ("dtype", "shape", "order", "columns", "rows", "value", "set", "parties", "waiting"):
        if content.get(key) is not None:
            rows.append((key, str(content[key])))
    if content.get("inconsistent"):
        rows.append(("inconsistent", "its owner died: the next acquire() raises OwnerDiedError"))
    roles = {"owner": "held by", "reader": "read by", "writer": "written by", "action": "action in"}
    rows += [(roles[owner.role], owner.text()) for owner in owners]
    if "held_by" in content and not owners and content["type"] in ("Lock", "RLock", "RWLock"):
        rows.append(("held by", "no thread"))
    return rows


def _holder_rows(holders: posixshm.Holders) -> list[tuple[str, str]]:
    rows = [
        ("used by", f"pid {each.pid} ({user_text(each.uid)}) {each.command}: {', '.join(each.how)}")
        for each in holders
    ] or [("used by", "no process that is seen")]
    if holders.uninspected:
        count = how_many(holders.uninspected, "process", "processes")
        rows.append(("", f"({count} cannot be inspected)"))
    return rows


def holders(args: argparse.Namespace) -> int:
    found = holders_of(the_entry(args.name))
    if args.json:
        processes = [each._asdict() for each in found]
        print_json({"holders": processes, "uninspected": found.uninspected})
    elif args.quiet:
        for each in found:
            print(each.pid)
    elif found:
        columns = [
            Column("PID", right=True),
            Column("USER", rank=1, least=8),
            Column("HOW", rank=2),
            Column("COMMAND", least=8),
        ]
        rows = [[str(e.pid), user_text(e.uid), ", ".join(e.how), e.command] for e in found]
        print_table(columns, rows)
    if found.uninspected and not args.json:
        count = how_many(found.uninspected, "process", "processes")
        print(f"posixshm: {count} cannot be inspected", file=sys.stderr)
    return 0 if found else 1
