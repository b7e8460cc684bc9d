"""posixshm.array: named arrays, in several processes, compared with the files of numpy."""

import functools
import gc
import io
import itertools
import math
import os
import signal
import sys
import threading
import time
import warnings

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from _processes import PATH, needs_mounts, rounds, shm_names
from hypothesis import strategies as st

import posixshm.array
from posixshm import SharedMemory
from posixshm.array import SharedArray

SHM = "/dev/shm/"
ALIGNMENT = 4096

property_test = hypothesis.settings(max_examples=rounds(30, 100), deadline=None, database=None)


def removed(array):
    """Unlink the array's object, and return the array, which remains usable."""
    array.shm.unlink()
    return array


def same(one, other):
    """Are dtype, shape and items equal, also if the items are not numbers?"""
    assert one.dtype == other.dtype and one.shape == other.shape
    assert items(one) == items(other)


def items(array):
    """The items field by field: the padding between fields has no meaning."""
    if array.dtype.names is None:
        return array.tobytes()
    return [items(np.asarray(array)[name]) for name in array.dtype.names]


# One of each kind of dtype that a .npy file can contain.
DTYPES = [
    "?", "i1", "<u2", ">i4", "<f2", ">f8", "<c8", ">c16", "S5", "<U3", ">U2", "V7",
    "<M8[ns]", ">m8[s]",
    [("a", "<f4"), ("b", ">i2", (2, 3))],
    [("x", "u1"), ("nested", [("y", "<c16"), ("z", "S3")], (2,))],
    [("größe", "<f8"), ("日本", "u1"), (("title", "plain"), "i2")],
    {"names": ["a", "b"], "formats": ["u1", "<f8"], "offsets": [1, 8], "itemsize": 24},
]  # fmt: skip
SHAPES = [(), (0,), (1,), (7,), (3, 0, 2), (4, 5), (2, 3, 4)]


def filled(shape, dtype, order="C"):
    """An array whose bytes all differ, if it has at most 256 bytes."""
    dtype = np.dtype(dtype)
    bytes_ = bytearray(math.prod(shape) * dtype.itemsize)
    array = np.ndarray(shape, dtype, bytes_, order=order)  # np.zeros would change S0 to S1
    raw = np.arange(array.size * dtype.itemsize, dtype="u1") % 100
    if array.dtype == bool:
        raw %= 2
    elif dtype.kind == "U":
        raw = np.frombuffer(
            raw.size // 4 * (b"A\0\0\0" if dtype.str[0] != ">" else b"\0\0\0A"), "u1"
        )
    if raw.size:
        np.copyto(array, np.frombuffer(raw, dtype).reshape(shape, order=order))
    return array


# -- creating and saving ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_kind_of_array_is_saved_and_loaded(name, dtype):
    for shape, order in itertools.product(SHAPES, "CF"):
        source = filled(shape, dtype, order)
        saved = posixshm.array.save(name, source)
        found = removed(posixshm.array.load(name))
        for array in (saved, found):
            assert type(array) is SharedArray and isinstance(array, np.ndarray)
            same(array, source)
            assert array.strides == source.strides or array.size == 0
            assert (array.flags.c_contiguous, array.flags.f_contiguous) == (
                source.flags.c_contiguous,
                source.flags.f_contiguous,
            )
        assert saved.flags.writeable and not found.flags.writeable


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", "CF")
def test_numpy_reads_what_is_saved(name, dtype, order):
    source = filled((4, 5), dtype, order)
    saved = posixshm.array.save(name, source)
    same(np.load(SHM + name), source)
    if source.nbytes:  # numpy cannot map an array without bytes
        mapped = np.load(SHM + name, mmap_mode="r")
        same(mapped, source)
        assert mapped.offset % ALIGNMENT == 0
        assert mapped.flags.f_contiguous == source.flags.f_contiguous
        # It is the same memory, not a copy.
        saved.shm.buf[-saved.nbytes :] = bytes(saved.nbytes)
        same(mapped, saved)
        assert items(mapped) != items(source)
    removed(saved)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_files_can_be_loaded(name, dtype):
    versions = [(1, 0), (2, 0), (3, 0)]
    for shape, version in itertools.product([(), (0,), (4, 5)], versions):
        source = filled(shape, dtype, "F")
        data = io.BytesIO()
        try:
            np.lib.format.write_array(data, source, version)
        except UnicodeEncodeError:
            assert "日本" in str(dtype) and version < (3, 0)
            continue
        with open(SHM + name, "wb") as file:
            file.write(data.getvalue())
        same(removed(posixshm.array.load(name)), source)


def test_the_object_is_a_header_and_the_items(name):
    """Every byte follows the format; only the padding is longer than in a file of numpy."""
    source = np.arange(6, dtype="<i4").reshape(2, 3)
    posixshm.array.save(name, source)
    with open(SHM + name, "rb") as file:
        data = file.read()
    removed(posixshm.array.load(name))
    text = b"{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }"
    assert data[:10] == b"\x93NUMPY\x01\x00" + (ALIGNMENT - 10).to_bytes(2, "little")
    assert data[10:ALIGNMENT] == text.ljust(ALIGNMENT - 11) + b"\n"
    assert data[ALIGNMENT:] == source.tobytes()


