"""Cycles of what all primitives share: creating, attaching, names, pickling, closing."""

import pickle
from contextlib import suppress

from _leaks import cycle, misused, name, read, refused
from _primitives import KINDS, WITH_HEADER, at, made, named, use

from posixshm import (
    Atomic,
    Barrier,
    Condition,
    Event,
    Lock,
    RLock,
    RWLock,
    Semaphore,
    SharedMemory,
)

SIZE = 65536
shm = SharedMemory.create(name + "-primitives", SIZE, delete=True)
shm.buf[8192:12288] = b"\xa5" * 4096  # other bytes, and no room for a primitive
mapping = shm.map()
readonly = SharedMemory.open(shm.name, readonly=True)
closed = SharedMemory.open(shm.name)
closed.close()
other = name + "-named"
WRONG_NAMES = (5, "", "a/b", "x" * 256, "nul\0")


def each(kinds, *methods, times=60):
    """For a function: a cycle of these methods for each kind, called with the kind and a placed
    object."""

    def add(function):
        for kind in kinds:
            place = 16384 + 4096 * KINDS.index(kind)
            thing = made(kind, shm, place, **({"exist_ok": True} if kind is not Atomic else {}))

            def run(kind=kind, thing=thing):
                function(kind, thing)

            cycle(*(f"{kind.__name__}{method}" for method in methods), times=times)(run)
        return function

    return add


@each(WITH_HEADER, "", ".__new__")
def _(kind, _):
    thing = named(kind, other, create=True)
    use(thing)
    refused(named, kind, other, create=True)
    ring = [thing, named(kind, other, create=True, exist_ok=True), kind(other)]
    ring.append(ring)
    wrong = Event if kind is not Event else Lock
    refused(wrong, other)
    thing.unlink()
    refused(kind, other)
    for wrong in WRONG_NAMES:
        refused(kind, wrong)
        refused(named, kind, wrong, create=True)
    refused(kind, other, exist_ok=True)
    refused(named, kind, other, create=True, mode=-1)
    refused(named, kind, other, create=True, mode="")
    refused(kind.__new__, int)
    unnamed = named(kind, None, create=True)
    use(unnamed)
    read(unnamed, "shm", "uid", "name")
    for keywords in (
        {"exist_ok": True},
        {"delete": True},
        {"track": True},
        {"mode": 0o600},
        {"owner": "self"},
    ):
        refused(named, kind, None, **keywords)
        refused(kind, other, **keywords)
    refused(named, kind, other, create=True, owner="nobody of that name")
    with suppress(OSError):
        named(kind, other, create=True, delete=True, track=True).unlink()
    misused(kind)
    in_particular(kind, lambda *args, **keywords: kind(other, *args, **keywords))


def in_particular(kind, make):
    """Arguments that only some kinds accept, and bad ones."""
    if kind in (Lock, RLock, Condition, RWLock):
        refused(make, create=True, on_owner_died=5)
    if kind is Barrier:
        for wrong in ({"parties": 0}, {"parties": ""}, {"parties": 2**70}, {}, {"timeout": -1}):
            refused(make, create=True, **wrong)
        refused(make, create=True, parties=2, action=5)
        refused(make, create=True, parties=2, timeout="")
    if kind is Condition:
        refused(make, create=True, lock=5)
        refused(make, create=True, on_owner_died=print, lock=Lock.at(shm, 16384))
    if kind is Semaphore:
        for wrong in (-1, "", 2**70):
            refused(make, create=True, value=wrong)


@each(WITH_HEADER, ".at")
def _(kind, _):
    for where in (shm, mapping):
        thing = at(kind, where, 0, create=True)
        use(thing)
        if kind is Barrier:
            refused(kind.at, where, parties=7)  # it has 2
        ring = [thing, kind.at(where), at(kind, where, 0, create=True, exist_ok=True)]
        ring.append(ring)
        refused(at, kind, where, 0, create=True)
        refused((Event if kind is not Event else Lock).at, where)
        with suppress(AttributeError):
            thing.close()
        shm.buf[:4096] = bytes(4096)
        refused(kind.at, where)
    for wrong in (7, 8192, SIZE, -1, 2**70, 1.5, ""):
        refused(kind.at, shm, wrong)
        refused(at, kind, shm, wrong, create=True)
    for wrong in (None, 5, bytearray(SIZE), shm.buf):
        refused(kind.at, wrong)
    for wrong in (readonly, closed):
        refused(kind.at, wrong)
        refused(at, kind, wrong, create=True)
    refused(kind.at, shm, 0, exist_ok=True)
    misused(kind.at)
    in_particular(kind, lambda *args, **keywords: kind.at(shm, 12288, *args, **keywords))


@each([Atomic], ".at", "")
def _(kind, _):
    for where in (shm, mapping):
        for format in "iIqQ":
            ring = [kind.at(where, 64, format)]
            ring.append(ring)
    for wrong in (1, SIZE, -1, 2**70, 1.5, ""):
        refused(kind.at, shm, wrong)
    kind.at(readonly, 64).load()
    for wrong in (None, 5, bytearray(SIZE), shm.buf, closed):
        refused(kind.at, wrong)
    for wrong in (None, 5, "x", "iq", ""):
        refused(kind.at, shm, 0, wrong)
    misused(kind.at)
    misused(kind)


@each(KINDS, ".__repr__")
def _(kind, thing):
    repr(thing)
    if kind is not Atomic:
        for another in (named(kind, other, create=True), at(kind, shm, 0, create=True)):
            repr(another)
            another.close()
            repr(another)
        shm.buf[:4096] = bytes(4096)
        kind(other).unlink()


@each(KINDS, ".__reduce__")
def _(kind, thing):
    thing.__reduce__()
    use(pickle.loads(pickle.dumps(thing)))
    refused(pickle.dumps, kind.at(mapping, thing.offset))  # which has no name
    misused(thing.__reduce__)
    if kind is Atomic:
        return
    another = named(kind, other, create=True)
    pickled = pickle.dumps(another)
    use(pickle.loads(pickled))
    another.unlink()
    refused(pickle.loads, pickled)
    another.close()
    refused(pickle.loads, pickle.dumps(another))


@each(WITH_HEADER, ".close", ".closed", ".unlink", ".name", ".offset", ".shm", ".uid", ".stat")
def _(kind, _):
    for thing in (named(kind, other, create=True), at(kind, shm, 0, create=True)):
        read(thing, "name", "offset", "closed", "shm", "uid")
        thing.stat()
        misused(thing.stat)
        if thing.name is None:
            refused(thing.unlink)
        thing.close()
        thing.close()
        assert thing.closed
        read(thing, "name", "offset", "closed")
        misused(thing.close)
        misused(thing.unlink)
    kind(other).unlink()
    shm.buf[:4096] = bytes(4096)


@each([Atomic], ".format", ".offset", ".shm")
def _(_, thing):
    read(thing, "format", "offset", "shm")
