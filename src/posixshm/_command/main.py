"""The entry point of the `posixshm` script."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Sequence

from posixshm._command.errors import USAGE, MissingPackage, Terminated, complain
from posixshm._command.output import OUTPUT, discard, prepare
from posixshm._command.parser import make_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return the exit code."""
    prepare()
    collects = gc.isenabled()
    gc.disable()  # 100,000 objects make no cycles, and to look for some would double the time
    try:
        return _main(argv)
    finally:
        if collects:
            gc.enable()


def _main(argv: Sequence[str] | None) -> int:
    code = 0
    try:
        try:
            args = make_parser().parse_args(argv)
            code = args.run(args)
        except SystemExit as ended:  # of --help, or wrong usage
            code = ended.code if isinstance(ended.code, int) else USAGE
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        discard()
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        discard()
        return 128 + signal.SIGINT
    except Terminated as ended:
        discard()
        return 128 + ended.number
    except (OSError, ValueError, LookupError, MemoryError, MissingPackage) as error:
        return _complain(error)
    return code


def _complain(error: Exception) -> int:
    try:
        sys.stdout.flush()
    except OSError as failed:  # what was printed before cannot be written
        error = failed
    if isinstance(error, OSError) and error.filename == OUTPUT:
        discard()
    return complain(error)
