"""The primitives, and helpers for the tests of all of them.

for kind in KINDS: at(kind, shm, 0, create=True), or named(kind, name, create=True)
"""

import threading

from posixshm import Atomic, Barrier, Condition, Event, Lock, RLock, RWLock, Semaphore

# Arguments for creating a primitive, in addition to create=True.
MAKING = {Barrier: {"parties": 2}}
WITH_HEADER = [Lock, RLock, Condition, Event, Barrier, RWLock, Semaphore]
KINDS = [*WITH_HEADER, Atomic]
READABLE = [Lock, RLock, Event, Barrier, Semaphore, Atomic]  # also in read-only memory
OWNED = [Lock, RLock, Condition]  # acquire() and release() by a thread


def name_of(value):
    """For ids=: the name of a class."""
    return getattr(value, "__name__", None)


def at(kind, shm, offset=0, **keywords):
    """Call kind.at() with these keywords, and with those that creating it requires."""
    if keywords.get("create") and kind in MAKING:
        keywords = MAKING[kind] | keywords
    return kind.at(shm, offset, **keywords)


def made(kind, shm, offset=0, **keywords):
    """Create a primitive at an offset; an Atomic needs no creation."""
    return (
        kind.at(shm, offset) if kind is Atomic else at(kind, shm, offset, create=True, **keywords)
    )


def named(kind, name, **keywords):
    """Call the constructor for a primitive with a name."""
    if keywords.get("create") and kind in MAKING:
        keywords = MAKING[kind] | keywords
    return kind(name, **keywords)


def use(thing):
    """Use a primitive as a single process can, and leave it as it was."""
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
            thing.fetch_add(0)  # one atomic step: other processes may use it, too
        case _:
            raise AssertionError(thing)


def die_with(take):
    """Run take() in a thread, which ends with the lock still held."""
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()


def elsewhere(function, *args, **keywords):
    """Call the function in another thread; return its result or raise its exception."""
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
