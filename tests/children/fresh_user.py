"""A process that creates or attaches to an object and reports which: the children of test_fresh."""

import sys

import posixshm
from posixshm import SharedMemory, array

SIZE = 64
FILLED = 7  # what init writes


def fill(buffer):
    buffer[:] = bytes([FILLED]) * len(buffer)


def make(kind, name, **how):
    """Create or attach to an object with these arguments of create(); return (object, is it
    new?)."""
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
    """Print whether the object is new, and keep it until the standard input ends."""
    how = dict(word.split("=") for word in words)
    how = {word: True if value == "True" else value for word, value in how.items()}
    made, created = make(kind, name, **how)
    print("new" if created else "attached", flush=True)
    sys.stdin.read()
    made.close()


def race(name, seed):
    """Attach again and again until a line arrives; no other process may replace the object in
    use."""
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
    """As race(), with an object whose last user removes the name."""
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
