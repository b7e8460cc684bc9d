"""`posixshm demo`."""

from __future__ import annotations

import argparse

from posixshm._command.errors import need


def demo(args: argparse.Namespace) -> int:
    need(numpy="numpy")
    if args.plot is not None:
        need(matplotlib="plot")
    from posixshm import _demo

    return _demo.run(args.plot)
