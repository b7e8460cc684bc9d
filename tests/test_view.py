"""View: creation, indexing, assignment, the buffer and the lifetime of the memory."""

import ctypes
import gc
import itertools
import struct
import weakref

import numpy as np
import pytest

import posixshm
from posixshm import PAGESIZE, PROT_NONE, PROT_READ, PROT_WRITE, MemoryMap, SharedMemory, View

SIZE = 4096


@pytest.fixture
def shm():
    """An object of 4096 bytes that count up."""
    with SharedMemory.anonymous(SIZE) as memory:
        memory.buf[:] = bytes(range(256)) * 16
        yield memory


@pytest.fixture
def grid(shm):
    """A view of int32 that count up, 3 rows of 4, at offset 8."""
    view = shm.view("i", (3, 4), 8)
    view.numpy()[:] = np.arange(12).reshape(3, 4)
    return view


# -- creation -----------------------------------------------------------------------------------


def test_attributes_and_repr(shm):
    view = shm.view("<f4", (3, 4), 16)
    assert (view.format, view.shape, view.strides, view.ndim) == ("f", (3, 4), (16, 4), 2)
    assert (view.itemsize, view.nbytes, view.offset, view.readonly) == (4, 48, 16, False)
    assert isinstance(view.obj, MemoryMap)
    assert view.address == view.obj.view().address + 16
    assert repr(view) == f"<posixshm.View of format 'f', shape (3, 4) at {view.address:#x}>"
    assert "read-only" in repr(shm.view(readonly=True))


def test_the_default_is_all_of_the_memory(shm):
    view = shm.view()
    assert (view.format, view.shape, view.strides) == ("B", (SIZE,), (1,))
    assert view.tobytes() == bytes(shm.buf)
    assert shm.view("d", offset=8).shape == (SIZE // 8 - 1,)
    assert shm.view("3s").shape == (SIZE // 3,)
    assert shm.view("d", offset=SIZE).shape == (0,)


def test_a_memory_map_makes_views(shm):
    assert shm.map(readonly=True).view("h", 3, 2).tolist() == [0x0302, 0x0504, 0x0706]


def test_shape_may_be_an_int_or_any_sequence(shm):
    assert shm.view("i", 5).shape == (5,)
    assert shm.view("i", [2, 3]).shape == (2, 3)
    assert shm.view("i", np.array([2, 3])).shape == (2, 3)
    assert shm.view("i", ()).shape == ()
    assert shm.view("i", (1,) * 64).ndim == 64


def test_strides_may_be_negative_or_zero(shm):
    back = shm.view("B", (4,), 3, (-1,))
    assert back.tolist() == [3, 2, 1, 0]
    assert back.offset == 3
    again = shm.view("B", (2, 3), 1, (0, 1))
    assert again.tolist() == [[1, 2, 3], [1, 2, 3]]
    assert shm.view("B", (2, 2), 0, (1, 2)).tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"shape": SIZE + 1}, "past the end"),
        ({"shape": 1, "offset": SIZE}, "past the end"),
        ({"shape": 0, "offset": SIZE + 1}, "past the end"),
        ({"offset": SIZE + 1}, "past the end"),
        ({"offset": -1}, "offset must be at least 0"),
        ({"offset": 2**63}, "offset must be less than 2"),
        ({"shape": -1}, "shape must be between 0 and"),
        ({"shape": (2, -1)}, "shape must be between 0 and"),
        ({"shape": 2**63}, "shape must be between 0 and"),
        ({"shape": (2**32, 2**32)}, "2\\*\\*63 bytes"),
        ({"shape": (2**32, 0, 2**32)}, "2\\*\\*63 bytes"),
        ({"shape": (2**62,), "format": "d"}, "2\\*\\*63 bytes"),
        ({"shape": (1,) * 65}, "at most 64"),
        ({"shape": 2, "strides": (-1,)}, "before offset 0"),
        ({"shape": 5, "offset": 3, "strides": (-1,)}, "before offset 3"),
        ({"shape": 2, "strides": (SIZE,)}, "past the end"),
        ({"shape": 3, "strides": (2**62,)}, "2\\*\\*63 bytes"),
        ({"shape": (3, 3), "strides": (2**62 - 1, 2**62 - 1)}, "2\\*\\*63 bytes"),
        ({"shape": 3, "strides": (-(2**63),)}, "strides must be between"),
        ({"shape": 2, "strides": (1, 1)}, "strides has 2, shape has 1"),
        ({"shape": (2, 2), "strides": (1,)}, "strides has 1, shape has 2"),
        ({"strides": (1,)}, "together with shape"),
    ],
)
def test_a_range_outside_the_memory_is_an_error(shm, arguments, rule):
    with pytest.raises(ValueError, match=rule):
        shm.view(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": 1.5},
        {"shape": "3"},
        {"shape": (1.5,)},
        {"shape": (True,)},
        {"offset": 1.0},
        {"offset": True},
        {"shape": 1, "strides": 1},
        {"format": 3},
        {"format": None},
    ],
)
def test_an_argument_of_another_type_raises_type_error(shm, arguments):
    with pytest.raises(TypeError):
        shm.view(**arguments)


