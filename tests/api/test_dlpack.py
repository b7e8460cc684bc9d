"""DLPack: exporting views to other libraries, and the lifetime of the memory."""

import contextlib
import ctypes
import gc
import threading

import numpy as np
import pytest

from posixshm import PAGESIZE, PROT_READ, SharedMemory

CPU = (1, 0)
TYPES = [
    np.dtype(t)
    for t in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
]


@pytest.fixture
def shm():
    with SharedMemory.anonymous(4096) as memory:
        yield memory


def capsule_name(capsule):
    get = ctypes.pythonapi.PyCapsule_GetName
    get.restype, get.argtypes = ctypes.c_char_p, [ctypes.py_object]
    return get(capsule).decode()


def is_mapped(view_or_mapping):
    """Return a function that returns whether the memory of a view is still mapped."""
    address = f"{view_or_mapping.address & ~(PAGESIZE - 1):x}-"

    def look():
        with open("/proc/self/maps") as maps:
            return any(line.lstrip("0").startswith(address) for line in maps)

    assert look()
    return look


# -- exporting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_numpy_shares_the_memory_of_each_type(shm, dtype):
    view = shm.view(dtype, (3, 4), 16)
    array = np.from_dlpack(view)
    assert (array.dtype, array.shape, array.strides) == (dtype, view.shape, view.strides)
    assert array.__array_interface__["data"] == (view.address, False)


@pytest.mark.parametrize("key", [np.s_[1], np.s_[::2], np.s_[:, 1:3], np.s_[2, 3, ...], np.s_[0:0]])
def test_shapes_and_strides(shm, key):
    view = shm.view("i", (3, 4))
    view.numpy()[:] = np.arange(12).reshape(3, 4)
    assert np.from_dlpack(view[key]).tolist() == view[key].tolist()


def test_the_consumer_selects_the_form(shm):
    view = shm.view("f", 4)
    for version, name in [
        (None, "dltensor"), ((0, 8), "dltensor"), ((1, 0), "dltensor_versioned"),
        ((1, 1), "dltensor_versioned"), ((7, 3), "dltensor_versioned"),
    ]:  # fmt: skip
        assert capsule_name(view.__dlpack__(max_version=version)) == name
    assert view.__dlpack_device__() == CPU
    assert capsule_name(view.__dlpack__(dl_device=CPU, copy=False, stream=None)) == "dltensor"


def test_read_only_is_read_only(shm):
    view = shm.view("f", 4, readonly=True)
    with pytest.raises(BufferError, match="read-only"):
        view.__dlpack__()
    with pytest.raises(BufferError, match="read-only"):
        view.__dlpack__(max_version=(0, 8))
    array = np.from_dlpack(view)
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_a_copy_has_memory_of_its_own(shm):
    view = shm.view("i", (3, 4), readonly=True)
    for part in (view, view[::-1, ::2], view[0:0]):
        array = np.from_dlpack(part, copy=True)
        assert array.tolist() == part.tolist()
        assert array.flags.writeable and array.flags.c_contiguous
    assert capsule_name(view.__dlpack__(copy=True)) == "dltensor"
    array = np.from_dlpack(view, copy=True)
    array[:] = 5
    assert view[0, 0] == 0


@pytest.mark.parametrize(
    ("format", "shape", "offset", "strides", "rule"),
    [
        (">i4", 4, 0, None, "does not have such a type"),
        ("5s", 4, 0, None, "does not have such a type"),
        ("ih", 4, 0, None, "does not have such a type"),
        ("U2", 4, 0, None, "does not have such a type"),
        ("g", 4, 0, None, "does not have such a type"),
        ("Zg", 4, 0, None, "does not have such a type"),
        ("M8[s]", 4, 0, None, "does not have such a type"),
        (np.dtype([("a", "f4")]), 4, 0, None, "does not have such a type"),
        ("i", 4, 2, None, "not aligned"),
        ("Zd", 4, 4, None, "not aligned"),
        ("i", 4, 0, (6,), "not multiples"),
        ("Zf", 4, 0, (12,), "not multiples"),
        ("i", 4, 12, (-4,), "negative"),
    ],
)
def test_a_view_that_dlpack_cannot_describe_is_refused(shm, format, shape, offset, strides, rule):
    view = shm.view(format, shape, offset, strides)
    with pytest.raises(BufferError, match=rule):
        view.__dlpack__(max_version=(1, 0))
    if "type" not in rule:
        assert np.from_dlpack(view, copy=True).tolist() == view.tolist()