@pytest.mark.parametrize("fields, offset", [(10, 4096), (180, 8192), (260, 8832), (360, None)])
def test_long_headers(name, fields, offset):
    """Headers up to the length that numpy reads. The items may begin within a page."""
    source = np.ones(3, [(f"a field of number {number}", "<f8") for number in range(fields)])
    if offset is None:
        with pytest.raises(ValueError, match="360 fields.*at most 10000"):
            posixshm.array.save(name, source)
        assert not os.path.exists(SHM + name)
        return
    posixshm.array.save(name, source)
    same(np.load(SHM + name), source)
    assert np.load(SHM + name, mmap_mode="r").offset == offset
    same(removed(posixshm.array.load(name)), source)


def test_the_items_are_zeros_and_aligned(name):
    array = removed(posixshm.array.create(name, (100, 100), "<f4"))
    assert not array.any() and array.dtype == "<f4" and array.shape == (100, 100)
    assert array.__array_interface__["data"][0] % ALIGNMENT == 0
    assert array.flags.aligned and array.flags.writeable


@pytest.mark.parametrize("shape", [5, np.int64(5), [5], (5,), iter((5,))], ids=repr)
def test_forms_of_a_shape(name, shape):
    assert removed(posixshm.array.create(name, shape)).shape == (5,)


def test_defaults(name):
    array = removed(posixshm.array.create(name, (2, 3)))
    assert array.dtype == float and array.flags.c_contiguous
    assert array.shm.mode == 0o600 and array.name == name


def test_a_subarray_dtype_gives_its_dimensions_to_the_array(name):
    array = removed(posixshm.array.create(name, (2, 3), ("<f4", (4, 5))))
    assert array.shape == (2, 3, 4, 5) and array.dtype == "<f4"


def test_init_runs_before_the_object_is_visible(name):
    seen = []

    def init(array):
        seen.append(
            (os.path.exists(SHM + name), type(array), array.shape, array.flags.f_contiguous)
        )
        array[:] = 5

    array = removed(posixshm.array.create(name, (2, 3), "i4", order="F", init=init))
    assert seen == [(False, np.ndarray, (2, 3), True)]
    assert (array == 5).all()
    with pytest.raises(ZeroDivisionError):
        posixshm.array.create(name, 3, init=lambda array: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        posixshm.array.create(None, 3, init=lambda array: 1 / 0)
    assert not os.path.exists(SHM + name)


def test_options_reach_the_object(name):
    with posixshm.array.create(name, 3, mode=0o640, reserve=False, populate=True, delete=True).shm:
        assert os.stat(SHM + name).st_mode & 0o777 == 0o640
    assert not os.path.exists(SHM + name)
    for replace in (False, True):
        saved = posixshm.array.save(name, [1, 2], mode=0o604, uid=os.getuid(), replace=replace)
        assert saved.shm.mode == 0o604
        removed(saved)


def test_exist_ok(name):
    arguments = dict(shape=(2, 3), dtype="<i4", order="F", exist_ok=True)
    first = posixshm.array.create(name, **arguments, init=lambda array: array.fill(7))
    second = posixshm.array.create(name, **arguments, init=lambda array: array.fill(8))
    assert first.shm.created and not second.shm.created
    second[0] += 1
    assert first.tolist() == [[8, 8, 8], [7, 7, 7]]
    for other in (dict(shape=(3, 2)), dict(dtype=">i4"), dict(dtype="i1"), dict(order="C")):
        with pytest.raises(FileExistsError, match=r"The array exists with shape \(2, 3\), .*'F'"):
            posixshm.array.create(name, **{**arguments, **other})
    with pytest.raises(FileExistsError):
        posixshm.array.create(name, **{**arguments, "exist_ok": False})
    with pytest.raises(FileExistsError):
        posixshm.array.create(name, **{**arguments, "shape": (2000, 3)})
    removed(first)
    with SharedMemory.create(name, 9000, delete=True):
        with pytest.raises(ValueError, match="does not contain an array"):
            posixshm.array.create(name, **arguments)


def test_processes_create_the_same_array_at_once(name, start_python):
    program = """
        import sys
        import posixshm.array
        from _processes import ready
        ready()
        array = posixshm.array.create(sys.argv[1], 4, "i8", init=lambda array: array.fill(3),
                                      exist_ok=True)
        assert array.tolist() == [3, 3, 3, 3]
        print("made" if array.shm.created else "found")
        """
    children = [start_python(program, name, env=PATH) for _ in range(4)]
    for child in children:
        child.hear("ready")
    for child in children:
        child.say("go")
    assert sorted(child.finish()[1].split()[-1] for child in children) == ["found"] * 3 + ["made"]
    removed(posixshm.array.load(name))


def test_an_anonymous_array(name):
    before = shm_names()
    array = posixshm.array.create(None, (2, 3), "i2", init=lambda array: array.fill(2))
    assert array.tolist() == [[2, 2, 2], [2, 2, 2]]
    assert array.name is None and not array.is_linked()
    assert shm_names() == before
    with pytest.raises(TypeError, match="mode"):
        posixshm.array.create(None, 3, mode=0o600)
    for option in ("exist_ok", "delete"):
        with pytest.raises(ValueError, match="anonymous"):
            posixshm.array.create(None, 3, **{option: True})


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [[None], np.array(["a", {}], "O"), np.zeros(2, [("a", "O")]), object()], ids=repr
)
@pytest.mark.parametrize("replace", [False, True])
def test_arrays_of_objects_are_not_saved(name, value, replace):
    with pytest.raises(ValueError, match="Python objects"):
        posixshm.array.save(name, value, replace=replace)
    assert not os.path.exists(SHM + name)


