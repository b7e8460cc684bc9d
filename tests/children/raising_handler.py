"""A signal handler raises at each point of a Python function at which the interpreter runs
handlers.

    python raising_handler.py NAME

These points are the start of a function and the end of each call in it, at which a profile function
is also called. Prints a line for each function, and for each point at which it left a name.
"""

import os
import signal
import sys

from _processes import SHM, private_shm, shm_names

private_shm()  # before numpy starts its threads

import numpy as np  # noqa: E402

from posixshm import SharedMemory, array, shared_memory  # noqa: E402

name = sys.argv[1]


class Interrupted(Exception):
    pass


def handler(number, frame):
    raise Interrupted


signal.signal(signal.SIGUSR1, handler)


class Truncating(shared_memory.SharedMemory):
    _flags = os.O_CREAT | os.O_RDWR


values = np.arange(10)
FUNCTIONS = {
    "constructor": lambda: shared_memory.SharedMemory(name, True, 100),
    "constructor, fresh name": lambda: shared_memory.SharedMemory(create=True, size=100),
    "constructor, untracked": lambda: shared_memory.SharedMemory(name, True, 100, track=False),
    "constructor, O_CREAT": lambda: Truncating(name, size=100),
    "list": lambda: shared_memory.ShareableList([1, "two"], name=name),
    "list, fresh name": lambda: shared_memory.ShareableList([1, "two"]),
    "array.create": lambda: array.create(name, 10),
    "array.create, init": lambda: array.create(name, 10, init=lambda new: new.fill(1)),
    "array.create, exist_ok": lambda: array.create(name, 10, exist_ok=True),
    "array.create, delete, track": lambda: array.create(name, 10, delete=True, track=True),
    "array.save": lambda: array.save(name, values),
    "array.save, in pieces": lambda: array.save(name, values[::2]),
}
try:
    import pyarrow

    from posixshm import arrow
except ImportError:
    pass
else:
    table = pyarrow.table({"a": values})
    large = pyarrow.table({"a": np.zeros(1 << 18)})
    FUNCTIONS["arrow.write"] = lambda: arrow.write(name, table)
    FUNCTIONS["arrow.write, by a file"] = lambda: arrow.write(name, large)


def interrupt(function, nth):
    """Call the function; send a signal at the nth point, from 0. Return whether it has that
    point."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        module = frame.f_globals.get("__name__", "")
        if event not in ("call", "c_return") or module == __name__:
            return
        if count == nth:
            count += 1
            signal.raise_signal(signal.SIGUSR1)
        count += 1

    sys.setprofile(profile)
    try:
        made = function()
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    made = SharedMemory.open(name) if made is None else made
    getattr(made, "shm", made).unlink()
    return False


for what, function in FUNCTIONS.items():
    assert not interrupt(function, -1)  # the function imports what it needs
    nth = 0
    while interrupt(function, nth):
        for left in shm_names():
            print(f"{what}: left at place {nth}", flush=True)
            os.unlink(f"{SHM}/{left}")
        nth += 1
    print(f"{what}: {'tried' if nth > 1 else 'too few places'}", flush=True)
