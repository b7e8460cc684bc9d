"""Cycles of the memory of a handle, and of MemoryMap, which shares most methods."""

import os

from _leaks import cycle, misused, read, refused

import posixshm
from posixshm import PAGESIZE, PROT_NONE, PROT_READ, PROT_WRITE, MemoryMap, SharedMemory

SIZE = 4 * PAGESIZE
shm = SharedMemory.anonymous(SIZE)
mapping = shm.map()
closed = SharedMemory.anonymous(SIZE)
closed.close()
readonly = SharedMemory.from_fd(os.open(f"/proc/self/fd/{shm.fileno()}", os.O_RDONLY))
pipe, _ = os.pipe()
WHERE = (None, "", 1.5, 2**70, -(2**70))


def both(method, times=100):
    """For a function: a cycle of a method of both, called with a handle, a mapping and a closed
    handle."""

    def add(function):
        def run():
            for thing in (shm, mapping):
                function(getattr(thing, method), thing)
                misused(getattr(thing, method))

        cycle(f"SharedMemory.{method}", f"MemoryMap.{method}", times=times)(run)
        return function

    return add


@cycle("MemoryMap", "MemoryMap.__new__")
def _():
    fd = shm.fileno()
    for made in (MemoryMap(fd), MemoryMap(shm, 100), MemoryMap(fd, 10, PAGESIZE, readonly=True)):
        ring = [made]
        ring.append(ring)
    for wrong in (*WHERE[1:], -1, 0, 1 << 62):
        refused(MemoryMap, fd, wrong)
    for wrong in (*WHERE, -1, SIZE, 1 << 62):
        refused(MemoryMap, fd, None, wrong)
    refused(MemoryMap, readonly.fileno())
    refused(MemoryMap, closed)
    refused(MemoryMap, -1)
    refused(MemoryMap, "fd")
    misused(MemoryMap)
    refused(MemoryMap, pipe, 10)


@cycle("SharedMemory.map")
def _():
    for made in (shm.map(), shm.map(PAGESIZE, 10), shm.map(readonly=True), readonly.map()):
        ring = [made, made[:5]]
        ring.append(ring)
    for wrong in (*WHERE, -1, SIZE + 1, 1 << 62):
        refused(shm.map, wrong)
        if wrong is not None:
            refused(shm.map, 0, wrong)
    refused(readonly.map, readonly=False)
    refused(closed.map)
    misused(shm.map)


@cycle("MemoryMap.__repr__")
def _():
    repr(mapping), repr(readonly.map())


@cycle("SharedMemory.buf")
def _():
    view = shm.buf
    view[0] = 1
    assert view.obj is not shm
    read(shm, "buf")
    refused(readonly.buf.__setitem__, 0, 1)
    refused(getattr, closed, "buf")


@cycle(
    "SharedMemory.__buffer__",
    "SharedMemory.__release_buffer__",
    "MemoryMap.__buffer__",
    "MemoryMap.__release_buffer__",
)
def _():
    for thing in (shm, mapping, readonly, readonly.map()):
        view = memoryview(thing)
        part = view[:100].cast("H")
        del view
        part.release()
        ring = [memoryview(thing)]
        ring.append(ring)
        if hasattr(thing, "__buffer__"):  # Python has these names from 3.12 on
            thing.__buffer__(0).release()
            view = thing.__buffer__(0)
            if view.obj is not thing:  # which belongs to a handle
                refused(thing.__release_buffer__, view)
            view.obj.__release_buffer__(view)
            refused(thing.__buffer__, "")
            refused(thing.__release_buffer__, 5)
    refused(memoryview, closed)
    refused(readonly.buf.__setitem__, 0, 1)


@cycle("MemoryMap.__len__", "MemoryMap.nbytes", "MemoryMap.readonly", "MemoryMap.prot")
def _():
    assert len(mapping) == SIZE
    read(mapping, "nbytes", "readonly", "prot")


@cycle("MemoryMap.resident", "SharedMemory.resident")
def _():
    read(mapping, "resident")
    read(shm, "resident")
    refused(getattr, closed, "resident")