@pytest.mark.parametrize(
    "arguments, error",
    [
        (dict(shape=-1), "negative"),
        (dict(shape=(3, -2)), r"\(3, -2\)"),
        (dict(shape=2**63), "2\\*\\*63"),
        (dict(shape=(2**40, 2**40)), "2\\*\\*63"),
        (dict(shape=(0, 2**62, 2**62)), "too big"),
        (dict(shape=(0, 2**63)), "exceeded"),
        (dict(shape=(1,) * 65), "dimension"),
        *((dict(shape=3, dtype=np.dtype(kind)), "0 bytes") for kind in ("S0", "V0", "U0", [])),
        *(
            (dict(shape=3, dtype=kind), "Python objects")
            for kind in ("O", [("a", "f4"), ("b", "O")], [("a", [("b", "O", (2,))])], ("O", (2,)))
        ),
        (dict(shape=3, order="A"), "'A'"),
        (dict(shape=3, order=None), "order"),
        (
            dict(shape=3, dtype=dict(names=["a", "b"], formats=["<i4", "<i4"], offsets=[0, 2])),
            "cannot describe",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("anonymous", [False, True])
def test_bad_arguments_change_nothing(name, anonymous, arguments, error):
    with pytest.raises((ValueError, OverflowError), match=error):
        posixshm.array.create(None if anonymous else name, **arguments)
    assert not os.path.exists(SHM + name)


@pytest.mark.parametrize("shape", ["ab", 2.5, (2.5,), None, ((1,),)], ids=repr)
def test_bad_shapes(name, shape):
    with pytest.raises(TypeError):
        posixshm.array.create(name, shape)


def test_bad_names_and_modes(name):
    for call in (posixshm.array.load, posixshm.array.open, lambda it: posixshm.array.create(it, 3)):
        with pytest.raises(ValueError, match="a/b"):
            call("a/b")
    for replace in (False, True):
        with pytest.raises(ValueError, match="a/b"):
            posixshm.array.save("a/b", [1], replace=replace)
    for mode in ("w", "w+", "c", "rb", None):
        with pytest.raises(ValueError, match="'r' or 'r\\+'"):
            posixshm.array.open(name, mode)
    with pytest.raises(FileNotFoundError):
        posixshm.array.load(name)


def test_a_masked_array_is_refused(name):
    """Its mask would be lost."""
    with pytest.raises(TypeError, match="mask"):
        posixshm.array.save(name, np.ma.masked_array([1, 2], [True, False]))


def test_a_dtype_that_would_be_read_as_another_is_refused(name):
    """For example StringDType, and dtypes of other packages."""
    if hasattr(np.dtypes, "StringDType"):
        with pytest.raises(ValueError, match="Python objects"):
            posixshm.array.save(name, np.array(["a"], np.dtypes.StringDType()))
    assert not os.path.exists(SHM + name)


def test_a_full_mount_is_an_exception(name, run_python):
    needs_mounts()
    run_python(
        """
        import errno
        import numpy as np
        import posixshm.array
        from _processes import private_shm, raises, unchanged
        private_shm("size=1m")
        with unchanged():
            for call in (lambda: posixshm.array.create("x", 1 << 20),
                         lambda: posixshm.array.save("x", np.ones(1 << 20)),
                         lambda: posixshm.array.save("x", np.ones(1 << 20), populate=True),
                         lambda: posixshm.array.save("x", np.ones(1 << 20), replace=True),
                         lambda: posixshm.array.save("x", np.ones(1 << 24))):
                with raises(errno.ENOSPC) as caught:
                    call()
                assert caught[0].filename == "x", caught
                assert "1048576 bytes free; remove" in str(caught[0]), caught
        """,
        name,
        env=PATH,
    )


def test_errors_of_save_have_the_name(name, run_python):
    run_python(
        """
        import errno, os, resource, sys
        import numpy as np
        import posixshm.array
        from _processes import raises
        name, source = sys.argv[1], np.ones(100_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        with raises(errno.EFBIG) as caught:
            posixshm.array.save(name, source)
        assert caught[0].filename == name, caught
        assert "50000" in str(caught[0]) and str(800_000 + 4096) in str(caught[0]), caught
        last = os.dup(0)
        os.close(last)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last, last))
        with raises(errno.EMFILE) as caught:
            posixshm.array.save(name, source[:10])
        assert caught[0].filename == name, caught
        """,
        name,
        env=PATH,
    )


@pytest.mark.parametrize(
    "option", [{"delete": True}, {"track": True}, {"exist_ok": True}, {"modes": 1}, {"init": print}]
)
def test_unknown_options_of_save_are_refused(name, option):
    for where in (name, None) if option.keys() & {"modes", "init"} else (None,):
        with pytest.raises(TypeError, match=r"^save\(\).* argument"):
            posixshm.array.save(where, [1.0], **option)
    assert not os.path.exists(SHM + name)


def test_saving_can_be_interrupted(run_python):
    """The handler interrupts save() long before it has written all bytes, and no object is left."""
    needs_mounts()
    run_python(
        """
        import signal, time
        import numpy as np
        import posixshm.array
        from _processes import private_shm, unchanged
        private_shm("size=700m")
        source = np.zeros(512 << 20, "u1")
        def handler(number, frame):
            raise KeyboardInterrupt
        signal.signal(signal.SIGPROF, handler)
        with unchanged():
            for array in (source, source.reshape(2, -1).T[::2]):
                # In the process's own time, so that others may take theirs.
                start = time.process_time()
                signal.setitimer(signal.ITIMER_PROF, 0.02)
                try:
                    posixshm.array.save("x", array)
                except KeyboardInterrupt:
                    pass
                else:
                    raise AssertionError("it was not interrupted")
                assert time.process_time() - start < 0.15
        """,
        env=PATH,
    )


def test_saving_writes_through_no_mapping(name, run_python):
    """A mapping would cause a page fault for each page."""
    run_python(
        """
        import resource, sys
        import numpy as np
        import posixshm.array
        source = np.ones(16 << 20, "u1")
        posixshm.array.save(sys.argv[1], source[:10]).unlink()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        array = posixshm.array.save(sys.argv[1], source)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000
        array.unlink()
        """,
        name,
    )


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without the GIL numpy itself may read a shape that is half changed",
)
def test_a_source_whose_shape_another_thread_changes(name, run_threads):
    source = np.arange(1 << 20, dtype="<i4")
    shapes = [(1 << 20,), (1 << 10, 1 << 10), (1 << 15, 1 << 5)]
    done = threading.Event()

    def change():
        for shape in itertools.cycle(shapes):
            # Not by np.reshape(): a careless thread would assign the shape.
            source.shape = shape
            if done.is_set():
                return

    def save():
        try:
            for _ in range(50):
                saved = removed(posixshm.array.save(name, source))
                assert saved.shape in shapes and saved.reshape(-1)[-1] == (1 << 20) - 1
        finally:
            done.set()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy deprecates this assignment
        run_threads(change, save)


SOURCES = {
    "steps": lambda x: x[::3, :, 1::2],
    "backwards": lambda x: x[::-1, :, ::-1],
    "axes": lambda x: x.transpose(1, 0, 2),
    "fortran part": lambda x: x.T[1:-1],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], (60, 70, 80)),
    "broadcast scalar": lambda x: np.broadcast_to(x[0, 0, 0], (300, 1000, 5)),
    "a field": lambda x: x.view([("a", "<i4"), ("b", "<i2", (2,))])["b"],
    "other order": lambda x: x.astype(">i8")[:, ::2],
    "structures": lambda x: x.view([("a", "<i4"), ("b", "<i2", (2,))])[::2],
    "texts": lambda x: x.astype("U20")[:, 3],
    "0-d": lambda x: x[3, 4, 5, ...],
    "empty": lambda x: x[:, 5:5],
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_that_are_not_contiguous(name, source):
    source = SOURCES[source](np.arange(60 * 70 * 80, dtype="<i8").reshape(60, 70, 80))
    for replace in (False, True):
        saved = posixshm.array.save(name, source, replace=replace)
        same(np.load(SHM + name), np.array(source))
        same(removed(saved), np.array(source))


def test_saving_without_a_name():
    array = posixshm.array.save(None, np.arange(5)[::2])
    assert array.tolist() == [0, 2, 4] and array.name is None
    with pytest.raises(ValueError, match="name"):
        posixshm.array.save(None, [1], replace=True)
    with pytest.raises(TypeError, match="mode"):
        posixshm.array.save(None, [1], mode=0o600)


# -- names --------------------------------------------------------------------------------------


def test_names_of_arrays(names):
    name, other, missing = names(), names(), names()
    array = posixshm.array.save(name, [1, 2])
    with SharedMemory.create(other, 100, delete=True):
        assert posixshm.array.exists(name)
        assert not posixshm.array.exists(other) and not posixshm.array.exists(missing)
        assert name in posixshm.array.list() and other not in posixshm.array.list()
        with pytest.raises(ValueError, match=f"'{other}' is not an array; posixshm.shm_unlink"):
            posixshm.array.unlink(other)
        assert other in posixshm.listdir()
    with pytest.raises(FileNotFoundError):
        posixshm.array.unlink(missing)
    for function in (posixshm.array.exists, posixshm.array.unlink):
        with pytest.raises(ValueError, match="a/b"):
            function("a/b")
    array.shm.buf[10:20] = bytes(10)
    assert not posixshm.array.exists(name)  # it is damaged, so load() would refuse it
    posixshm.array.unlink(name)
    assert not posixshm.array.exists(name) and array.tolist() == [1, 2]


def test_with_close_and_unlink(name):
    with posixshm.array.save(name, np.arange(10)) as array:
        part = array[2:]
        assert not array.shm.closed
    assert array.shm.closed and array.is_linked() is not None
    array.close()
    array[3] = 7
    assert part.tolist() == [2, 7, *range(4, 10)] and part.name == name
    part.unlink()
    assert not os.path.exists(SHM + name)
    with pytest.raises(FileNotFoundError):
        array.unlink()
    with pytest.raises(ZeroDivisionError), posixshm.array.create(None, 3) as array:
        array[0] = 1 / 0
    assert array.shm.closed


def test_the_owner_of_an_array_is_checked(name):
    with posixshm.array.save(name, [1, 2]) as array:
        assert posixshm.array.load(name, owner="self").tolist() == [1, 2]
        assert posixshm.array.create(name, 2, int, exist_ok=True, owner=os.geteuid())[0] == 1
        for call in (
            lambda: posixshm.array.open(name, owner=54321),
            lambda: posixshm.array.create(name, 2, int, exist_ok=True, owner=54321),
        ):
            with pytest.raises(PermissionError):
                call()
        array.unlink()


def test_the_class_can_be_subscripted():
    assert SharedArray[np.float32].__args__ == (np.float32,)


# -- attaching ----------------------------------------------------------------------------------


def test_a_write_is_seen_on_the_other_side(name, start_python):
    array = posixshm.array.create(name, (3, 4), "<i4")
    child = start_python(
        """
        import sys
        import posixshm.array
        array = posixshm.array.open(sys.argv[1], "r+")
        print("open", flush=True)
        sys.stdin.readline()
        array[1, 2] -= 1
        print("written", flush=True)
        """,
        name,
    )
    child.hear("open")
    array[1, 2] = 8
    child.say("go")
    child.hear("written")
    assert array[1, 2] == 7 and array.sum() == 7
    child.finish()
    removed(array)


def test_read_only_is_read_only(name, run_python):
    saved = posixshm.array.save(name, np.arange(10))
    reader = posixshm.array.load(name)
    views = [reader, reader[2:], reader.view("u1"), reader.reshape(2, 5).T, np.asarray(reader)]
    for array in views:
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only|WRITEABLE"):
            array[...] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.setflags(write=True)
    assert reader.shm.readonly
    # The pages are read-only too, in case code bypasses numpy.
    status, _, _ = run_python(
        """
        import ctypes, sys
        import posixshm.array
        array = posixshm.array.load(sys.argv[1])
        ctypes.memset(array.__array_interface__["data"][0], 1, 1)
        """,
        name,
        check=False,
    )
    assert status == -signal.SIGSEGV
    assert removed(saved).tolist() == list(range(10))


def test_a_reader_does_not_need_write_permission(name):
    saved = posixshm.array.save(name, [1, 2], mode=0o444)
    assert posixshm.array.load(name).tolist() == [1, 2]
    removed(saved)


def test_open_waits(name, start_python):
    child = start_python(
        """
        import sys
        import posixshm.array
        print("waiting", flush=True)
        print(posixshm.array.load(sys.argv[1], timeout=60).tolist())
        print(posixshm.array.open(sys.argv[1], "r+", timeout=60).tolist())
        """,
        name,
    )
    child.hear("waiting")
    saved = posixshm.array.save(name, [1, 2, 3])
    assert child.finish()[1] == "[1, 2, 3]\n[1, 2, 3]\n"
    removed(saved)
    with pytest.raises(TimeoutError):
        posixshm.array.load(name, timeout=0.01)


def test_attaching_changes_nothing(name):
    saved = posixshm.array.save(name, np.arange(10))
    before, data = os.stat(SHM + name), open(SHM + name, "rb")
    with data:
        content = data.read()
        for mode in ("r", "r+"):
            posixshm.array.open(name, mode).shm.close()
        data.seek(0)
        assert data.read() == content
    after = os.stat(SHM + name)
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    removed(saved)


# -- lifetime -----------------------------------------------------------------------------------


def test_the_array_outlives_everything_else(name):
    array = posixshm.array.save(name, np.arange(1000))
    part = posixshm.array.load(name)[::-3].reshape(2, -1)
    plain = np.asarray(posixshm.array.open(name, "r+"))
    array.shm.unlink()
    array.shm.close()
    part.shm.close()
    expected = np.arange(1000)[::-3].reshape(2, -1)
    assert (part == expected).all() and (plain == np.arange(1000)).all()
    plain[:] = 5
    del array
    gc.collect()
    assert (part == 5).all()
    del part
    gc.collect()
    assert (plain == 5).all()


def test_views_share_the_handle(name):
    array = removed(posixshm.array.create(name, (4, 6), [("a", "<f4"), ("b", "<i4")]))
    for view in (array[1:], array["a"], array.T, array.reshape(-1), array[0, ::-2], array[...]):
        assert type(view) is SharedArray and view.shm is array.shm
    assert array["a"].view("<i4").shm is array.shm
    assert np.asarray(array).base is not None and type(np.asarray(array)) is np.ndarray


def test_renaming_fields_changes_one_array_only(name):
    dtype = [("a", "<f4"), ("b", [("c", "<i4"), ("d", "<i4")])]
    array = posixshm.array.create(name, 3, dtype, delete=True)
    for renamed in [array, posixshm.array.open(name)]:
        renamed.dtype["b"].names = ("e", "f")
        renamed.dtype.names = ("g", "h")
    assert array.dtype.names == ("g", "h")
    assert posixshm.array.open(name).dtype == dtype
    assert posixshm.array.create(name, 3, dtype, exist_ok=True).dtype == dtype
    assert posixshm.array.create(None, 3, dtype).dtype == dtype


def test_an_error_keeps_no_descriptor_open(name):
    """An exception that is kept alive does not keep a descriptor or memory."""

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    with SharedMemory.create(name, 100, delete=True):
        before = descriptors()
        with pytest.raises(ValueError) as caught:
            posixshm.array.load(name)
        assert descriptors() == before and caught
        with pytest.raises(FileExistsError) as caught:
            posixshm.array.save(name, [1])
        assert descriptors() == before and caught
        with pytest.raises(ValueError) as caught:
            posixshm.array.save("a/b", [1], replace=True)
        assert descriptors() == before and caught


# -- replacing ----------------------------------------------------------------------------------


def test_replacing(name):
    old = posixshm.array.save(name, [1, 2, 3])
    reader = posixshm.array.load(name)
    assert old.is_linked() and reader.is_linked() and reader[1:].is_linked()
    with pytest.raises(FileExistsError):
        posixshm.array.save(name, [4])
    new = posixshm.array.save(name, np.ones((2, 2), "f4"), replace=True)
    assert not old.is_linked() and not reader.is_linked() and new.is_linked()
    assert reader.tolist() == [1, 2, 3]
    assert posixshm.array.load(name).tolist() == [[1, 1], [1, 1]]
    with pytest.raises(FileNotFoundError):
        old.shm.unlink()  # the name refers to another object
    removed(new)
    assert not new.is_linked()


def test_replacing_an_array_by_a_part_of_itself(name):
    posixshm.array.save(name, np.arange(10))
    new = posixshm.array.save(name, posixshm.array.load(name)[::2], replace=True)
    assert removed(new).tolist() == [0, 2, 4, 6, 8]


def test_replacing_without_an_old_object(name):
    assert removed(posixshm.array.save(name, [1], replace=True)).tolist() == [1]


def test_readers_see_the_old_or_the_new_array_never_a_mixture(name, start_python):
    """A writer changes content and shape as fast as it can."""
    reader = """
        import sys
        import posixshm.array
        from _processes import ready, stopped
        array = posixshm.array.load(sys.argv[1])
        ready()
        changes = 0
        while not stopped():
            value, size = int(array[0]), len(array)
            assert size == 1000 + value % 7, (size, value)
            assert (array == value).all()
            if not array.is_linked():
                changes += 1
                array = posixshm.array.load(sys.argv[1])
        assert changes > 0
        """
    posixshm.array.save(name, np.full(1000, 0))
    children = [start_python(reader, name, env=PATH) for _ in range(2)]
    for child in children:
        child.hear("ready")
        child.say("go")
    until = time.monotonic() + 1
    for value in itertools.count(1):
        last = posixshm.array.save(name, np.full(1000 + value % 7, value), replace=True)
        if time.monotonic() > until:
            break
    for child in children:
        child.say("stop")
        child.finish()
    removed(last)


def test_a_writer_killed_while_it_saves_leaves_the_old_array(name, start_python):
    posixshm.array.save(name, np.full(1 << 20, 1.0))
    child = start_python(
        """
        import itertools, sys
        import numpy as np
        import posixshm.array
        sources = [np.full(1 << 20, float(value)) for value in (1, 2)]
        for number in itertools.count():
            posixshm.array.save(sys.argv[1], sources[number % 2], replace=True)
            print("saved", flush=True)
        """,
        name,
    )
    child.hear("saved")
    child.kill()
    array = removed(posixshm.array.load(name))
    assert array.shape == (1 << 20,) and (array == array[0]).all() and array[0] in (1, 2)
    posixshm.reclaim(name)


# -- behaviour of numpy arrays ------------------------------------------------------------------


@pytest.fixture
def array(name):
    return removed(posixshm.array.save(name, np.arange(24, dtype="<f4").reshape(4, 6) / 3))


# Each expression returns a new array or a view; the result of numpy is the reference.
RESULTS = {
    "x + 1": None, "-x": None, "x @ x.T": None, "x == x": None, "np.sqrt(x)": None,
    "divmod(x, 2)": None, "np.frexp(x)": None, "np.add.outer(x, x)": None,
    "x.sum()": None, "x.sum(axis=0)": None, "x.mean()": None, "x.mean(axis=1)": None,
    "x.max()": None, "x.min(axis=0)": None, "x.prod(axis=0)": None, "x.std()": None,
    "x.var(axis=0)": None, "x.any()": None, "x.all(axis=1)": None, "x.trace()": None,
    "x.argmax()": None, "x.argmin(axis=0)": None, "x.argsort()": None, "x.argpartition(2)": None,
    "x.cumsum()": None, "x.cumprod(axis=0)": None, "x.clip(1, 2)": None, "x.round(1)": None,
    "x.copy()": None, "x.astype('f8')": None, "x.flatten()": None, "x.T.ravel()": None,
    "x.T.reshape(-1)": None, "x.repeat(2)": None, "x.take([0, 3])": None, "x.byteswap()": None,
    "x.compress([1, 0, 1, 0], axis=0)": None, "x.dot(x.T)": None, "x.nonzero()": None,
    "x.tolist()": None, "x.tobytes()": None, "x.item(3)": None, "x[x > 2]": None,
    "x[[0, 2]]": None, "x[[[0], [2]], [1, 2]]": None, "x[1, 2]": None, "x[:, [1]]": None,
    "np.concatenate([x, x])": None, "np.stack([x, x])": None, "np.where(x > 2, x, 0)": None,
    "np.sort(x)": None, "np.copy(x)": None, "np.array(x)": None, "np.zeros_like(x)": None,
    "np.empty_like(x).shape": None, "np.full_like(x, 3)": None, "np.linalg.norm(x)": None,
    "np.linalg.svd(x)[1]": None, "np.linalg.inv(x[:4, :4] + np.eye(4))": None, "np.tile(x, 2)": None,
    "np.median(x)": None, "np.dot(x, x.T)": None, "np.einsum('ij->i', x)": None,
    "copy.copy(x)": None, "copy.deepcopy(x)": None, "copy.deepcopy([x])[0]": None,
    "x[1:1].copy()": None, "x[:0] + 1": None, "x[0, 0, ...] + 1": None,
    "x[1:]": "view", "x[::-1, ::2]": "view", "x[..., None]": "view", "x[1]": "view",
    "x[0, 0, ...]": "view", "x[2:2]": "view", "x.T": "view", "x.reshape(2, 12)": "view",
    "x.ravel()": "view", "x.swapaxes(0, 1)": "view", "x.squeeze()": "view", "x.view('<i4')": "view",
    "x.diagonal()": "view", "x.real": "view", "np.flip(x)": "view", "np.split(x, 2)[1]": "view",
    "x.astype('<f4', copy=False)": "view", "np.atleast_3d(x)": "view", "np.transpose(x)": "view",
    "np.broadcast_to(x, (2, 4, 6), subok=True)": "view", "np.moveaxis(x, 0, 1)": "view",
    "list(x)[2]": "view", "np.asanyarray(x)": "view", "np.add(x, 1, out=x)": "view",
    "np.asarray(x)": "plain view", "x.view(np.ndarray)": "plain view",
}  # fmt: skip


@pytest.mark.parametrize("expression", RESULTS)
def test_views_are_shared_and_results_are_plain(array, expression):
    import copy

    whole = np.array(array)
    with np.errstate(all="ignore"):  # on some machines numpy warns about correct products
        expected = eval(expression, {"np": np, "copy": copy, "x": whole})
        result = eval(expression, {"np": np, "copy": copy, "x": array})
    pairs = (
        zip(result, expected, strict=True) if isinstance(result, tuple) else [(result, expected)]
    )
    kind = RESULTS[expression]
    for one, other in pairs:
        if type(other) is np.ndarray:
            assert type(one) is (SharedArray if kind == "view" else np.ndarray)
            np.testing.assert_array_equal(np.asarray(one), other)
            if one.size:
                assert np.may_share_memory(np.asarray(one), np.asarray(array)) == bool(kind)
        else:
            assert type(one) is type(other) and one == other
    if kind == "view":
        assert result.shm is array.shm and result.name == array.name


def test_every_method_of_numpy_returns_a_shared_view_or_a_plain_array(array):
    """Every method that needs no argument is called, so methods of later versions are included."""
    inside = np.asarray(array)
    for name in dir(np.ndarray):
        if name.startswith("_") or name in ("imag", "base"):
            continue
        result = getattr(array, name)
        if callable(result):
            try:
                result = result()
            except (TypeError, ValueError, DeprecationWarning):
                continue
        if isinstance(result, np.ndarray) and result.size:
            shared = np.may_share_memory(np.asarray(result), inside)
            assert (type(result) is SharedArray) == shared, name


def test_in_place(array):
    same_array = array
    array += 1
    array[1:] *= 2
    np.multiply(array, 0, out=array, where=array > 5)
    assert array is same_array and type(array) is SharedArray
    again = posixshm.array.SharedArray.view(array)
    again.sort(axis=0)
    assert np.shares_memory(np.asarray(again), np.asarray(array))


@pytest.mark.parametrize("order", ["C", "F", "A", "K", None])
def test_copy_has_the_orders_of_numpy(array, order):
    plain = np.asarray(array)
    for index in (np.s_[:], np.s_[::-1, 1:], np.s_[1, 2, ...], np.s_[2:2]):
        for one, other in ((array[index], plain[index]), (array[index].T, plain[index].T)):
            for copied in (one.copy(order), one.copy(order=order)):
                expected = other.copy(order)
                assert type(copied) is np.ndarray and copied.flags.owndata
                assert copied.strides == expected.strides and copied.dtype == expected.dtype
                np.testing.assert_array_equal(copied, expected)
    with pytest.raises(ValueError, match="order"):
        array.copy("X")
    with pytest.raises(TypeError, match="copy"):
        array.copy("C", 1)


def test_a_copy_is_not_in_shared_memory(array):
    outside = np.array(array, subok=True)
    assert type(outside) is SharedArray
    for attribute in ("shm", "name"):
        with pytest.raises(AttributeError, match="not in shared memory"):
            getattr(outside, attribute)


def test_the_class_cannot_be_called():
    with pytest.raises(TypeError, match=r"create\(\)"):
        SharedArray((3,))


def test_records_and_scalars(name):
    array = removed(posixshm.array.create(name, 3, [("a", "<i4"), ("b", "<f8", (2,))]))
    array["a"] = [1, 2, 3]
    record = array[1]
    assert type(record) is np.void and record["a"] == 2
    record["b"][1] = 7  # numpy's records share the memory of their array
    assert array["b"].tolist() == [[0, 0], [0, 7], [0, 0]]
    assert type(array["a"][0]) is np.int32


def test_repr_and_str_of_an_array(array):
    assert repr(array).startswith("SharedArray([[0.")
    assert str(array) == str(np.array(array))


def test_threads(name, run_threads):
    array = removed(posixshm.array.create(name, 4000, "i8"))

    def part(number):
        for _ in range(200):
            array[number::4] += 1
            assert array[number::4].shm is array.shm

    run_threads(*(functools.partial(part, number) for number in range(4)))
    assert (array == 200).all()


# -- random arrays ------------------------------------------------------------------------------

dtypes = st.one_of(
    hnp.array_dtypes(allow_subarrays=True),
    hnp.nested_dtypes(max_itemsize=200),
    hnp.scalar_dtypes(),
).filter(lambda dtype: not dtype.hasobject and dtype.base.itemsize > 0)
bytes_of_anything = st.binary(min_size=1, max_size=64)


@pytest.mark.long
@property_test
@hypothesis.given(
    dtypes, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4), st.sampled_from("CF"),
    bytes_of_anything,
)  # fmt: skip
def test_round_trips_against_numpy(dtype, shape, order, content):
    name = f"posixshm-test-{os.getpid()}-hypothesis"
    created = posixshm.array.create(name, shape, dtype, order=order)
    raw = np.ndarray(created.nbytes, "u1", created.shm.buf, created.shm.size - created.nbytes)
    raw[:] = np.resize(np.frombuffer(content, "u1"), raw.size)
    by_numpy = np.load(SHM + name)
    removed(created)
    same(created, by_numpy)
    saved = posixshm.array.save(name, created)
    loaded = posixshm.array.load(name)
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(created), (3, 0))
    removed(saved)
    file.seek(0)
    expected = np.load(file)
    for array in (saved, loaded):
        same(array, expected)
        assert array.strides == expected.strides or math.prod(array.shape) <= 1


