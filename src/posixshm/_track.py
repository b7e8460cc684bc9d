"""The resource tracker of multiprocessing, which unlinks a name after its creator has died.

The tracker is a small process that multiprocessing starts beside a program and shares with its
children. It keeps a set of names, and unlinks the names that are still in the set when the last of
those processes has ended or died.

A creator with track=True adds its name to the set. An attacher never does, so that the end of an
attacher does not unlink the name.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from multiprocessing import resource_tracker

__all__ = ["check", "register", "register_late", "unregister"]

_KIND = "shared_memory"


def check(name: str) -> None:
    """ValueError if the tracker's line protocol cannot carry `name`."""
    if not name.isascii() or ":" in name or "\n" in name:
        raise ValueError(
            f"the resource tracker cannot keep the name {name!r}: it takes ASCII without ':' and "
            "line breaks; choose another name, or track=False"
        )


def _has_tracker() -> bool:
    return getattr(resource_tracker._resource_tracker, "_fd", None) is not None


def register(name: str) -> None:
    """Have `name` (without a slash) unlinked once every process that shares the tracker has ended.

    Starts the tracker if there is none, but not in a frozen program: there sys.executable is the
    program itself, which would start itself again and again unless it calls freeze_support().
    ValueError for a name that it cannot carry; OSError if it cannot be started.
    """
    check(name)
    if getattr(sys, "frozen", False) and not _has_tracker():
        return
    # Looked up at each call: programs replace these functions to opt out of tracking.
    resource_tracker.register("/" + name, _KIND)


def register_late(name: str) -> None:
    """As register(), for an object that has the name already; errors of the tracker are ignored."""
    with suppress(OSError, ValueError):
        register(name)


def unregister(name: str) -> None:
    """Remove `name` (without a slash) from the tracker's set if it is a member.

    A process can unlink an object that another process created. If the creator has another tracker,
    the name is not in the set, and the tracker would print a KeyError; adding the name first
    prevents that. If there is no tracker, it is not started.
    """
    if not _has_tracker():
        return
    # The name is gone already, so an error of the tracker is ignored.
    with suppress(OSError, ValueError):
        register(name)
        resource_tracker.unregister("/" + name, _KIND)
