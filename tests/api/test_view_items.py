"""The items of a view: indexes, assignment, and the values that are read and written."""

import contextlib
import ctypes
import itertools
import struct

import numpy as np
import pytest
from _formats import EXTENSIONS, NUMBERS
from _processes import rounds
from hypothesis import given, settings
from hypothesis import strategies as st

from posixshm import SharedMemory, View

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


# -- values -------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.complex_numbers(), st.binary(max_size=9), st.none(),
    st.text("a\0\u20ac", max_size=3), st.tuples(st.integers(), st.integers()),
)  # fmt: skip
ITEM_FORMATS = [
    *NUMBERS, *(p + c for p in "<>" for c in "?bBhHiIlLqQefd"), "5s", "<hh", "c", "Zf", ">Zd", "3x",
    "4p", "P",
]  # fmt: skip


def test_a_replaced_struct_module_does_not_write_past_an_item(shm, monkeypatch):
    results = [b"longer than the item", b"", 3]

    class Wrong:
        size = 10

        def __init__(self, format):
            pass

        def pack(self, *values):
            return results.pop()

        def unpack(self, data):
            return (3,)

    monkeypatch.setattr(struct, "Struct", Wrong)
    view, before = shm.view("5s2s3s", 2), bytes(shm.buf)  # a format that is not known yet
    while results:
        with pytest.raises(TypeError, match="not an item of format"):
            view[0] = b"abc"
    assert view[0] == 3 and bytes(shm.buf) == before


@settings(max_examples=20, deadline=None)
@given(values=st.lists(VALUES, min_size=2, max_size=6))
def test_a_value_is_stored_or_refused(values):
    for format, value in itertools.product(ITEM_FORMATS, values):
        check_a_value(format, value)


def check_a_value(format, value):
    with SharedMemory.anonymous(64) as shm:
        view = shm.view(format, 2)
        before = shm.view().tobytes()
        try:
            view[0] = value
        except (TypeError, ValueError):
            assert shm.view().tobytes() == before
            return
        assert view[1] == shm.view(format, 1, offset=view.itemsize)[0]
        assert view.tobytes()[view.itemsize :] == before[view.itemsize : 2 * view.itemsize]
        if "Z" not in format and "?" not in format:
            values = value if isinstance(value, tuple) else (value,)
            assert view.tobytes()[: view.itemsize] == struct.pack(view.format, *values)


@settings(max_examples=rounds(60, 300), deadline=None)
@given(
    format=st.sampled_from([f for f in ITEM_FORMATS if "Z" not in f]),
    data=st.binary(min_size=8, max_size=8),
)
def test_items_have_the_values_of_the_struct_module(format, data):
    with SharedMemory.anonymous(8) as shm:
        shm.buf[:] = data
        view = shm.view(format, 1)
        expected = struct.unpack(format, data[: view.itemsize])
        got = view[0]
        assert repr(got) == repr(expected[0] if len(expected) == 1 else expected)
        assert repr(view.tolist()) == repr([got])


@pytest.mark.parametrize("format", ["U3", ">U3"])
def test_text(shm, format):
    view = shm.view(format, 4)
    for text in ("", "a", "abc", "\U0010ffff\u20ac", "\0b", "\ud800"):
        view[1] = text
        assert view[1] == text == view.numpy()[1]
        assert view[1:2].tolist() == [text]
    for wrong, error in [("abcd", ValueError), (b"abc", TypeError), (None, TypeError)]:
        with pytest.raises(error):
            view[1] = wrong
    assert view[1] == "\ud800"
    view[1:2].cast("B").numpy()[:] = 0xFF
    for read in (lambda: view[1], view.tolist):
        with pytest.raises(ValueError, match="code point"):
            read()


# Every kind of format, in every byte order: of struct, numpy and DLPack, and nested structures.
SCALARS = [
    *NUMBERS, *"cPp", *(order + code for order in "<>=!" for code in "?bBhHiIlLqQefd"),
    *(order + code for order in "<>" for code in ("U1", "U4", "c8", "c16", "m8[s]", "M8[ns]")),
    "5s", "4p", "3x", "V5", "S3", "g", "Zg", "F", ">D", "1w", ">2w", *EXTENSIONS,
]  # fmt: skip
RECORDS = [
    "<hh", ">ih3s?", "@bd", "!2H4p", "=3cQ",
    *(np.dtype(fields) for fields in (
        [("a", "<i2"), ("b", ">f8")], [("a", "U2"), ("b", ">U3", (2,))], [("a", [("b", "?"), ("c", "S3")], (2, 2))],
        {"names": ["a", "b"], "formats": ["u1", ">c8"], "offsets": [3, 9], "itemsize": 23},
    )),
]  # fmt: skip


@pytest.mark.long
@settings(max_examples=1500, deadline=None)
@given(format=st.sampled_from(SCALARS + RECORDS), data=st.binary(min_size=256, max_size=256))
def test_any_bytes_are_a_value_or_raise_value_error(format, data):
    """Whether NotImplementedError is raised depends on the format only."""
    with SharedMemory.anonymous(256) as shm:
        view = shm.view(format, (2, 2))
        for read in (lambda: view[0, 1], view.tolist, view[1].tolist, lambda: list(view[1, ::-1])):
            shm.buf[:] = bytes(256)
            try:
                read()
            except NotImplementedError:
                with pytest.raises(NotImplementedError):
                    shm.buf[:] = data
                    read()
                continue
            shm.buf[:] = data
            with contextlib.suppress(ValueError):
                repr(read())


def test_complex_numbers(shm):
    for format in ("Zf", "Zd", ">Zf", ">Zd"):
        view = shm.view(format, 2)
        view[0], view[1] = 1.5 - 2j, 7
        assert view.tolist() == [1.5 - 2j, 7 + 0j]
        assert view.numpy().tolist() == [1.5 - 2j, 7 + 0j]


@pytest.mark.parametrize(
    ("format", "value"),
    [("b", 128), ("B", -1), ("H", 2**16), ("i", 2**31), ("Q", 2**64), ("Q", -1), ("q", 2**63),
     ("e", 1e6), ("Zf", 1e39j), ("2h", (1, 2, 3)), ("2h", (1, 2**15)), ("3s", "abc")],
)  # fmt: skip
def test_a_value_out_of_range_raises_value_error(shm, format, value):
    with pytest.raises(ValueError):
        shm.view(format, 1)[0] = value


@pytest.mark.parametrize("format", [*EXTENSIONS, "g", "M8[s]", np.dtype([("a", "i4")])])
def test_items_without_a_type_in_python_need_numpy(shm, format):
    view = shm.view(format, 2)
    for read in (lambda: view[0], view.tolist):
        with pytest.raises(NotImplementedError, match="numpy"):
            read()
    with pytest.raises(NotImplementedError, match="numpy"):
        view[0] = 1
    assert view[:1].shape == (1,)
    assert len(view.tobytes()) == view.nbytes


@pytest.mark.parametrize(
    "format",
    ["O", object, [("a", "i4"), ("b", "O")], [("a", [("b", "O")], (2,))], np.dtypes.StringDType()]
    if hasattr(np.dtypes, "StringDType")
    else ["O"],
)
def test_formats_with_pointers_are_refused(shm, format):
    """numpy would use their bytes as addresses."""
    with pytest.raises(ValueError):
        shm.view(format, 1)
    with pytest.raises(ValueError):
        shm.view("B", 64).cast(format)


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