def test_strides_are_ignored_without_items(shm):
    view = shm.view("i", (3, 0), SIZE, (2**62, -(2**62)))
    assert (view.nbytes, view.tolist(), view.tobytes()) == (0, [[], [], []], b"")
    assert view[2].tolist() == []
    assert view[::-1, 0:].shape == (3, 0)
    assert view.numpy().shape == (3, 0)


def test_the_type_cannot_be_called_or_subclassed():
    with pytest.raises(TypeError, match="cannot create"):
        View()
    with pytest.raises(TypeError, match="not an acceptable base"):
        type("Sub", (View,), {})


def test_a_closed_handle_raises_value_error(shm):
    shm.close()
    with pytest.raises(ValueError, match="closed"):
        shm.view()


# -- indexes ------------------------------------------------------------------------------------


def test_an_index_for_each_dimension_returns_an_item(grid):
    assert (grid[1, 2], grid[-1, -1], grid[1][2]) == (6, 11, 6)
    assert grid[np.int64(2), 0] == 8


def test_fewer_indexes_return_a_view_of_the_same_memory(grid):
    row = grid[1]
    assert isinstance(row, View)
    assert (row.shape, row.tolist(), row.address) == ((4,), [4, 5, 6, 7], grid.address + 16)
    grid[1, 0] = -4
    assert row[0] == -4


def test_slices_return_views(grid):
    expected = np.arange(12).reshape(3, 4)
    some = [0, 1, -1, slice(None), slice(1, None), slice(None, None, -1), slice(3, 0, -2),
            slice(5, 9), slice(-100, 100, 2), ...]  # fmt: skip
    for key in [*some, *itertools.product(some, some)]:
        if isinstance(key, tuple) and key.count(...) == 2:
            continue
        want = expected[key]
        got = grid[key]
        assert (got.tolist() if isinstance(got, View) else got) == want.tolist(), key


def test_an_ellipsis_returns_a_view_without_dimensions(grid):
    corner = grid[2, 3, ...]
    assert (corner.shape, corner.tolist(), corner[()]) == ((), 11, 11)
    corner[()] = 5
    assert grid[2, 3] == 5
    corner[...] = np.array(6, "i4")
    assert grid[2, 3] == 6


def test_a_view_without_dimensions_does_not_have_a_length(shm):
    view = shm.view("B", ())
    with pytest.raises(TypeError, match="does not have a length"):
        len(view)
    with pytest.raises(TypeError, match="iterate"):
        list(view)
    with pytest.raises(IndexError, match="too many"):
        view[0]


def test_length_and_iteration(grid):
    assert len(grid) == 3
    assert [row.tolist() for row in grid] == grid.tolist()
    assert list(grid[0]) == [0, 1, 2, 3]
    assert 7 in grid[1]
    assert list(reversed(grid[0])) == [3, 2, 1, 0]


def test_an_index_through_the_c_api(grid):
    get_item = ctypes.pythonapi.PySequence_GetItem
    get_item.argtypes, get_item.restype = [ctypes.py_object, ctypes.c_ssize_t], ctypes.py_object
    assert get_item(grid, -1).tolist() == [8, 9, 10, 11]
    assert get_item(grid[0], -1) == 3
    for view in (grid, grid[0, 1:]):
        with pytest.raises(IndexError):
            get_item(view, -4)


@pytest.mark.parametrize("key", [3, -4, (0, 4), (0, 0, 0), (..., ...), 2**70, (slice(None), 9)])
def test_an_index_out_of_range_raises_index_error(grid, key):
    with pytest.raises(IndexError):
        grid[key]
    with pytest.raises(IndexError):
        grid[key] = 1


@pytest.mark.parametrize("key", [None, "a", 1.0, True, [0], (0, None), np.array([1])])
def test_an_index_of_another_type_raises_type_error(grid, key):
    with pytest.raises(TypeError):
        grid[key]


def test_a_step_of_zero_raises_value_error(grid):
    with pytest.raises(ValueError, match="zero"):
        grid[::0]


# -- assignment ---------------------------------------------------------------------------------


