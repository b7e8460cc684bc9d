"""Threads close, resize and protect an object that others read, without crashes or deadlocks.

The threads start from a barrier and have a deadline. Without the GIL these are real races, and
ThreadSanitizer reports those of the library, because each thread writes its own bytes.
"""

import contextlib
import errno
import gc
import os
import threading
import time
import weakref

import numpy as np
import pytest

import posixshm
from posixshm import PAGESIZE, PROT_READ, PROT_WRITE, MemoryMap, SharedMemory

SHM = "/dev/shm/"
READ_WRITE = PROT_READ | PROT_WRITE
REFUSED = (ValueError, BufferError, OSError)


def until(event, function, least=1):
    """A thread's body: call `function` until `event` is set, and at least `least` times."""

    def body():
        count = 0
        while count < least or not event.is_set():
            function()
            count += 1
        return count

    return body


def then(event, function, *arguments):
    """A thread's body: call `function` once, and always set `event`."""

    def body():
        try:
            return function(*arguments)
        finally:
            event.set()

    return body


# -- close --------------------------------------------------------------------------------------


def test_views_remain_readable_while_a_thread_closes(run_threads):
    for _ in range(30):
        shm = SharedMemory.anonymous(PAGESIZE)
        views = [shm.buf, np.ndarray(PAGESIZE, "u1", buffer=shm), shm.map()]
        done = threading.Event()

        def read(view):
            assert view[0] == view[PAGESIZE - 1] == 0

        run_threads(
            *[until(done, lambda view=view: read(view), least=50) for view in views],
            then(done, shm.close),
        )
        assert shm.closed


def test_taking_views_while_a_thread_closes(run_threads):
    """Each attempt returns the bytes or raises an error that the handle is closed."""
    ways = [
        lambda shm: shm.buf,
        lambda shm: memoryview(shm),
        lambda shm: np.frombuffer(shm, "u1"),
        lambda shm: np.ndarray(10, "u1", buffer=shm),
        lambda shm: shm.map(),
        lambda shm: shm.buf.obj,
    ]
    for _ in range(30):
        shm = SharedMemory.anonymous(PAGESIZE)
        done = threading.Event()
        kept = []

        def take(way, own, shm=shm, kept=kept):
            try:
                view = way(shm)
            except ValueError as error:
                assert "closed" in str(error) or "given up" in str(error)
            else:
                view[own] = 5
                assert view[own] == 5
                kept.append(view)

        bodies = [lambda way=way, own=own: take(way, own) for own, way in enumerate(ways)]
        run_threads(
            *[until(done, body, least=3) for body in bodies],
            then(done, shm.close),
        )
        for view in kept:
            view[0] = 1


@pytest.mark.parametrize("how", ["close", "close_fd", "detach", "exit", "mixed"])
def test_many_threads_close_one_handle(name, run_threads, how):
    """No descriptor is closed twice: the number could belong to another file by then."""
    for _ in range(40):
        shm = SharedMemory.create(name, 10, delete=True)
        fd = shm.fileno()
        opened, detached = [], []

        def close(way, shm=shm, opened=opened, detached=detached):
            try:
                if way == "close":
                    shm.close()
                elif way == "close_fd":
                    shm.close_fd()
                elif way == "exit":
                    shm.__exit__(None, None, None)
                else:
                    detached.append(shm.detach())
            except ValueError:
                pass
            # Another open() takes the number at once.
            opened.append(os.open("/dev/null", os.O_RDONLY))

        ways = ["close", "close_fd", "detach", "exit"] if how == "mixed" else [how] * 4
        run_threads(*[lambda way=way: close(way) for way in ways])
        assert len(detached) <= 1
        if how == "detach":
            assert detached
        for number in opened + detached:
            os.close(number)  # fails if it was closed before
        with pytest.raises(OSError):
            os.fstat(fd)
        shm.close()
        if os.path.exists(SHM + name):
            os.unlink(SHM + name)


