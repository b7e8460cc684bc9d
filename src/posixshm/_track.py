"""Who removes the name when its creator dies: the resource tracker of multiprocessing.

The tracker is a small process that multiprocessing starts beside a program and shares with the
children it makes. It keeps a set of names, and unlinks what is still in it when the last of those
processes has ended, however it ended.

Here a creator that asked for it puts its name into that set; an attacher never does, so that an
attacher's end never takes the object away from the others.
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
    """The same for an object that has the name already: if the tracker cannot be told, so be it."""
    with suppress(OSError, ValueError):
        register(name)


def unregister(name: str) -> None:
    """Take `name` (without a slash) out of the tracker's set, whether or not it is in there.

    Who unlinks need not be who created: the tracker knows the name if the creator shares it, and
    prints a KeyError if it does not. Adding the name first makes both the same. Without a tracker
    there is nothing to take out, and none is started.
    """
    if not _has_tracker():
        return
    # The name is gone by now: that the tracker could not be told is no reason to fail.
    with suppress(OSError, ValueError):
        register(name)
        resource_tracker.unregister("/" + name, _KIND)
