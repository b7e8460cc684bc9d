"""A thread finds objects that other threads are creating, through gc, and uses them. See
test_hunted."""

import gc
import threading
import types

import posixshm
from posixshm import (
    Atomic,
    Barrier,
    Condition,
    Event,
    Lock,
    MemoryMap,
    RLock,
    RWLock,
    Semaphore,
    SharedMemory,
    View,
)

PRIMITIVES = (Lock, RLock, Condition, Event, Barrier, RWLock, Semaphore, Atomic)
OURS = (*PRIMITIVES, MemoryMap, SharedMemory, View)
# Methods that do not wait and do not disturb the thread that creates the object.
QUIET = {
    Lock: ["locked", "__reduce__", "stat"],
    RLock: ["locked", "__reduce__", "stat"],
    Condition: ["__reduce__", "stat"],
    Event: ["is_set", "__reduce__", "stat"],
    Barrier: ["__reduce__", "stat"],
    RWLock: ["read", "write", "__reduce__", "stat"],
    Semaphore: ["__reduce__", "stat"],
    Atomic: ["load", "__reduce__"],
    MemoryMap: ["__len__", "view"],
    SharedMemory: ["stat", "view", "map", "is_linked", "fileno", "__reduce__"],
    View: ["tolist", "tobytes", "__len__"],
}
READ = ("shm", "lock", "name", "offset", "parties", "n_waiting", "broken", "value", "recovered")
READ += ("closed", "uid", "size", "buf", "nbytes", "resident", "shape", "format", "obj")


class Hunter:
    def __init__(self):
        self.seen = self.called = 0
        self.ended = False
        self.kept = []
        self.thread = threading.Thread(target=self.hunt)
        self.thread.start()

    def hunt(self):
        while not self.ended:
            for thing in gc.get_objects():
                self.use(thing)
            for kind in PRIMITIVES:
                for thing in gc.get_referrers(kind):
                    self.use(thing)

    def use(self, thing):
        if isinstance(thing, types.BuiltinFunctionType):
            # An object with a capsule contains a pointer that Python code must not see.
            if type(thing.__self__).__name__ == "PyCapsule":
                self.called += 1
                self.kept.append(thing)
                for helper in self.kept[-100:]:
                    self.attempt(lambda helper=helper: helper(bytearray(4096)))
        elif type(thing) in OURS:
            self.seen += 1
            self.attempt(lambda: repr(thing))
            for name in READ:
                self.attempt(lambda name=name: getattr(thing, name))
            for name in QUIET[type(thing)]:
                self.attempt(lambda name=name: getattr(thing, name)())

    def attempt(self, call):
        try:
            call()
        except (AttributeError, OSError, TypeError, ValueError, BufferError, KeyError):
            pass

    def end(self):
        self.ended = True
        self.thread.join()


def make_all(name, i):
    """Create each kind of object in each way, and keep none."""
    shm = SharedMemory.create(f"{name}-segment", 1 << 16)
    for number, kind in enumerate(PRIMITIVES):
        making = {"parties": 2} if kind is Barrier else {}
        if kind is Atomic:
            kind.at(shm, 8192 * number).load()
            continue
        kind.at(shm, 8192 * number, create=True, **making)
        kind.at(shm.map(), 8192 * number)
        kind(f"{name}-{number}", create=True, exist_ok=True, **making)
        kind(f"{name}-{number}").unlink()
        kind(**making)
        kind.__new__(kind, **making)
    Lock.at(shm, 0).__enter__()
    with RWLock.at(shm, 8192 * PRIMITIVES.index(RWLock)).read():
        pass
    shm.view("i")[::2][1:].tolist()
    shm.unlink()
    anonymous = SharedMemory.anonymous(4096)
    anonymous.resize(8192)
    MemoryMap(anonymous.fileno())
    posixshm.SharedMemory.__new__(SharedMemory)


def hunted(name, rounds):
    gc.set_threshold(50)  # collections during all calls
    hunter = Hunter()
    try:
        for i in range(rounds):
            make_all(name, i)
    finally:
        hunter.end()
    assert hunter.seen > 0