def test_calls_during_close(name, run_threads):
    """A call works on its object to the end, although the number is reused."""
    calls = [
        lambda shm: shm.stat().st_size,
        lambda shm: shm.mode,
        lambda shm: shm.chmod(0o600),
        lambda shm: shm.chown(),
        lambda shm: shm.fileno(),
        lambda shm: shm.map(),
        lambda shm: shm.refresh(),
        lambda shm: shm.resize(PAGESIZE),
        lambda shm: shm.populate(),
        lambda shm: shm.sync(),
        lambda shm: shm.resident,
        lambda shm: shm.size,
        lambda shm: shm.seals,
        lambda shm: shm.is_linked(),
        lambda shm: repr(shm),
        lambda shm: shm.__reduce__(),
    ]
    decoy = os.memfd_create("decoy")
    for _ in range(8):
        shm = SharedMemory.create(name, PAGESIZE, mode=0o600, delete=True)
        done = threading.Event()

        def call(function, shm=shm):
            with contextlib.suppress(ValueError, BufferError):
                function(shm)

        def close_and_reuse(shm=shm):
            shm.close()
            numbers = [os.dup(decoy) for _ in range(20)]
            time.sleep(0.001)
            for number in numbers:
                os.close(number)

        run_threads(
            *[until(done, lambda function=function: call(function)) for function in calls],
            then(done, close_and_reuse),
        )
        assert os.fstat(decoy).st_size == 0
    os.close(decoy)


@pytest.mark.long
def test_dropping_the_last_reference_in_many_threads(run_threads):
    for _ in range(30):
        shm = SharedMemory.anonymous(PAGESIZE)
        weak = weakref.ref(shm)
        boxes = [[np.ndarray(1, "u1", buffer=shm), shm, shm.buf, memoryview(shm)] for _ in range(6)]
        del shm

        def drop(box):
            box[0][0] = 1
            box.clear()

        run_threads(*[lambda box=box: drop(box) for box in boxes])
        gc.collect()
        assert weak() is None


@pytest.mark.long
def test_weak_references_while_the_handle_is_destroyed(run_threads):
    for _ in range(50):
        box = [SharedMemory.anonymous(PAGESIZE)]
        weak = weakref.ref(box[0])
        done = threading.Event()

        def revive(own, weak=weak):
            shm = weak()
            if shm is not None:
                shm.buf[own] = 1

        run_threads(
            until(done, lambda revive=revive: revive(0)),
            until(done, lambda revive=revive: revive(1)),
            then(done, box.clear),
        )
        gc.collect()
        assert weak() is None


# -- size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_size", [None, 4000 * PAGESIZE], ids=["plain", "in place"])
def test_readers_while_a_thread_grows(name, run_threads, max_size):
    with SharedMemory.create(name, PAGESIZE, max_size=max_size, delete=True) as shm:
        done = threading.Event()
        kept = []

        def grow():
            for pages in range(2, 300):
                shm.resize(pages * PAGESIZE)

        def read(own):
            view = shm.buf
            assert view[0] == 0
            view[len(view) - own] = 0
            assert len(view) % PAGESIZE == 0
            assert shm.size >= len(view)
            if len(kept) < 300:
                kept.append(view)

        def read_directly():
            array = np.frombuffer(shm, "u1")
            array[-1] = 0
            assert array[0] == 0

        run_threads(
            then(done, grow),
            until(done, lambda: read(2)),
            until(done, lambda: read(3)),
            until(done, read_directly),
        )
        assert shm.size == len(shm.buf) == 299 * PAGESIZE
        for view in kept:
            view[-1] = 1


@pytest.mark.parametrize("max_size", [None, 400 * PAGESIZE], ids=["plain", "in place"])
def test_many_threads_resize(name, run_threads, max_size):
    """A resize may be refused during another one; its result is correct afterwards."""
    with SharedMemory.create(name, PAGESIZE, max_size=max_size, delete=True) as shm:

        def resize(start):
            for step in range(100):
                with contextlib.suppress(BufferError, ValueError):
                    shm.resize((start + step) % 300 * PAGESIZE + PAGESIZE, shrink=step % 3 == 0)
                with contextlib.suppress(BufferError):
                    shm.refresh()

        run_threads(*[lambda start=start: resize(start) for start in (0, 50, 100, 150)])
        assert shm.refresh() == shm.size == len(shm.buf) == shm.stat().st_size
        shm.buf[-1] = 1


