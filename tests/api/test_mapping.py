"""MemoryMap: a range of the object of a descriptor, its bytes, and operations on its pages."""

import array
import copy
import errno
import gc
import mmap
import os
import pickle
import resource
import socket
import struct
import weakref

import numpy as np
import pytest
from _processes import PATH, needs_mounts

import posixshm
from posixshm import PAGESIZE, PROT_NONE, PROT_READ, PROT_WRITE, MemoryMap, SharedMemory

READ_WRITE = PROT_READ | PROT_WRITE


@pytest.fixture
def memory():
    """memory(size, content=b""): a descriptor of a new object."""
    opened = []

    def make(size, content=b""):
        fd = os.memfd_create("posixshm-test")
        opened.append(fd)
        os.ftruncate(fd, size)
        os.pwrite(fd, content, 0)
        return fd

    yield make
    for fd in opened:
        os.close(fd)


@pytest.fixture
def mapping(memory):
    """A mapping of two pages and some bytes, which begin with b"0123456789"."""
    return MemoryMap(memory(2 * PAGESIZE + 10, b"0123456789"))


def addresses_of(fd):
    """The lines of /proc/self/maps for this object."""
    inode = f" {os.fstat(fd).st_ino} "
    with open("/proc/self/maps") as maps:
        return [line.split()[:2] for line in maps if inode in line and "memfd" in line]


# -- creation -----------------------------------------------------------------------------------


def test_maps_the_whole_object(memory):
    m = MemoryMap(memory(5000, b"abc"))
    assert len(m) == m.nbytes == 5000
    assert bytes(m[:4]) == b"abc\0"
    assert not m.readonly
    assert m.prot == READ_WRITE


def test_writes_reach_the_object_and_its_other_mappings(memory):
    fd = memory(100)
    m, other = MemoryMap(fd), MemoryMap(fd)
    m[3] = 65
    m[10:13] = b"xyz"
    assert os.pread(fd, 4, 0) == b"\0\0\0A"
    assert bytes(other[10:13]) == b"xyz"


def test_descriptor_is_not_kept(memory):
    fd = memory(PAGESIZE, b"still here")
    copy_of_fd = os.dup(fd)
    m = MemoryMap(copy_of_fd)
    os.close(copy_of_fd)
    assert bytes(m[:10]) == b"still here"


