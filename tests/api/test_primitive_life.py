"""The lifetime of primitives: closing, garbage collection, and held locks."""

import errno
import gc
import os
import weakref

import pytest
from _primitives import KINDS, OWNED, at, made, name_of, use
from _processes import PATH, SHM

from posixshm import PAGESIZE, Barrier, Condition, Lock, RLock, RWLock, SharedMemory

kinds = pytest.mark.parametrize("kind", KINDS, ids=name_of)


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 4 * PAGESIZE, delete=True) as handle:
        yield handle


# -- lifetime -----------------------------------------------------------------------------------


@kinds
def test_a_primitive_outlives_its_segment(kind, name):
    shm = SharedMemory.create(name, PAGESIZE, delete=True)
    thing = made(kind, shm)
    shm.close()
    del shm
    gc.collect()
    assert not os.path.exists(f"{SHM}/{name}")
    use(thing)


@pytest.mark.parametrize("kind", OWNED, ids=name_of)
def test_closing_everything_under_a_held_lock_is_safe(kind):
    shm = SharedMemory.anonymous(PAGESIZE)
    thing = at(kind, shm, 0, create=True)
    neighbour = Lock.at(shm, 1024, create=True)
    with neighbour:
        thing.acquire()
        shm.close()
        thing.close()
        del shm
        gc.collect()
        thing.release()
        with pytest.raises(ValueError, match="closed"):
            thing.acquire()


@kinds
def test_the_memory_of_a_live_primitive_cannot_be_removed(kind, name):
    with SharedMemory.create(name, 4 * PAGESIZE, delete=True) as shm:
        last = shm.size - 64 * (-(-kind.nbytes // 64))
        thing = made(kind, shm, last)
        with pytest.raises(BufferError):
            shm.resize(PAGESIZE, shrink=True)
        use(thing)
        shm.resize(8 * PAGESIZE)
        use(thing)
        del thing
        gc.collect()
        shm.resize(PAGESIZE, shrink=True)


@pytest.mark.parametrize("kind", [*OWNED, RWLock], ids=name_of)
def test_acquire_raises_if_the_object_was_deallocated_while_held(run_python, kind, name):
    take = "acquire_write" if kind is RWLock else "acquire"
    code = f"""
import gc, os, sys
from _primitives import *
from posixshm import OwnerDiedError, SharedMemory
shm = SharedMemory.create({name!r}, 8192)
lock = {kind.__name__}.at(shm, 0, create=True)
other = Lock.at(shm, 4096, create=True)
other.acquire()
lock.{take}()
shm.close()
del lock, shm
gc.collect()
with SharedMemory.open({name!r}) as shm:
    child = os.fork()
    if child == 0:
        try:
            {kind.__name__}.at(shm).{take}(timeout=10)
        except OwnerDiedError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    other.release()
    for i in range(100):
        more = Lock.at(shm, 4096 + 128 * (i % 8), create=True, exist_ok=True)
        with more:
            pass
"""
    run_python(code, env=PATH)
    with SharedMemory.open(name) as shm:
        lock = kind.at(shm)
        with pytest.raises(OSError) as caught:
            getattr(lock, take)(timeout=10)
        assert caught.value.errno == errno.EOWNERDEAD
        assert getattr(lock, take)(recover=True)
        lock.release()
        shm.unlink()


@kinds
def test_weak_references(kind, shm):
    thing = made(kind, shm)
    reference = weakref.ref(thing)
    assert reference() is thing
    del thing
    gc.collect()
    assert reference() is None
    assert "offset 0" in repr(kind.at(shm))


@pytest.mark.parametrize("kind", [Lock, RLock, Condition, RWLock, Barrier], ids=name_of)
def test_cycles_are_collected(kind, shm):
    class Owner:
        def __init__(self):
            option = "action" if kind is Barrier else "on_owner_died"
            self.lock = at(kind, shm, 0, create=True, exist_ok=True, **{option: self.repair})

        def repair(self, lock=None):
            pass

    references = [weakref.ref(Owner()) for _ in range(10)]
    locks = [weakref.ref(reference().lock) for reference in references if reference()]
    gc.collect()
    assert all(reference() is None for reference in references + locks)


@kinds
def test_primitives_are_final_and_have_no_attributes(kind, shm):
    with pytest.raises(TypeError):
        type("Sub", (kind,), {})
    thing = made(kind, shm)
    with pytest.raises(AttributeError):
        thing.nonsense = 1
    for attribute in ("offset", "name", "size"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(thing, attribute, 1)