@pytest.mark.long
@pytest.mark.parametrize("max_size", [None, 64 * PAGESIZE], ids=["plain", "in place"])
def test_views_taken_while_a_thread_shrinks(name, run_threads, max_size):
    """If the view exists first, the object is not shrunk; otherwise the view is shorter."""
    with SharedMemory.create(name, 64 * PAGESIZE, max_size=max_size, delete=True) as shm:
        done = threading.Event()
        shrunk = []

        def shrink_and_grow():
            for _ in range(300):
                with contextlib.suppress(BufferError):
                    shm.resize(PAGESIZE, shrink=True)
                    shrunk.append(1)
                with contextlib.suppress(BufferError):
                    shm.resize(64 * PAGESIZE)

        def use(take, own):
            def body():
                try:
                    view = take()
                except REFUSED:
                    return
                # A bus error here would kill the test run.
                view[len(view) - own] = 1
                view[own] = 1
                assert len(view) % PAGESIZE == 0

            return body

        run_threads(
            then(done, shrink_and_grow),
            until(done, use(lambda: shm.buf, 1)),
            until(done, use(lambda: shm.buf.obj, 2)),
            until(done, use(lambda: shm.map(), 3)),
        )
        assert shm.refresh() == len(shm.buf)


@pytest.mark.long
@pytest.mark.parametrize(
    "attach",
    [
        lambda name, fd: SharedMemory.open(name).buf.obj,
        lambda name, fd: SharedMemory.open(name, readonly=True).buf.obj,
        lambda name, fd: SharedMemory(name).buf.obj,
        lambda name, fd: SharedMemory.from_fd(os.open(SHM + name, os.O_RDWR)).buf.obj,
        lambda name, fd: SharedMemory.open(name, max_size=100 * PAGESIZE).buf.obj,
        lambda name, fd: MemoryMap(fd),
    ],
    ids=["open", "open for reading", "constructor", "from_fd", "open with max_size", "MemoryMap"],
)
def test_attaching_while_a_thread_shrinks(name, run_threads, attach):
    """An object is not shrunk below the mappings of this process, regardless of the handle."""
    with SharedMemory.create(name, 64 * PAGESIZE, delete=True) as shm:
        done = threading.Event()

        def shrink_and_grow():
            for _ in range(200):
                with contextlib.suppress(BufferError):
                    shm.resize(PAGESIZE, shrink=True)
                shm.resize(64 * PAGESIZE)

        def use():
            mapping = attach(name, shm.fileno())
            # A bus error here would kill the test run.
            assert mapping[len(mapping) - 1] == mapping[0] == 0

        run_threads(then(done, shrink_and_grow), until(done, use), until(done, use))


@pytest.mark.long
def test_page_calls_while_a_thread_resizes(name, run_threads):
    with SharedMemory.create(name, 64 * PAGESIZE, max_size=64 * PAGESIZE, delete=True) as shm:
        done = threading.Event()

        def resize():
            for _ in range(200):
                with contextlib.suppress(BufferError):
                    shm.resize(PAGESIZE, shrink=True)
                shm.resize(64 * PAGESIZE)

        def call(function):
            def body():
                with contextlib.suppress(ValueError, OSError):
                    function()

            return body

        run_threads(
            then(done, resize),
            until(done, call(shm.populate)),
            until(done, call(shm.sync)),
            until(done, call(lambda: shm.advise(posixshm.MADV_WILLNEED))),
            until(done, call(lambda: shm.resident)),
        )
        assert shm.size == len(shm.buf) == 64 * PAGESIZE


