"""Growing and shrinking, in place or by a new mapping, and objects that cannot shrink."""

import contextlib
import errno
import gc
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from posixshm import PAGESIZE, MemoryMap, SharedMemory

SHM = "/dev/shm/"
MAX = 64 * PAGESIZE


def size_of(name):
    return os.stat(SHM + name).st_size


@pytest.fixture
def shm(name):
    """An object of 1000 bytes that begin with b"abc"; it grows by new mappings."""
    with SharedMemory.create(name, 1000, delete=True) as handle:
        handle.buf[:3] = b"abc"
        yield handle


@pytest.fixture
def roomy(name):
    """An object of 1000 bytes that begin with b"abc"; it grows in place up to MAX."""
    with SharedMemory.create(name, 1000, max_size=MAX, delete=True) as handle:
        handle.buf[:3] = b"abc"
        yield handle


# -- growing by a new mapping -------------------------------------------------------------------


def test_growing_keeps_the_bytes(shm):
    for size in (1001, PAGESIZE, PAGESIZE + 1, 10 * PAGESIZE):
        assert shm.resize(size) == size
        assert shm.size == len(shm.buf) == size_of(shm.name) == size
        assert shm.buf[:4].tobytes() == b"abc\0"
        assert shm.buf[-1] == 0
        shm.buf[-1] = 1
        shm.buf[-1] = 0


def test_old_views_remain_valid_on_the_old_mapping(shm):
    old = shm.buf
    array = np.ndarray(1000, "u1", buffer=shm.buf)
    direct = np.ndarray(1000, "u1", buffer=shm)
    shm.resize(5 * PAGESIZE)
    assert len(old) == 1000
    # Both mappings show the same pages.
    old[0] = 1
    assert array[0] == direct[0] == shm.buf[0] == 1
    shm.buf[999] = 2
    assert old[999] == array[999] == direct[999] == 2
    assert shm.buf.obj is not old.obj


def test_the_old_mapping_is_unmapped_with_its_last_view(shm):
    inode = f" {shm.stat().st_ino} "

    def count():
        with open("/proc/self/maps") as maps:
            return sum(inode in line and SHM in line for line in maps)

    old = shm.buf
    shm.resize(2 * PAGESIZE)
    assert count() == 2
    del old
    gc.collect()
    assert count() == 1


def test_growing_many_times_with_the_handle_itself_as_the_buffer(shm):
    arrays = []
    for step in range(20):
        arrays.append(np.ndarray(shm.size, "u1", buffer=shm))
        shm.resize(shm.size + PAGESIZE)
        shm.buf[0] = step
        assert all(array[0] == step for array in arrays)
    shm.close()
    assert all(array[0] == 19 for array in arrays)


def test_growing_reserves_the_memory(shm, names):
    with SharedMemory.create(names(), 1000, max_size=MAX, delete=True) as roomy:
        for each in (shm, roomy):
            each.resize(10 * PAGESIZE)
            assert each.stat().st_blocks * 512 >= 10 * PAGESIZE


def test_growing_to_the_same_size(shm):
    view = shm.buf
    shm.resize(1000)
    assert shm.buf.obj is view.obj


def test_another_process_sees_growth_after_refresh(shm, start_python):
    child = start_python(
        """
        import sys
        from posixshm import SharedMemory
        shm = SharedMemory.open(sys.argv[1])
        view = shm.buf
        print(shm.size, flush=True)
        input()
        assert shm.size == len(view) == len(shm.buf) == 1000
        print(shm.refresh(), flush=True)
        assert shm.size == len(shm.buf)
        shm.buf[-1] = 77
        view[0] = 78
        assert shm.buf[0] == 78
        shm.resize(shm.size * 2)
        """,
        shm.name,
    )
    child.hear("1000")
    shm.resize(5 * PAGESIZE)
    child.say("grown")
    child.hear(str(5 * PAGESIZE))
    child.finish()
    assert shm.buf[-1] == 77 and shm.buf[0] == 78
    assert shm.size == 5 * PAGESIZE
    assert shm.refresh() == 10 * PAGESIZE == shm.size == len(shm.buf)


def test_refresh_without_a_change_keeps_the_mapping(shm):
    view = shm.buf
    assert shm.refresh() == 1000
    assert shm.buf.obj is view.obj