def test_an_object_with_fileno_is_accepted(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a file on a disk")
    with open(path, "r+b") as file:
        m = MemoryMap(file)
    m[0] = ord("A")
    m.sync()
    assert path.read_bytes() == b"A file on a disk"


@pytest.mark.parametrize("offset", [0, PAGESIZE, 2 * PAGESIZE])
@pytest.mark.parametrize("length", [1, PAGESIZE - 1, PAGESIZE])
def test_maps_a_range(memory, offset, length):
    content = os.urandom(3 * PAGESIZE)
    m = MemoryMap(memory(len(content), content), length, offset)
    assert len(m) == length
    assert bytes(m) == content[offset : offset + length]


def test_length_none_maps_to_the_end(memory):
    m = MemoryMap(memory(PAGESIZE + 7), None, PAGESIZE)
    assert len(m) == 7
    assert len(MemoryMap(memory(PAGESIZE + 7), offset=PAGESIZE)) == 7


@pytest.mark.parametrize("offset", [1, 8, PAGESIZE - 1, PAGESIZE + 1])
def test_offset_must_be_a_multiple_of_the_page_size(memory, offset):
    with pytest.raises(ValueError, match=f"multiple of the page size.*{PAGESIZE}"):
        MemoryMap(memory(4 * PAGESIZE), 1, offset)


@pytest.mark.parametrize(
    ("length", "offset"),
    [
        (PAGESIZE + 1, 0),
        (2 * PAGESIZE, 0),
        (1, PAGESIZE),
        (None, PAGESIZE),
        (1, 2**62),
        (2**63 - 1, 0),
        (2**63 - 1, PAGESIZE * (2**63 // PAGESIZE - 1)),
    ],
)
def test_a_range_past_the_end_is_refused(memory, length, offset):
    with pytest.raises(ValueError, match="past the end"):
        MemoryMap(memory(PAGESIZE), length, offset)


def test_an_empty_object_cannot_be_mapped(memory):
    with pytest.raises(ValueError, match="past the end"):
        MemoryMap(memory(0))


def test_read_only(memory):
    fd = memory(100, b"abc")
    m = MemoryMap(fd, readonly=True)
    assert m.readonly
    assert m.prot == PROT_READ
    assert memoryview(m).readonly
    assert not np.frombuffer(m, "u1").flags.writeable
    with pytest.raises(TypeError, match="read-only"):
        m[0] = 1
    with pytest.raises(TypeError, match="read-only"):
        m[0:2] = b"xx"
    with pytest.raises((TypeError, BufferError)):
        struct.pack_into("B", m, 0, 1)
    assert os.pread(fd, 3, 0) == b"abc"
    with pytest.raises(ValueError):
        np.frombuffer(m, "u1").setflags(write=True)


def test_a_read_only_descriptor_needs_readonly(memory):
    fd = memory(100, b"abc")
    reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    try:
        with pytest.raises(PermissionError):
            MemoryMap(reader)
        m = MemoryMap(reader, readonly=True)
        with pytest.raises(PermissionError):
            m.protect(READ_WRITE)
        assert m.prot == PROT_READ and m.readonly
    finally:
        os.close(reader)
    assert bytes(m[:3]) == b"abc"


def test_a_write_only_descriptor_cannot_be_mapped(memory):
    writer = os.open(f"/proc/self/fd/{memory(100)}", os.O_WRONLY)
    try:
        for readonly in (False, True):
            with pytest.raises(PermissionError):
                MemoryMap(writer, readonly=readonly)
    finally:
        os.close(writer)


@pytest.mark.parametrize("fd", [-1, -(2**31)])
def test_a_negative_descriptor_is_an_error(fd):
    with pytest.raises((ValueError, OSError)):
        MemoryMap(fd)


def test_a_closed_descriptor_is_an_error():
    fd = os.memfd_create("closed")
    os.close(fd)
    with pytest.raises(OSError) as caught:
        MemoryMap(fd)
    assert caught.value.errno == errno.EBADF


def test_an_object_that_cannot_be_mapped_is_an_error(tmp_path):
    reader, writer = os.pipe()
    directory = os.open(tmp_path, os.O_RDONLY)
    left, right = socket.socketpair()
    with left, right:
        for fd in (reader, directory, left.fileno()):
            with pytest.raises(ValueError, match="length"):
                MemoryMap(fd, device=True)
            with pytest.raises(OSError) as caught:
                MemoryMap(fd, 10, device=True)
            assert caught.value.errno in (errno.ENODEV, errno.EACCES)
    for fd in (reader, writer, directory):
        os.close(fd)


def test_more_than_the_address_space_allows(memory):
    """RLIMIT_AS causes an OSError, and nothing is mapped."""
    fd = memory(1 << 40)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 38, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            MemoryMap(fd)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert caught.value.errno == errno.ENOMEM
    assert addresses_of(fd) == []


# -- lifetime -----------------------------------------------------------------------------------


def test_unmapped_with_the_last_reference(memory):
    fd = memory(PAGESIZE)
    m = MemoryMap(fd)
    assert len(addresses_of(fd)) == 1
    view = memoryview(m)
    del m
    gc.collect()
    assert len(addresses_of(fd)) == 1
    view.release()
    del view
    gc.collect()
    assert addresses_of(fd) == []


def test_a_released_view_does_not_affect_other_views(memory):
    m = MemoryMap(memory(PAGESIZE, b"abc"))
    first, second = memoryview(m), memoryview(m)
    first.release()
    assert bytes(second[:3]) == b"abc"
    assert bytes(m[:3]) == b"abc"


def test_a_view_keeps_the_mapping_and_its_weak_references(memory):
    seen = []
    mapping = MemoryMap(memory(PAGESIZE, b"abc"))
    weak = weakref.ref(mapping, seen.append)
    view = mapping[:3]
    del mapping
    gc.collect()
    assert weak() is view.obj
    assert seen == []


def test_a_weak_reference_dies_with_the_mapping(memory):
    seen = []
    m = MemoryMap(memory(PAGESIZE))
    weak = weakref.ref(m, seen.append)
    table = weakref.WeakKeyDictionary({m: 1})
    del m
    gc.collect()
    assert weak() is None
    assert seen == [weak]
    assert len(table) == 0


def test_a_cycle_through_a_mapping_is_collected(memory):
    """The collector finds views in a cycle, and the mapping is freed with them."""
    fd = memory(PAGESIZE)

    class Holder:
        pass

    holder = Holder()
    holder.view = memoryview(MemoryMap(fd))
    holder.array = np.frombuffer(holder.view, "u1")
    holder.self = holder
    del holder
    gc.collect()
    assert addresses_of(fd) == []


# -- the buffer ---------------------------------------------------------------------------------


def test_the_view_is_of_bytes(mapping):
    view = memoryview(mapping)
    assert view.format == "B"
    assert view.itemsize == 1
    assert view.ndim == 1
    assert view.shape == (len(mapping),)
    assert view.strides == (1,)
    assert view.contiguous
    assert not view.readonly
    assert view.obj is mapping


def test_the_buffer_has_the_requested_properties(mapping, memory):
    """A request for a writable buffer of read-only bytes raises BufferError."""
    readonly = MemoryMap(memory(10, b"0123456789"), readonly=True)
    target = array.array("B", bytes(10))
    reader, writer = os.pipe()
    os.write(writer, b"0123456789")
    with open(reader, "rb", buffering=0) as file:
        with pytest.raises(TypeError):
            file.readinto(readonly)
        assert file.readinto(mapping[100:110]) == 10
    os.close(writer)
    assert bytes(mapping[100:110]) == b"0123456789"
    target[:] = array.array("B", bytes(readonly))
    assert target.tobytes() == b"0123456789"


def test_common_consumers_accept_a_mapping(mapping):
    assert bytes(mapping)[:10] == b"0123456789"
    assert bytearray(mapping)[:10] == b"0123456789"
    assert struct.unpack_from("3s", mapping, 2) == (b"234",)
    struct.pack_into("<I", mapping, 100, 0xDEADBEEF)
    assert int.from_bytes(mapping[100:104], "little") == 0xDEADBEEF
    assert np.frombuffer(mapping, "<u4", 1, 100)[0] == 0xDEADBEEF
    assert b"".join([mapping])[:3] == b"012"
    assert int(memoryview(mapping)[104 - 4 :].cast("B")[0]) == 0xEF


def test_numpy_arrays_share_the_bytes(mapping):
    whole = np.frombuffer(mapping, "u1")
    placed = np.ndarray((5,), "u2", buffer=mapping, offset=10)
    placed[:] = 7
    assert whole[10] == 7 and whole[18] == 7
    assert placed.flags.writeable
    assert mapping[10] == 7


# -- items, as a memoryview has them ------------------------------------------------------------


def test_indexing_is_that_of_memoryview(mapping):
    view = memoryview(mapping)
    size = len(view)
    for index in (0, 5, size - 1, -1, -size, True, np.int64(3)):
        assert mapping[index] == view[index]
        assert type(mapping[index]) is int
    for index in (size, -size - 1, 2**31, 2**63, -(2**63) - 1, 2**100):
        with pytest.raises(IndexError):
            mapping[index]
        with pytest.raises(IndexError):
            mapping[index] = 1
    for index in ("0", 1.0, None):
        with pytest.raises(TypeError):
            mapping[index]
        with pytest.raises(TypeError):
            mapping[index] = 1


SLICES = [
    slice(None),
    slice(0, 0),
    slice(2, 5),
    slice(-3, None),
    slice(None, -1),
    slice(5, 2),
    slice(2**70, None),
    slice(-(2**70), 2**70),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(8, 2, -3),
    slice(3, 20, 7),
    slice(None, None, 2**70),
]


@pytest.mark.parametrize("part", SLICES, ids=str)
def test_slices_are_those_of_memoryview(memory, part):
    fd = memory(64, bytes(range(64)))
    mapping = MemoryMap(fd)
    expected = memoryview(bytearray(range(64)))
    got = mapping[part]
    assert type(got) is memoryview
    assert got.obj is mapping
    assert got.tolist() == expected[part].tolist()
    replacement = bytes(range(100, 100 + len(got)))
    mapping[part] = replacement
    expected[part] = replacement
    assert os.pread(fd, 64, 0) == expected.tobytes()


def test_a_slice_accepts_exactly_its_number_of_bytes(mapping):
    for wrong in (b"", b"12", b"1234"):
        with pytest.raises(ValueError):
            mapping[0:3] = wrong
        with pytest.raises(ValueError):
            mapping[0:6:2] = wrong
    assert bytes(mapping[:6]) == b"012345"


def test_a_slice_can_be_assigned_to_itself(memory):
    """Source and target may overlap, in either direction and with a step."""
    content = bytes(range(100))
    for target, source in [
        (slice(1, 100), slice(0, 99)),
        (slice(0, 99), slice(1, 100)),
        (slice(0, 100), slice(0, 100)),
        (slice(99, 0, -1), slice(0, 99)),
        (slice(0, 100, 2), slice(0, 50)),
        (slice(None), slice(None, None, -1)),
        (slice(0, 50), slice(None, None, 2)),
        (slice(None, None, -2), slice(99, None, -2)),
    ]:
        mapping = MemoryMap(memory(100, content))
        expected = bytearray(content)
        expected[target] = content[source]
        mapping[target] = mapping[source]
        assert bytes(mapping) == expected


@pytest.mark.parametrize(
    "source",
    [
        np.arange(40, dtype="u1")[::4],
        np.arange(10, dtype="u1")[::-1],
        np.arange(10, dtype="u1").reshape(2, 5).T,
        np.arange(10, dtype="i2").reshape(5, 2)[:, 0],
        memoryview(bytes(range(20)))[::2],
    ],
)
def test_a_slice_accepts_bytes_that_are_not_contiguous(memory, source):
    mapping = MemoryMap(memory(100))
    mapping[5:15] = source
    assert bytes(mapping[5:15]) == source.tobytes()
    mapping[20:40:2] = source
    assert bytes(mapping[20:40:2]) == source.tobytes()
    with pytest.raises(ValueError):
        mapping[0:11] = source


def test_items_accept_bytes_only(mapping):
    for value in (-1, 256, 2**64, -(2**64)):
        with pytest.raises(ValueError):
            mapping[0] = value
    for value in (1.0, "1", None, b"1"):
        with pytest.raises(TypeError):
            mapping[0] = value
    for value in (5, "12345", None, [1, 2, 3]):
        with pytest.raises((TypeError, ValueError)):
            mapping[0:5] = value
    for value in (0, 255, np.uint8(7)):
        mapping[0] = value
        assert mapping[0] == value


def test_items_cannot_be_deleted(mapping):
    with pytest.raises(TypeError):
        del mapping[0]
    with pytest.raises(TypeError):
        del mapping[0:3]
    assert bytes(mapping[:3]) == b"012"


def test_iteration(memory):
    mapping = MemoryMap(memory(20, b"abc"))
    assert list(mapping)[:4] == [97, 98, 99, 0]
    assert sum(1 for _ in mapping) == 20
    assert 98 in mapping and 1 not in mapping
    assert list(reversed(mapping))[-1] == 97


class Protecting:
    """An index whose __index__ protects the mapping."""

    def __init__(self, mapping):
        self.mapping = mapping

    def __index__(self):
        self.mapping.protect(PROT_NONE)
        return 0


def test_an_index_that_protects_the_mapping(memory):
    """The permissions are checked after all Python code has run."""
    mapping = MemoryMap(memory(PAGESIZE))
    with pytest.raises(TypeError):
        mapping[Protecting(mapping)]
    mapping.protect(READ_WRITE)
    with pytest.raises(TypeError):
        mapping[Protecting(mapping)] = 1
    mapping.protect(READ_WRITE)
    with pytest.raises(TypeError):
        mapping[0] = Protecting(mapping)
    mapping.protect(READ_WRITE)
    with pytest.raises(TypeError):
        mapping[Protecting(mapping) : 5] = b"12345"
    mapping.protect(READ_WRITE)
    assert bytes(mapping[:5]) == bytes(5)


# -- protection ---------------------------------------------------------------------------------


def test_permissions_can_be_removed_without_views(memory):
    mapping = MemoryMap(memory(PAGESIZE, b"abc"))
    for prot, readonly in [
        (PROT_READ, True),
        (PROT_NONE, True),
        (READ_WRITE, False),
        (PROT_NONE, True),
        (PROT_READ, True),
        (READ_WRITE, False),
    ]:
        mapping.protect(prot)
        assert mapping.prot == prot
        assert mapping.readonly is readonly
    assert bytes(mapping[:3]) == b"abc"


def test_the_pages_have_the_protection(memory):
    fd = memory(PAGESIZE)
    mapping = MemoryMap(fd)
    for prot, shown in [(PROT_READ, "r--s"), (PROT_NONE, "---s"), (READ_WRITE, "rw-s")]:
        mapping.protect(prot)
        assert [rights for _, rights in addresses_of(fd)] == [shown]


def test_without_permissions_no_access_is_possible(memory):
    mapping = MemoryMap(memory(PAGESIZE))
    mapping.protect(PROT_NONE)
    with pytest.raises(TypeError):
        mapping[0]
    with pytest.raises(TypeError):
        mapping[0] = 1
    with pytest.raises(TypeError):
        mapping[0:1] = b"1"
    with pytest.raises(BufferError):
        memoryview(mapping)
    with pytest.raises(BufferError):
        mapping[0:1]
    with pytest.raises((BufferError, TypeError, ValueError)):
        np.frombuffer(mapping, "u1")
    with pytest.raises(TypeError):
        list(mapping)
    assert len(mapping) == PAGESIZE


def test_read_only_pages_give_read_only_views(memory):
    mapping = MemoryMap(memory(PAGESIZE))
    mapping.protect(PROT_READ)
    view = memoryview(mapping)
    assert view.readonly
    with pytest.raises(TypeError):
        mapping[0] = 1
    # This does not affect a reader.
    mapping.protect(READ_WRITE)
    assert not memoryview(mapping).readonly


TAKEN = {
    "memoryview": memoryview,
    "slice": lambda m: m[1:2],
    "frombuffer": lambda m: np.frombuffer(m, "u1"),
    "ndarray": lambda m: np.ndarray(4, "u1", buffer=m),
    "cast": lambda m: memoryview(m).cast("I"),
}


@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)
def test_a_permission_that_a_view_needs_is_kept(memory, take):
    mapping = MemoryMap(memory(PAGESIZE))
    view = take(mapping)
    for prot in (PROT_READ, PROT_NONE):
        with pytest.raises(BufferError):
            mapping.protect(prot)
    assert mapping.prot == READ_WRITE
    mapping.protect(READ_WRITE)
    view[0] = 1
    assert 1 in bytes(mapping[:4])


def test_a_permission_that_a_released_view_may_need_is_kept(memory):
    """numpy keeps the address of a released buffer."""
    mapping = MemoryMap(memory(PAGESIZE))
    memoryview(mapping).release()
    with pytest.raises(BufferError):
        mapping.protect(PROT_READ)
    mapping[0] = 1


def test_a_reader_keeps_read_permission(memory):
    mapping = MemoryMap(memory(PAGESIZE, b"abc"), readonly=True)
    view = memoryview(mapping)
    with pytest.raises(BufferError):
        mapping.protect(PROT_NONE)
    mapping.protect(PROT_READ)
    assert bytes(view[:3]) == b"abc"


@pytest.mark.parametrize(
    "prot", [PROT_WRITE, 4, PROT_READ | 4, 8, -1, 0x01000000, 2**31 - 1, 2**32, -(2**80)]
)
def test_other_protections_are_refused(mapping, prot):
    with pytest.raises(ValueError):
        mapping.protect(prot)
    assert mapping.prot == READ_WRITE


# -- advice, writing back, locking, populating --------------------------------------------------

SAFE_ADVICE = [
    "MADV_NORMAL",
    "MADV_RANDOM",
    "MADV_SEQUENTIAL",
    "MADV_WILLNEED",
    "MADV_DONTNEED",
    "MADV_HUGEPAGE",
    "MADV_NOHUGEPAGE",
    "MADV_DONTDUMP",
    "MADV_DODUMP",
    "MADV_COLD",
    "MADV_PAGEOUT",
    "MADV_POPULATE_READ",
    "MADV_POPULATE_WRITE",
    "MADV_COLLAPSE",
    "MADV_DOFORK",
]


@pytest.mark.parametrize("advice", SAFE_ADVICE)
def test_advice_keeps_every_byte(memory, advice):
    content = os.urandom(3 * PAGESIZE)
    mapping = MemoryMap(memory(len(content), content))
    number = getattr(posixshm, advice)
    for arguments in [(), (PAGESIZE,), (0, PAGESIZE), (PAGESIZE, PAGESIZE)]:
        try:
            mapping.advise(number, *arguments)
        except OSError as error:
            # The kernel is too old, was built without huge pages, or cannot provide one now.
            assert error.errno in (errno.EINVAL, errno.ENOMEM, errno.EAGAIN, errno.EBUSY)
    assert bytes(mapping) == content


def test_advice_that_loses_bytes_is_refused(memory):
    known = {getattr(posixshm, name) for name in SAFE_ADVICE}
    mapping = MemoryMap(memory(2 * PAGESIZE, b"abc"))
    for advice in range(256):
        if advice not in known:
            with pytest.raises(ValueError):
                mapping.advise(advice)
    for advice in (mmap.MADV_REMOVE, mmap.MADV_DONTFORK, mmap.MADV_HWPOISON, -1, 2**31, 2**64):
        with pytest.raises(ValueError):
            mapping.advise(advice)
    assert bytes(mapping[:3]) == b"abc"


RANGED = {
    "advise": lambda m, *args, **kw: m.advise(posixshm.MADV_NORMAL, *args, **kw),
    "sync": lambda m, *args, **kw: m.sync(*args, **kw),
    "lock_pages": lambda m, *args, **kw: m.lock_pages(*args, **kw),
    "unlock_pages": lambda m, *args, **kw: m.unlock_pages(*args, **kw),
    "populate": lambda m, *args, **kw: m.populate(*args, **kw),
}


@pytest.mark.parametrize("call", RANGED.values(), ids=RANGED)
def test_ranges(mapping, call):
    size = len(mapping)
    for arguments in [
        (),
        (0,),
        (0, None),
        (PAGESIZE,),
        (0, 1),
        (PAGESIZE, 1),
        (2 * PAGESIZE, 10),
        (0, size),
        (0, 0),
    ]:
        assert call(mapping, *arguments) is None
    assert call(mapping, offset=PAGESIZE, length=3) is None
    for offset, length in [
        (1, None),
        (PAGESIZE - 1, 1),
        (0, size + 1),
        (PAGESIZE, size),
        (4 * PAGESIZE, None),
        (0, 2**63 - 1),
        (0, 2**64),
        (2**64, None),
        (-PAGESIZE, None),
        (0, -1),
    ]:
        with pytest.raises(ValueError):
            call(mapping, offset, length)
    for offset, length in [("0", None), (0, "1"), (0.0, None), (0, 1.0), (None, 1), (0, True)]:
        with pytest.raises(TypeError):
            call(mapping, offset, length)
    assert bytes(mapping[:10]) == b"0123456789"


def test_sync_flags(mapping):
    for flags in (
        posixshm.MS_SYNC,
        posixshm.MS_ASYNC,
        posixshm.MS_SYNC | posixshm.MS_INVALIDATE,
        posixshm.MS_ASYNC | posixshm.MS_INVALIDATE,
        posixshm.MS_INVALIDATE,
    ):
        mapping.sync(flags=flags)
        mapping.sync(0, PAGESIZE, flags)
    with pytest.raises((OSError, ValueError)):
        mapping.sync(flags=posixshm.MS_SYNC | posixshm.MS_ASYNC)
    with pytest.raises((OSError, ValueError)):
        mapping.sync(flags=1 << 20)
    with pytest.raises(ValueError):
        mapping.sync(flags=-1)


def test_sync_writes_a_file_back(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * PAGESIZE))
    with open(path, "r+b") as file:
        mapping = MemoryMap(file.fileno())
    mapping[PAGESIZE : PAGESIZE + 5] = b"hello"
    mapping.sync(PAGESIZE, 5)
    assert path.read_bytes()[PAGESIZE:][:5] == b"hello"


def test_populate_allocates_every_page(memory):
    size = 16 * PAGESIZE
    mapping = MemoryMap(memory(size))
    assert mapping.resident == 0
    mapping.populate(0, PAGESIZE)
    assert mapping.resident >= PAGESIZE
    mapping.populate()
    assert mapping.resident == size
    assert bytes(mapping) == bytes(size)


def test_populate_keeps_the_content(memory):
    content = os.urandom(8 * PAGESIZE)
    fd = memory(len(content), content)
    for readonly in (False, True):
        mapping = MemoryMap(fd, readonly=readonly)
        mapping.populate()
        assert bytes(mapping) == content
        assert mapping.resident == len(content)


def test_resident_counts_whole_pages(memory):
    size = 5000 * PAGESIZE  # more than mincore(2) is called for at once
    fd = memory(size)
    for page in (2, 4095, 4096, 4999):
        os.pwrite(fd, b"x", page * PAGESIZE)
    assert MemoryMap(fd).resident == 4 * PAGESIZE


def sanitized():
    with open("/proc/self/maps") as maps:
        return "libasan" in maps.read()


locks_pages = pytest.mark.skipif(sanitized(), reason="AddressSanitizer turns mlock(2) off")


def locked_bytes():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmLck:"):
                return int(line.split()[1]) * 1024
    pytest.fail("/proc/self/status has no VmLck")


@locks_pages
def test_lock_pages(memory):
    mapping = MemoryMap(memory(4 * PAGESIZE))
    before = locked_bytes()
    mapping.lock_pages(PAGESIZE, 2 * PAGESIZE)
    assert locked_bytes() - before == 2 * PAGESIZE
    assert mapping.resident >= 2 * PAGESIZE
    mapping.lock_pages()
    assert locked_bytes() - before == 4 * PAGESIZE
    mapping.unlock_pages(0, PAGESIZE)
    assert locked_bytes() - before == 3 * PAGESIZE
    mapping.unlock_pages()
    assert locked_bytes() == before


@locks_pages
def test_locked_pages_are_unlocked_with_the_mapping(memory):
    before = locked_bytes()
    mapping = MemoryMap(memory(4 * PAGESIZE))
    mapping.lock_pages()
    del mapping
    gc.collect()
    assert locked_bytes() == before


@locks_pages
def test_lock_pages_over_the_limit(run_python):
    """RLIMIT_MEMLOCK applies to all users except root."""
    run_python(
        """
        import errno, os, resource
        from posixshm import MemoryMap
        fd = os.memfd_create("locked")
        os.ftruncate(fd, 1 << 20)
        mapping = MemoryMap(fd)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            mapping.lock_pages()
        except OSError as error:
            assert error.errno in (errno.EPERM, errno.ENOMEM, errno.EAGAIN), error
        else:
            raise SystemExit("locked more than RLIMIT_MEMLOCK")
        mapping[0] = 1
        """
    )


def test_populate_without_permissions_is_an_error(memory):
    mapping = MemoryMap(memory(PAGESIZE))
    mapping.protect(PROT_NONE)
    with pytest.raises(OSError):
        mapping.populate()


def test_populate_of_a_truncated_page_is_an_error(memory):
    fd = memory(4 * PAGESIZE)
    mapping = MemoryMap(fd)
    os.ftruncate(fd, PAGESIZE)
    with pytest.raises(OSError) as caught:
        mapping.populate()
    assert caught.value.errno == errno.EFAULT


# -- the type -----------------------------------------------------------------------------------


def test_the_type_is_final():
    with pytest.raises(TypeError):
        type("Sub", (MemoryMap,), {})
    with pytest.raises(TypeError):
        MemoryMap.extra = 1
    with pytest.raises(TypeError):
        object.__new__(MemoryMap)


def test_attributes_cannot_be_set(mapping):
    for attribute in ("nbytes", "readonly", "prot", "resident", "anything"):
        with pytest.raises(AttributeError):
            setattr(mapping, attribute, 1)


def test_a_mapping_cannot_be_closed(mapping):
    """The memory is unmapped with the last reference only."""
    assert not {"close", "unmap", "__enter__", "release"} & set(dir(mapping))


def test_a_mapping_cannot_be_copied_or_pickled(mapping):
    """A copy would be a second owner of the address."""
    for function in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            function(mapping)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(mapping, protocol)


def test_a_second_init_changes_nothing(mapping):
    mapping.__init__()
    assert bytes(mapping[:3]) == b"012"


def test_repr_of_a_mapping(mapping, memory):
    assert str(len(mapping)) in repr(mapping)
    assert "read-only" not in repr(mapping)
    assert "read-only" in repr(MemoryMap(memory(10), readonly=True))


def test_compared_by_identity(memory):
    fd = memory(10)
    one, two = MemoryMap(fd), MemoryMap(fd)
    assert one == one and one != two
    assert len({one, two}) == 2


# -- other files --------------------------------------------------------------------------------


def test_other_files_are_mapped_only_on_request(tmp_path):
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    folder = os.open(tmp_path, os.O_RDONLY)
    zero = os.open("/dev/zero", os.O_RDWR)
    words = {ours: "socket", reader: "FIFO", folder: "directory", zero: "device"}
    for what, word in words.items():
        fd = what if isinstance(what, int) else what.fileno()
        for offset in (0, mmap.PAGESIZE):
            with pytest.raises(OSError, match=f"{word}.*device=True") as caught:
                MemoryMap(fd, mmap.PAGESIZE, offset)
            assert caught.value.errno == errno.EINVAL
    memory = MemoryMap(zero, mmap.PAGESIZE, device=True)
    memory[0] = 7
    assert memory[0] == 7
    with pytest.raises(ValueError, match="length"):
        MemoryMap(zero, device=True)
    for fd in (reader, writer, folder, zero):
        os.close(fd)
    ours.close()
    theirs.close()


def test_the_error_says_why_a_descriptor_cannot_be_mapped(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * mmap.PAGESIZE)
    for flags, number in ((os.O_WRONLY, errno.EACCES), (os.O_PATH, errno.EBADF)):
        fd = os.open(file, flags)
        for call in (lambda: MemoryMap(fd), lambda: SharedMemory.from_fd(fd)):  # noqa: B023
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == number
        os.close(fd)
    file.write_bytes(b"")
    with open(file, "r+b") as empty, pytest.raises(ValueError, match="0 bytes"):
        MemoryMap(empty)


def test_the_error_names_the_type_of_a_descriptor(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    ours, theirs = socket.socketpair()
    kinds = {
        os.open(tmp_path, os.O_RDONLY): "a directory",
        os.open(tmp_path / "link", os.O_PATH | os.O_NOFOLLOW): "a symbolic link",
        os.open(tmp_path / "fifo", os.O_RDWR): "a FIFO",
        os.open("/dev/null", os.O_RDWR): "a device",
        os.dup(ours.fileno()): "a socket",
        os.eventfd(0): "an anonymous inode",
    }
    for fd, kind in kinds.items():
        with pytest.raises(OSError, match=f"but {kind}"):
            MemoryMap(fd, 10)
        os.close(fd)
    ours.close()
    theirs.close()


def test_only_whole_huge_pages_are_mapped():
    try:
        fd = os.memfd_create("huge", os.MFD_HUGETLB)
    except OSError as error:
        pytest.skip(f"NOT TESTED: a memfd of huge pages: {error}")
    huge = os.fstat(fd).st_blksize
    os.ftruncate(fd, 2 * huge)
    for length, offset in ((mmap.PAGESIZE, 0), (huge, mmap.PAGESIZE), (huge + 1, 0)):
        with pytest.raises(ValueError, match=str(huge)):
            MemoryMap(fd, length, offset)
    os.close(fd)


def test_the_error_of_populate_says_that_the_mount_is_full(run_python, name):
    """A mapping then allocates nothing, like a handle, if the object can be found."""
    needs_mounts()
    code = """
        import errno, os, sys
        from _processes import SHM, free_bytes, private_shm, raises, unchanged
        from posixshm import MemoryMap, SharedMemory
        private_shm("size=1m")
        MIB = 1 << 20
        shm = SharedMemory.create(sys.argv[1], 4 * MIB, reserve=False)
        closed = SharedMemory.open(sys.argv[1])
        closed.close_fd()
        several = (shm, shm.map(), closed, MemoryMap(shm.fileno()), shm.map(readonly=True))
        def fails(what, *args):
            with raises(errno.ENOSPC) as caught:
                what.populate(*args)
            return str(caught[0])
        for what in several:
            with unchanged():
                assert f"{4 * MIB} bytes asked for, {MIB} bytes free" in fails(what)
                fails(what, MIB, 2 * MIB)
        shm.map(2 * MIB).populate(0, MIB // 2)
        for what in several:
            with unchanged():
                assert f"{7 * MIB // 2} bytes asked for, {MIB // 2} bytes free" in fails(what)
        os.rename(f"{SHM}/{sys.argv[1]}", f"{SHM}/other (deleted)")
        for what in several:
            with unchanged():
                assert f"{MIB // 2} bytes free" in fails(what)
        shm.close()
        for what in several[1:]:  # by its name alone
            with unchanged():
                assert f"{MIB // 2} bytes free" in fails(what)
        os.unlink(f"{SHM}/other (deleted)")
        for what in several[1:]:  # now only an attempt can tell
            assert f"on {SHM}" in fails(what)
        assert free_bytes() == 0
    """
    run_python(code, name, env=PATH)


def test_populate_checks_the_mount_of_the_object(run_python, tmp_path):
    needs_mounts()
    code = """
        import errno, os, sys
        from _processes import mount_tmpfs, private_shm, raises
        from posixshm import MemoryMap, SharedMemory
        private_shm("size=64m")
        mount_tmpfs(sys.argv[1], "size=1m")
        path = sys.argv[1] + "/file"
        for named in (True, False):
            fd = os.open(path, os.O_RDWR | os.O_CREAT)
            os.ftruncate(fd, 4 << 20)
            mapping = MemoryMap(fd)
            os.close(fd)
            if not named:
                os.unlink(path)
            with raises(errno.ENOSPC) as caught:
                mapping.populate()
            assert "is not /dev/shm" in str(caught[0]), caught
    """
    run_python(code, tmp_path, env=PATH)


def test_populate_past_the_end_is_not_taken_for_a_full_mount(run_python, name):
    needs_mounts()
    code = """
        import errno, os, sys
        from _processes import private_shm, raises
        from posixshm import SharedMemory
        private_shm("size=1m")
        shm = SharedMemory.create(sys.argv[1], 1 << 19)
        mapping = shm.map(4096)
        full = SharedMemory.create("full", 1 << 19)
        os.truncate("/dev/shm/" + shm.name, 8192)
        for what, end in ((shm, 1 << 19), (mapping, 1 << 19)):
            with raises(errno.EFAULT) as caught:
                what.populate()
            assert f"end at {end}" in str(caught[0]) and "has 8192 bytes" in str(caught[0])
        mapping.populate(0, 4096)
    """
    run_python(code, name, env=PATH)