def test_growth_by_two_handles(name, run_threads):
    """Two threads that grow one object at the same time never make it smaller."""
    with (
        SharedMemory.create(name, PAGESIZE, max_size=1000 * PAGESIZE, delete=True) as one,
        SharedMemory.open(name, max_size=1000 * PAGESIZE) as two,
    ):
        low = [0]

        def grow(shm):
            for pages in range(2, 200):
                with contextlib.suppress(ValueError):  # it is already larger
                    shm.resize(pages * PAGESIZE)
                size = os.stat(SHM + name).st_size
                assert size >= pages * PAGESIZE
                low.append(size)

        run_threads(lambda: grow(one), lambda: grow(two))
        assert one.size == two.size == 199 * PAGESIZE


# -- protection ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mapping", "handle"])
def test_protecting_while_others_write(name, run_threads, kind):
    """Write permission is removed only while no thread uses it; a write succeeds or raises."""
    shm = SharedMemory.create(name, PAGESIZE, delete=True)
    target = shm.map() if kind == "mapping" else shm
    items = target if kind == "mapping" else shm.buf.obj
    done = threading.Event()
    refused = []

    def protect():
        for _ in range(300):
            for prot in (PROT_READ, READ_WRITE):
                try:
                    target.protect(prot)
                except BufferError:
                    refused.append(prot)

    def write_item():
        with contextlib.suppress(TypeError):
            items[0] = 1
        with contextlib.suppress(TypeError):
            items[0:4] = b"abcd"

    def read_item():
        assert items[4] == 0

    run_threads(then(done, protect), until(done, write_item), until(done, read_item))
    shm.close()


def test_views_taken_while_a_thread_protects(run_threads):
    """A writable view remains writable for its whole lifetime."""
    for _ in range(50):
        shm = SharedMemory.anonymous(PAGESIZE)
        done = threading.Event()

        def protect(shm=shm):
            for prot in (PROT_READ, READ_WRITE, PROT_READ, READ_WRITE):
                with contextlib.suppress(BufferError):
                    shm.protect(prot)

        def take(own, shm=shm):
            try:
                view = memoryview(shm.buf)
            except BufferError:
                return
            for _ in range(3):
                if not view.readonly:
                    view[own] = 1  # a segmentation fault if it is not writable
                assert view[own] in (0, 1)

        run_threads(
            then(done, protect),
            until(done, lambda take=take: take(0)),
            until(done, lambda take=take: take(1)),
        )
        shm.close()


# -- creating and attaching ---------------------------------------------------------------------


def test_only_one_of_many_threads_creates(name, run_threads):
    for _ in range(50):

        def create():
            try:
                return SharedMemory.create(name, 10)
            except FileExistsError:
                return None

        made = [shm for shm in run_threads(*[create] * 6) if shm is not None]
        assert len(made) == 1
        made[0].unlink()
        made[0].close()


def test_exist_ok_in_many_threads(name, run_threads):
    """One thread creates the object; the others attach to it and see the bytes that init wrote."""
    for _ in range(50):

        def create():
            return SharedMemory.create(
                name, 100, exist_ok=True, init=lambda buf: buf.__setitem__(slice(0, 2), b"ok")
            )

        handles = run_threads(*[create] * 6)
        assert sum(shm.created for shm in handles) == 1
        assert len({shm.stat().st_ino for shm in handles}) == 1
        assert all(shm.buf[:2] == b"ok" for shm in handles)
        handles[0].unlink()
        for shm in handles:
            shm.close()


def test_attaching_while_a_thread_creates_and_unlinks(name, run_threads):
    """No attaching thread sees an incomplete object."""
    done = threading.Event()

    def churn():
        for _ in range(500):
            with SharedMemory.create(name, 64, init=lambda buf: buf.__setitem__(63, 9)) as shm:
                shm.unlink()

    def attach():
        try:
            with SharedMemory.open(name) as shm:
                assert shm.size == 64 and shm.buf[63] == 9
        except FileNotFoundError:
            pass

    run_threads(then(done, churn), until(done, attach), until(done, attach))


