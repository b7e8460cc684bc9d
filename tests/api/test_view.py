"""View: creation, casts, the buffer, permissions and the lifetime of the memory."""

import gc
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
