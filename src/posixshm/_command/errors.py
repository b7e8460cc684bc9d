"""The error messages of the command, of one line each, and its exit codes.

0; 1 when the system refused, or the answer is no; 2 when the caller has to change something (usage,
a bad name, a missing package); 128 + N when signal N ended it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator

from posixshm._command.text import printable

REFUSED, USAGE = 1, 2


class MissingPackage(Exception):
    """A package that a command needs is not installed."""


class Terminated(BaseException):
    """A signal requested the command to end; it cleans up first."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Raise an exception in the block on SIGTERM or SIGHUP, so that it can clean up."""

    def end(number: int, frame: object) -> None:
        raise Terminated(number)

    before = {
        number: signal.signal(number, end)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def need(**packages: str) -> None:
    """Raise MissingPackage unless all packages are installed; the values are the extras."""
    # Nothing has been made yet, so Ctrl-C may simply end the process; some modules
    # turn a KeyboardInterrupt into an ImportError.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        for module, extra in packages.items():
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                text = f"{module} is not installed: pip install 'posixshm[{extra}]'"
                raise MissingPackage(text) from None
            except ImportError as error:
                raise MissingPackage(f"{module} cannot be imported: {error}") from None
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def about(subject: str) -> Iterator[None]:
    """Replace the file name of a system error by the name that the user typed."""
    try:
        yield
    except OSError as error:
        name = error.filename
        if not isinstance(name, str) or name.startswith(("/dev/shm/", "/proc/self/fd/")):
            error.filename = subject
        raise


def complain(error: Exception, subject: str | None = None) -> int:
    """Print an error in one line on standard error. Return the exit code."""
    where, text, code = "", str(error), USAGE
    if isinstance(error, OSError):
        if subject is None and error.filename is not None:
            subject = str(error.filename)
        where = "" if subject is None else f"{subject}: "
        text, code = error.strerror or text, REFUSED
        if isinstance(error, FileNotFoundError) and os.path.isdir("/dev/shm"):
            text = os.strerror(errno.ENOENT)  # a shell has no use for advice on Python
    elif isinstance(error, MemoryError):
        text, code = text or "Not enough memory", REFUSED
    sys.stdout.flush()
    print(f"posixshm: {printable(where + text)}", file=sys.stderr)
    return code
