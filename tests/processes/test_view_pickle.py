"""Pickling views: a pickle contains a reference to the object and the layout, not the bytes."""

import copy
import gc
import multiprocessing as mp
import os
import pickle

import numpy as np
import pytest
from children.view_worker import describe, work

from posixshm import MemoryMap, SharedMemory

DEADLINE = 60
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
FIELDS = np.dtype([("a", "<i2"), ("b", ">f8")])


class Sub(SharedMemory):
    pass


def views_of(shm):
    grid = shm.view("<i4", (3, 4), 8)
    views = [
        grid, grid[1], grid[::-1, ::2], grid[0:0], grid[2, 3, ...], shm.view(">d", 3, 1),
        shm.view("bfloat16", (2, 2)), shm.view("M8[s]", 2), shm.view(FIELDS, 2, 3), shm.view("3w", 2),
        shm.view("i", (2, 3), strides=(0, 4)), shm.view("<hh", 2, readonly=True), shm.view(),
    ]  # fmt: skip
    shm.buf[:] = bytes(n % 256 for n in range(len(shm.buf)))
    return views


@pytest.fixture(params=[SharedMemory, Sub])
def named(request, name):
    with request.param.create(name, 4096, delete=True) as shm:
        yield shm


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_view_of_a_named_object_is_pickled_by_reference(named, protocol):
    for view in views_of(named):
        data = pickle.dumps(view, protocol)
        assert len(data) < 1000
        other = pickle.loads(data)
        assert describe(other) == describe(view)
        assert other.obj is not None and (view.nbytes == 0 or other.tobytes() == view.tobytes())
        assert other.numpy().dtype == view.numpy().dtype if view.format != "bfloat16" else True
    other = pickle.loads(pickle.dumps(named.view("i", 4, 16), protocol))
    other[2] = 4711
    assert named.view("i")[6] == 4711


def test_views_of_an_object_share_it_after_unpickling(named):
    one, other = pickle.loads(pickle.dumps([named.view("i"), named.view("d", 3, 8)[1:]]))
    assert one.obj is other.obj
    assert one.address + 16 == other.address


def test_read_only_stays_read_only(named):
    with SharedMemory.open(named.name, readonly=True) as reader:
        views = [reader.view("i", 4), named.view("i", 4, readonly=True), named.view("i")[1:]]
    views[2] = pickle.loads(pickle.dumps(named.view("i", readonly=True)))[1:]
    for view in views:
        other = pickle.loads(pickle.dumps(view))
        assert other.readonly and memoryview(other).readonly
        with pytest.raises(TypeError, match="read-only"):
            other[0] = 1


def test_a_view_is_pickled_after_its_handle_is_closed(name):
    shm = SharedMemory.create(name, 4096)
    view = shm.view("i", 4)
    view[1] = 5
    shm.close()
    del shm
    gc.collect()
    assert pickle.loads(pickle.dumps(view))[1] == 5
    SharedMemory.open(name).unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(view))


def test_a_copy_is_a_view_of_the_same_object(named):
    view = named.view("i", (2, 3))[::-1]
    for other in (copy.copy(view), copy.deepcopy(view)):
        assert describe(other) == describe(view)
        other[0, 1] += 1
        assert other.tolist() == view.tolist()


def test_a_view_can_be_copied_after_its_handle_is_closed(name):
    with SharedMemory.create(name, 4096, delete=True) as shm:
        view = shm.view("i", (2, 3))
    other = copy.copy(view)
    view[1, 2] = 7
    assert other.tolist() == view.tolist() == [[0, 0, 0], [0, 0, 7]]


def test_a_view_of_an_unnamed_object_needs_multiprocessing():
    with SharedMemory.anonymous(4096) as shm:
        for protocol in PROTOCOLS:
            with pytest.raises(TypeError, match="multiprocessing"):
                pickle.dumps(shm.view("i"), protocol)


def test_a_view_of_a_memory_map_cannot_be_pickled(named):
    fd = os.memfd_create("posixshm-test")
    os.ftruncate(fd, 4096)
    foreign = MemoryMap(fd, 4096)
    os.close(fd)
    for view in (foreign.view("i"), foreign.view("i")[::2], named.map().view()):
        for protocol in PROTOCOLS:
            with pytest.raises(TypeError, match=r"MemoryMap.*SharedMemory\.view"):
                pickle.dumps(view, protocol)
        assert copy.copy(view) is view


def test_a_handle_of_another_object_is_refused(name):
    shm = SharedMemory.create(name, 4096)
    view = shm.view("i")
    shm.unlink()
    shm.__init__(name, create=True, size=4096)
    try:
        with pytest.raises(TypeError, match="another object"):
            pickle.dumps(view)
        assert pickle.loads(pickle.dumps(shm.view("i"))).shape == (1024,)
    finally:
        shm.unlink()


def test_a_view_does_not_keep_a_cycle_alive():
    class Owner(SharedMemory):
        pass

    shm = Owner.anonymous(4096)
    shm.view_of_itself = shm.view("i")
    fd = shm.fileno()
    del shm
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_views_are_sent_through_multiprocessing(method, name, monkeypatch):
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    context = mp.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there,))
    process.start()
    there.close()
    try:
        with (
            SharedMemory.create(name, 4096, delete=True) as named,
            SharedMemory.anonymous(4096) as other,
        ):
            for view in views_of(named) + views_of(other):
                before = describe(view)
                here.send(view)
                assert here.poll(DEADLINE), "the other process did not answer"
                seen, back = here.recv()
                assert seen == before
                assert describe(back) == describe(view)
                if view.format in "iB" and view.nbytes:
                    assert set(np.asarray(view).ravel().tolist()) == {7}
        here.send(None)
        process.join(DEADLINE)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()