def test_items_are_assigned(grid):
    grid[0, 1] = 70
    assert grid.numpy()[0, 1] == 70


def test_buffers_are_assigned_to_ranges(grid):
    grid[1] = np.array([40, 50, 60, 70], "i4")
    assert grid[1].tolist() == [40, 50, 60, 70]
    grid[:, 0] = np.array([1, 2, 3, 4, 5], "i4")[::2]
    assert grid[:, 0].tolist() == [1, 3, 5]
    grid[2:] = grid[:1]
    assert grid[2].tolist() == grid[0].tolist()


def test_arrays_of_ctypes_are_assigned_to_ranges(grid):
    """Their buffers do not have strides."""
    grid[1] = (ctypes.c_int * 4)(40, 50, 60, 70)
    assert grid[1].tolist() == [40, 50, 60, 70]
    grid[::2, 1:3] = ((ctypes.c_int * 2) * 2)((1, 2), (3, 4))
    assert grid[::2].tolist() == [[0, 1, 2, 3], [8, 3, 4, 11]]
    grid[2, 3, ...] = ctypes.c_int(-1)
    assert grid[2, 3] == -1


def test_a_range_is_assigned_to_an_overlapping_range(grid):
    grid[0] = grid[0, ::-1]
    assert grid[0].tolist() == [3, 2, 1, 0]
    grid[1:] = grid[:2]
    assert grid.tolist() == [[3, 2, 1, 0], [3, 2, 1, 0], [4, 5, 6, 7]]


def test_structures_are_assigned_to_a_range(shm):
    dtype = np.dtype([("a", "i2"), ("b", "f8")])
    view = shm.view(dtype, 3)
    view[:2] = np.array([(1, 2.5), (3, 4.5)], dtype)
    assert view.numpy()["b"][:2].tolist() == [2.5, 4.5]


def test_formats_of_the_same_numbers_are_equal(shm):
    view = shm.view("q", 2)
    view[:] = np.array([1, 2], "l")
    assert view.tolist() == [1, 2]
    shm.view("b", 2)[:] = np.array([-1, -2], "i1")


@pytest.mark.parametrize("dtype", ["U3", ">U3", "S3", "V3"])
def test_text_and_bytes_are_assigned_to_a_range(shm, dtype):
    source = np.frombuffer(bytes(range(65, 65 + np.dtype(dtype).itemsize)), "u1").copy().view(dtype)
    view = shm.view(dtype, 1)
    view[:] = source
    assert view.tobytes() == source.tobytes()
    if dtype == "U3":
        with pytest.raises(ValueError, match="format"):
            view[:] = source.view(">U3")


def test_items_without_a_buffer_format_are_assigned_to_a_range(shm):
    view, other = shm.view("bfloat16", (2, 3)), shm.view("bfloat16", (2, 3), 64)
    before = other.tobytes()
    view[:] = other
    assert view.tobytes() == before
    view[0, ::-1] = other[0]
    assert view[0].tobytes() == before[4:6] + before[2:4] + before[:2]
    kept = bytes(shm.buf)
    refused = [
        (shm.view("float8_e5m2", (2, 3)), ValueError, "same format"),
        (shm.view("H", (2, 3)), ValueError, "same format"),
        (other[:1], ValueError, "shape"),
        (3, TypeError, "buffer"),
    ]
    for value, error, rule in refused:
        with pytest.raises(error, match=rule):
            view[:] = value
    with pytest.raises(BufferError, match="does not have the format"):
        shm.view("H", (2, 3))[:] = view
    assert bytes(shm.buf) == kept


@pytest.mark.parametrize("dtype", ["M8[s]", ">m8[ns]"])
def test_times_are_assigned_to_a_range(shm, dtype):
    view, source = shm.view(dtype, (2, 3)), np.arange(6).astype(dtype).reshape(2, 3)
    view[:] = source
    assert np.array_equal(view.numpy(), source)
    view[:, 1] = source[::-1, 2]
    assert view.numpy()[:, 1].tolist() == source[::-1, 2].tolist()
    view[0] = view[1]
    assert view.numpy()[0].tolist() == view.numpy()[1].tolist()
    kept = bytes(shm.buf)
    for value in (source.astype("M8[ms]"), source.astype("i8"), b"123456", source[:1]):
        with pytest.raises(ValueError):
            view[:] = value
    assert bytes(shm.buf) == kept


def test_a_wrong_dtype_attribute_does_not_read_past_the_buffer(shm):
    class Wrong(bytearray):
        dtype = np.dtype("M8[s]")

    with pytest.raises(ValueError, match="same format"):
        shm.view("M8[s]", 3)[:] = Wrong(24)


