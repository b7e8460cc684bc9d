"""The primitives, each with what all of them are tested for.

for kind in KINDS: at(kind, shm, 0, create=True), or named(kind, name, create=True)
"""

import threading

from posixshm import Atomic, Barrier, Condition, Event, Lock, RLock, RWLock, Semaphore

# The arguments for a new one, besides create=True.
MAKING = {Barrier: {"parties": 2}}
CELLS = [Lock, RLock, Condition, Event, Barrier, RWLock, Semaphore]
KINDS = [*CELLS, Atomic]
READABLE = [Lock, RLock, Event, Barrier, Semaphore, Atomic]  # also in read-only memory
OWNED = [Lock, RLock, Condition]  # acquire() and release() by a thread


def name_of(value):
    """For ids=: a class by its name."""
    return getattr(value, "__name__", None)


def at(kind, shm, offset=0, **keywords):
    """One at an offset; keywords as of kind.at, with what making it takes."""
    if keywords.get("create") and kind in MAKING:
        keywords = MAKING[kind] | keywords
    return kind.at(shm, offset, **keywords)


def made(kind, shm, offset=0, **keywords):
    """A new one; an Atomic is there already."""
    return (
        kind.at(shm, offset) if kind is Atomic else at(kind, shm, offset, create=True, **keywords)
    )


def named(kind, name, **keywords):
    """One with a name of its own."""
    if keywords.get("create") and kind in MAKING:
        keywords = MAKING[kind] | keywords
    return kind(name, **keywords)


def use(thing):
    """Do with it what one can do alone; it is as before then."""
    match thing:
        case Lock() | RLock() | Condition():
            with thing:
                pass
        case RWLock():
            with thing.read():
                pass
            with thing.write():
                pass
        case Semaphore():
            thing.release()
            assert thing.acquire(timeout=0)
        case Event():
            thing.set()
            assert thing.wait(10)
            thing.clear()
        case Barrier():
            assert thing.n_waiting == 0 and not thing.broken
            thing.reset()
        case Atomic():
            thing.fetch_add(0)  # in one step, for other processes may be at it
        case _:
            raise AssertionError(thing)


def die_with(take):
    """A thread that ends with what `take()` acquired."""
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()


def elsewhere(function, *args, **keywords):
    """Its result or exception in another thread."""
    result = []

    def body():
        try:
            result.append(function(*args, **keywords))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]
