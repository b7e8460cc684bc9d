"""Cycles of handles, mappings and views with numpy's arrays."""

import numpy as np
from _leaks import cycle, misused, refused

from posixshm import SharedMemory

shm = SharedMemory.anonymous(4096)
mapping = shm.map()
grid = shm.view("i", (3, 4), 8)
record = shm.view("<h3sd", 5, 512)
flag = shm.view("?", 8, 1024)
scalar = shm.view("d", (), 2048)
readonly = shm.view("i", (3, 4), readonly=True)
times = shm.view("M8[s]", (2, 3), 1048)
odd = shm.view("p", 4, 1096)
fields = shm.view(np.dtype([("a", "i4"), ("b", "f8")], align=True), 3, 1104)


@cycle("View.numpy")
def _():
    for view in (grid, record, flag, scalar, readonly, grid[::-2, 1:3]):
        array = view.numpy()
        ring = [array, array[...]]
        ring.append(ring)
    refused(odd.numpy)
    misused(grid.numpy)


@cycle("View.__array__")
def _():
    for view in (grid, scalar, readonly, times, grid[::-2, 1:3]):
        np.asarray(view)
        view.__array__(copy=False)
        view.__array__(None, True)
    grid.__array__("f8", copy=None)
    refused(grid.__array__, "f8", False)
    refused(grid.__array__, "nonsense")
    refused(odd.__array__)
    misused(grid.__array__)


@cycle("SharedMemory.__buffer__", "MemoryMap.__buffer__", "View.__buffer__")
def _():
    for thing in (shm, mapping, grid, grid[::2]):
        ring = [np.asarray(thing)]
        ring.append(ring)
    for thing in (shm, mapping, grid):
        ring = [np.frombuffer(thing, "B"), np.ndarray(10, "u1", thing)]
        ring.append(ring)
    refused(np.frombuffer, grid[::2], "B", 50)


@cycle("View.__getitem__", "View.__setitem__")
def _():
    grid[...] = np.arange(12, dtype="i").reshape(3, 4)
    grid[np.int8(2)], grid[1, np.int64(2)]
    refused(grid.__setitem__, 1, np.zeros(4, "q"))
    refused(grid.__setitem__, 1, np.zeros(5, "i"))
    refused(grid.__getitem__, np.arange(2))
    fields[1:] = fields.numpy()[:2]
    refused(fields.__setitem__, slice(None), np.zeros(3, "i4, i4, i8"))
    times[:] = times
    times[1] = np.arange(3).astype("M8[s]")
    for wrong in (b"1", times.numpy().astype("M8[D]"), times[0], 5):
        refused(times.__setitem__, slice(None), wrong)


@cycle("SharedMemory.view", "MemoryMap.view", "View.cast")
def _():
    for dtype in (np.dtype("f4"), np.dtype([("a", "<i4"), ("b", ">f8")]), "S3", np.uint8):
        for thing in (shm, mapping):
            thing.view(dtype)
        grid.cast(dtype)
    for wrong in ("O", np.dtype("O"), np.dtype([("a", "O")]), []):
        refused(shm.view, wrong)
        refused(grid.cast, wrong)


@cycle("View.__dlpack__")
def _():
    array = np.from_dlpack(grid)
    ring = [array, array[1]]
    ring.append(ring)
    refused(np.from_dlpack, record)
