"""`posixshm wait` and `watch`."""

from __future__ import annotations

import argparse
import gc
import os
import stat
import sys
import time
from collections.abc import Callable

from posixshm import _core
from posixshm._command.errors import REFUSED, cleaning_up
from posixshm._command.listing import COLUMNS, SORTS, rows_of
from posixshm._command.objects import entries, path_of, select
from posixshm._command.room import record
from posixshm._command.table import table_lines, terminal_width
from posixshm._command.text import how_many, is_terminal, printable, size_text

_SHORTEST, _LONGEST = 0.001, 0.05  # seconds between two checks


def wait(args: argparse.Namespace) -> int:
    path = path_of(args.name)
    name = args.name.removeprefix("/")
    until: Callable[[], bool]
    if args.gone:
        until, what = lambda: not os.path.lexists(path), "the name still exists"
    elif args.free:
        until, what = lambda: _is_free(name), "the object is still in use"
    else:
        until, what = lambda: _is_there(path), "the object does not exist"
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    pause = _SHORTEST
    while not until():
        left = _LONGEST if deadline is None else deadline - time.monotonic()
        if left <= 0:
            text = f"{printable(name)}: {what} after {args.timeout:g} s"
            print(f"posixshm: {text}", file=sys.stderr)
            return REFUSED
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST)
    return 0


def _is_there(path: str) -> bool:
    """Return whether the object has a size; a C program may set it after creating the name."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _is_free(name: str) -> bool:
    found = _core._inspect([name])
    return not found or found[0][1] == "free"


def watch(args: argparse.Namespace) -> int:
    gc.enable()  # it may run for days
    screen = is_terminal(1)
    try:
        with cleaning_up():
            if screen:
                print("\x1b[?1049h\x1b[?25l", end="")  # another screen, without a cursor
            _loop(args, screen)
    except KeyboardInterrupt:  # the way to end it
        pass
    finally:
        if screen:
            print("\x1b[?25h\x1b[?1049l", end="", flush=True)
    return 0


def _loop(args: argparse.Namespace, screen: bool) -> None:
    shown = 0
    while True:
        lines = _lines(args, screen)
        if screen:
            print("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J", end="")
        else:
            print("\n".join(lines), end="\n\n")
        sys.stdout.flush()
        shown += 1
        if shown == args.count:
            return
        time.sleep(args.interval)


def _lines(args: argparse.Namespace, screen: bool) -> list[str]:
    found = entries(select(args.pattern))
    found.sort(key=SORTS[args.sort])
    lines = [_heading(len(found)), *table_lines(COLUMNS, rows_of(found))]
    if screen:
        lines[0] = lines[0][: terminal_width() - 1]
        lines = lines[: max(os.get_terminal_size(1).lines - 1, 2)]
    return lines


def _heading(count: int) -> str:
    room = record()
    free = "no limit" if room["free"] is None else f"{size_text(room['free'])} free"
    when = time.strftime("%H:%M:%S")
    return f"{when}  {how_many(count, 'object')}  {size_text(room['used'])} used  {free}"
