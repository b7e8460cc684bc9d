"""`posixshm doctor`: find out what on this machine limits shared memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from posixshm._command import checks_mount, checks_system
from posixshm._command.checks import Check
from posixshm._command.listing import print_json
from posixshm._command.table import painter, wrapped
from posixshm._command.text import how_many, is_terminal, printable

_CHECKS: list[Callable[[], Iterable[Check]]] = [*checks_mount.CHECKS, *checks_system.CHECKS]

_INDENT = 9


def doctor(args: argparse.Namespace) -> int:
    found = [check for run in _CHECKS for check in run()]
    problems = sum(check.verdict == "problem" for check in found)
    if args.json:
        print_json({"checks": [check._asdict() for check in found], "problems": problems})
        return int(problems > 0)
    paint = painter() if is_terminal(1) else None
    for check in found:
        verdict = check.verdict if paint is None else paint("STATE", check.verdict)
        start = verdict + " " * (_INDENT - len(check.verdict))
        for text in (f"{check.check}: {check.value}", f"{check.meaning} {check.advice}".strip()):
            for line in wrapped(printable(text), _INDENT):
                print(start + line)
                start = " " * _INDENT
    print()
    print(f"{how_many(problems, 'problem')}." if problems else "No problem.")
    return int(problems > 0)
