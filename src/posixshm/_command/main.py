"""Where the `posixshm` script enters."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence

from posixshm._command.errors import MissingPackage, Terminated, complain
from posixshm._command.parser import make_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    collects = gc.isenabled()
    gc.disable()  # 100,000 objects make no cycles, and to look for some would double the time
    try:
        return _main(argv)
    finally:
        if collects:
            gc.enable()


def _main(argv: Sequence[str] | None) -> int:
    try:
        args = make_parser().parse_args(argv)
        code: int = args.run(args)
        _flush()
        return code
    except BrokenPipeError:  # the reader has seen enough
        _discard_output()
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        _discard_output()
        return 128 + signal.SIGINT
    except Terminated as ended:
        _discard_output()
        return 128 + ended.number
    except (OSError, ValueError, MemoryError, MissingPackage) as error:
        return _complain(error)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, or /dev/full
        error.filename = "standard output"
        raise


def _complain(error: Exception) -> int:
    try:
        return complain(error)
    except OSError:  # what was printed before cannot be written either
        _discard_output()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = "standard output"
        return complain(error)


def _discard_output() -> None:
    """What is left in the buffer is for nobody: not for the flush at the end either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