@pytest.mark.parametrize(
    ("value", "error", "rule"),
    [
        (5, TypeError, "must be a buffer"),
        ([1, 2, 3, 4], TypeError, "must be a buffer"),
        (np.arange(3, dtype="i4"), ValueError, "same shape"),
        (np.zeros((1, 4), "i4"), ValueError, "same shape"),
        (np.zeros(4, "u4"), ValueError, "format"),
        (np.zeros(4, ">i4"), ValueError, "format"),
        (np.zeros(4, "f4"), ValueError, "format"),
        (bytes(16), ValueError, "format"),
        (np.zeros(4, [("a", "i4")]), ValueError, "format"),
    ],
)
def test_a_value_of_another_format_or_shape_is_refused(grid, value, error, rule):
    before = grid.tobytes()
    with pytest.raises(error, match=rule):
        grid[0] = value
    assert grid.tobytes() == before


def test_items_cannot_be_deleted(grid):
    with pytest.raises(TypeError, match="cannot delete"):
        del grid[0]


# -- cast ---------------------------------------------------------------------------------------


def test_cast_changes_the_format_of_the_same_bytes(grid):
    assert grid.cast("B").tobytes() == grid.tobytes()
    assert grid.cast("<u8", (2, 3)).tolist() == grid.numpy().view("u8").reshape(2, 3).tolist()
    assert grid.cast("4i").shape == (3,)
    assert grid[0, 1:2].cast("f", ()).shape == ()
    assert grid.cast("i", (4, 3)).address == grid.address
    pairs = grid.cast(np.dtype([("a", "i4"), ("b", "f4")]))
    assert pairs.numpy()["a"].tolist() == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("format", "shape", "rule"),
    [
        ("i", 11, "48 bytes to items of 4 bytes that have 44 bytes"),
        ("i", (13,), "52 bytes"),
        ("5s", None, "48 bytes to items of 5 bytes that have 45 bytes"),
        ("i", (2**40, 2**40), "2\\*\\*63 bytes"),
        ("zz", None, "bad format"),
    ],
)
def test_cast_keeps_the_number_of_bytes(grid, format, shape, rule):
    with pytest.raises(ValueError, match=rule):
        grid.cast(format, shape)


def test_cast_needs_c_order(grid):
    with pytest.raises(ValueError, match="C order"):
        grid[:, 0].cast("B")


# -- the buffer ---------------------------------------------------------------------------------


def test_a_memoryview_has_the_same_attributes(grid):
    with memoryview(grid) as m:
        assert (m.format, m.shape, m.strides, m.itemsize, m.nbytes, m.ndim, m.readonly) == (
            grid.format, grid.shape, grid.strides, grid.itemsize, grid.nbytes, grid.ndim, False,
        )  # fmt: skip
        assert m.obj is grid
        assert m.tolist() == grid.tolist()
    assert np.frombuffer(grid, "i4").tolist() == list(range(12))


def test_plain_bytes_are_exported_only_in_c_order(grid, tmp_path):
    (tmp_path / "x").write_bytes(grid)
    assert (tmp_path / "x").read_bytes() == grid.tobytes()
    with pytest.raises(BufferError, match="contiguous"):
        (tmp_path / "x").write_bytes(grid[:, 0])


def test_numpy_sees_fortran_order(shm):
    view = shm.view("i", (3, 4), 0, (4, 12))
    array = view.numpy()
    assert array.flags.f_contiguous and not array.flags.c_contiguous


def test_numpy_shares_the_memory(grid):
    array = grid[:, ::-2].numpy()
    assert type(array) is np.ndarray
    assert array.tolist() == grid[:, ::-2].tolist()
    array[0, 0] = 99
    assert grid[0, 3] == 99


# -- read-only ----------------------------------------------------------------------------------


@pytest.fixture(params=["by argument", "by handle", "by mapping"])
def reading(request, name):
    with SharedMemory.create(name, SIZE) as shm:
        if request.param == "by argument":
            yield shm.view("i", (4, 4), readonly=True)
        elif request.param == "by handle":
            with SharedMemory.open(name, readonly=True) as handle:
                yield handle.view("i", (4, 4))
        else:
            yield shm.map(readonly=True).view("i", (4, 4))
        shm.unlink()


def test_read_only_stays_read_only(reading):
    for view in (reading, reading[1:], reading[::-1, 0], reading.cast("B"), reading.cast("d", 8)):
        assert view.readonly
        assert memoryview(view).readonly
        array = view.numpy()
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 1
        with pytest.raises(TypeError, match="read-only"):
            view[:] = view
    with pytest.raises((BufferError, TypeError)):
        struct.pack_into("i", reading, 0, 1)