def test_resize_means_at_least(shm):
    """If another process has grown the object, that is not an error, and the object is not
    truncated."""
    os.truncate(SHM + shm.name, 3 * PAGESIZE)
    assert shm.resize(2000) == 3 * PAGESIZE
    assert size_of(shm.name) == 3 * PAGESIZE
    assert shm.size == len(shm.buf) == 3 * PAGESIZE
    assert shm.resize(1) == shm.resize(3 * PAGESIZE) == 3 * PAGESIZE
    assert shm.resize(4 * PAGESIZE) == 4 * PAGESIZE
    assert shm.resize(2 * PAGESIZE, shrink=True) == 2 * PAGESIZE == size_of(shm.name)


def test_refresh_of_a_truncated_object(shm):
    shm.resize(4 * PAGESIZE)
    old = shm.buf
    os.truncate(SHM + shm.name, PAGESIZE)
    assert shm.refresh() == PAGESIZE == len(shm.buf)
    shm.buf[-1] = 1
    assert old[PAGESIZE - 1] == 1


def test_refresh_of_an_empty_object(shm):
    os.truncate(SHM + shm.name, 0)
    with pytest.raises(OSError) as caught:
        shm.refresh()
    assert caught.value.errno == errno.ENODATA
    os.truncate(SHM + shm.name, 1000)
    assert shm.refresh() == 1000


def test_a_read_only_handle_refreshes_but_does_not_resize(shm):
    with SharedMemory.open(shm.name, readonly=True) as reader:
        for size in (10, 1000, 5000):
            with pytest.raises(PermissionError):
                reader.resize(size, shrink=True)
        shm.resize(5000)
        assert reader.refresh() == 5000
        assert reader.buf.readonly and reader.readonly
        assert reader.buf[:3].tobytes() == b"abc"


# -- growing in place ---------------------------------------------------------------------------


def test_growing_in_place_moves_nothing(roomy):
    view = roomy.buf
    array = np.ndarray(1000, "u1", buffer=roomy)
    where = np.frombuffer(roomy.buf, "u1").__array_interface__["data"]
    for size in (1001, PAGESIZE + 1, 10 * PAGESIZE, MAX):
        roomy.resize(size)
        assert roomy.size == len(roomy.buf) == size_of(roomy.name) == size
        grown = np.frombuffer(roomy.buf, "u1")
        assert grown.__array_interface__["data"] == where
        assert roomy.buf.obj is view.obj
        grown[-1] = 5
        view[0] = size % 251
        assert array[0] == grown[0] == size % 251
    assert len(view) == 1000 and view[:3].tobytes()[1:] == b"bc"


def test_resize_beyond_max_size_is_refused(roomy):
    for size in (MAX + 1, 2 * MAX, 2**63 - 1):
        with pytest.raises(ValueError, match="max_size"):
            roomy.resize(size)
    assert roomy.size == size_of(roomy.name) == 1000


def test_every_process_sees_growth_in_place(roomy, start_python):
    child = start_python(
        """
        import sys
        from posixshm import SharedMemory
        shm = SharedMemory.open(sys.argv[1], max_size=int(sys.argv[2]))
        view = shm.buf
        print(shm.size, flush=True)
        input()
        print(shm.size, len(shm.buf), len(memoryview(shm)), flush=True)
        assert shm.buf.obj is view.obj
        shm.buf[-1] = 77
        view[0] = 78
        shm.resize(shm.size + 4096)
        """,
        roomy.name,
        MAX,
    )
    child.hear("1000")
    roomy.resize(5 * PAGESIZE)
    child.say("grown")
    child.hear(" ".join([str(5 * PAGESIZE)] * 3))
    child.finish()
    assert roomy.buf[5 * PAGESIZE - 1] == 77 and roomy.buf[0] == 78
    assert roomy.size == 5 * PAGESIZE + 4096 == len(roomy.buf) == roomy.refresh()


def test_each_attached_handle_has_its_own_max_size(shm):
    with SharedMemory.open(shm.name, max_size=MAX) as other:
        assert other.max_size == MAX and other.size == 1000
        view = other.buf
        shm.resize(3 * PAGESIZE)
        assert other.size == len(other.buf) == 3 * PAGESIZE
        assert other.buf.obj is view.obj
        # Beyond its max_size it sees the part that fits.
        shm.resize(2 * MAX)
        assert other.size == len(other.buf) == MAX
        other.buf[-1] = 9
        assert shm.buf[MAX - 1] == 9
    with pytest.raises(ValueError, match="max_size"):
        SharedMemory.open(shm.name, max_size=MAX)
    with SharedMemory.open(shm.name, max_size=2 * MAX) as other:
        assert other.size == 2 * MAX


