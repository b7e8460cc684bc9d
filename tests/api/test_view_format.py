"""The formats of a view's items: their names, and the arrays that numpy makes of them."""

import math
import re
import struct
import sys
import types

import numpy as np
import pytest
from _formats import EXTENSIONS, NUMBERS
from _processes import PATH, rounds
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from posixshm import SharedMemory

SIZE = 4096


@pytest.fixture(scope="module")
def shm():
    with SharedMemory.anonymous(SIZE) as memory:
        yield memory


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", NUMBERS)
def test_numbers_of_the_struct_module(shm, code):
    for format in (code, "@" + code):
        view = shm.view(format, 1)
        assert (view.format, view.itemsize) == (code, struct.calcsize(code))
    if code in "nN":
        with pytest.raises(ValueError, match="bad format"):
            shm.view("!" + code)
        return
    for prefix in "<=>!":
        view = shm.view(prefix + code, 1)
        assert view.itemsize == struct.calcsize(prefix + code)
        view.obj.view()[:8] = struct.pack(prefix + code, 1).ljust(8, b"\0")
        assert view[0] == 1
        view[0] = 0
        assert view.tobytes() == bytes(view.itemsize)


@pytest.mark.parametrize(
    ("said", "format", "itemsize"),
    [
        ("<f4", "f", 4), (">f4", ">f", 4), ("=f4", "f", 4), ("f4", "f", 4), ("|u1", "B", 1),
        ("float32", "f", 4), ("int64", "l", 8), ("uint16", "H", 2), ("bool", "?", 1), ("b1", "?", 1),
        (">i1", "b", 1), ("c8", "Zf", 8), ("complex128", "Zd", 16), (">c16", ">Zd", 16), ("Zf", "Zf", 8),
        ("F", "Zf", 8), ("D", "Zd", 16), (">Zf", ">Zf", 8), ("f16", "g", 16), ("g", "g", 16),
        ("c32", "Zg", 32), ("S5", "5s", 5), ("|S5", "5s", 5), ("U7", "7w", 28), ("<U7", "7w", 28),
        (">U7", ">7w", 28), ("7w", "7w", 28), ("V5", "5x", 5), ("<hh", "<hh", 4), ("3i", "3i", 12),
        ("10s", "10s", 10), ("c", "c", 1), ("M8[ns]", "<M8[ns]", 8), (">m8[s]", ">m8[s]", 8),
        ("bfloat16", "bfloat16", 2), ("float8_e5m2", "float8_e5m2", 1), (np.float32, "f", 4),
        (np.dtype(">i8"), ">q", 8), (float, "d", 8), (np.dtype("U3"), "3w", 12),
        (np.dtype([("a", "i1"), ("b", "f8")]), "T{^b:a:^d:b:}", 9),
        (np.dtype([("a", "<i2", (2, 3)), ("b", ">i2")]), "T{(2,3)^h:a:>h:b:}", 14),
        (np.dtype("M8[us]"), "<M8[us]", 8),
    ],
)  # fmt: skip
def test_names_of_formats(shm, said, format, itemsize):
    view = shm.view(said, 1)
    assert (view.format, view.itemsize) == (format, itemsize)
    if not format.startswith("T{"):
        assert shm.view(view.format, 1).format == view.format


@pytest.mark.parametrize(
    "format",
    [
        "", "zz", "f3", "<f3", "i16", "c4", "u0", "S0", "U0", "S", "U", "0s", "0i", "w", "0w", "O",
        "|O", "object", "T", "i4,O", "3,i4", "T{i:a:}", "M8[zz]", "<", "@f4", "!f4", "float8", "bfloat8", "é", "f\0",
        "\ud800", "S99999999999999999999", "99999999999999999999i", "Z", "Zi", "ZZf", "f" * 1000 + "w",
        ">g", ">f16", "c9", ">c9", "c17", "c33", "U536870912000", object, np.dtype("O"), np.dtype([("a", "O")]),
        np.dtype(("f4", (2,))), np.dtype("V0"), np.dtype("S0"), np.dtype([("t", "M8[s]")]),
        np.dtype([]), np.dtype([("a:b", "i1")]), np.dtype([("a\0b", "i1")]), np.dtype([("\ud800", "i1")]),
        np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]}),
        np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]}), ("i4", (2,)),
    ],
)  # fmt: skip
def test_a_bad_format_raises_value_error_that_names_it(shm, format):
    with pytest.raises(ValueError) as caught:
        shm.view(format)
    message = str(caught.value)
    assert not isinstance(format, str) or repr(format) in message or "dtype(" in message.lower()