def test_only_one_of_many_threads_unlinks(name, run_threads):
    for _ in range(50):
        shm = SharedMemory.create(name, 10)
        other = SharedMemory.open(name)

        def unlink(handle):
            try:
                handle.unlink()
            except FileNotFoundError:
                return 0
            return 1

        assert sum(run_threads(*[lambda h=h: unlink(h) for h in (shm, other) * 3])) == 1
        shm.close()
        other.close()


def test_many_threads_rename(names, run_threads):
    """After concurrent renames the object has exactly one name, which the handle returns."""
    for _ in range(20):
        first = names()
        shm = SharedMemory.create(first, 10)
        wanted = [names() for _ in range(5)]

        def rename(name, shm=shm):
            with contextlib.suppress(OSError, ValueError, BufferError):
                shm.rename(name)

        run_threads(*[lambda name=name: rename(name) for name in wanted])
        there = [name for name in [first, *wanted] if os.path.exists(SHM + name)]
        linked, known = shm.is_linked(), shm.name
        shm.close()
        for name in there:
            os.unlink(SHM + name)
        assert linked and there == [known]


def test_a_handle_whose_name_changes_can_be_read(names, run_threads):
    """A thread always reads a name that the object had."""
    one, two = names(), names()
    with SharedMemory.create(one, 10) as shm:
        done = threading.Event()

        def rename():
            for _ in range(300):
                shm.rename(two)
                shm.rename(one)

        def look():
            assert shm.name in (one, two)
            assert "posixshm-test" in repr(shm)
            shm.is_linked()

        run_threads(then(done, rename), until(done, look), until(done, look))
        assert shm.is_linked()
        shm.unlink()


def test_second_init_in_many_threads(names, run_threads):
    """The handle gets other objects while it is used: each call works on one of them."""
    shm = SharedMemory(names(), create=True, size=PAGESIZE)
    shm.unlink()
    done = threading.Event()
    sizes = [PAGESIZE, 2 * PAGESIZE, 3 * PAGESIZE]
    kept = []

    def become(size):
        def body():
            for _ in range(50):
                shm.__init__(names(), create=True, size=size)
                with contextlib.suppress(FileNotFoundError):
                    shm.unlink()

        return body

    def use():
        view = shm.buf
        view[len(view) - 1] = 1
        assert len(view) in sizes
        array = np.ndarray(PAGESIZE, "u1", buffer=shm)
        array[-1] = 2
        kept.append(array)
        del kept[:-100]

    try:
        run_threads(
            then(done, become(sizes[0])), become(sizes[1]), become(sizes[2]), until(done, use)
        )
    finally:
        shm.close()
        # unlink() may have removed the object of another thread.
        for name in posixshm.listdir():
            if name.startswith(names.prefix):
                os.unlink(SHM + name)
    for array in kept:
        array[0] = 1


def test_resizing_a_handle_that_becomes_another_objects(names, run_threads):
    """In the end descriptor, mapping and size belong to one object."""
    for _ in range(60):
        one, two = names(), names()
        with SharedMemory.create(two, PAGESIZE, delete=True):
            shm = SharedMemory(one, create=True, size=PAGESIZE)

            def become(shm=shm, two=two):
                shm.__init__(two)

            def change(shm=shm):
                for call in (lambda: shm.resize(600 * PAGESIZE), shm.refresh):
                    with contextlib.suppress(ValueError, BufferError):
                        call()

            run_threads(change, become, change)
            with open("/proc/self/maps") as maps:
                address = np.frombuffer(shm.buf, "u1").__array_interface__["data"][0]
                (line,) = [line for line in maps if line.startswith(f"{address:x}-")]
            assert int(line.split()[4]) == shm.stat().st_ino
            assert shm.name == two and shm.is_linked()
            shm.refresh()
            assert shm.size == len(shm.buf) == shm.stat().st_size
            shm.close()
        posixshm.shm_unlink(one)


