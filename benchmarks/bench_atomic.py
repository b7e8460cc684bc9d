"""What does it cost to add 1 to a number that processes share?"""

from __future__ import annotations

from collections.abc import Iterator

from .bench_lock import MP, Segment
from .harness import Case, Contender, Goal, Settings, c_batch, control_of, pinned, python_batch
from .peers import floor, optional, posixshm
from .processes import shared_numbers, shared_page


def cases(settings: Settings) -> Iterator[Case]:
    native, segment, atomicshm = floor(), Segment(), optional("atomicshm")
    of_floor = Contender(
        "floor", python_batch("x.fetch_add(1)", x=native.Atomic(shared_page(), 0)), "floor"
    )
    under_lock = "with x:\n    v[0] += 1"
    contenders = [
        of_floor,
        Contender(
            "posixshm.Atomic",
            python_batch("x.fetch_add(1)", x=segment.make(posixshm.Atomic)),
            "posixshm",
        ),
        Contender("raw C", c_batch(native.raw_sync, "fetch_add", shared_page()), "raw C"),
        Contender(
            "with posixshm.Lock",
            python_batch(under_lock, x=segment.new(posixshm.Lock), v=shared_numbers()),
            "posixshm",
        ),
        Contender(
            "with multiprocessing.Lock", python_batch(under_lock, x=MP.Lock(), v=shared_numbers())
        ),
        Contender(
            "multiprocessing.Value",
            python_batch("with x.get_lock():\n    x.value += 1", x=MP.Value("q")),
        ),
    ]
    if atomicshm:
        cell = atomicshm.AtomicView(shared_page()).cell_u64(0)
        contenders.append(Contender("atomicshm", python_batch("x.fetch_add(1)", x=cell)))
    contenders.append(control_of(of_floor))
    goals = [
        Goal("posixshm.Atomic", 1.05, "floor"),
        Goal("posixshm.Atomic", 0.3, "with posixshm.Lock"),
    ]
    with pinned(settings.cpu):
        yield Case("add 1 to a shared number", contenders, goals, loop=True)
