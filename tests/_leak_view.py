"""Cycles of View."""

import copy
import pickle

from _leaks import cycle, misused, name, read, refused

from posixshm import SharedMemory

shm = SharedMemory.anonymous(4096)
grid = shm.view("i", (3, 4), 8)
record = shm.view("<h3sd", 5, 512)
flag = shm.view("?", 8, 1024)
half = shm.view("bfloat16", 8, 1032)
scalar = shm.view("d", (), 2048)
text = shm.view("3w", 8, 2056)
complex = shm.view(">Zd", 8, 2160)
readonly = shm.view("i", (3, 4), readonly=True)


class Index:
    """An object that can be used as an int."""

    def __index__(self):
        return 2


class Slices:
    def __getitem__(self, key):
        return key


slices = Slices()
VIEWS = (grid, record, flag, half, scalar, readonly, grid[::-2, 1:3], grid[5:])


@cycle("View")
def _():
    misused(type(grid))  # only view() creates views
    ring = [grid[1]]
    ring.append(ring)


@cycle("View.__repr__")
def _():
    for view in VIEWS:
        repr(view)


@cycle("View.__len__")
def _():
    assert len(grid) == 3
    refused(len, scalar)


@cycle(*(f"View.{fact}" for fact in ("format", "shape", "strides", "ndim", "itemsize", "nbytes")))
def _():
    for view in VIEWS:
        read(view, "format", "shape", "strides", "ndim", "itemsize", "nbytes")


@cycle("View.offset", "View.readonly", "View.address", "View.obj")
def _():
    for view in VIEWS:
        read(view, "offset", "readonly", "address", "obj")


@cycle("View.__copy__")
def _():
    for view in VIEWS:
        copy.copy(view)
    misused(view.__copy__)


@cycle("View.__reduce__")
def _():
    for view in (*VIEWS, shm.map().view()):
        refused(pickle.dumps, view)  # outside of multiprocessing; of a MemoryMap
    with SharedMemory.create(name, 4096, delete=True) as named:
        for view in (named.view("i", (3, 4))[::-1], named.view("<h3sd", 5, readonly=True)):
            pickle.loads(pickle.dumps(view))
    misused(view.__reduce__)


@cycle("View.__getitem__")
def _():
    for key in (0, (1, 2), (1, -1, ...), slices[1:], slices[::-1, 2], slices[..., 1], (), Index()):
        kept = grid[key]
        ring = [kept]
        ring.append(ring)
    record[1], flag[1], scalar[()], scalar[...], text[1], complex[1]
    text.cast("B")[95] = 255
    refused(text.__getitem__, 7)
    text[7] = "abc"
    refused(half.__getitem__, 1)
    for wrong in (
        None,
        "",
        1.5,
        True,
        3,
        -4,
        2**70,
        (1, 2, 3),
        (..., ...),
        slices[::0],
        slices["":],
    ):
        refused(grid.__getitem__, wrong)


@cycle("View.__getitem__")
def iteration():
    for view in (grid, record, flag):
        for item in view:
            del item
    refused(list, scalar)


@cycle("View.__setitem__", "View.__delitem__")
def _():
    grid[1, 2] = 300
    grid[1] = grid[2]
    grid[:, ::-1] = grid
    record[1] = (2, b"abc", 1.5)
    flag[1] = True
    complex[1] = 1.5 - 2j
    for wrong in (None, "", b"1"):
        refused(complex.__setitem__, 1, wrong)
    for wrong in (None, "abcd", b"1"):
        refused(text.__setitem__, 1, wrong)
    half[::-1] = half
    for wrong in (None, "", 1.5, 2**70, b"1"):
        refused(grid.__setitem__, (1, 2), wrong)
        refused(grid.__setitem__, 1, wrong)
    refused(grid.__setitem__, 1, shm.view("q", 4))
    refused(grid.__setitem__, 1, shm.view("i", 5))
    for wrong in (None, 5, (), (1,), (1, 2, 3), ("", b"", 1), (1, b"", 2, 3)):
        refused(record.__setitem__, 0, wrong)
    for wrong in (None, "", 3, 2**70, (1, 2, 3)):
        refused(grid.__setitem__, wrong, 1)
    refused(readonly.__setitem__, 0, grid[0])
    refused(grid.__delitem__, 0)


@cycle("View.cast")
def _():
    assert grid.cast("B").shape == (48,)
    grid.cast("<f4", (2, 6)).cast("i")
    for wrong in (5, "", "nonsense", "O"):
        refused(grid.cast, wrong)
    for wrong in ("", -1, 1.5, (5, 5), [1] * 100):
        refused(grid.cast, "i", wrong)
    refused(grid[:, ::2].cast, "B")
    misused(grid.cast)


@cycle("View.tolist", "View.tobytes")
def _():
    for view in (grid, record, flag, scalar, grid[::-2, 1:3], grid[5:]):
        view.tolist()
        view.tobytes()
    refused(half.tolist)
    half.tobytes()
    misused(grid.tolist)
    misused(grid.tobytes)


@cycle("View.__buffer__", "View.__release_buffer__")
def _():
    refused(memoryview, half)
    for view in (grid, record, flag, scalar, readonly, grid[::-2, 1:3]):
        memory = memoryview(view)
        ring = [memory]
        ring.append(ring)
        if hasattr(view, "__buffer__"):  # Python has these names from 3.12 on
            memory = view.__buffer__(0x11C)
            view.__release_buffer__(memory)
            refused(view.__release_buffer__, 5)
    refused(memoryview(readonly).cast("B").__setitem__, 0, 1)


@cycle("View.__dlpack__", "View.__dlpack_device__")
def _():
    grid.__dlpack_device__()
    for version in (None, (0, 8), (1, 1)):
        for copied in (None, True, False):
            capsule = grid.__dlpack__(max_version=version, copy=copied)  # no consumer takes it
            del capsule
    grid.__dlpack__(dl_device=(1, 0), stream=None)
    for refusal in (record, grid[::-1]):
        refused(refusal.__dlpack__)
    refused(readonly.__dlpack__)
    readonly.__dlpack__(max_version=(1, 0))
    for wrong in (5, (), ("", 1), (1, 2, 3)):
        refused(grid.__dlpack__, max_version=wrong)
    for wrong in (5, (), ("", 1), (2, 0)):
        refused(grid.__dlpack__, dl_device=wrong)
    refused(grid.__dlpack__, stream=5)
    misused(grid.__dlpack__)
    misused(grid.__dlpack_device__)
