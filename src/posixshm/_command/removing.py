"""`posixshm rm` and `reclaim`."""

from __future__ import annotations

import argparse
import os
import sys
from select import POLLIN, poll

import posixshm
from posixshm import _core
from posixshm._command.errors import complain
from posixshm._command.listing import print_json
from posixshm._command.objects import (
    SEMAPHORE,
    Entry,
    entries,
    expand,
    is_text,
    now,
    path_of,
    select,
)
from posixshm._command.table import Column, print_table
from posixshm._command.text import age_text, how_many, is_terminal, printable, size_text


def unlink(name: str) -> None:
    """Remove the name of an object, or of a semaphore: sem.NAME."""
    path, plain = path_of(name), name.removeprefix("/")
    if not is_text(name):
        os.unlink(path)
    elif plain.startswith(SEMAPHORE) and plain != SEMAPHORE:
        try:
            posixshm.sem_unlink(plain.removeprefix(SEMAPHORE))
        except OSError as error:
            error.filename = name
            raise
    else:
        posixshm.shm_unlink(name)


def rm(args: argparse.Namespace) -> int:
    names, code = [], 0
    if not args.names and args.prefix is None:
        raise ValueError("rm needs a NAME, a pattern or --prefix")
    if args.prefix is not None:
        _check_not_empty("prefix", args.prefix)
        names += [name for name in select() if _begins(name, args.prefix.removeprefix("/"))]
    names += expand(args.names)
    if args.older_than is not None:
        names = _older(names, args.older_than)
    for name in dict.fromkeys(names):
        try:
            if args.dry_run:
                os.lstat(path_of(name))
                print(printable(name) if is_terminal(1) else name)
            else:
                unlink(name)
        except (OSError, ValueError) as error:
            # Another process may have removed a name since a pattern found it.
            asked = name in args.names and not args.force
            if asked or not isinstance(error, FileNotFoundError):
                code = max(code, complain(error, name))
    return code


def _check_not_empty(what: str, text: str | None) -> None:
    """Reject an empty pattern, such as an unset variable, which would match every name."""
    if text is not None and not text.removeprefix("/"):
        raise ValueError(f"bad {what} {text!r}: it must have at least one character besides '/'")


def _begins(name: str, prefix: str) -> bool:
    return name.startswith(prefix) or name.removeprefix(SEMAPHORE).startswith(prefix)


def _older(names: list[str], seconds: float) -> list[str]:
    """Return the names whose objects are older, and missing names, for a message."""
    limit, found = now() - seconds, []
    for name in names:
        try:
            old = os.lstat(path_of(name)).st_ctime <= limit
        except OSError:
            old = True
        if old:
            found.append(name)
    return found


def reclaim(args: argparse.Namespace) -> int:
    _check_not_empty("pattern", args.pattern)
    _check_not_empty("prefix", args.prefix)
    if (args.pattern, args.prefix, args.older_than) == (None, None, None):
        raise ValueError("reclaim needs a pattern, --prefix or --older-than")
    names = select(args.pattern)
    if args.prefix is not None:
        names = [name for name in names if _begins(name, args.prefix.removeprefix("/"))]
    found = entries(names, kinds=False)
    when, oldest = now(), args.older_than
    if oldest is not None:
        found = [each for each in found if each.age(when) >= oldest]
    states = ("free", "unknown") if args.force else ("free",)
    chosen = [each for each in found if each.state in states]
    results: dict[str, posixshm.Reclaimed] = {}
    if not args.dry_run and chosen and _confirmed(args, chosen):
        # The proof is repeated for each object just before its name is removed.
        results = {
            each.name: each
            for each in _core._reclaim_files(
                [each.name for each in chosen], 0 if oldest is None else oldest, args.force
            )
        }
    return _report(args, found, chosen, results)


def _confirmed(args: argparse.Namespace, chosen: list[Entry]) -> bool:
    """Ask on a terminal, unless the caller has said yes."""
    if args.yes or args.json or not (is_terminal(0) and is_terminal(1)):
        return True
    print_table(_COLUMNS, [_row(each, each.state) for each in chosen])
    size = size_text(sum(each.found.allocated for each in chosen))
    print(f"Remove {how_many(len(chosen), 'name')} ({size})? [y/N] ", end="", flush=True)
    return _answer().strip().lower() in ("y", "yes")


def _answer() -> str:
    """Read a line of standard input.

    Waits in slices, because read(2) would not notice a signal that came just before it.
    """
    waiting = poll()
    waiting.register(0, POLLIN)
    while not waiting.poll(50):
        pass
    return sys.stdin.readline()


_COLUMNS = [
    Column("NAME", least=16, middle=True),
    Column("SIZE", right=True, rank=2),
    Column("AGE", right=True, rank=1),
    Column("STATE", least=8),
]


def _row(each: Entry, outcome: str) -> list[str]:
    return [each.name, size_text(each.found.size), age_text(each.age(now())), outcome]


def _report(
    args: argparse.Namespace,
    found: list[Entry],
    chosen: list[Entry],
    results: dict[str, posixshm.Reclaimed],
) -> int:
    code = int(any(each.error for each in results.values()))
    if args.json:
        print_json([_record(each, results.get(each.name)) for each in found])
        return code
    if found:
        print_table(_COLUMNS, [_row(e, _outcome(e, results.get(e.name))) for e in found])
    gone = chosen if args.dry_run else [e for e in chosen if _removed(results.get(e.name))]
    verb = "Could remove" if args.dry_run else "Removed"
    size = size_text(sum(each.found.size for each in gone))
    print(f"{verb} {len(gone)} of {len(found)} ({size}).")
    unknown = [each.uninspected for each in found if each.state == "unknown"]
    if unknown and not args.force:
        sys.stdout.flush()
        print(
            f"posixshm: unknown: {len(unknown)}. Processes that could not be inspected: "
            f"{max(unknown)}. --force removes these names too.",
            file=sys.stderr,
        )
    return code


def _removed(result: posixshm.Reclaimed | None) -> bool:
    return result is not None and result.removed


def _outcome(each: Entry, result: posixshm.Reclaimed | None) -> str:
    if result is None:
        return each.state_text
    if result.error is not None:
        return f"{result.state}, not removed: {result.error.strerror}"
    return "removed" if result.removed else result.state


def _record(each: Entry, result: posixshm.Reclaimed | None) -> dict[str, object]:
    error = None if result is None else result.error
    return {
        "name": each.name,
        "size": each.found.size,
        "age": round(each.age(now()), 3),
        "state": each.state if result is None else result.state,
        "removed": _removed(result),
        "uninspected": each.uninspected,
        "error": error and error.strerror,
    }