@pytest.mark.parametrize("stride", [-4, 3, 2**40])
def test_the_stride_of_a_single_item_is_ignored(shm, stride):
    view = shm.view("i", (2, 1), 0, (8, stride))
    array = np.from_dlpack(view)
    assert array.tolist() == view.tolist()
    assert array.strides == (8, 4)


def test_complex_numbers_need_the_alignment_of_their_halves(shm):
    assert np.from_dlpack(shm.view("Zd", 2, 8)).shape == (2,)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"stream": 1}, BufferError),
        ({"dl_device": (2, 0)}, BufferError),
        ({"dl_device": (1, 1)}, BufferError),
        ({"dl_device": (-1, -1)}, BufferError),
        ({"dl_device": 1}, TypeError),
        ({"dl_device": (1,)}, TypeError),
        ({"dl_device": ("a", 0)}, TypeError),
        ({"dl_device": (1, "a")}, TypeError),
        ({"max_version": 1}, TypeError),
        ({"max_version": (1, 0, 0)}, TypeError),
        ({"max_version": (2**80, 0)}, OverflowError),
        ({"other": 1}, TypeError),
    ],
)
def test_bad_arguments(shm, arguments, error):
    with pytest.raises(error):
        shm.view("f", 4).__dlpack__(**arguments)


def test_arguments_are_keyword_only(shm):
    with pytest.raises(TypeError, match="positional"):
        shm.view().__dlpack__(None)


# -- lifetime of the memory --------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_capsule_keeps_the_memory_mapped(version):
    shm = SharedMemory.anonymous(PAGESIZE)
    view = shm.view("i", 4)
    mapped = is_mapped(view)
    capsule = view.__dlpack__(max_version=version)
    shm.close()
    del view, shm
    gc.collect()
    assert mapped()
    del capsule
    assert not mapped()


def test_a_tensor_keeps_the_memory_mapped():
    shm = SharedMemory.anonymous(PAGESIZE)
    view = shm.view("i", 4)
    mapped = is_mapped(view)
    arrays = [np.from_dlpack(view), np.from_dlpack(view[::2])]
    shm.close()
    del view, shm
    gc.collect()
    arrays[0][:] = [1, 2, 3, 4]
    assert arrays[1].tolist() == [1, 3]
    del arrays[0]
    assert mapped()
    arrays.clear()
    gc.collect()
    assert not mapped()


def test_an_object_does_not_shrink_under_a_tensor():
    shm = SharedMemory.create(None, 4 * PAGESIZE, max_size=8 * PAGESIZE)
    shm.unlink()
    with shm:
        array = np.from_dlpack(shm.view("B", 10, 3 * PAGESIZE))
        with pytest.raises(BufferError, match="cannot shrink"):
            shm.resize(PAGESIZE, shrink=True)
        shm.resize(8 * PAGESIZE)
        array[:] = 1
        del array
        shm.resize(PAGESIZE, shrink=True)
        assert np.from_dlpack(shm.view()).nbytes == PAGESIZE
        shm.resize(2 * PAGESIZE)


def test_a_tensor_of_a_shrunk_object_is_unmapped():
    shm = SharedMemory.create(None, 4 * PAGESIZE)
    shm.unlink()
    with shm:
        np.from_dlpack(shm.view())
        shm.resize(PAGESIZE, shrink=True)
        array = np.from_dlpack(shm.view())
        mapped = is_mapped(shm.view())
    assert array.nbytes == PAGESIZE and mapped()
    del array
    gc.collect()
    assert not mapped()


