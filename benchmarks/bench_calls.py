"""What does a call cost, compared with raw C, the standard library and posix_ipc + mmap?

    python benchmarks/bench_calls.py            the table; takes one or two minutes
    python benchmarks/bench_calls.py --quick    only checks that it runs
    python benchmarks/bench_calls.py --check    exit status 1 if a target is missed
    python benchmarks/bench_calls.py --calls    compares the system calls of raw C and posixshm

All contenders are interleaved in one process, pinned to one core, with the cyclic collector off
(see _common.py); a figure is the median over the rounds of the ratio to the first row in the same
round. Raw C has its loop in C; the others have it in Python, which does not matter compared with a
system call. If a call takes less than a microsecond, the time of an empty loop, measured in the
same rounds, is subtracted.

"raw C, the same system calls" makes the system calls of posixshm and no others. To see them:

    strace -o trace python benchmarks/bench_calls.py --once create:posixshm
    strace -o trace python benchmarks/bench_calls.py --once create:c

and read the calls between those with "/begin" and "/end". --calls does this for each pair and
compares the traces, as does every full run if strace is installed. "raw C, the plainest way" is the
way of a textbook: without reservation and use lock, and without checking that the name still refers
to the object before removing it.

The resource tracker of the standard library is started first and not pinned, so it may use another
core.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory as StdlibSharedMemory
from pathlib import Path
from typing import Any

from _common import (
    Batch,
    CannotRun,
    Case,
    Contender,
    arguments_of,
    as_report,
    c_batch,
    c_library,
    checked,
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
from _holdings import SEGMENTS, count_all, print_counted
from _peers import (
    NO_NUMPY,
    NO_POSIX_IPC,
    STDLIB_MAY_UNTRACK,
    STDLIB_UNTRACKED,
    numpy,
    posix_ipc,
    posixshm,
    scratch_names,
    stdlib_tracking,
    versions,
)
from _strace import marked, traced

RAW_C = Path(__file__).parent / "raw" / "calls.c"

SIZE = 64 << 10
SIZES = (SIZE, 4 << 10)  # the time to clear the pages hides the time of the calls
MIB = 1 << 20

VIEW_TARGET = 1.1

C_SAME = "raw C, the same system calls"
C_PLAIN = "raw C, the plainest way"
C_AGAIN = "raw C, the first row once more"  # its distance from 1 is the noise

# -- create and attach ---------------------------------------------------------


def declare(lib: ctypes.CDLL) -> None:
    for peer in ("create_same", "create_plain", "attach_same", "attach_plain"):
        function = getattr(lib, f"peer_{peer}")
        function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
        function.restype = ctypes.c_int64
    lib.peer_make_and_touch.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    lib.peer_make_and_touch.restype = ctypes.c_int64
    lib.peer_touch.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    lib.peer_touch.restype = None


@dataclass(frozen=True)
class Cycle:
    """One cycle: a statement for each contender."""

    title: str
    target: float
    posixshm: str
    stdlib: str
    posix_ipc: str


CYCLES = {
    "create": Cycle(
        "create + close + unlink",
        target=1.25,
        posixshm="shm = SharedMemory.create(name, size)\nshm.close()\nshm.unlink()",
        stdlib="shm = SharedMemory(name, True, size{options})\nshm.close()\nshm.unlink()",
        posix_ipc="shm = SharedMemory('/' + name, O_CREX, size=size)\n"
        "map = mmap(shm.fd, size)\nshm.close_fd()\nmap.close()\nshm.unlink()",
    ),
    "attach": Cycle(
        "attach + close",
        target=1.3,
        posixshm="shm = SharedMemory.open(name)\nshm.close()",
        stdlib="shm = SharedMemory(name{options})\nshm.close()",
        posix_ipc="shm = SharedMemory('/' + name)\n"
        "map = mmap(shm.fd, shm.size)\nshm.close_fd()\nmap.close()",
    ),
}


def posixshm_batch(cycle: str, name: str, size: int) -> Batch:
    shared_memory = posixshm.SharedMemory
    return python_batch(CYCLES[cycle].posixshm, SharedMemory=shared_memory, name=name, size=size)


def stdlib_batch(cycle: str, name: str, size: int, options: str = "") -> Batch:
    statement = CYCLES[cycle].stdlib.format(options=options)
    return python_batch(statement, SharedMemory=StdlibSharedMemory, name=name, size=size)


def c_peer(lib: ctypes.CDLL, cycle: str, how: str, name: str, size: int) -> Batch:
    return c_batch(getattr(lib, f"peer_{cycle}_{how}"), name.encode(), size)


def cycle_case(lib: ctypes.CDLL, cycle: str, name: str, size: int) -> Case:
    """The cycle of every contender; "attach" needs an existing object of that name and size."""
    what = CYCLES[cycle]
    case = Case(
        f"{what.title}, {size >> 10} KiB",
        [
            Contender(C_SAME, c_peer(lib, cycle, "same", name, size)),
            Contender("posixshm", posixshm_batch(cycle, name, size), what.target),
            Contender(C_PLAIN, c_peer(lib, cycle, "plain", name, size)),
            Contender("stdlib", stdlib_batch(cycle, name, size)),
        ],
    )
    if STDLIB_MAY_UNTRACK:
        untracked = stdlib_batch(cycle, name, size, ", track=False")
        case.contenders.append(Contender(STDLIB_UNTRACKED, untracked))
    if posix_ipc:
        ipc = python_batch(
            what.posix_ipc,
            SharedMemory=posix_ipc.SharedMemory,
            O_CREX=posix_ipc.O_CREX,
            mmap=mmap.mmap,
            name=name,
            size=size,
        )
        case.contenders.append(Contender("posix_ipc + mmap", ipc))
    else:
        case.missing.append(NO_POSIX_IPC)
    case.contenders.append(Contender(C_AGAIN, c_peer(lib, cycle, "same", name, size)))
    return case


# -- the buffer ----------------------------------------------------------------


@dataclass
class Buffers:
    """Five buffers of the same number of bytes."""

    array: bytearray
    handle: Any  # posixshm.SharedMemory
    mapping: Any  # posixshm.MemoryMap
    stdlib: StdlibSharedMemory
    plain: mmap.mmap


@contextmanager
def buffers(name: str) -> Iterator[Buffers]:
    with ExitStack() as stack:
        handle = stack.enter_context(posixshm.SharedMemory.create(name, SIZE, delete=True))
        stdlib = StdlibSharedMemory(f"{name}-stdlib", True, SIZE)
        stack.callback(stdlib.unlink)
        stack.callback(stdlib.close)
        plain = stack.enter_context(mmap.mmap(handle.fileno(), SIZE))
        yield Buffers(bytearray(SIZE), handle, handle.map(), stdlib, plain)


def buffer_cases(b: Buffers) -> list[Case]:
    loop = python_batch("pass")

    def take(statement: str, x: Any, **names: Any) -> Batch:
        return python_batch(statement, x=x, **names)

    def view(x: Any) -> Batch:
        return take("memoryview(x)", x, memoryview=memoryview)

    cases = [
        Case(
            "memoryview(x)",
            [
                Contender("bytearray", view(b.array)),
                Contender("posixshm SharedMemory", view(b.handle), VIEW_TARGET),
                Contender("posixshm MemoryMap", view(b.mapping)),
                Contender("mmap", view(b.plain)),
                Contender("stdlib x.buf", view(b.stdlib.buf)),
                Contender("bytearray once more", view(b.array)),
            ],
            loop,
        ),
        Case(
            "x.buf beside memoryview(bytearray)",
            [
                Contender("memoryview(bytearray)", view(b.array)),
                Contender("posixshm: a new view each time", take("x.buf", b.handle)),
                Contender("stdlib: one view for all", take("x.buf", b.stdlib)),
            ],
            loop,
        ),
    ]
    if numpy:

        def as_array(x: Any) -> Batch:
            return take("frombuffer(x)", x, frombuffer=numpy.frombuffer)

        cases.append(
            Case(
                "numpy.frombuffer(x)",
                [
                    Contender("bytearray", as_array(b.array)),
                    Contender("posixshm SharedMemory", as_array(b.handle), VIEW_TARGET),
                    Contender("posixshm MemoryMap", as_array(b.mapping)),
                    Contender("mmap", as_array(b.plain)),
                    Contender("stdlib x.buf", as_array(b.stdlib.buf)),
                    Contender("bytearray once more", as_array(b.array)),
                ],
                loop,
            )
        )
    for title, statement in (
        ("x[i]", "x[1000]"),
        ("x[i] = v", "x[1000] = 7"),
        ("x[i:j] as a view", "x[1000:2000]"),
    ):
        # A slice of a bytearray is a copy; a slice of a memoryview is not, like ours.
        first = memoryview(b.array) if "view" in title else b.array
        cases.append(
            Case(
                title,
                [
                    Contender(type(first).__name__, take(statement, first)),
                    Contender("posixshm MemoryMap", take(statement, b.mapping)),
                    Contender("posixshm shm.buf", take(statement, b.handle.buf)),
                ],
                loop,
            )
        )
    return cases


# -- a large object ------------------------------------------------------------


def big_case(lib: ctypes.CDLL, name: str, size: int) -> Case:
    """Create and map an object and write a byte to every page, without the time to remove it."""
    raw = name.encode()

    def in_c(reserve: int) -> Batch:
        return lambda _: checked(lib.peer_make_and_touch(raw, size, reserve))

    def touch(buffer: Any) -> None:
        lib.peer_touch(ctypes.addressof(ctypes.c_char.from_buffer(buffer)), size)

    def ours(**options: Any) -> Batch:
        def batch(_: int) -> float:
            start = now()
            shm = posixshm.SharedMemory.create(name, size, **options)
            touch(shm)
            took = now() - start
            shm.close()
            shm.unlink()
            return took

        return batch

    def stdlib(_: int) -> float:
        start = now()
        shm = StdlibSharedMemory(name, True, size)
        touch(shm.buf)
        took = now() - start
        shm.close()
        shm.unlink()
        return took

    return Case(
        f"create {size // MIB} MiB and touch every page (once a round)",
        [
            Contender("raw C: ftruncate", in_c(0)),
            Contender("raw C: fallocate", in_c(1)),
            Contender("posixshm reserve=False", ours(reserve=False)),
            Contender("posixshm", ours()),
            Contender("posixshm populate=True", ours(populate=True)),
            Contender("posixshm huge_pages=True", ours(huge_pages=True)),
            Contender("posixshm populate, huge_pages", ours(populate=True, huge_pages=True)),
            Contender("stdlib", stdlib),
        ],
    )


def huge_pages_setting() -> str:
    setting = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    chosen = re.search(r"\[(\w+)\]", setting.read_text()) if setting.exists() else None
    return chosen[1] if chosen else "not in this kernel"


# -- the same system calls? ----------------------------------------------------


def once(which: str) -> None:
    """A turn of a contender between two marks, for strace."""
    cycle, _, who = which.partition(":")
    with scratch_names() as name, ExitStack() as stack:
        held = name("held")
        if cycle == "attach":
            stack.enter_context(posixshm.SharedMemory.create(held, SIZE, delete=True))
        if who == "c":
            lib = stack.enter_context(c_library(RAW_C))
            declare(lib)
            batch = c_peer(lib, cycle, "same", held, SIZE)
        else:
            batch = posixshm_batch(cycle, held, SIZE)
        batch(100)  # so that the allocators have their memory
        with marked():
            batch(1)


def compare_calls(show: bool) -> dict[str, bool]:
    """Compare the system calls of raw C and posixshm for each cycle. show: print them."""
    print("\nthe system calls of raw C and of posixshm (strace)")
    compared = {}
    for cycle in CYCLES:
        ours, raw = (
            traced(sys.executable, __file__, "--once", f"{cycle}:{who}")
            for who in ("posixshm", "c")
        )
        same = compared[cycle] = ours == raw
        print(f"  {cycle}: {f'the same {len(ours)}' if same else 'DIFFERENT'}")
        if show or not same:
            print_calls("posixshm", ours)
        if not same:
            print_calls("raw C", raw)
    return compared


def print_calls(who: str, calls: list[str]) -> None:
    print(f"    {who}")
    for call in calls:
        print(f"      {call}")


# -- the run -------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = arguments_of(__doc__, rounds=1500)
    parser.add_argument("--big", type=int, metavar="MIB", help="size of the large object (1024)")
    parser.add_argument("--calls", action="store_true", help="compare the system calls (strace)")
    parser.add_argument("--once", metavar="CASE:WHO", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    settings = settings_of(args)
    big = args.big * MIB if args.big is not None else 0 if args.quick else 1024 * MIB
    about = {**machine(), **versions(), "huge pages in /dev/shm": huge_pages_setting()}
    print_head(about, settings)

    results: list[dict[str, Any]] = []

    def report(
        case: Case,
        rounds: int = settings.rounds,
        batch_ns: float | None = settings.batch_ns,
    ) -> None:
        rows = run(case, rounds, batch_ns)
        print_case(case, rows)
        results.append(as_report(case, rows))

    # Before pinning; otherwise the tracker would share this core.
    resource_tracker.ensure_running()
    with scratch_names() as name, c_library(RAW_C) as lib, pinned(settings.cpu):
        declare(lib)
        for size in SIZES:
            report(cycle_case(lib, "create", name("create"), size))
        held = name("held")
        with posixshm.SharedMemory.create(held, SIZE, delete=True), stdlib_tracking(held):
            report(cycle_case(lib, "attach", held, SIZE))
        with buffers(name("buffer")) as b:
            for case in buffer_cases(b):
                report(case)
        if not numpy:
            print(f"\nnumpy.frombuffer(x)\n  {NO_NUMPY}")
        if big and not room_for(big):
            print(f"\ncreate {big // MIB} MiB: left out, not enough free memory or /dev/shm")
        elif big:
            report(big_case(lib, name("big"), big), 5, None)

    counted = count_all()
    print_counted(counted)
    compared: dict[str, bool] = {}
    if not args.quick:
        try:
            compared = compare_calls(show=False)
        except CannotRun as error:
            print(f"  not compared: {error}")
    return {
        "machine": about,
        "settings": asdict(settings),
        "cases": results,
        "counted": {"segments": SEGMENTS, "rows": counted},
        "same_calls": compared,
    }


def failures(report: dict[str, Any]) -> list[str]:
    counted = [
        f"{row['contender']}: more than one descriptor a segment, a thread or a process"
        for row in report["counted"]["rows"]
        if row["met"] is False
    ]
    compared = [
        f"{cycle}: raw C makes other system calls, so its ratio says nothing"
        for cycle, same in report["same_calls"].items()
        if not same
    ]
    return missed_in(report["cases"]) + counted + compared


def main() -> int:
    args = arguments()
    if args.once:
        once(args.once)
        return 0
    if args.calls:
        same = all(compare_calls(show=True).values())
        return 1 if args.check and not same else 0
    report = measure(args)
    return conclude(args, report, failures(report))


if __name__ == "__main__":
    run_command("bench_calls", main)
