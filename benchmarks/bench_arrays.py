"""What does it cost to pass an array to another process, compared with copying it and with peers?

    python benchmarks/bench_arrays.py            the tables; takes some minutes
    python benchmarks/bench_arrays.py --quick    only checks that it runs
    python benchmarks/bench_arrays.py --check    exit status 1 if a target is missed

In a round trip, one process has an array in its own memory, sends it, and receives the answer of
another process, which reads an item of every page. The first row copies and reads the array in one
process, which is the limit for all contenders that copy. One row has its array in shared memory
from the start and does not copy. The contenders are interleaved (see _common.py); each has its own
second process, which sleeps while others run. They run on all cores, because a pipe is written and
read at the same time. GB/s: bytes of the array divided by the median time of a round trip.

Then, in one process on one core: creating a numpy array or a torch tensor of a View, compared with
that of a bytearray; reading and writing an item of a View, compared with that of a memoryview. The
time of an empty loop is subtracted.
"""

from __future__ import annotations

import argparse
import ctypes
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import resource_tracker
from typing import Any

from _children import children
from _common import (
    Batch,
    CannotRun,
    Case,
    Contender,
    arguments_of,
    as_report,
    conclude,
    machine,
    missed_in,
    now,
    pinned,
    print_case,
    print_head,
    python_batch,
    room_for,
    run,
    run_command,
    settings_of,
)
from _peers import NO_NUMPY, numpy, posixshm, scratch_names, versions
from _peers_arrays import MISSING, MP, Peer, peers, shared_array, torch

KIB, MIB = 1 << 10, 1 << 20
SIZES = {64 * KIB: 1.0, MIB: 0.5, 64 * MIB: 0.04, 1024 * MIB: 0.015}  # share of the rounds
AT_ONCE = 5  # the largest number of copies of an array in memory

VIEW_TARGET = 1.5

WORD = 8  # bytes of an item
PAGE = 4096 // WORD  # items in a page

ANSWER = struct.Struct("d")


def look(array: Any) -> float:
    """Read an item of every page."""
    return float(array[::PAGE].sum())


def size_text(size: int) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", MIB)):
        if size >= scale:
            return f"{size // scale} {unit}"
    return f"{size // KIB} KiB"


# -- from one process to another -----------------------------------------------


