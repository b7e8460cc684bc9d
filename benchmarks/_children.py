"""Processes that a benchmark starts once, and that sleep while the others run."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from _common import CannotRun


@contextmanager
def children(lives: list[Callable[[], Any]], begin: Callable[[], Any]) -> Iterator[None]:
    """Fork one process for each function, which first calls `begin`; at the end all are gone.

    They have what this process has, on the core it is pinned to.  When one of them ends, CannotRun
    is raised here at once: a wait for it would not end.
    """
    old, parent = signal.signal(signal.SIGCHLD, raise_ended), os.getpid()
    pids: list[int] = []
    try:
        for life in lives:
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                live(life, begin, parent)
            pids.append(pid)
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        signal.signal(signal.SIGCHLD, old)


def raise_ended(*_: Any) -> None:
    raise CannotRun("a process that takes part has ended")


def live(life: Callable[[], Any], begin: Callable[[], Any], parent: int) -> None:
    """The whole life of a child."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        begin()
        if os.getppid() == parent:  # it has not ended before that
            life()
    except KeyboardInterrupt:
        pass
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)