NAMES = [
    "double", "float", "int", "single", "half", "longlong", "intc", "uint", "csingle", "i4,f8", "datetime64[s]",
    "timedelta64[us]", "u1,>i2,(2,3)f4", "str8", "bytes4", "void7", ">U2,S3", "=i8", "|f", "longdouble", "a5",
    *(name for name in np.sctypeDict if isinstance(name, str)),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", NAMES)
def test_arguments_of_numpy_dtype_are_formats(shm, text):
    """The meaning in the struct module has precedence."""
    try:
        dtype = np.dtype(text)
    except TypeError:  # of another version of numpy
        return
    try:
        size = struct.calcsize(text)
    except struct.error:
        if dtype.hasobject or not dtype.itemsize or text in ("M8", "m8"):
            with pytest.raises(ValueError):
                shm.view(text, 2)
        else:
            view = shm.view(text, 2)
            assert (view.itemsize, view.numpy().dtype) == (dtype.itemsize, dtype)
    else:
        assert shm.view(text, 2).itemsize == size
    assert shm.view("p", 2).itemsize == 1 and shm.view("3i", 2).itemsize == 12


@pytest.mark.new_interpreter
def test_a_format_of_numpy_needs_numpy_to_be_imported(run_python):
    run_python(
        """
        import sys
        from posixshm import SharedMemory
        shm = SharedMemory.anonymous(64)
        for format in ("double", "i4,f8"):
            try:
                shm.view(format)
            except ValueError as error:
                assert "once numpy is imported" in str(error)
            else:
                raise AssertionError(format)
        assert "numpy" not in sys.modules
        import numpy
        assert shm.view("double").format == "d"
        """
    )


INNER = np.dtype([("a", "u1"), ("b", "f8"), ("c", "u1")], align=True)  # with 6 bytes of padding
NESTED = [
    [("x", "<i2", (2, 3))], [("x", "u1"), ("y", ">i2", (2, 3)), ("z", "f8")], [("x", INNER), ("y", "u1")],
    [("x", "u1"), ("y", INNER, (2, 1))], [("x", [("y", INNER, (2,)), ("z", "U2")], (2,)), ("w", "S3")],
    {"names": ["x", "y"], "formats": [INNER, "?"], "offsets": [8, 40], "itemsize": 56},
    [("x", "S0"), ("y", "U0"), ("z", "V3"), ("w", "g")], [(("title", "x"), "c8"), ("\xe9", "f2")],
    [("x", "V0"), ("z", "i4")],
]  # fmt: skip


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("fields", NESTED, ids=range(len(NESTED)))
def test_structures_contain_structures(shm, fields, align):
    """numpy reads the fields at the right offsets, unlike from some of its own formats."""
    dtype = np.dtype(fields, align=align)
    expected = np.ndarray(2, dtype, shm.buf, 8)
    array = np.asarray(shm.view(dtype, 2, 8))
    assert array.dtype.names == dtype.names
    for name in dtype.names:
        one, other = array[name], expected[name]
        assert (one.dtype, one.shape, one.strides) == (other.dtype, other.shape, other.strides)
        assert one.ctypes.data == other.ctypes.data


def test_a_format_of_a_subclass_of_str_becomes_a_str(shm):
    view = shm.view(type("Text", (str,), {})("<hh"), 1)
    assert (type(view.format), view.format) == (str, "<hh")


def test_a_dtype_with_changed_names_is_another_format(shm):
    dtype = np.dtype([("a", "<i4")])
    assert shm.view(dtype, 1).format == "T{^i:a:}"
    dtype.names = ("b",)
    assert shm.view(dtype, 1).format == "T{^i:b:}"


def test_threads_use_many_formats(shm, run_threads):
    def use(first):
        for size in range(first, first + 900):
            assert (
                shm.view(f"{size}s", 1).itemsize == shm.view(np.dtype(f"S{size}"), 1).nbytes == size
            )

    run_threads(*[lambda n=n: use(1 + 200 * n) for n in range(4)])


def test_a_tuple_is_a_dtype(shm):
    """It is not unpacked into the arguments of numpy.dtype()."""
    fields = ("V8", [("a", "<i4"), ("b", "<i4")])
    assert shm.view(fields, 1).format == "T{^i:a:^i:b:}"
    assert shm.view("B", 8).cast(fields).numpy().dtype.names == ("a", "b")


def test_objects_that_are_not_dtypes_are_refused(shm):
    for format in (("i4",), 3, 1.5, (), [1], b"\xff", print):
        with pytest.raises((TypeError, ValueError)):
            shm.view(format)


def test_other_exceptions_propagate(shm):
    class Weird:
        @property
        def dtype(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shm.view(Weird())


# -- formats that the buffer protocol does not have ------------------------------------------------


@pytest.mark.parametrize("format", EXTENSIONS)
def test_types_of_dlpack_do_not_have_a_buffer_format(shm, format):
    view = shm.view(format, (2, 3))
    with pytest.raises(BufferError, match="does not have the format"):
        memoryview(view)
    carrier = view.cast({1: "B", 2: "H"}[view.itemsize], (2, 3))
    carrier.numpy()[:] = [[1, 2, 3], [4, 5, 6]]
    assert view[::-1].tobytes() == carrier[::-1].tobytes()


def test_types_of_dlpack_export_plain_bytes(shm, tmp_path):
    view = shm.view("bfloat16", 4)
    with open(tmp_path / "x", "wb") as file:
        file.write(view)
    assert (tmp_path / "x").read_bytes() == view.tobytes()


@pytest.mark.parametrize("format", ["M8[ns]", ">M8[D]", "m8[us]"])
def test_times_are_read_by_numpy(shm, format):
    array = shm.view(format, 3).numpy()
    array[:] = [1, 2, 3]
    assert array.dtype == np.dtype(format)
    assert shm.view(array.dtype, 3).numpy().tolist() == array.tolist()
    assert array.astype("i8").tolist() == [1, 2, 3]


@pytest.mark.parametrize("format", ["M8[ns]", ">M8[D]", "m8[us]"])
def test_numpy_asarray_calls_dunder_array_for_times(shm, format):
    view = shm.view(format, (2, 3))
    view.numpy()[:] = np.arange(6).reshape(2, 3)
    array = np.asarray(view)
    assert array.dtype == np.dtype(format)
    assert array.ctypes.data == view.address
    assert np.asarray(view[:0]).dtype == array.dtype
    assert np.array(view).ctypes.data != view.address
    assert not np.asarray(shm.view(format, 6, readonly=True)).flags.writeable


def test_dunder_array_converts_and_copies(shm):
    view = shm.view("h", 4)
    view.numpy()[:] = range(4)
    assert view.__array__().ctypes.data == view.address
    assert view.__array__(np.int16, copy=False).ctypes.data == view.address
    assert view.__array__(dtype=None, copy=None).ctypes.data == view.address
    copied = view.__array__(copy=True)
    assert copied.dtype == np.int16 and copied.ctypes.data != view.address
    for copy in (None, True):
        wider = view.__array__("f8", copy=copy)
        assert wider.dtype == np.float64 and wider.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="float64.*copy"):
        view.__array__(np.dtype("f8"), copy=False)
    with pytest.raises(TypeError):
        view.__array__(None, None, None)
    with pytest.raises(TypeError):
        view.__array__("nonsense")


@pytest.mark.parametrize("format", ["Le", "p", "5p", "P", "l?"])
def test_formats_that_numpy_does_not_have(shm, format):
    view = shm.view(format, 2)
    with pytest.raises(ValueError, match=f"does not have items of format '{re.escape(format)}'"):
        view.numpy()


# -- arrays of numpy -----------------------------------------------------------------------------


@st.composite
def _structures(draw):
    kinds = st.one_of(st_numpy.integer_dtypes(), st_numpy.floating_dtypes(sizes=(32, 64)))
    fields = draw(st.lists(kinds, min_size=1, max_size=3))
    return np.dtype(list(zip("abc", fields, strict=False)), align=draw(st.booleans()))


@st.composite
def layouts(draw):
    """A dtype, and a shape, offset and strides that may or may not fit into 256 bytes."""
    dtype = draw(
        st.one_of(
            st_numpy.scalar_dtypes(),
            st_numpy.byte_string_dtypes(min_len=1),
            st_numpy.unicode_string_dtypes(min_len=1),
            _structures(),
        )
    )
    shape = draw(st.lists(st.integers(0, 5), max_size=4).map(tuple))
    offset = draw(st.integers(0, 256))
    step = st.one_of(st.integers(-40, 40), st.sampled_from([dtype.itemsize, -dtype.itemsize, 0]))
    strides = draw(st.none() | st.lists(step, min_size=len(shape), max_size=len(shape)).map(tuple))
    return dtype, shape, offset, strides


@pytest.mark.long
@settings(max_examples=rounds(100, 600), deadline=None)
@given(layout=layouts())
def test_views_equal_arrays_of_the_same_bytes(layout):
    dtype, shape, offset, strides = layout
    data = bytes(range(256))
    try:
        expected = np.ndarray(shape, dtype, data, offset, strides)
    except (ValueError, TypeError):
        expected = None
    with SharedMemory.anonymous(256) as shm:
        shm.buf[:] = data
        try:
            view = shm.view(dtype, shape, offset, strides)
        except ValueError as error:
            assert expected is None or "16" in str(dtype) or "M8" in str(error), (error, layout)
            return
        assert expected is not None, layout
        array = view.numpy()
        assert array.dtype == dtype
        assert array.shape == view.shape == shape
        if dtype.names is None:
            assert view.tobytes() == array.tobytes() == expected.tobytes()
        for field in dtype.names or ():  # numpy does not copy what is between them
            assert array[field].tobytes() == expected[field].tobytes()
        if expected.size:
            assert array.strides == view.strides == expected.strides
            assert array.__array_interface__["data"][0] == view.address
        assert view.nbytes == expected.nbytes


# numpy's arithmetic overflows with such strides, so the test computes with Python's.
NUMBER = st.one_of(
    st.integers(-5, 5), st.sampled_from([8, 16, -8, 2**31, 2**32, 2**62, -(2**62), 2**63 - 1, 2**63]), st.integers()
)  # fmt: skip


@pytest.mark.long
@settings(max_examples=rounds(100, 600), deadline=None)
@given(dimensions=st.lists(st.tuples(NUMBER, NUMBER), max_size=4), offset=NUMBER)
def test_a_view_lies_within_the_memory_or_is_refused(dimensions, offset):
    shape = tuple(items for items, _ in dimensions)
    strides = tuple(stride for _, stride in dimensions)
    reach = [stride * (items - 1) for items, stride in dimensions]
    end = offset + 8 + sum(r for r in reach if r > 0)
    fits = (
        all(0 <= items for items in shape)
        and all(-(2**63) < stride < 2**63 for stride in strides)
        and math.prod(items or 1 for items in shape) * 8 < 2**63
        and 0 <= offset <= 256
        and (0 in shape or (end <= 256 and offset + sum(r for r in reach if r < 0) >= 0))
    )
    with SharedMemory.anonymous(256) as shm:
        try:
            view = shm.view("d", shape, offset, strides)
        except ValueError:
            assert not fits
            return
        assert fits
        assert view.nbytes == 8 * math.prod(shape)
        if view.nbytes <= 2**20:
            assert len(view.tobytes()) == view.nbytes


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_numpy_does_not_crash_on_any_bytes(start_python, seed):
    code = "import warnings; warnings.simplefilter('ignore'); from children import numpy_reader; numpy_reader.main()"
    status, out, _ = start_python(code, seed, 15, env=PATH).finish()
    assert (status, out.strip()) == (0, "done")


def test_without_numpy_arrays_raise_import_error(run_python):
    run_python(
        """
        import sys
        sys.modules["numpy"] = None
        from posixshm import SharedMemory
        shm = SharedMemory.anonymous(64)
        half = shm.view("bfloat16", 4)
        half[:2] = half[2:]
        for call, expected in (
            (shm.view("i").numpy, ImportError), (half.numpy, ImportError), (half.__array__, ImportError),
            (lambda: shm.view(float), TypeError), (lambda: shm.view("M8[s]"), ImportError),
            (lambda: half.__setitem__(..., shm.buf[:8].cast("H")), ValueError),
        ):
            try:
                call()
            except expected as error:
                assert "numpy" in str(error) or "format" in str(error), error
            else:
                raise AssertionError(call)
        """
    )


def test_without_ml_dtypes_arrays_raise_import_error(shm, monkeypatch):
    half, older = shm.view("bfloat16", 4), types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match="ml_dtypes"):
        half.numpy()
    monkeypatch.setitem(sys.modules, "ml_dtypes", older)
    with pytest.raises(ImportError, match="this version of ml_dtypes does not have bfloat16"):
        half.numpy()
    older.bfloat16 = np.float16
    assert half.numpy().dtype == np.float16
