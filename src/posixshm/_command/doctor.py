"""`posixshm doctor`: what on this machine will get in the way of shared memory."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterable

from posixshm._command import checks_mount, checks_system
from posixshm._command.checks import Check
from posixshm._command.listing import print_json
from posixshm._command.table import painter, terminal_width
from posixshm._command.text import how_many, is_terminal, printable

_CHECKS: list[Callable[[], Iterable[Check]]] = [*checks_mount.CHECKS, *checks_system.CHECKS]


def doctor(args: argparse.Namespace) -> int:
    found = [check for run in _CHECKS for check in run()]
    problems = sum(check.verdict == "problem" for check in found)
    if args.json:
        print_json({"checks": [check._asdict() for check in found], "problems": problems})
        return int(problems > 0)
    width = terminal_width() if is_terminal(1) else None
    paint = painter()
    for check in found:
        verdict = check.verdict.ljust(8)
        if paint is not None:
            verdict = paint("STATE", check.verdict) + " " * (8 - len(check.verdict))
        print(f"{verdict}{printable(check.check)}: {printable(check.value)}")
        for line in _wrapped(f"{check.meaning} {check.advice}".strip(), width):
            print(f"        {line}")
    print()
    print(f"{how_many(problems, 'problem')}." if problems else "No problem.")
    return int(problems > 0)


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, max(width - 9, 20), break_long_words=False)
