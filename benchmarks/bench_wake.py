"""How long is a round trip of two processes that wake each other, on one core?

On one core each wake-up is one context switch; on two, the figure would include the sleep of the
other core. Each contender has its own second process. Both processes run the same kind of loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .bench_lock import MP, Segment, ipc_semaphore
from .harness import Case, Contender, Goal, Kind, Settings, c_batch, pinned, python_batch
from .peers import floor, posix_ipc, posixshm
from .processes import FOR_EVER, Pair, children, shared_numbers, shared_page

FUTEX, SEM_T = "raw C, futex", "raw C, sem_t"

SEMAPHORES = "a.release()\nb.acquire()", "a.acquire()\nb.release()"
EVENTS = "a.set()\nb.wait()\nb.clear()", "a.wait()\na.clear()\nb.set()"
WORD = "w.store(1)\nw.notify(1)\nw.wait(1)", "w.wait(0)\nw.store(0)\nw.notify(1)"
CONDITION = (
    "with c:\n    turn[0] = 1\n    c.notify()\n    while turn[0]:\n        c.wait()",
    "with c:\n    while not turn[0]:\n        c.wait()\n    turn[0] = 0\n    c.notify()",
)


def python_pair(statements: tuple[str, str], **names: Any) -> Pair:
    ping, pong = (python_batch(statement, **names) for statement in statements)
    return Pair(ping, lambda: pong(FOR_EVER))


def c_pair(how: str) -> Pair:
    page, raw = shared_page(), floor().raw_sync
    raw("prepare", page, 1)
    return Pair(c_batch(raw, f"ping_{how}", page), lambda: raw(f"pong_{how}", page, FOR_EVER))


def pairs() -> dict[str, tuple[Pair, Kind]]:
    segment = Segment()

    def two(kind: Any, **options: Any) -> dict[str, Any]:
        return {"a": segment.new(kind, **options), "b": segment.new(kind, **options)}

    page, event, words = shared_page(), floor().Event, shared_numbers
    found: dict[str, tuple[Pair, Kind]] = {
        FUTEX: (c_pair("futex"), "raw C"),
        SEM_T: (c_pair("semaphore"), "raw C"),
        "floor of an Event": (python_pair(EVENTS, a=event(page, 0), b=event(page, 64)), "floor"),
        "posixshm.Event": (python_pair(EVENTS, **two(posixshm.Event)), "posixshm"),
        "posixshm.Semaphore": (
            python_pair(SEMAPHORES, **two(posixshm.Semaphore, value=0)),
            "posixshm",
        ),
        "posixshm.Atomic": (python_pair(WORD, w=segment.make(posixshm.Atomic)), "posixshm"),
        "posixshm.Condition": (
            python_pair(CONDITION, c=segment.new(posixshm.Condition), turn=words()),
            "posixshm",
        ),
        "multiprocessing.Event": (python_pair(EVENTS, a=MP.Event(), b=MP.Event()), "peer"),
        "multiprocessing.Semaphore": (
            python_pair(SEMAPHORES, a=MP.Semaphore(0), b=MP.Semaphore(0)),
            "peer",
        ),
        "multiprocessing.Condition": (
            python_pair(CONDITION, c=MP.Condition(), turn=words()),
            "peer",
        ),
    }
    if posix_ipc:
        semaphores = python_pair(SEMAPHORES, a=ipc_semaphore(0), b=ipc_semaphore(0))
        found["posix_ipc.Semaphore"] = semaphores, "peer"
    found[f"{FUTEX}, once more"] = c_pair("futex"), "control"
    return found


def cases(settings: Settings) -> Iterator[Case]:
    with pinned(settings.cpu):
        found = pairs()
        with children([pair.pong for pair, _ in found.values()]):
            yield Case(
                "a round trip of two processes on one core",
                [Contender(name, pair.ping, kind) for name, (pair, kind) in found.items()],
                [
                    Goal("posixshm.Event", 1.15, FUTEX),
                    Goal("posixshm.Condition", 1.6, FUTEX),
                    Goal("posixshm.Semaphore", 1.35, SEM_T),
                ],
            )