def test_memory_without_read_permission_raises_buffer_error(shm):
    shm.protect(PROT_NONE)
    with pytest.raises(BufferError, match="PROT_NONE"):
        shm.view()


def test_a_view_keeps_its_permissions(shm):
    view = shm.view()
    with pytest.raises(BufferError, match="right"):
        shm.protect(PROT_READ)
    del view
    shm.protect(PROT_READ)
    assert shm.view().readonly
    reader = shm.view()
    shm.protect(PROT_READ | PROT_WRITE)
    assert reader.readonly and not shm.view().readonly


def test_a_read_only_view_does_not_keep_write_permission():
    with SharedMemory.anonymous(SIZE) as shm:
        view = shm.view(readonly=True)
        shm.protect(PROT_READ)
        with pytest.raises(BufferError):
            shm.protect(PROT_NONE)
        assert view[3] == 0


# -- lifetime -----------------------------------------------------------------------------------


def test_a_view_outlives_its_handle_and_then_unmaps_the_memory(shm):
    view = shm.view("i", (3, 4))
    array = view.numpy()
    row = view[1]
    mapping = weakref.ref(view.obj)
    shm.close()
    del view, shm
    gc.collect()
    array[1] = 7
    assert row.tolist() == [7] * 4
    del array
    assert mapping() is not None
    del row
    assert mapping() is None


def test_a_view_supports_weak_references(shm):
    view = shm.view()
    reference = weakref.ref(view)
    del view
    assert reference() is None


def test_the_object_does_not_shrink_under_a_view(name):
    with SharedMemory.create(name, 4 * PAGESIZE, max_size=8 * PAGESIZE) as shm:
        view = shm.view("B", 10, 3 * PAGESIZE)
        with pytest.raises(BufferError, match="cannot shrink"):
            shm.resize(PAGESIZE, shrink=True)
        view[0] = 1
        del view
        shm.resize(PAGESIZE, shrink=True)
        with pytest.raises(ValueError, match="past the end"):
            shm.view("B", 10, 3 * PAGESIZE)
        shm.resize(8 * PAGESIZE)
        assert shm.view("B", 10, 7 * PAGESIZE).tolist() == [0] * 10
        shm.unlink()


def test_a_new_view_sees_growth_by_another_handle(name):
    with SharedMemory.create(name, PAGESIZE, max_size=4 * PAGESIZE) as shm:
        with SharedMemory.open(name, max_size=4 * PAGESIZE) as other:
            other.resize(3 * PAGESIZE)
        assert shm.view().nbytes == 3 * PAGESIZE
        shm.unlink()


def test_an_argument_that_closes_the_handle_is_harmless(shm):
    class Closing:
        def __index__(self):
            shm.close()
            return 3

    view = shm.view("B", Closing())
    assert view.tolist() == [0, 1, 2]


def test_threads_share_a_view(grid, run_threads):
    def use(number):
        for _ in range(300):
            part = grid[number % 3]
            assert part.numpy().shape == (4,)
            assert memoryview(part[::-1]).shape == (4,)
            np.from_dlpack(part)
            grid[number % 3, number] = number  # an item that no other writes

    run_threads(*[lambda n=n: use(n) for n in range(4)])


def test_public_names():
    assert posixshm.View is View
    assert View.__module__ == "posixshm"


@pytest.mark.parametrize("code", "?bBhHiIlLqQnNfd")
def test_items_have_the_values_of_memoryview(shm, code):
    view, other = shm.view(code, 3), memoryview(bytearray(24)).cast(code)
    for value in (1, -1, 1.5, True, 2**64, 1e39, float("inf"), "x", b"x", None, 1j):
        outcomes = []
        for target in (view, other):
            try:
                target[0] = value
                outcomes.append(target[0])
            except (TypeError, ValueError, OverflowError) as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1], value


def test_structures_of_another_format_are_refused(shm):
    view, other = shm.view("<h3sd", 2), shm.view("<3shd", 2, 512)
    view[:] = shm.view("<h3sd", 2, 1024)
    with pytest.raises(ValueError, match="View of format '<h3sd'.*same format"):
        view[:] = other


def test_a_buffer_with_suboffsets_is_assigned_to_a_range(shm):
    testbuffer = pytest.importorskip("_testbuffer")
    pointers = testbuffer.ndarray([1, 2, 3, 4], shape=[2, 2], format="i", flags=testbuffer.ND_PIL)
    assert memoryview(pointers).suboffsets
    view = shm.view("i", (2, 2))
    view[:] = pointers
    assert view.tolist() == [[1, 2], [3, 4]]
