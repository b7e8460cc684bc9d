"""What does it cost to pickle and unpickle, by reference and by value?"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from .harness import Case, Contender, Goal, Kind, Settings, control_of, pinned, python_batch
from .peers import numpy, posixshm, scratch_names, size_text, stdlib_create


class Reference:
    """The floor: a name and an identity, found again in a dictionary."""

    def __init__(self, name: str) -> None:
        self.key = name, 2049, 123456
        KNOWN[self.key] = self

    def __reduce__(self) -> Any:
        return find, self.key


KNOWN: dict[Any, Reference] = {}


def find(*key: Any) -> Reference:
    return KNOWN[key]


def both(x: Any, kind: Kind, name: str) -> Contender:
    names = {"dumps": pickle.dumps, "loads": pickle.loads, "protocol": 5}
    return Contender(name, python_batch("loads(dumps(x, protocol))", x=x, **names), kind)


def reference_case(title: str, objects: dict[str, tuple[Any, Kind]], load: bool) -> Case:
    def batch(x: Any) -> Any:
        if load:
            return python_batch("loads(x)", loads=pickle.loads, x=pickle.dumps(x, 5))
        return python_batch("dumps(x, 5)", dumps=pickle.dumps, x=x)

    contenders = [Contender(name, batch(x), kind) for name, (x, kind) in objects.items()]
    contenders.append(control_of(contenders[0]))
    goals = [Goal(name, 5_000) for name, (_, kind) in objects.items() if kind == "posixshm"]
    return Case(title, contenders, goals if load else [])


def cases(settings: Settings) -> Iterator[Case]:
    with scratch_names() as name, pinned(settings.cpu):
        of_floor = Reference(name())
        shm = posixshm.SharedMemory.create(name(), 64 << 10)
        stdlib = stdlib_create(name(), 64 << 10)
        objects: dict[str, tuple[Any, Kind]] = {
            "floor, a key of a dictionary": (of_floor, "floor"),
            "posixshm.SharedMemory": (shm, "posixshm"),
            "posixshm.Lock": (posixshm.Lock.at(shm, 1024, create=True), "posixshm"),
            "standard library": (stdlib, "peer"),
        }
        if numpy:
            objects["posixshm.array"] = posixshm.array.create(name(), 1000), "posixshm"
        yield reference_case("unpickle a reference to memory that is mapped", objects, True)
        yield reference_case("pickle a reference", objects, False)
        for size in (64 << 10,) if settings.quick else (4 << 10, 64 << 10, 1 << 20, 16 << 20):
            if not numpy:
                break
            items = numpy.arange(size // 8, dtype="d")
            first = both(of_floor, "floor", "floor, a key of a dictionary")
            yield Case(
                f"pickle and unpickle an array of {size_text(size)}",
                [
                    first,
                    both(
                        posixshm.array.save(name(), items),
                        "posixshm",
                        "posixshm.array, a reference",
                    ),
                    both(items, "peer", "numpy, by value"),
                    control_of(first),
                ],
                chart="travel",
                x=size,
            )
        stdlib.close()
        stdlib.unlink()
