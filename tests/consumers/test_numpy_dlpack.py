"""NumPy takes a view by DLPack, by the buffer protocol and by View.numpy(), without a copy."""

import gc

import numpy as np
import pytest

from posixshm import SharedMemory

WAYS = {
    "numpy()": lambda view: view.numpy(),
    "asarray": np.asarray,
    "from_dlpack": np.from_dlpack,
}


@pytest.fixture(params=WAYS)
def take(request):
    return WAYS[request.param]


def test_it_is_the_same_memory(take, name):
    with SharedMemory.create(name, 4096, delete=True) as shm:
        view = shm.view("f", (3, 5), 128)
        array = take(view)
        assert (array.ctypes.data, array.shape, array.dtype) == (view.address, (3, 5), np.float32)
        array[2, 4] = 1.5
        assert view[2, 4] == 1.5


def test_read_only_memory_is_a_read_only_array(take, name):
    with SharedMemory.create(name, 4096, delete=True) as shm:
        with SharedMemory.open(name, readonly=True) as reader:
            array = take(reader.view("q", 8))
        assert not array.flags.writeable
        with pytest.raises(ValueError):
            array[0] = 1
        with pytest.raises(ValueError):
            array.flags.writeable = True
        assert not take(shm.view("q", 8, readonly=True)).flags.writeable
        shm.view("q", 8)[0] = 4711
        assert array[0] == 4711


def test_an_array_outlives_the_handle_and_the_name(take, name):
    shm = SharedMemory.create(name, 4096)
    view = shm.view("i", 1024)
    array = take(view)
    array[:] = range(1024)
    part = array[1000:][::2]
    shm.unlink()
    shm.close()
    del shm, view, array
    gc.collect()
    assert part.tolist() == list(range(1000, 1024, 2))


@pytest.mark.parametrize("way", ["view.numpy()", "np.asarray(view)", "np.from_dlpack(view)"])
def test_interpreters_end_well_with_an_array_alive(way, run_python):
    run_python(
        f"""
        import sys
        import numpy as np
        from posixshm import SharedMemory
        view = SharedMemory.anonymous(4096).view("i", 1024)
        sys.late = {way}
        sys.late[:] = 1
        """
    )


def test_from_dlpack_refuses_layouts_that_dlpack_cannot_describe():
    view = SharedMemory.anonymous(4096).view("i", (4, 6))
    for refused in (view[::-1], view.obj.view(">i", 4), view.obj.view("i", 4, 2)):
        with pytest.raises(BufferError):
            np.from_dlpack(refused)
    assert np.asarray(view[::-1]).ctypes.data == view[3].address
    assert np.from_dlpack(view[::-1], copy=True).tolist() == view[::-1].tolist()
