"""The text of FileExistsError: which processes use the object, and which argument helps."""

from __future__ import annotations

import os
import time

from . import _core

_MOST_PIDS = 8
_TRIES, _PAUSE = 5, 0.01  # for a process that only inspects the object; seconds
_REPLACED = (
    "replace=True gives the name to a new object, and processes that use the old one are not "
    "affected"
)

# By the operation of the caller: the advice if a process may use the object, and if none does.
_ADVICE = {
    "create": (
        f"exist_ok=True attaches to it; {_REPLACED}",
        "replace=True, or exist_ok=True with stale='replace', makes a new one; exist_ok=True "
        "attaches to the old one",
    ),
    "exist_ok": (
        _REPLACED.replace("True", "True instead of exist_ok=True", 1),
        "stale='replace' makes a new one",
    ),
    "stale": (
        "stale='replace' makes a new one, stale='attach' attaches to the old one",
        "stale='replace' makes a new one, stale='attach' attaches to the old one",
    ),
    "link": (
        "replace=True takes the name from it, and processes that use it are not affected",
        "replace=True takes the name from it",
    ),
    "constructor": (
        "without create=True the constructor attaches to it, and without a name it chooses a "
        "random one",
        "without create=True the constructor attaches to it, and without a name it chooses a "
        "random one",
    ),
}


def explain(name: str, operation: str, what: str) -> str:
    """The message for an object called name. what: its first part."""
    unused, use = _use(name)
    return f"{what}; {use}: {_ADVICE[operation][unused]}"


def _use(name: str) -> tuple[bool, str]:
    """Whether no process uses the object, and what to say about that."""
    for _ in range(_TRIES):
        try:
            status = os.lstat(f"/dev/shm/{name}")
        except OSError:
            break
        pids = _lockers(status)
        if pids:
            return False, _pids(pids)
        state = next((found[1] for found in _core._inspect([name])), None)
        if state == "free":
            changed = time.localtime(max(status.st_mtime, status.st_ctime))
            since = time.strftime("%Y-%m-%d %H:%M:%S", changed)
            return True, f"no process uses it, and it was last changed at {since}"
        if state == "unknown":
            return False, "whether a process uses it is unknown"
        if state is None:
            break
        time.sleep(_PAUSE)
    else:
        pids = _users(status)
        return False, _pids(pids) if pids else "a process uses it, which is not visible from here"
    return False, "its name was removed meanwhile"


def _lockers(status: os.stat_result) -> list[int]:
    """The processes that hold the use lock: proc(5), /proc/locks."""
    device = status.st_dev
    file = f"{os.major(device):02x}:{os.minor(device):02x}:{status.st_ino}"
    try:
        with open("/proc/locks", encoding="utf-8") as locks:
            fields = [line.split() for line in locks]
    except OSError:
        return []
    pids = {int(each[4]) for each in fields if each[1] == "FLOCK" and each[5] == file}
    return sorted(pid for pid in pids if pid > 0)


def _users(status: os.stat_result) -> list[int]:
    """The processes without a use lock, as far as /proc shows them."""
    try:
        from . import _holders
    except ImportError:  # as in _support.explain_taken
        return []
    key = status.st_dev, status.st_ino
    return [holder.pid for holder in _holders.scan({key})[0].get(key, ())]


def _pids(pids: list[int]) -> str:
    own = os.getpid()
    shown = [f"{pid} (this process)" if pid == own else f"{pid}" for pid in pids[:_MOST_PIDS]]
    more = " and others" if len(pids) > _MOST_PIDS else ""
    if len(pids) == 1:
        return f"process {shown[0]} uses it"
    return f"processes {', '.join(shown)}{more} use it"
