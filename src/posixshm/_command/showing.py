"""`posixshm demo`."""

from __future__ import annotations

import argparse
import os

from posixshm._command.errors import need


def demo(args: argparse.Namespace) -> int:
    need(numpy="numpy")
    import gc

    from posixshm import _demo

    gc.enable()

    workers = args.workers or len(os.sched_getaffinity(0))
    return _demo.run(args.size_mib, workers, args.rounds, args.start_method)
