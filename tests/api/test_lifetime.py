"""Views remain valid after close(), which never fails.

Every consumer of the bytes reads and writes the object itself for as long as the consumer exists;
the memory is unmapped after the last of them, and no finalizer raises or prints.
"""

import ctypes
import functools
import gc
import itertools
import mmap
import os
import struct
import textwrap
import weakref

import numpy as np
import pytest
from _handles import USES

from posixshm import PAGESIZE, SharedMemory

SHM = "/dev/shm/"
SIZE = 4 * PAGESIZE


class Taken:
    """An object that uses the bytes, with functions that write and read byte 0 through it."""

    def __init__(self, what, write, read):
        self.what = what
        self.write = write
        self.read = read


def _item(view):
    return Taken(view, lambda value: view.__setitem__(0, value), lambda: int(view[0]))


def _cast(shm):
    view = shm.buf.cast("B", (SIZE // 16, 16))
    return Taken(view, lambda value: view.__setitem__((0, 0), value), lambda: view[0, 0])


def _cast_to_words(shm):
    view = shm.buf.cast("Q")

    def write(value):
        view[0] = view[0] >> 8 << 8 | value

    return Taken(view, write, lambda: view[0] & 0xFF)


def _array_transposed(shm):
    view = np.ndarray((16, 16), "u1", buffer=shm).T
    return Taken(view, lambda value: view.__setitem__((0, 0), value), lambda: int(view[0, 0]))


def _array_flat(shm):
    flat = np.ndarray((16, 16), "u1", buffer=shm).flat
    return Taken(flat, lambda value: flat.__setitem__(0, value), lambda: int(flat[0]))


def _array_record(shm):
    record = np.ndarray(2, [("a", "u1"), ("b", "f4")], buffer=shm)[0]
    return Taken(record, lambda value: record.__setitem__("a", value), lambda: int(record["a"]))


def _ctypes_struct(shm):
    class Point(ctypes.Structure):
        _fields_ = [("x", ctypes.c_ubyte), ("y", ctypes.c_double)]

    point = Point.from_buffer(shm)
    return Taken(point, lambda value: setattr(point, "x", value), lambda: point.x)


def _bound_method(shm):
    write = functools.partial(struct.pack_into, "B", shm.buf, 0)
    read = functools.partial(struct.unpack_from, "B", shm.buf, 0)
    return Taken((write, read), write, lambda: read()[0])


def _struct_iterator(shm):
    buf = shm.buf
    items = itertools.chain.from_iterable(struct.iter_unpack("B", shm))
    return Taken(items, lambda value: buf.__setitem__(0, value), lambda: buf[0])


def _generator(shm):
    def items(view):
        while True:
            value = yield view[0]
            if value is not None:
                view[0] = value

    generator = items(shm.buf)
    next(generator)
    return Taken(generator, generator.send, lambda: next(generator))


# The consumers whose item 0 is byte 0.
ITEMS = {
    "memoryview": memoryview,
    "buf": lambda shm: shm.buf,
    "buf_slice": lambda shm: shm.buf[:100],
    "view_of_view": lambda shm: memoryview(memoryview(shm.buf[:10])),
    "reversed_twice": lambda shm: shm.buf[::-1][::-1],
    "map": lambda shm: shm.map(),
    "map_view": lambda shm: memoryview(shm.map(0, 10)),
    "mapping_of_buf": lambda shm: shm.buf.obj,
    "ndarray_of_buf": lambda shm: np.ndarray(10, "u1", buffer=shm.buf),
    "ndarray_of_handle": lambda shm: np.ndarray(10, "u1", buffer=shm),
    "ndarray_of_memoryview": lambda shm: np.ndarray(10, "u1", buffer=memoryview(shm)),
    "ndarray_of_map": lambda shm: np.ndarray(10, "u1", buffer=shm.map()),
    "frombuffer_of_handle": lambda shm: np.frombuffer(shm, "u1"),
    "frombuffer_of_buf": lambda shm: np.frombuffer(shm.buf, "u1"),
    "asarray_of_handle": np.asarray,
    "asarray_of_buf": lambda shm: np.asarray(shm.buf),
    "array_without_a_copy": lambda shm: np.array(shm, copy=False),
    "array_slice": lambda shm: np.frombuffer(shm, "u1")[:64][::1],
    "array_reshaped": lambda shm: np.ndarray(SIZE, "u1", buffer=shm).reshape(-1, 16)[0],
    "array_viewed": lambda shm: np.frombuffer(shm, "f8").view("u1"),
    "array_strided": lambda shm: np.lib.stride_tricks.as_strided(
        np.frombuffer(shm, "u1"), (5,), (7,)
    ),
    "array_data": lambda shm: np.frombuffer(shm, "u1").data,
    "array_of_memoryview_of_array": lambda shm: np.frombuffer(
        memoryview(np.ndarray(10, "u1", buffer=shm)), "u1"
    ),
    "ctypes_array": lambda shm: (ctypes.c_ubyte * 10).from_buffer(shm),
    "ctypes_array_of_buf": lambda shm: (ctypes.c_ubyte * 10).from_buffer(shm.buf),
    "ctypes_pointer": lambda shm: ctypes.pointer(ctypes.c_ubyte.from_buffer(shm.buf)),
    "array_from_ctypes": lambda shm: np.ctypeslib.as_array((ctypes.c_ubyte * 10).from_buffer(shm)),
}

WAYS = {
    **{name: lambda shm, take=take: _item(take(shm)) for name, take in ITEMS.items()},
    "cast": _cast,
    "cast_to_words": _cast_to_words,
    "array_transposed": _array_transposed,
    "array_flat": _array_flat,
    "array_record": _array_record,
    "ctypes_struct": _ctypes_struct,
    "bound_method": _bound_method,
    "struct_iterator": _struct_iterator,
    "generator": _generator,
}


def close(shm):
    shm[0].close()


def close_twice(shm):
    shm[0].close()
    shm[0].close()


def close_and_forget(shm):
    shm.pop().close()


def forget(shm):
    shm.clear()


def leave_context(shm):
    with shm[0]:
        pass


def close_fd(shm):
    shm[0].close_fd()


def detach(shm):
    os.close(shm[0].detach())


def unlink(shm):
    shm[0].unlink()


def unlink_and_close(shm):
    shm[0].unlink()
    shm.pop().close()


def second_init(shm):
    """The handle attaches to another object."""
    other = SharedMemory.create(None, 2 * SIZE)
    shm[0].__init__(other.name)
    assert shm[0].size == 2 * SIZE
    shm[0].buf[0] = 99
    other.unlink()


def second_init_then_close(shm):
    second_init(shm)
    shm.pop().close()


def third_init(shm):
    for _ in range(3):
        second_init(shm)
        np.ndarray(1, "u1", buffer=shm[0])


def failed_second_init(shm):
    for arguments in [("no such name " * 3,), (None,), (None, True, 0), ("a/b",), (1, 2, 3, 4)]:
        with pytest.raises((ValueError, TypeError, OSError)):
            shm[0].__init__(*arguments)


def grow(shm):
    shm[0].resize(shm[0].size + 20 * PAGESIZE)


def grow_and_close(shm):
    grow(shm)
    shm.pop().close()


def grow_again_and_again(shm):
    for _ in range(5):
        grow(shm)


def grow_elsewhere(shm):
    if shm[0].name is None:
        grow(shm)
    else:
        with SharedMemory.open(shm[0].name) as other:
            grow([other])
    shm[0].refresh()


def copy_and_close(shm):
    with SharedMemory.from_fd(os.dup(shm[0].fileno())) as other:
        np.ndarray(1, "u1", buffer=other)
    shm[0].close()


EVENTS = [
    close,
    close_twice,
    close_and_forget,
    forget,
    leave_context,
    close_fd,
    detach,
    unlink,
    unlink_and_close,
    second_init,
    second_init_then_close,
    third_init,
    failed_second_init,
    grow,
    grow_and_close,
    grow_again_and_again,
    grow_elsewhere,
    copy_and_close,
]


def reuse_addresses():
    """Map other memory at freed addresses, so that a stale view would show its bytes."""
    fillers = []
    for pages in (1, 2, 4, 8, 104):
        for _ in range(40):
            filler = mmap.mmap(-1, pages * PAGESIZE)
            filler[:] = b"\xee" * len(filler)
            fillers.append(filler)
    return fillers


@pytest.fixture
def objects(names):
    """objects(): the name of a new object of SIZE bytes, and an mmap of it."""
    made = []

    def make():
        name = names()
        fd = os.open(SHM + name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        os.posix_fallocate(fd, 0, SIZE)
        witness = mmap.mmap(fd, SIZE)
        os.close(fd)
        made.append((name, witness))
        return made[-1]

    yield make
    for name, witness in made:
        witness.close()
        if os.path.exists(SHM + name):
            os.unlink(SHM + name)


@pytest.mark.long
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_consumer_outlives_the_handle(objects, event):
    all_taken = []
    for way, take in WAYS.items():
        name, witness = objects()
        shm = [SharedMemory.open(name)]
        taken = take(shm[0])
        taken.write(1)
        event(shm)
        all_taken.append((way, taken, witness, shm))
    gc.collect()
    fillers = reuse_addresses()
    for way, taken, witness, _ in all_taken:
        for value in (2, 200):
            taken.write(value)
            assert (way, taken.read(), witness[0]) == (way, value, value)
        witness[0] = 123
        assert (way, taken.read()) == (way, 123)
    assert all(filler[0] == filler[-1] == 0xEE for filler in fillers)
    for filler in fillers:
        filler.close()


def test_every_consumer_outlives_an_anonymous_handle():
    """Nothing else in this process maps the object."""
    all_taken = []
    for way, take in WAYS.items():
        shm = SharedMemory.anonymous(SIZE)
        taken = take(shm)
        taken.write(17)
        shm.close()
        del shm
        all_taken.append((way, taken))
    gc.collect()
    fillers = reuse_addresses()
    for way, taken in all_taken:
        assert (way, taken.read()) == (way, 17)
        taken.write(18)
        assert (way, taken.read()) == (way, 18)
    for filler in fillers:
        filler.close()


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_the_memory_is_unmapped_with_the_last_consumer(way):
    def mapped():
        with open("/proc/self/maps") as maps:
            return [line for line in maps if inode in line and "memfd" in line]

    shm = SharedMemory.anonymous(SIZE)
    inode = f" {shm.stat().st_ino} "
    taken = WAYS[way](shm)
    shm.close()
    assert mapped()
    del shm
    gc.collect()
    assert mapped()
    del taken
    gc.collect()
    assert not mapped()


@pytest.mark.long
@pytest.mark.parametrize("way", [way for way in WAYS if way != "generator"])
def test_a_consumer_may_be_in_a_cycle_with_the_handle(way):
    """The collector takes a cycle apart in any order."""

    class Node:
        pass

    class Last:
        """An object that uses the bytes in its finalizer."""

        def __init__(self, taken):
            self.taken = taken

        def __del__(self):
            self.taken.write(5)
            seen.append(self.taken.read())

    seen = []
    node = Node()
    node.shm = SharedMemory.anonymous(SIZE)
    node.taken = WAYS[way](node.shm)
    node.taken.node = node
    node.last = Last(node.taken)
    node.last.node = node
    del node
    gc.collect()
    assert seen == [5]


@pytest.mark.parametrize("way", ["buf", "cast", "map", "memoryview", "bound_method"])
def test_a_handle_may_be_in_a_cycle(name, way):
    """Without arrays, because numpy's arrays do not support garbage collection."""

    class Sub(SharedMemory):
        def __del__(self):
            self.taken.write(6)
            seen.append((self.buf[0], self.taken.read()))

    seen = []
    shm = Sub.create(name, SIZE, delete=True)
    shm.taken = WAYS[way](shm)
    shm.taken.shm = shm
    del shm
    gc.collect()
    assert seen == [(6, 6)]


# -- uninitialized and finalized handles ----------------------------------------------------------

BARE = {
    "new": lambda: SharedMemory.__new__(SharedMemory),
    "new with arguments": lambda: SharedMemory.__new__(SharedMemory, "x", create=True, size=1),
}


@pytest.mark.parametrize("bare", BARE.values(), ids=BARE)
def test_an_uninitialized_handle_is_closed(bare):
    shm = bare()
    assert shm.closed
    assert shm.name is None and shm.size == 0 and shm.max_size is None
    assert shm.readonly is False and shm.created is False
    assert not shm.is_linked()
    assert "SharedMemory" in repr(shm)
    for use in (*USES.values(), SharedMemory.unlink, SharedMemory.__reduce__):
        with pytest.raises((ValueError, TypeError)):
            use(shm)
    shm.close()
    shm.close()
    shm.__exit__(None, None, None)
    assert shm.closed
    weak = weakref.ref(shm)
    del shm
    gc.collect()
    assert weak() is None
    assert not os.path.exists(SHM + "never")


def test_an_uninitialized_handle_can_be_initialized(name):
    shm = SharedMemory.__new__(SharedMemory)
    shm.__init__(name, create=True, size=10)
    shm.buf[0] = 1
    shm.unlink()
    shm.close()
    shm.__init__(name, True, 20)
    assert not shm.closed and shm.size == 20
    shm.unlink()


@pytest.mark.parametrize(
    "broken",
    [
        lambda self, *args, **keywords: None,
        lambda self, *args, **keywords: 1 / 0,
        lambda self, *args, **keywords: SharedMemory.__init__(self, 1, 2, 3, 4, 5),
        lambda self, *args, **keywords: SharedMemory.__init__(self, "posixshm-test-nobody"),
        lambda self, *args, **keywords: SharedMemory.__init__(self, create=True, size=-1),
    ],
    ids=["does nothing", "raises", "too many", "not there", "bad size"],
)
def test_a_subclass_whose_init_does_nothing(name, broken):
    uses = []

    class Broken(SharedMemory):
        __init__ = broken

        def __del__(self):
            uses.append((self.closed, self.size, self.name))
            self.close()

    try:
        shm = Broken(name, create=True, size=10)
    except (TypeError, ZeroDivisionError, OSError, ValueError):
        pass
    else:
        assert shm.closed
        for use in USES.values():
            with pytest.raises((ValueError, TypeError)):
                use(shm)
        del shm
    gc.collect()
    assert uses == [(True, 0, None)]
    # The other constructors do not call __init__.
    with Broken.create(name, 10, delete=True) as shm:
        assert shm.size == 10


def test_init_that_raises_after_the_handle_was_created(name):
    class Late(SharedMemory):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)
            kept.append(np.ndarray(1, "u1", buffer=self))
            self.unlink()
            raise RuntimeError("late")

    kept = []
    with pytest.raises(RuntimeError, match="late"):
        Late(name, create=True, size=10)
    gc.collect()
    kept[0][0] = 5
    assert kept.pop()[0] == 5


def test_a_second_init_releases_the_first_object(name, names):
    other = names()
    shm = SharedMemory(name, create=True, size=10)
    first = shm.fileno()
    shm.__init__(other, create=True, size=20)
    assert shm.name == other and shm.size == 20 and shm.created
    assert os.listdir("/proc/self/fd").count(str(first)) <= 1
    assert os.path.exists(SHM + name)
    os.unlink(SHM + name)
    shm.unlink()


def test_a_second_init_of_a_handle_with_delete(name, names):
    """The first object is removed when the handle gets another object."""
    other = names()
    shm = SharedMemory.create(name, 10, delete=True)
    shm.__init__(other, create=True, size=20)
    assert not os.path.exists(SHM + name)
    shm.close()
    assert os.path.exists(SHM + other)
    shm.unlink()


def test_resurrection(name):
    """A handle that its __del__ resurrects remains usable."""
    graveyard = []

    class Undead(SharedMemory):
        def __del__(self):
            graveyard.append(self)

    shm = Undead.create(name, 10)
    array_ = np.ndarray(1, "u1", buffer=shm)
    array_[0] = 7
    del shm
    del array_
    gc.collect()
    (shm,) = graveyard
    graveyard.clear()
    assert not shm.closed and shm.buf[0] == 7
    array_ = np.ndarray(1, "u1", buffer=shm)
    shm.resize(2 * PAGESIZE)
    assert shm.name == name and shm.is_linked()
    shm.unlink()
    shm.close()
    array_[0] = 8
    del shm
    gc.collect()


def test_resurrection_from_a_cycle(name):
    graveyard = []

    class Undead(SharedMemory):
        def __del__(self):
            graveyard.append(self)

    shm = Undead.create(name, 10, delete=True)
    shm.self = shm
    shm.view = memoryview(shm)
    del shm
    gc.collect()
    (shm,) = graveyard
    shm.view[0] = 9
    assert shm.buf[0] == 9 and not shm.closed
    shm.resize(2 * PAGESIZE)
    shm.view[0] = 10
    assert shm.buf[0] == 10
    del shm.self, shm.view
    shm.close()
    graveyard.clear()
    del shm
    gc.collect()


def test_resurrection_after_close(name):
    graveyard = []

    class Undead(SharedMemory):
        def __del__(self):
            self.close()
            graveyard.append(self)

    Undead.create(name, 10, delete=True)
    gc.collect()
    (shm,) = graveyard
    assert shm.closed
    with pytest.raises(ValueError):
        _ = shm.buf
    shm.close()


def test_a_del_that_creates_views(name):
    views = []

    class Taker(SharedMemory):
        def __del__(self):
            views.append(self.buf)
            views.append(memoryview(self))
            views.append(np.frombuffer(self, "u1"))

    Taker.create(name, 10, delete=True)
    gc.collect()
    for value, view in enumerate(views):
        view[0] = value
    assert [int(view[0]) for view in views] == [2, 2, 2]
    views.clear()


def test_weak_reference_callbacks_that_use_the_views(name):
    seen = []
    shm = SharedMemory.create(name, 10, delete=True)
    view = shm.buf
    weak = weakref.ref(shm, lambda _: seen.append(view[0]))
    weakref.finalize(shm, lambda: seen.append(len(view)))
    view[0] = 3
    del shm
    gc.collect()
    assert sorted(seen) == [3, 10] and weak() is None


def test_a_handle_that_only_an_array_references(name):
    """The numpy array keeps the handle alive, which keeps the memory mapped."""
    shm = SharedMemory.create(name, 10, delete=True)
    weak = weakref.ref(shm)
    array_ = np.ndarray(10, "u1", buffer=shm)
    del shm
    gc.collect()
    array_[:] = range(10)
    assert array_.sum() == 45
    if weak() is not None:
        weak().close()
        array_[:] = 1
        assert array_.sum() == 10
    del array_
    gc.collect()
    assert weak() is None
    assert not os.path.exists(SHM + name)


def test_a_subclass_is_freed_after_its_handles(name, run_python):
    """Classes of named objects. (multiprocessing keeps each class that it may have to pickle.)

    In a process without threads: with threads, the free-threaded Python 3.13 keeps all classes.
    """
    run_python(
        """
        import gc, sys, weakref
        from posixshm import SharedMemory
        class Sub(SharedMemory):
            pass
        Sub.create(sys.argv[1], 10, delete=True)
        weak = weakref.ref(Sub)
        del Sub
        gc.collect()
        assert weak() is None
        """,
        name,
    )


# -- the end of the interpreter -----------------------------------------------------------------

PRELUDE = """
import atexit, ctypes, gc, os, struct, sys, threading, weakref
import numpy as np
from posixshm import MemoryMap, SharedMemory
name = sys.argv[1]
def make(size=16384, delete=True):
    return SharedMemory.create(name, size, delete=delete)
"""

ENDINGS = {
    "an open handle": "shm = make()",
    "a view": "view = make().buf; view[0] = 1",
    "arrays": """
        shm = make()
        arrays = [np.ndarray(10, "u1", buffer=shm), np.frombuffer(shm, "u1"),
                  np.ndarray(10, "u1", buffer=shm.buf), np.frombuffer(shm.map(), "u1")]
    """,
    "arrays without the handle": """
        shm = make()
        arrays = [np.ndarray(10, "u1", buffer=shm), np.frombuffer(shm.buf, "u1")]
        del shm
    """,
    "a closed handle and its array": """
        shm = make()
        array = np.ndarray(10, "u1", buffer=shm)
        shm.close()
        array[0] = 1
    """,
    "ctypes": "shm = make(); array = (ctypes.c_char * 10).from_buffer(shm)",
    "a cycle": """
        class Sub(SharedMemory):
            pass
        shm = Sub.create(name, 100, delete=True)
        shm.self = shm
        shm.array = np.ndarray(10, "u1", buffer=shm)
    """,
    "a del that writes": """
        class Writer:
            def __init__(self, array):
                self.array = array
            def __del__(self):
                self.array[0] = 1
        shm = make()
        writers = [Writer(np.ndarray(10, "u1", buffer=shm)), Writer(shm.buf), Writer(shm.map())]
        writers[0].writers = writers
    """,
    "a handle's own del": """
        class Late(SharedMemory):
            def __del__(self):
                if not self.closed:
                    self.buf[0] = 1
                self.close()
        shm = Late.create(name, 100, delete=True)
        cycle = [shm]
        cycle.append(cycle)
    """,
    "atexit": """
        shm = make()
        array = np.ndarray(10, "u1", buffer=shm)
        @atexit.register
        def last():
            shm.close()
            array[0] = 1
            assert not shm.is_linked()
    """,
    "an attribute of another module": """
        sys.keep = make()
        sys.array = np.ndarray(10, "u1", buffer=sys.keep)
        import builtins
        builtins.view = sys.keep.buf
    """,
    "a thread that reads": """
        shm = make()
        array = np.ndarray(10, "u1", buffer=shm)
        started = threading.Event()
        def read(array=array):
            started.set()
            while True:
                array[0] = 1
        threading.Thread(target=read, daemon=True).start()
        started.wait()
    """,
    "a thread that maps and closes": """
        shm = make()
        started = threading.Event()
        def work(name=name, SharedMemory=SharedMemory):
            try:
                while True:
                    with SharedMemory.open(name) as other:
                        other.buf[0] = 1
                    started.set()
            except FileNotFoundError:
                pass
        threading.Thread(target=work, daemon=True).start()
        started.wait()
    """,
    "bare handles": """
        bare = SharedMemory.__new__(SharedMemory)
        class Broken(SharedMemory):
            def __init__(self):
                pass
        broken = Broken()
    """,
    "after a failed create": """
        keep = []
        def fail(buf):
            keep.append(np.frombuffer(buf, "u1"))
            raise RuntimeError
        try:
            SharedMemory.create(name, 100, init=fail, delete=True)
        except RuntimeError as error:
            kept_error = error
    """,
    "anonymous and unlinked": """
        handles = [SharedMemory.anonymous(100, max_size=10000), SharedMemory.unlinked(100)]
        arrays = [np.ndarray(10, "u1", buffer=handle) for handle in handles]
        handles[0].resize(9999)
        handles[1].resize(9999)
        more = [np.ndarray(10, "u1", buffer=handle) for handle in handles]
    """,
    "sys.exit in the context": """
        with make() as shm:
            array = np.ndarray(10, "u1", buffer=shm)
            sys.exit(0)
    """,
    "the module is gone first": """
        shm = make()
        view = shm.buf
        for module in [module for module in sys.modules if module.startswith("posixshm")]:
            del sys.modules[module]
        del SharedMemory, MemoryMap
        gc.collect()
        view[0] = 1
    """,
    "weak references": """
        shm = make()
        weak = weakref.ref(shm, lambda _: None)
        final = weakref.finalize(shm, print, "", end="")
        values = weakref.WeakValueDictionary({1: shm, 2: shm.map()})
    """,
}


@pytest.mark.long
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_the_interpreter_exits_without_errors(name, run_python, ending):
    """The status is 0, standard error is empty, and the name is removed."""
    code = PRELUDE + "\n" + textwrap.dedent(ending)
    run_python(code, name, options=["-X", "dev", "-W", "error"])
    assert not os.path.exists(SHM + name)


def test_the_interpreter_exits_after_an_error(name, run_python):
    status, _, errors = run_python(
        PRELUDE + "shm = make(); array = np.ndarray(10, 'u1', buffer=shm); 1 / 0", name, check=False
    )
    assert status == 1
    assert errors.rstrip().endswith("ZeroDivisionError: division by zero")
    assert errors.count("Traceback") == 1
    assert not os.path.exists(SHM + name)


def test_a_closed_handle_keeps_no_memory_mapped(names):
    """Only the view of a buffer that was not released keeps the memory mapped."""

    def mapped(shm_id):
        with open("/proc/self/maps") as maps:
            return sum(line.split()[4] == str(shm_id) for line in maps)

    shm = SharedMemory.create(names(), 1 << 20)
    inode = shm.stat().st_ino
    array = np.frombuffer(shm, "u1")
    shm.unlink()
    shm.close()
    assert mapped(inode) == 1 and array[0] == 0
    del array
    assert mapped(inode) == 0  # although the handle still exists
    shm = SharedMemory.create(names(), 1 << 20)
    inode = shm.stat().st_ino
    array = np.ndarray(10, "u1", buffer=shm)  # releases the buffer but keeps the address
    shm.unlink()
    shm.close()
    assert mapped(inode) == 1 and array[0] == 0
    array[:] = 7
    del array, shm
    assert mapped(inode) == 0