@pytest.mark.long
@property_test
@hypothesis.given(st.data())
def test_views_of_views_equal_numpys(data):
    source = np.arange(120, dtype="<i4").reshape(2, 3, 4, 5)
    name = f"posixshm-test-{os.getpid()}-hypothesis"
    shared, plain = removed(posixshm.array.save(name, source)), source
    for _ in range(3):
        index = data.draw(hnp.basic_indices(plain.shape, allow_newaxis=True, allow_ellipsis=True))
        shared, plain = shared[index], plain[index]
        if not isinstance(plain, np.ndarray):
            break
        axes = data.draw(st.permutations(range(plain.ndim)))
        shared, plain = shared.transpose(axes), plain.transpose(axes)
        assert type(shared) is SharedArray and shared.strides == plain.strides
    np.testing.assert_array_equal(np.asarray(shared), plain)


# -- importing ----------------------------------------------------------------------------------


@pytest.mark.new_interpreter
def test_numpy_is_not_imported_without_need(run_python):
    run_python("import sys, posixshm; assert 'numpy' not in sys.modules")


@pytest.mark.new_interpreter
def test_without_numpy_the_import_error_names_the_extra(run_python):
    run_python(
        """
        import sys
        sys.modules["numpy"] = None
        import posixshm
        try:
            import posixshm.array
        except ImportError as error:
            assert "pip install 'posixshm[numpy]'" in str(error) and error.name == "numpy", error
        else:
            raise AssertionError
        """
    )