@cycle("MemoryMap.__getitem__")
def _():
    assert mapping[300] == mapping[-SIZE + 300]
    bytes(mapping[5:500]), bytes(mapping[500:5:-3])
    list(mapping[:300])
    for wrong in (*WHERE, SIZE, -SIZE - 1, slice(None, None, 0), slice("")):
        refused(mapping.__getitem__, wrong)


@cycle("MemoryMap.__setitem__", "MemoryMap.__delitem__")
def _():
    mapping[300] = 255
    mapping[5:10] = b"12345"
    mapping[::2] = bytes(SIZE // 2)
    mapping[0:100] = mapping[50:150]
    for wrong in (*WHERE, SIZE, slice(None, None, 0)):
        refused(mapping.__setitem__, wrong, 1)
        refused(mapping.__delitem__, wrong)
    for wrong in (None, "", 256, -1, 2**70, b"1"):
        refused(mapping.__setitem__, 0, wrong)
    for wrong in (None, "", 1, b"1", [1, 2]):
        refused(mapping.__setitem__, slice(0, 2), wrong)
    refused(mapping.__delitem__, 0)
    refused(readonly.map().__setitem__, 0, 1)
    refused(readonly.map().__setitem__, slice(0, 1), b"1")


@both("protect")
def _(protect, _):
    for wrong in (None, "", 64, 2**70):
        refused(protect, wrong)
    refused(closed.protect, PROT_READ)
    refused(readonly.protect, PROT_READ | PROT_WRITE)
    for fresh in (SharedMemory.anonymous(10), shm.map()):
        fresh.protect(PROT_READ)
        fresh.protect(PROT_READ | PROT_WRITE)
        view = memoryview(fresh)
        refused(fresh.protect, PROT_READ)  # the view may be writing
        del view
    fresh = shm.map()
    fresh.protect(PROT_NONE)
    refused(fresh.__getitem__, 0)
    refused(memoryview, fresh)


@both("advise")
def _(advise, _):
    advise(posixshm.MADV_WILLNEED)
    advise(posixshm.MADV_NORMAL, PAGESIZE, 10)
    for wrong in WHERE:
        refused(advise, wrong)
        refused(advise, posixshm.MADV_NORMAL, wrong)
    refused(advise, posixshm.MADV_NORMAL, SIZE + 1)
    refused(advise, 12345)
    refused(closed.advise, posixshm.MADV_NORMAL)


@both("sync")
def _(sync, _):
    sync()
    sync(PAGESIZE, 10, posixshm.MS_ASYNC)
    for wrong in WHERE:
        refused(sync, wrong)
    refused(sync, SIZE + 1)
    refused(sync, 0, None, 12345)
    refused(closed.sync)


@both("lock_pages")
def _(lock_pages, thing):
    lock_pages()
    lock_pages(PAGESIZE, 10)
    for wrong in (*WHERE, SIZE + 1):
        refused(lock_pages, wrong)
    thing.unlock_pages()
    refused(closed.lock_pages)


@both("unlock_pages")
def _(unlock_pages, _):
    unlock_pages()
    unlock_pages(PAGESIZE, 10)
    for wrong in (*WHERE, SIZE + 1):
        refused(unlock_pages, wrong)
    refused(closed.unlock_pages)


@both("populate")
def _(populate, _):
    populate()
    populate(PAGESIZE, 10)
    for wrong in (*WHERE, SIZE + 1):
        refused(populate, wrong)
    refused(closed.populate)


@both("view")
def _(view, thing):
    for made in (view(), view("<f4", (3, 4), 16), view("i", 4)):
        ring = [made]
        ring.append(ring)
    view("i", (2, 2), 8, (16, 4), True)
    for wrong in (5, "", "nonsense", [], "O", "\udcff"):
        refused(view, wrong)
    for wrong in ("", -1, 1.5, (-1,), ("",), (1 << 40, 1 << 40), [1] * 100, SIZE):
        refused(view, "i", wrong)
    for wrong in (*WHERE, -1, SIZE + 1):
        refused(view, "i", 1, wrong)
    for wrong in (5, (5, 5), ("",), (1 << 62,)):
        refused(view, "i", 2, 0, wrong)
    refused(closed.view)
    refused(readonly.view().__setitem__, 0, 1)