class Exchange:
    """A contender with its second process, and the pipe for the answers."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.answers, self.back = MP.Pipe(duplex=False)
        self.number = 0

    def live(self) -> None:
        while True:
            self.back.send_bytes(ANSWER.pack(self.peer.take(look)))

    def batch(self, n: int) -> float:
        took = 0
        source = self.peer.source
        for _ in range(n):
            self.number += 1
            source[0] = self.number
            expected = self.number + look(source) - source[0]
            start = now()
            self.peer.hand_over()
            (answer,) = ANSWER.unpack(self.answers.recv_bytes())
            self.peer.taken()
            took += now() - start
            if answer != expected:
                raise CannotRun(f"{type(self.peer).__name__}: {answer} came for {expected}")
        return took


def copy_batch(source: Any) -> Batch:
    target = numpy.zeros_like(source)

    def batch(n: int) -> float:
        start = now()
        for _ in range(n):
            numpy.copyto(target, source)
            look(target)
        return now() - start

    return batch


def end_with_parent() -> None:
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def hand_over_case(size: int, name: Callable[[str], str]) -> Iterator[Case]:
    source = numpy.arange(size // WORD, dtype="d")
    exchanges = {
        title: Exchange(kind(name(f"{number}-{size}"), source))
        for number, (title, kind) in enumerate(peers().items())
    }
    case = Case(
        f"hand over {size_text(size)}",
        [Contender("copy it, in one process", copy_batch(source))],
        missing=MISSING,
    )
    with children([exchange.live for exchange in exchanges.values()], end_with_parent):
        case.contenders += [Contender(title, x.batch) for title, x in exchanges.items()]
        yield case
        for exchange in exchanges.values():
            exchange.peer.close()


# -- into other libraries ------------------------------------------------------


def library_cases() -> list[Case]:
    loop = python_batch("pass")
    plain = bytearray(64 * KIB)
    shm = posixshm.SharedMemory.anonymous(64 * KIB)
    view = shm.view("f")
    f4 = numpy.dtype("f4")

    def call(statement: str, x: Any, **names: Any) -> Batch:
        return python_batch(statement, x=x, f4=f4, **names)

    def buffer(x: Any) -> Batch:
        return call("make(x, f4)", x, make=numpy.frombuffer)

    cases = [
        Case(
            "an array of numpy",
            [
                Contender("frombuffer(bytearray)", buffer(plain)),
                Contender("View.numpy()", call("x.numpy()", view), VIEW_TARGET),
                Contender("asarray(View)", call("make(x)", view, make=numpy.asarray), VIEW_TARGET),
                Contender("frombuffer(View)", buffer(view), VIEW_TARGET),
                Contender("from_dlpack(View)", call("make(x)", view, make=numpy.from_dlpack)),
                Contender("SharedMemory.view('f').numpy()", call("x.view('f').numpy()", shm)),
            ],
            loop,
        )
    ]
    plain_items = memoryview(plain).cast("d")
    cases += [
        Case(
            title,
            [
                Contender("memoryview", call(statement, plain_items)),
                Contender("View", call(statement, shm.view("d")), VIEW_TARGET),
            ],
            loop,
        )
        for title, statement in (("read an item", "x[3]"), ("write an item", "x[3] = 1.5"))
    ]
    if torch:
        float32 = torch.float32

        def tensor(x: Any) -> Batch:
            return call("make(x, dtype=f)", x, make=torch.frombuffer, f=float32)

        def dlpack(x: Any) -> Batch:
            return call("make(x)", x, make=torch.from_dlpack)

        array = numpy.frombuffer(plain, f4)
        cases += [
            Case(
                "a tensor of torch, by the buffer",
                [
                    Contender("frombuffer(bytearray)", tensor(plain)),
                    Contender("frombuffer(View)", tensor(view), VIEW_TARGET),
                    Contender("numpy.frombuffer(bytearray)", buffer(plain)),
                ],
                loop,
            ),
            Case(
                "a tensor of torch, by DLPack",
                [
                    Contender("from_dlpack(numpy array)", dlpack(array)),
                    Contender("from_dlpack(View)", dlpack(view), VIEW_TARGET),
                    Contender("numpy.frombuffer(bytearray)", buffer(plain)),
                ],
                loop,
            ),
        ]
    return cases


# -- the run -------------------------------------------------------------------


def about() -> dict[str, str]:
    return {
        **machine(),
        **versions(),
        "torch": torch.__version__ if torch else "left out",
        "SharedArray": "there" if shared_array else "left out",
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    if not numpy:
        raise CannotRun(NO_NUMPY)
    settings = settings_of(args)
    head = about()
    print_head(head, settings)
    results: list[dict[str, Any]] = []

    resource_tracker.ensure_running()
    for size, share in SIZES.items():
        if args.quick and size > MIB:
            continue
        if not room_for(AT_ONCE * size):
            print(f"\nhand over {size_text(size)}: left out, not enough free memory or /dev/shm")
            continue
        rounds = max(3, round(settings.rounds * share))
        with scratch_names() as name, hand_over_case(size, name) as case:
            rows = run(case, rounds, settings.batch_ns if size <= MIB else None)
        per_second = [size / row.ns for row in rows]  # bytes per nanosecond are GB per second
        print_case(case, rows, {"GB/s": [f"{speed:.2f}" for speed in per_second]})
        results.append(as_report(case, rows))
        for row, speed in zip(results[-1]["rows"], per_second, strict=True):
            row["gb_per_second"] = speed

    with pinned(settings.cpu):
        for case in library_cases():
            rows = run(case, settings.rounds, settings.batch_ns)
            print_case(case, rows)
            results.append(as_report(case, rows))
    return {"machine": head, "settings": asdict(settings), "cases": results}


def main() -> int:
    args = arguments_of(__doc__, rounds=200).parse_args()
    report = measure(args)
    return conclude(args, report, missed_in(report["cases"]))


if __name__ == "__main__":
    run_command("bench_arrays", main)
