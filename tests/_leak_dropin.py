"""Cycles of posixshm.shared_memory, the drop-in for the module of the standard library.
"""

import os
import pickle
from contextlib import suppress

from _leaks import cycle, misused, name, read, refused

import posixshm
from posixshm.shared_memory import ShareableList, SharedMemory

HUGE = 1 << 45  # bytes, more than any machine has
ITEMS = [1, -(2**63), 1.5, True, None, "a text", b"bytes", "\N{EURO SIGN}" * 20, ""]
shm = SharedMemory(create=True, size=100)
items = ShareableList(ITEMS)
closed = ShareableList([1])
closed.shm.close()
for handle in (shm, items.shm, closed.shm):
    handle.unlink()  # the memory remains mapped


class OrCreate(SharedMemory):
    _flags = os.O_CREAT | os.O_RDWR


class Later:
    """A sequence whose iterator raises after some items."""

    def __iter__(self):
        yield 1
        raise KeyError


@cycle("shared_memory.SharedMemory", "shared_memory.SharedMemory.__init__")
def _():
    for track in (True, False):
        made = SharedMemory(name, create=True, size=100, track=track)
        ring = [made, SharedMemory(name), OrCreate(name)]
        made.ring = ring
        ring.append(ring)
        refused(SharedMemory, name, create=True, size=100, track=track)
        made.unlink()
        OrCreate(name, size=100, track=track).unlink()
        SharedMemory(create=True, size=100, track=track).unlink()
    refused(SharedMemory, name)
    refused(OrCreate, name)
    for wrong in (-1, 0, "", 1.5, 2**70, HUGE):
        refused(SharedMemory, name, create=True, size=wrong)
    for wrong in (5, "", "a/b", "x" * 256):
        refused(SharedMemory, wrong)
        refused(SharedMemory, wrong, create=True, size=10)
    refused(SharedMemory)
    refused(SharedMemory, name + ":", create=True, size=10)  # a name that the tracker cannot store
    os.close(posixshm.shm_open(name, os.O_CREAT | os.O_RDWR))
    refused(SharedMemory, name)
    posixshm.shm_unlink(name)
    misused(SharedMemory)


@cycle("shared_memory.SharedMemory.__del__", "shared_memory.SharedMemory.unlink")
def _():
    made = SharedMemory(name, create=True, size=100)
    view = made.buf
    made._name = "/another"
    refused(made.unlink)
    made._name = "/" + name
    made.unlink()
    refused(made.unlink)
    assert made._fd > 2
    made.__del__()
    assert made._fd == -1
    assert made.buf is None
    view[0] = 1
    misused(made.unlink)


@cycle("shared_memory.SharedMemory.size", "shared_memory.SharedMemory.close",
       "shared_memory.SharedMemory.__getstate__")  # fmt: skip
def _():
    made = SharedMemory(name, create=True, size=100)
    made._mmap.write(b"abc")
    made._buf = made._mmap = None
    made._size = 7
    assert made.size == 7 and made.buf is None
    fd, made._fd = made._fd, -1
    pickle.loads(pickle.dumps(made)).close()
    made.unlink()
    made.close()
    os.close(fd)
    misused(made.close)


@cycle("shared_memory.SharedMemory.__repr__", "shared_memory.SharedMemory.buf")
def _():
    for handle in (shm, closed.shm):
        repr(handle)
        read(handle, "buf")


@cycle("shared_memory.ShareableList", "shared_memory.ShareableList.__init__")
def _():
    made = ShareableList(ITEMS, name=name)
    ring = [made, ShareableList(name=name)]
    ring.append(made)
    made.shm.ring = ring
    refused(ShareableList, ITEMS, name=name)
    made.shm.buf[0] = 255
    refused(ShareableList, name=name)
    made.shm.buf[:16] = bytes(range(16))
    refused(ShareableList, name=name)
    made.shm.unlink()
    refused(ShareableList, name=name)
    ShareableList().shm.unlink()
    for wrong in ([2**63], [()], 5, Later()):
        refused(ShareableList, wrong, name=name)
    for wrong in (5, "", "a/b"):
        refused(ShareableList, [1], name=wrong)
    misused(ShareableList)


LIST = "shared_memory.ShareableList."


@cycle(*(LIST + method for method in ("__getitem__", "__len__", "__iter__", "__repr__")))
def _():
    assert list(items) == ITEMS and len(items) == len(ITEMS) and items[-1] == ""
    repr(items)
    for wrong in (len(ITEMS), -100, "", None, 1.5, 2**70):
        refused(items.__getitem__, wrong)
    refused(closed.__getitem__, 0)
    refused(repr, closed)
    with SharedMemory(create=True, size=len(items.shm.buf)) as copy:
        copy.unlink()
        copy.buf[:] = items.shm.buf
        damaged = ShareableList.__new__(ShareableList)
        damaged._attach_to(copy)
        copy.buf[damaged._layout.codes :] = b"\x09" * len(copy.buf[damaged._layout.codes :])
        for index in (0, 4, 5):
            refused(damaged.__getitem__, index)
        copy.buf[damaged._layout.formats :] = b"\x39" * len(copy.buf[damaged._layout.formats :])
        refused(damaged.__getitem__, 0)


@cycle(LIST + "__setitem__")
def _():
    for index, item in enumerate(ITEMS):
        items[index] = None
        items[index] = item
    for wrong in (2**63, (), "x" * 100, b"x" * 100):
        refused(items.__setitem__, 0, wrong)
    for wrong in (len(ITEMS), -100, "", None, 1.5, 2**70):
        refused(items.__setitem__, wrong, 1)
    refused(closed.__setitem__, 0, 1)


@cycle(LIST + "__reduce__")
def _():
    made = ShareableList(ITEMS, name=name)
    pickled = pickle.dumps(made)
    assert list(pickle.loads(pickled)) == ITEMS
    made.shm.unlink()
    refused(pickle.loads, pickled)
    made.shm.close()
    pickle.dumps(made)


@cycle(LIST + "format", LIST + "count", LIST + "index", LIST + "__class_getitem__")
def _():
    read(items, "format")
    assert items.count(1.5) == 1 and items.index(1.5) == 2
    refused(items.index, "nonsense")
    refused(getattr, closed, "format")
    refused(closed.count, 1)
    misused(items.count)
    misused(items.index)
    ShareableList[int]
    with suppress(TypeError):
        ShareableList[int, str]