@pytest.mark.parametrize("make", [SharedMemory.anonymous, SharedMemory.unlinked])
def test_objects_without_a_name_grow(make):
    with make(1000, max_size=MAX) as roomy, make(1000) as plain:
        view, old = roomy.buf, plain.buf
        for shm in (roomy, plain):
            shm.resize(3 * PAGESIZE)
            assert shm.size == len(shm.buf) == 3 * PAGESIZE
            shm.buf[-1] = shm.buf[0] = 4
        assert view[0] == old[0] == 4
        assert roomy.buf.obj is view.obj and plain.buf.obj is not old.obj
        with SharedMemory.from_fd(os.dup(roomy.fileno()), max_size=MAX) as other:
            assert other.max_size == MAX
            roomy.resize(4 * PAGESIZE)
            assert other.size == 4 * PAGESIZE


def test_size_after_growing_and_closing(roomy, name):
    """The last known size is the size that was set last."""
    roomy.resize(3 * PAGESIZE)
    roomy.close()
    assert roomy.size == 3 * PAGESIZE


def test_size_after_growing_and_closing_the_descriptor(roomy):
    roomy.resize(3 * PAGESIZE)
    roomy.close_fd()
    assert roomy.size == len(roomy.buf) == 3 * PAGESIZE
    roomy.buf[-1] = 1


def test_page_calls_use_the_current_size(roomy):
    roomy.resize(4 * PAGESIZE)
    roomy.populate(3 * PAGESIZE, PAGESIZE)
    roomy.sync()
    with pytest.raises(ValueError):
        roomy.sync(0, 4 * PAGESIZE + 1)
    roomy.populate()
    assert roomy.resident == 4 * PAGESIZE


def test_max_size_must_be_enough(name):
    for size, max_size in [(1000, 999), (2, 1)]:
        with pytest.raises(ValueError, match="max_size"):
            SharedMemory.create(name, size, max_size=max_size)
        with pytest.raises(ValueError, match="max_size"):
            SharedMemory.anonymous(size, max_size=max_size)
        with pytest.raises(ValueError, match="max_size"):
            SharedMemory.unlinked(size, max_size=max_size)
    assert not os.path.exists(SHM + name)


def test_a_max_size_that_cannot_be_mapped(name):
    with pytest.raises(OSError) as caught:
        SharedMemory.create(name, 10, max_size=2**62)
    assert caught.value.errno == errno.ENOMEM
    with pytest.raises(OSError):
        SharedMemory.anonymous(10, max_size=2**63 - 1)
    assert not os.path.exists(SHM + name)


def test_address_space_uses_no_memory(name):
    with SharedMemory.create(name, PAGESIZE, max_size=1 << 40, delete=True) as shm:
        assert shm.stat().st_blocks * 512 == PAGESIZE
        shm.resize(8 * PAGESIZE)
        assert shm.stat().st_blocks * 512 == 8 * PAGESIZE


# -- failed calls change nothing ----------------------------------------------------------------