@pytest.mark.long
def test_tensors_are_made_while_the_object_shrinks(run_threads):
    """The test also hits the time between hiding the end of the mapping and unmapping it."""
    shm = SharedMemory.create(None, PAGESIZE)
    shm.unlink()
    shrunk = threading.Event()

    def shrink():
        for _ in range(2000):
            shm.resize(2 * PAGESIZE)
            # The other thread may have a tensor. Without a GIL, one of its tensors may also keep a
            # mapping until the thread that made the mapping runs, which is the waiting main thread.
            with contextlib.suppress(BufferError):
                shm.resize(PAGESIZE, shrink=True)
        shrunk.set()

    def export():
        while not shrunk.is_set():
            array = np.from_dlpack(shm.view("B", PAGESIZE))
            array[-1] = 1
            assert array.nbytes == PAGESIZE
            del array

    run_threads(shrink, export)
    mapped = is_mapped(shm.view())
    shm.close()
    assert not mapped()


def test_a_tensor_keeps_its_permissions(shm):
    array = np.from_dlpack(shm.view("B", 10))
    with pytest.raises(BufferError, match="right"):
        shm.protect(PROT_READ)
    array[0] = 1
    del array
    gc.collect()
    shm.protect(PROT_READ)


def test_a_tensor_outlives_the_interpreter(run_python):
    for build in (
        "np.from_dlpack(view)",
        "view.__dlpack__()",
        "view.__dlpack__(max_version=(1, 0))",
    ):
        run_python(f"""
            import ctypes
            import numpy as np
            from posixshm import SharedMemory

            shm = SharedMemory.anonymous(4096)
            view = shm.view("i", 4)
            kept = {build}
            shm.close()
            del shm, view
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))  # it is never deallocated
        """)


def test_a_thread_without_the_interpreter_deletes_a_tensor(shm, run_threads):
    """A C++ library may do this in its own thread."""
    libc = ctypes.CDLL(None)
    view = shm.view("i", 4)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename.argtypes = [ctypes.py_object, ctypes.c_char_p]
    used = b"used_dltensor"
    for _ in range(20):
        capsule = view.__dlpack__()
        managed = pointer(capsule, b"dltensor")
        rename(capsule, used)
        del capsule
        words = (ctypes.c_void_p * 8).from_address(managed)
        deleter = words[7]  # after the tensor's 48 bytes and the context
        thread = ctypes.c_ulong()
        assert libc.pthread_create(
            ctypes.byref(thread), None, ctypes.c_void_p(deleter), ctypes.c_void_p(managed)
        ) == 0  # fmt: skip
        assert libc.pthread_join(thread, None) == 0


def test_threads_export_concurrently(run_threads):
    shm = SharedMemory.anonymous(PAGESIZE)
    view = shm.view("i", 4)
    mapped = is_mapped(view)

    def export(view=view):
        return [np.from_dlpack(view) for _ in range(200)][-1]

    arrays = run_threads(*[export] * 4)
    export.__defaults__ = None
    shm.close()
    del view, shm
    arrays[0][:] = 3
    assert arrays[3].tolist() == [3] * 4 and mapped()
    arrays.clear()
    gc.collect()
    assert not mapped()


@pytest.mark.long
def test_an_object_does_not_shrink_under_the_last_tensor(name, run_threads):
    """Only the tensor refers to the memory, and its read could raise SIGBUS."""
    size, ended = 2 * PAGESIZE, threading.Event()
    with SharedMemory.create(name, size, max_size=size, delete=True) as shm:

        def export():
            while not ended.is_set():
                with contextlib.suppress(ValueError):  # it is smaller now
                    array = np.from_dlpack(shm.view("B", 8, PAGESIZE))
                    assert array.sum() == 0
                    del array

        def shrink():
            shrunk = 0
            try:
                while shrunk < 50:
                    with contextlib.suppress(BufferError):
                        shm.resize(PAGESIZE, shrink=True)
                        shrunk += 1
                    shm.resize(size)
            finally:
                ended.set()

        run_threads(export, shrink)
