"""Pickled arrays: the pickle contains the place of the items in shared memory, not the items."""

import concurrent.futures
import contextlib
import copy
import errno
import gc
import io
import multiprocessing as mp
import os
import pickle
import signal

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from _processes import rounds
from hypothesis import strategies as st

import posixshm.array
from posixshm import SharedMemory
from posixshm.array import SharedArray

SHM = "/dev/shm/"
DEADLINE = 60
METHODS = ["fork", "forkserver", "spawn"]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
BIG = 1 << 18  # items; a pickle with the items could not be short

RECORD = np.dtype([("a", "<i2"), ("b", ">f8"), ("c", "S3", (2,))])


@pytest.fixture
def numbers(name):
    array = posixshm.array.create(name, (BIG // 64, 64), "<i8", delete=True)
    array[...] = np.arange(BIG).reshape(array.shape)
    with array.shm:
        yield array


@pytest.fixture
def records(name):
    with (array := posixshm.array.create(name, (BIG // 64, 64), RECORD, delete=True)).shm:
        array["a"] = np.arange(BIG).reshape(array.shape) % 1000
        array["b"] = array["a"] / 3
        yield array


def travelled(array, protocol=pickle.HIGHEST_PROTOCOL):
    data = pickle.dumps(array, protocol)
    assert len(data) < 1500
    return pickle.loads(data)


def alike(one, other):
    """Are both arrays the same items at the same offsets of the same object?"""
    assert type(one) is type(other) is SharedArray
    assert one.dtype == other.dtype and one.shape == other.shape and one.strides == other.strides
    assert one.flags.writeable == other.flags.writeable
    assert one.shm.stat().st_ino == other.shm.stat().st_ino
    assert one.tobytes() == other.tobytes()
    if one.size:
        assert one._offset() == other._offset()


# -- by reference -------------------------------------------------------------------------------

VIEWS = {
    "whole": lambda x: x,
    "slice": lambda x: x[3:7],
    "steps": lambda x: x[5::7, 3::5],
    "negative strides": lambda x: x[::-3, ::-1],
    "transposed": lambda x: x.T,
    "transposed part": lambda x: x.T[5:9, ::-2],
    "one row": lambda x: x[17],
    "0-d": lambda x: x[17, 3, ...],
    "the last item": lambda x: x[-1:, -1:],
    "empty": lambda x: x[5:5],
    "empty at the end": lambda x: x[len(x) :],
    "new axes": lambda x: x[None, 2:4, None],
    "reshaped": lambda x: x.reshape(64, -1),
    "bytes": lambda x: x[2:5].view("u1"),
    "diagonal": lambda x: x.diagonal(),
    "broadcast": lambda x: np.broadcast_to(x[:1], (5, 64), subok=True),
    "broadcast backwards": lambda x: np.broadcast_to(x[:2, ::-1], (3, 2, 64), subok=True),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_travel_as_what_they_are(numbers, view):
    array = VIEWS[view](numbers)
    alike(travelled(array), array)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x["a"],
        lambda x: x["b"][::-1, 3],
        lambda x: x[["a", "c"]],
        lambda x: x["c"][2:4, ::2],
        lambda x: x[3:5].view([("raw", "V16")]),
        lambda x: x,
    ],
)
def test_fields_travel(records, view):
    alike(travelled(view(records)), view(records))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol(numbers, protocol):
    alike(travelled(numbers[::-2], protocol), numbers[::-2])


def test_the_pure_python_pickler_too(numbers):
    file = io.BytesIO()
    pickle._Pickler(file).dump(numbers[1:])
    file.seek(0)
    alike(pickle._Unpickler(file).load(), numbers[1:])


def test_a_write_is_seen_on_the_other_side(numbers):
    other = travelled(numbers[::-1, 5])
    other[0] = -1
    assert numbers[-1, 5] == -1
    numbers[-2, 5] = -2
    assert other[1] == -2


def test_read_only_travels(numbers):
    for reader in (posixshm.array.load(numbers.name), posixshm.array.load(numbers.name)[3:5]):
        other = travelled(reader)
        alike(other, reader)
        assert other.shm.readonly
        with pytest.raises(ValueError, match="WRITEABLE"):
            other.flags.writeable = True
    marked = numbers[2:]
    marked.flags.writeable = False
    other = travelled(marked)
    assert not other.flags.writeable and not other.shm.readonly


def test_parts_that_travel_together_share_a_handle(numbers):
    one, two, whole = pickle.loads(pickle.dumps([numbers[1:], numbers[:3].T, numbers]))
    assert one.shm is two.shm is whole.shm and one.shm is not numbers.shm


def test_one_array_pickled_twice_is_one_array(numbers):
    one, two = pickle.loads(pickle.dumps([numbers, numbers]))
    assert one is two


def test_a_handle_goes_with_the_last_array(numbers):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        travelled(numbers)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unpickled_array_outlives_the_name(numbers):
    other = travelled(numbers[4:6])
    numbers.shm.unlink()
    other.shm.close()
    assert (other == numbers[4:6]).all()


def test_an_array_that_numpy_wrote_is_pickled_by_reference(name):
    np.save(SHM + name, np.arange(10))
    os.rename(SHM + name + ".npy", SHM + name)
    array = posixshm.array.open(name, "r+")
    alike(travelled(array[3:]), array[3:])
    array.shm.unlink()


def test_after_the_object_grew(name):
    array = posixshm.array.create(name, 10, "u1", delete=True)
    array.shm.resize(1 << 20)
    array[:] = range(10)
    alike(travelled(array[4:]), array[4:])
    array.shm.close()


@pytest.mark.long
@hypothesis.settings(max_examples=rounds(30, 100), deadline=None, database=None)
@hypothesis.given(st.data())
def test_any_view_of_a_view(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    name = f"posixshm-test-{os.getpid()}-hypothesis"
    with (array := posixshm.array.create(name, shape, "<i4", delete=True)).shm:
        array.reshape(-1)[:] = range(array.size)
        for _ in range(2):
            index = data.draw(hnp.basic_indices(array.shape, allow_newaxis=True, max_dims=6))
            part = array[index]
            if not isinstance(part, SharedArray):
                break
            array = part.transpose(data.draw(st.permutations(range(part.ndim))))
            alike(travelled(array), array)


# -- by value -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [
        lambda x: x.copy(), lambda x: x + 0, lambda x: np.array(x), lambda x: x[[1, 2]],
        lambda x: np.array(x, subok=True), lambda x: np.ndarray.copy(x), copy.copy, copy.deepcopy,
        lambda x: copy.deepcopy({"x": x})["x"], lambda x: np.ndarray.__deepcopy__(x, {}),
        lambda x: x.imag, lambda x: x[5:5].copy(), lambda x: x.flat[:],
    ],
)  # fmt: skip
def test_a_copy_is_a_plain_array_and_travels_by_value(numbers, copied):
    array = copied(numbers[:10])
    for protocol in PROTOCOLS:
        other = pickle.loads(pickle.dumps(array, protocol))
        assert type(other) is np.ndarray
        assert other.tolist() == array.tolist()
    numbers[:10] = -1
    assert (other != -1).all()


def test_a_plain_view_of_it_travels_by_value(numbers):
    other = pickle.loads(pickle.dumps(np.asarray(numbers[3:5])))
    assert type(other) is np.ndarray and (other == numbers[3:5]).all()


def test_a_copy_out_of_band(numbers):
    """Out-of-band buffers (PEP 574), as for every numpy array."""
    buffers = []
    array = np.array(numbers[:100], subok=True)
    data = pickle.dumps(array, 5, buffer_callback=buffers.append)
    assert len(data) < 500 and len(buffers) == 1
    assert pickle.loads(data, buffers=buffers).tolist() == array.tolist()


def test_a_record_travels_by_value(records):
    record = pickle.loads(pickle.dumps(records[3, 4]))
    assert type(record) is np.void and record == records[3, 4]


# -- errors -------------------------------------------------------------------------------------


def refused(data, error, number, name):
    with pytest.raises(error) as caught:
        pickle.loads(data)
    assert (caught.value.errno, caught.value.filename) == (number, name)


def test_unpickling_after_the_object_was_unlinked(numbers):
    data = pickle.dumps(numbers[3:])
    numbers.shm.unlink()
    refused(data, FileNotFoundError, errno.ENOENT, numbers.name)


def test_unpickling_after_another_array_was_saved(numbers):
    data = pickle.dumps(numbers[3:])
    new = posixshm.array.save(numbers.name, np.asarray(numbers), replace=True)
    refused(data, OSError, errno.ESTALE, numbers.name)
    refused(pickle.dumps(numbers), OSError, errno.ESTALE, numbers.name)
    new.shm.unlink()


def test_unpickling_on_another_host(numbers):
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        boot = file.read().strip()
    data = pickle.dumps(numbers)
    assert data.count(boot) == 1
    other = data.replace(boot, b"01234567-89ab-cdef-0123-456789abcdef")
    refused(other, OSError, errno.EREMOTE, numbers.name)


def test_unpickling_after_the_object_was_truncated(name):
    array = posixshm.array.create(name, 1000, "u1", delete=True)
    data = pickle.dumps(array[500:]), pickle.dumps(array[:100:-3])
    os.truncate(SHM + name, 4096 + 200)
    for each in data:
        with pytest.raises(ValueError, match=f"'{name}' is too small"):
            pickle.loads(each)
    array.shm.close()


def test_pickling_after_the_handle_was_closed(name):
    numbers = posixshm.array.create(name, 10, int)
    part = numbers[3:]
    numbers.shm.close()
    there = pickle.loads(pickle.dumps(part))
    assert there.tolist() == part.tolist() and not there.shm.closed
    there[0] += 1
    assert part[0] == there[0]
    numbers.shm.unlink()
    assert pickle.loads(pickle.dumps(part.copy())).tolist() == part.tolist()


def test_an_array_without_a_name_is_pickled_by_multiprocessing_only():
    array = posixshm.array.create(None, 3)
    with pytest.raises(TypeError, match="multiprocessing"):
        pickle.dumps(array[1:])
    assert copy.deepcopy(array).tolist() == [0, 0, 0]


# -- forged pickles -----------------------------------------------------------------------------


def forged(dtype, **changes):
    """A dtype whose pickle was changed: another size, and flags that deny Python objects."""
    function, arguments, state = np.dtype(dtype).__reduce__()
    names = ("version", "order", "subdtype", "names", "fields", "size", "alignment", "flags")
    state = dict(zip(names, state, strict=False), **changes)
    made = function(*arguments)
    made.__setstate__(tuple(state.values()))
    return made


OBJECTS = {
    "object": lambda: np.dtype("O"),
    "field": lambda: np.dtype([("a", "i4"), ("b", "O")]),
    "nested": lambda: np.dtype([("a", [("b", "i4"), ("c", [("d", "O")])])]),
    "subarray": lambda: np.dtype([("a", "O", (2, 3))]),
    "field without the flag": lambda: forged([("a", "i8"), ("b", "O")], flags=0),
    "nested without the flag": lambda: forged([("a", forged([("c", "O")], flags=0))], flags=0),
    "subarray without the flag": lambda: forged([("a", "O", (2, 3))], flags=0),
    "bare subarray": lambda: np.dtype(("O", (2,))),
}


@pytest.mark.parametrize("dtype", OBJECTS)
def test_a_forged_pickle_cannot_have_python_objects(numbers, dtype):
    function, (shm, *_) = numbers.__reduce_ex__(5)
    dtype = OBJECTS[dtype]()
    with pytest.raises(ValueError, match="Python objects"):
        function(shm, dtype, (2,), (dtype.itemsize,), 4096, True)


def test_a_forged_dtype_stays_within_its_items(numbers):
    function, (shm, *_) = numbers.__reduce_ex__(5)
    end = shm.size - 16
    for dtype in (
        forged([("a", "<f8"), ("b", "<f8")], size=8),
        forged([("a", "<f8"), ("b", "<f8", (3,))], size=16),
        forged([("a", forged([("b", "<f8"), ("c", "<f8")], size=8))], size=8),
        forged("V8", fields={"a": (np.dtype("<f8"), 1 << 40)}, names=("a",)),
        forged("V8", fields={"a": (np.dtype("<f8"), -(1 << 40))}, names=("a",)),
    ):
        with pytest.raises(ValueError, match="outside of it"):
            function(shm, dtype, (1,), (dtype.itemsize,), end, True)


@pytest.mark.parametrize(
    "dtype, message",
    [
        (lambda: forged([("a", "i8")], names=("a", "b")), "without a field"),
        (lambda: forged("V8", size=-(1 << 20)), "items of -1048576 bytes"),
    ],
)
def test_a_forged_dtype_has_all_its_fields_and_a_size(numbers, dtype, message):
    function, (shm, *_) = numbers.__reduce_ex__(5)
    with pytest.raises(ValueError, match=message):
        function(shm, dtype(), (1,), (8,), 4096, True)


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((1 << 62,), (4,), 4096), ((1 << 61, 1 << 61), (8, 8), 4096), ((3,), (1 << 62,), 4096),
        ((2,), (-(1 << 63),), 4096), ((3, 3), (1 << 62, -(1 << 62)), 4096), ((2,), (8,), -8),
        ((1,), (8,), 1 << 63), ((1,), (8,), -(1 << 63)), ((0,), (8,), 1 << 40), ((0,), (8,), -1),
        ((-1,), (8,), 0), ((2, -3), (8, 8), 0), ((2,), (8, 8), 0), ((2, 2), (8,), 0), ((), (), 1 << 40),
    ],
)  # fmt: skip
def test_a_forged_pickle_stays_within_the_object(numbers, shape, strides, offset):
    function, (shm, *_) = numbers.__reduce_ex__(5)
    with pytest.raises((ValueError, OverflowError)):
        function(shm, np.dtype("<i8"), shape, strides, offset, True)


def test_any_forged_pickle_is_an_array_in_the_object_or_an_error(numbers, run_python):
    run_python(
        """
        import random, sys
        import numpy as np
        import posixshm.array
        random = random.Random(1)
        array = posixshm.array.open(sys.argv[1], "r+")
        function, (shm, *_) = array.__reduce_ex__(5)
        low = array.__array_interface__["data"][0] - array._offset()
        numbers = [0, 1, 2, 3, 7, 8, 64, 4096, shm.size, 2**31, 2**32, 2**62, 2**63, 2**64]
        numbers += [-number for number in numbers] + [n - 1 for n in numbers] + [None, "8", 2.5]
        dtypes = [np.dtype(kind) for kind in ("u1", "<i8", "V7", "U3", "M8[s]", "O", "V0")]
        dtypes += [np.dtype([("a", "u1"), ("b", "<f8", (3,))]), "<i8", None, object]
        def some():
            return tuple(random.choice(numbers) for _ in range(random.choice((0, 1, 1, 2, 3))))
        made = 0
        for _ in range(20_000):
            writeable = random.choice((True, False, None))
            arguments = random.choice(dtypes), some(), some(), random.choice(numbers), writeable
            if random.random() < 0.7:  # or few are of one length
                strides = tuple(random.choice((0, 1, 8, -8, 16)) for _ in arguments[1])
                arguments = arguments[0], arguments[1], strides, *arguments[3:]
            try:
                array = function(shm, *arguments)
            except (ValueError, TypeError, OverflowError):
                continue
            begin = array.__array_interface__["data"][0] - low
            reach = [s * (n - 1) for s, n in zip(array.strides, array.shape)]
            if array.size:
                assert 0 <= begin + sum(r for r in reach if r < 0), arguments
                assert begin + sum(r for r in reach if r > 0) + array.itemsize <= shm.size
                array[(0,) * array.ndim], array[(-1,) * array.ndim]
                made += 1
        assert made > 500, made
        """,
        numbers.name,
    )


# -- through multiprocessing --------------------------------------------------------------------


@pytest.fixture(params=METHODS)
def context(request, monkeypatch):
    """A start method, whose processes print their stacks when they are aborted."""
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    return mp.get_context(request.param)


@contextlib.contextmanager
def running(process):
    """Run a process, which must end before the deadline."""
    process.start()
    try:
        yield process
        process.join(DEADLINE)
        if process.is_alive():
            os.kill(process.pid, signal.SIGABRT)
            pytest.fail(f"a process hung for {DEADLINE} seconds; see its stacks")
        assert process.exitcode == 0
    finally:
        if process.is_alive():
            process.join(5)
            process.kill()
        process.join()
        process.close()


@pytest.fixture(params=["named", "anonymous"])
def array(request, name):
    which = name if request.param == "named" else None
    with (array := posixshm.array.create(which, (BIG // 64, 64), "<i8")).shm as shm:
        array[...] = np.arange(BIG).reshape(array.shape)
        yield array
        if which is not None:
            shm.unlink()


def double(part):
    """In the other process: change the items in place and return the part."""
    assert type(part) is SharedArray
    part *= 2
    return part


def parts(array):
    return [array[:10], array[100:10:-7, ::2], array.T[:, 200:210], array[500, 3:5], array[600:600]]


def check(array, results):
    """Check that all parts were doubled and share the memory of the array."""
    expected = np.arange(BIG).reshape(array.shape)
    for part in parts(expected):
        part *= 2
    assert (array == expected).all()
    for result, part in zip(results, parts(array), strict=True):
        alike(result, part)


def _queue(inbox, outbox):
    while (part := inbox.get(timeout=DEADLINE)) is not None:
        outbox.put(double(part))
        assert inbox.get(timeout=DEADLINE) == "arrived"


@pytest.mark.long
def test_through_a_queue(context, array):
    inbox, outbox = context.Queue(), context.Queue()
    results = []
    with running(context.Process(target=_queue, args=(inbox, outbox))):
        for part in parts(array):
            inbox.put(part)
            results.append(outbox.get(timeout=DEADLINE))
            # The receiver gets an object without a name from the sender, which must still run.
            inbox.put("arrived")
        inbox.put(None)
    for queue in (inbox, outbox):
        queue.close()
        queue.join_thread()
    check(array, results)


@pytest.mark.long
def test_through_a_pool(context, array):
    with context.Pool(2) as pool:
        results = pool.map_async(double, parts(array)).get(DEADLINE)
        check(array, results)
        pool.close()
        pool.join()


@pytest.mark.long
def test_through_an_executor(context, array):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        futures = [executor.submit(double, part) for part in parts(array)]
        check(array, [future.result(DEADLINE) for future in futures])


def _arguments(whole, part):
    assert part.shm is whole.shm  # they were pickled together
    part[...] = 5


@pytest.mark.long
def test_as_arguments_of_a_process(context, array):
    with running(context.Process(target=_arguments, args=(array, array[::-50]))):
        pass
    assert (array[::-50] == 5).all() and array[0, 0] == 0


def test_a_message_contains_the_name_but_no_items(context, numbers):
    ours, theirs = context.Pipe()
    with ours, theirs:
        ours.send(numbers)
        assert len(theirs.recv_bytes()) < 1500


# -- joblib, and loky ---------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(name, tmp_path, run_python, backend):
    """In a child, because the processes of loky run until the interpreter ends."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import joblib
import numpy as np
import posixshm.array
from posixshm.array import SharedArray

def double(part, number):
    assert type(part) is SharedArray, type(part)
    part *= 2
    assert part.nbytes == number
    return part, part.shm.stat().st_ino

if __name__ == "__main__":
    array = posixshm.array.create({name!r}, (1000, 1000), "f8", init=lambda array: array.fill(1))
    parts = [array[:500], array[500:, ::-2], array.T[::2, 500:]]
    results = joblib.Parallel(n_jobs=2, backend={backend!r}, max_nbytes="1K")(
        joblib.delayed(double)(part, part.nbytes) for part in parts)
    assert (array == 2).all()
    for (result, inode), part in zip(results, parts, strict=True):
        assert type(result) is SharedArray and result.strides == part.strides
        assert inode == array.shm.stat().st_ino
    array[...] = 3
    assert all((result == 3).all() for result, inode in results)
    readers = joblib.Parallel(n_jobs=2, backend={backend!r})(
        joblib.delayed(np.sum)(part) for part in [posixshm.array.load({name!r})] * 4)
    assert readers == [3e6] * 4
    if {backend!r} == "loky":
        from joblib.externals.loky import get_reusable_executor
        executor = get_reusable_executor(max_workers=2)
        part, inode = executor.submit(double, array[7], 8000).result(60)
        assert (array[7] == 6).all() and type(part) is SharedArray
        executor.shutdown(wait=True)
    array.shm.unlink()
    print("well")
"""
    )
    out = run_python(
        f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')",
        env={"JOBLIB_TEMP_FOLDER": str(tmp_path)},
    )
    assert out == "well\n"


def test_the_unpickled_handle_has_the_same_class(numbers):
    assert type(travelled(numbers).shm) is SharedMemory