@contextlib.contextmanager
def limit(which, soft):
    old = resource.getrlimit(which)
    resource.setrlimit(which, (soft, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, old)


@pytest.mark.parametrize("max_size", [None, 1 << 30])
def test_growing_beyond_the_file_size_limit(name, max_size):
    """EFBIG instead of SIGXFSZ, which would end the process."""
    with SharedMemory.create(name, 1000, max_size=max_size, delete=True) as shm:
        shm.buf[0] = 3
        with limit(resource.RLIMIT_FSIZE, PAGESIZE), pytest.raises(OSError) as caught:
            shm.resize(10 * PAGESIZE)
        assert caught.value.errno == errno.EFBIG
        assert caught.value.filename == name
        assert shm.size == size_of(name) == len(shm.buf) == 1000
        assert shm.buf[0] == 3
        shm.resize(10 * PAGESIZE)


def test_growing_beyond_the_mount(name):
    free = os.statvfs(SHM).f_bavail * os.statvfs(SHM).f_frsize
    with SharedMemory.create(name, 1000, delete=True) as shm:
        blocks = shm.stat().st_blocks
        with pytest.raises(OSError, match="free") as caught:
            shm.resize(free + (1 << 30))
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == name
        assert shm.size == size_of(name) == len(shm.buf) == 1000
        assert shm.stat().st_blocks == blocks
        shm.resize(2000)


def test_growing_beyond_the_address_space(name, start_python):
    start_python(
        """
        import errno, os, resource, sys
        from posixshm import SharedMemory
        shm = SharedMemory.create(sys.argv[1], 1000, delete=True)
        view = shm.buf
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        try:
            shm.resize(1 << 30)
        except OSError as error:
            assert error.errno == errno.ENOMEM, error
        else:
            raise SystemExit("no error")
        assert shm.size == len(shm.buf) == shm.stat().st_size == 1000
        assert shm.stat().st_blocks * 512 < 1 << 20
        shm.buf[0] = 1
        assert view[0] == 1
        shm.resize(2000)
        """,
        name,
    ).finish()


@pytest.mark.parametrize("size", [0, -1, 2**63, 2**64, -(2**63) - 1])
def test_bad_sizes(shm, size):
    for arguments in [(size,), (size, True)]:
        with pytest.raises((ValueError, TypeError)):
            shm.resize(*arguments)
    with pytest.raises(ValueError, match="size"):
        shm.resize(size, shrink=True)
    assert shm.size == size_of(shm.name) == 1000


def test_a_size_that_closes_the_handle(shm):
    """An argument may run Python code during the call."""

    class Size:
        def __init__(self, shm):
            self.shm = shm

        def __index__(self):
            self.shm.close()
            return 5000

    with pytest.raises(ValueError, match="closed"):
        shm.resize(Size(shm))


# -- shrinking ----------------------------------------------------------------------------------


@pytest.fixture(params=[None, MAX], ids=["plain", "roomy"])
def either(request, name):
    """An object of 10 pages, for both ways to grow, without views."""
    with SharedMemory.create(name, 10 * PAGESIZE, max_size=request.param, delete=True) as handle:
        yield handle


def test_shrinking_is_explicit(either):
    for size in (1, PAGESIZE, 10 * PAGESIZE - 1):
        assert either.resize(size) == 10 * PAGESIZE
        assert either.resize(size, shrink=False) == 10 * PAGESIZE
    assert either.size == size_of(either.name) == 10 * PAGESIZE


def test_shrinking(either):
    either.buf[:3] = b"abc"
    for size in (10 * PAGESIZE - 1, 5 * PAGESIZE, 3):
        either.resize(size, shrink=True)
        assert either.size == len(either.buf) == size_of(either.name) == size
        assert either.buf[:3].tobytes() == b"abc"
    either.resize(10 * PAGESIZE, shrink=True)
    assert either.buf[:4].tobytes() == b"abc\0"
    assert not any(either.buf[3:])


def test_no_access_past_the_end_after_shrinking(either):
    """No access through the handle causes a bus error."""
    either.resize(PAGESIZE, shrink=True)
    assert len(either.buf.tobytes()) == len(bytes(memoryview(either))) == PAGESIZE
    assert len(either.map()) == PAGESIZE
    assert either.map()[PAGESIZE - 1] == 0
    with pytest.raises(ValueError):
        either.map(PAGESIZE)
    with pytest.raises(ValueError):
        either.map(0, PAGESIZE + 1)
    with pytest.raises(ValueError):
        either.populate(PAGESIZE, PAGESIZE)
    either.populate()
    assert either.resident == PAGESIZE


def test_shrinking_frees_memory(either):
    either.resize(1, shrink=True)
    assert either.stat().st_blocks * 512 <= PAGESIZE


REACHING = {
    "buf": lambda shm: shm.buf,
    "slice": lambda shm: shm.buf[-1:],
    "slice of the start": lambda shm: shm.buf[:1],
    "ndarray of buf": lambda shm: np.ndarray(5, "u1", buffer=shm.buf),
    "frombuffer of buf": lambda shm: np.frombuffer(shm.buf, "u1"),
    "cast": lambda shm: shm.buf.cast("I"),
    "the mapping itself": lambda shm: shm.buf.obj,
    "memoryview": memoryview,
    "frombuffer": lambda shm: np.frombuffer(shm, "u1"),
    "ndarray": lambda shm: np.ndarray(5, "u1", buffer=shm),
    "map": lambda shm: shm.map(),
    "map of the end": lambda shm: shm.map(9 * PAGESIZE),
    "read-only map": lambda shm: shm.map(readonly=True),
    "another handle": lambda shm: SharedMemory.open(shm.name),
    "another handle's view": lambda shm: SharedMemory.open(shm.name, readonly=True).buf,
}


@pytest.mark.parametrize("take", REACHING.values(), ids=REACHING)
def test_shrinking_under_a_view_is_refused(either, take):
    view = take(either)
    with pytest.raises(BufferError):
        either.resize(PAGESIZE, shrink=True)
    assert either.size == size_of(either.name) == len(either.buf) == 10 * PAGESIZE
    either.buf[-1] = 1
    del view


INDIRECT = [name for name in REACHING if name not in ("memoryview", "frombuffer", "ndarray")]


@pytest.mark.long
@pytest.mark.parametrize("take", [REACHING[name] for name in INDIRECT], ids=INDIRECT)
def test_shrinking_after_the_view_is_released(either, take):
    view = take(either)
    with pytest.raises(BufferError):
        either.resize(PAGESIZE, shrink=True)
    del view
    gc.collect()
    either.resize(PAGESIZE, shrink=True)
    assert either.size == size_of(either.name) == PAGESIZE


def test_shrinking_after_the_handle_itself_was_a_buffer(either):
    """numpy may have kept the address without a reference that could be counted."""
    memoryview(either).release()
    with pytest.raises(BufferError):
        either.resize(PAGESIZE, shrink=True)


def test_a_mapping_of_the_first_pages_prevents_shrinking(either):
    """This also holds for a mapping that ends before the new end, because mappings are only
    counted."""
    part = either.map(0, PAGESIZE)
    with pytest.raises(BufferError, match="another mapping of the object"):
        either.resize(5 * PAGESIZE, shrink=True)
    part[PAGESIZE - 1] = 1
    del part
    assert either.resize(5 * PAGESIZE, shrink=True) == 5 * PAGESIZE


def test_mappings_of_other_objects_do_not_count(either, names):
    with SharedMemory.create(names(), 10 * PAGESIZE, delete=True) as other:
        view = other.buf
        assert either.resize(PAGESIZE, shrink=True) == PAGESIZE
        view[-1] = 1


def test_a_map_of_the_descriptor_prevents_shrinking(either):
    mapped = MemoryMap(either.fileno())
    with pytest.raises(BufferError, match="another mapping of the object"):
        either.resize(PAGESIZE, shrink=True)
    mapped[-1] = 1


def test_threads_that_attach_never_map_past_the_end(either):
    """A thread shrinks and grows the object, while others open it and write to its last byte."""
    stop = threading.Event()

    def attach():
        while not stop.is_set():
            with SharedMemory.open(either.name) as other:
                other.buf[-1] = 1

    with ThreadPoolExecutor(2) as pool:
        attaching = [pool.submit(attach) for _ in range(2)]
        try:
            for _ in range(2000):
                with contextlib.suppress(BufferError):
                    either.resize(PAGESIZE, shrink=True)
                either.resize(10 * PAGESIZE)
        finally:
            stop.set()
        for each in attaching:
            each.result(60)
    either.resize(PAGESIZE, shrink=True)


def test_an_array_of_an_older_mapping_prevents_shrinking(shm):
    """This also holds for an array of the handle itself, which has a new mapping since."""
    array = np.ndarray(1000, "u1", buffer=shm)
    shm.resize(4 * PAGESIZE)
    with pytest.raises(BufferError):
        shm.resize(1, shrink=True)
    array[999] = 1


def test_views_of_a_forked_child_do_not_count(either, run_python):
    """Only mappings of the calling process count; a child without mappings may shrink the
    object."""
    run_python(
        """
        import sys
        from posixshm import SharedMemory
        with SharedMemory.open(sys.argv[1]) as shm:
            shm.resize(4096, shrink=True)
        """,
        either.name,
    )
    assert size_of(either.name) == 4096
    assert either.refresh() == 4096


def test_threads_that_attach_to_another_object_do_not_prevent_shrinking(either, names):
    stop = threading.Event()
    with SharedMemory.create(names(), 10, delete=True) as other:

        def attach():
            while not stop.is_set():
                SharedMemory.open(other.name).close()

        with ThreadPoolExecutor(2) as pool:
            attaching = [pool.submit(attach) for _ in range(2)]
            try:
                for _ in range(200):
                    assert either.resize(PAGESIZE, shrink=True) == PAGESIZE
                    either.resize(10 * PAGESIZE)
            finally:
                stop.set()
            for each in attaching:
                each.result(60)


def test_growing_again_gives_zeros(either):
    either.buf[:] = b"x" * either.size
    either.resize(10, shrink=True)
    either.resize(10 * PAGESIZE)
    assert either.buf.tobytes() == b"x" * 10 + bytes(10 * PAGESIZE - 10)


def test_many_sizes(either):
    """Growing and shrinking at random keeps the bytes below the smallest size."""
    content = bytes(range(1, 101))
    either.buf[:100] = content
    low = 100
    for size in (10 * PAGESIZE, 150, 9 * PAGESIZE, 120, 5000, 110, 40000, 101, PAGESIZE):
        either.resize(size, shrink=True)
        assert either.size == len(either.buf) == size_of(either.name) == size
        assert either.buf[:low].tobytes() == content
        assert not any(either.buf[low:])
