"""Processes that a benchmark starts once and that sleep while others run."""

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
    """Fork a process for each function, which first calls `begin`; all of them end with the block.

    They inherit everything from this process, including its core. If one of them ends early,
    CannotRun is raised at once, because a wait for it would not end.
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
    raise CannotRun("a process of the benchmark has ended")


def live(life: Callable[[], Any], begin: Callable[[], Any], parent: int) -> None:
    """Run a child from its start to its end."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        begin()
        if os.getppid() == parent:  # otherwise it would end early
            life()
    except KeyboardInterrupt:
        pass
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)
