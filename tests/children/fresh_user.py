"""A process that makes or attaches to an object, and says which: the children of test_fresh."""

import sys

import posixshm
from posixshm import SharedMemory, array

SIZE = 64
FILLED = 7  # what init writes


def fill(buffer):
    buffer[:] = bytes([FILLED]) * len(buffer)


def make(kind, name, **how):
    """An object of that kind by the words of create; (it, whether it is a new one)."""
    if kind == "SharedMemory":
        shm = SharedMemory.create(name, SIZE, init=fill, **how)
        return shm, shm.created
    if kind in ("array.create", "array.save"):
        data = [FILLED] * SIZE
        if kind == "array.save":
            made = array.save(name, data, **how)
        else:
            made = array.create(name, SIZE, int, init=lambda new: new.fill(FILLED), **how)
        return made, made.shm.created
    arguments = {"Barrier": {"parties": 2}, "Semaphore": {"value": FILLED}}.get(kind, {})
    made = getattr(posixshm, kind)(name, create=True, **arguments, **how)
    return made, made.shm.created


def use(kind, name, *words):
    """Say whether it is a new one, and keep it until the standard input ends."""
    how = dict(word.split("=") for word in words)
    how = {word: True if value == "True" else value for word, value in how.items()}
    made, created = make(kind, name, **how)
    print("new" if created else "attached", flush=True)
    sys.stdin.read()
    made.close()


def race(name, seed):
    """Until a line comes, attach again and again; no process replaces the object meanwhile."""
    import random

    from _processes import stopped

    chance = random.Random(seed)
    print("ready", flush=True)
    while not stopped():
        shm = SharedMemory.create(name, SIZE, init=fill, exist_ok=True, stale="replace")
        assert bytes(shm.buf) == bytes([FILLED]) * SIZE
        for _ in range(chance.randrange(40)):
            assert shm.is_linked()
        shm.close()


def race_to_close(name, seed):
    """The same of an object whose last user removes the name."""
    import random

    from _processes import stopped

    chance = random.Random(seed)
    print("ready", flush=True)
    while not stopped():
        shm = SharedMemory.create(name, SIZE, init=fill, exist_ok=True, delete="last")
        assert bytes(shm.buf) == bytes([FILLED]) * SIZE
        for _ in range(chance.randrange(40)):
            assert shm.is_linked()
        shm.close()