def test_reclaim_and_listdir_in_many_threads(names, run_threads):
    done = threading.Event()

    def churn():
        for _ in range(200):
            with SharedMemory.create(names(), 10) as shm:
                assert shm.is_linked()
                shm.unlink()

    def look():
        for found in posixshm.reclaim(names.prefix, dry_run=True):
            assert found.state in ("in use", "free")
        posixshm.listdir()

    run_threads(then(done, churn), until(done, look), until(done, look))


def test_reclaim_keeps_objects_that_threads_use(names, run_threads):
    """An object that a thread of this process has open is in use."""
    done = threading.Event()

    def churn():
        for _ in range(200):
            with SharedMemory.create(names(), 10) as shm:
                view = shm.buf
                assert shm.is_linked()
                view[0] = 1
                shm.unlink()

    def reclaim():
        for found in posixshm.reclaim(names.prefix):
            assert found.state == "in use"

    run_threads(then(done, churn), until(done, reclaim))


# -- one mapping, many threads ------------------------------------------------------------------


def test_items_from_many_threads(run_threads):
    shm = SharedMemory.anonymous(PAGESIZE)
    mapping = shm.map()

    def write(start):
        for step in range(2000):
            mapping[start] = step % 256
            assert mapping[start] == step % 256
            mapping[start + 8 : start + 12] = bytes([step % 256]) * 4
            assert bytes(mapping[start + 8 : start + 12]) == bytes([step % 256]) * 4

    run_threads(*[lambda start=start: write(start) for start in range(0, 8 * 16, 16)])
    shm.close()


def test_mapping_and_unmapping_in_many_threads(run_threads):
    fd = os.memfd_create("many")
    os.ftruncate(fd, 16 * PAGESIZE)

    def work(number):
        for step in range(200):
            mapping = MemoryMap(fd, PAGESIZE, number * PAGESIZE)
            view = memoryview(mapping)
            del mapping
            view[step] = step % 256
            assert view[step] == step % 256

    run_threads(*[lambda number=number: work(number) for number in range(8)])
    os.close(fd)


def test_long_calls_let_other_threads_run(run_threads):
    """Long calls release the GIL: a counter in another thread continues."""
    done = threading.Event()
    ticks = [0]

    def work():
        with SharedMemory.anonymous(256 << 20) as shm:
            shm.populate()
            assert shm.resident == 256 << 20

    def tick():
        ticks[0] += 1
        time.sleep(0.0005)

    run_threads(then(done, work), until(done, tick))
    assert ticks[0] > 1


def test_errors_of_threads_do_not_mix(names, run_threads):
    """errno, name and message of an error belong to the failed call."""

    def missing():
        name = names()
        for _ in range(300):
            with pytest.raises(FileNotFoundError) as caught:
                SharedMemory.open(name)
            assert caught.value.errno == errno.ENOENT and caught.value.filename == name

    def taken():
        name = names()
        with SharedMemory.create(name, 10, delete=True):
            for _ in range(300):
                with pytest.raises(FileExistsError) as caught:
                    SharedMemory.create(name, 10)
                assert caught.value.errno == errno.EEXIST and caught.value.filename == name

    run_threads(missing, taken, missing, taken)


def test_a_fork_while_threads_are_in_calls(name, run_python):
    """A child that was forked during a resize can use the handle and exit."""
    run_python(
        """
        import os, sys, threading
        from posixshm import SharedMemory
        shm = SharedMemory.create(sys.argv[1], 4096, max_size=1 << 30, delete=True)
        stop = threading.Event()
        def work():
            size = 4096
            while not stop.is_set() and size < 1 << 29:
                size += 4096
                shm.resize(size)
                shm.buf[0] = 1
        threads = [threading.Thread(target=work, daemon=True)]
        for thread in threads:
            thread.start()
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                shm.buf[0] = 2
                assert shm.size >= 4096
                shm.refresh()
                shm.close()
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            assert status == 0, status
        stop.set()
        for thread in threads:
            thread.join()
        assert shm.is_linked()
        """,
        name,
        options=["-W", "ignore::DeprecationWarning"],
    )
    assert not os.path.exists(SHM + name)
