"""Exhausted resources: the call raises the right OSError and leaves everything as it was.

Each test runs a child with its own limit or its own /dev/shm.
"""

import signal

import pytest
from _processes import PATH, cannot_be_tested, needs_mounts, needs_plain_build, needs_root

MIB = 1 << 20

START = """
import errno, gc, os, signal, sys, warnings
from _processes import SHM, free_bytes, mount_tmpfs, private_shm, raises, shm_names, unchanged
import posixshm
from posixshm import MemoryMap, SharedMemory
MIB = 1 << 20
warnings.filterwarnings("ignore", "huge_pages=True has no effect")
"""


def run_limited(run_python, code, *args, shm=None, **keywords):
    if shm is not None:
        needs_mounts()
        code = f"private_shm({shm!r})\n{code}"
    return run_python(START + code, *args, env=PATH, **keywords)


# -- a /dev/shm of 1 MiB ------------------------------------------------------------------------


def test_an_object_larger_than_the_mount(run_python):
    code = """
for call in (
    lambda: SharedMemory.create("big", 2 * MIB),
    lambda: SharedMemory("big", create=True, size=2 * MIB),
    lambda: SharedMemory.create("big", 2 * MIB, exist_ok=True, delete=True),
    lambda: SharedMemory.create("big", 2 * MIB, max_size=10 * MIB, mode=0o666),
    lambda: SharedMemory.create("big", 2 * MIB, init=lambda buf: 1 / 0),
    lambda: SharedMemory.create("big", 2 * MIB, populate=True),
    lambda: SharedMemory.create("big", 2 * MIB, huge_pages=True),
    lambda: SharedMemory.create("big", 2 * MIB, reserve=False, populate=True),
    lambda: SharedMemory.create("big", MIB + 1),
    lambda: SharedMemory.create("big", 1 << 40),
    lambda: SharedMemory.create(None, 2 * MIB),
    lambda: SharedMemory.unlinked(2 * MIB),
    lambda: posixshm.shared_memory.SharedMemory("big", create=True, size=2 * MIB),
):
    with unchanged(), raises(errno.ENOSPC) as caught:
        call()
    message = str(caught[0])
    size = next(size for size in (2 * MIB, MIB + 1, 1 << 40) if str(size) in message)
    assert f"{size} bytes" in message, message
    assert f"{MIB} bytes free" in message, message
    assert SHM in message and "size=" in message and "reclaim" in message, message
    assert caught[0].filename in ("big", None)
    assert os.listdir(SHM) == []
shm = SharedMemory.create("all of it", MIB)
assert free_bytes() == 0
shm.buf[:] = bytes([7]) * MIB
with raises(errno.ENOSPC) as caught:
    SharedMemory.create("one more", 1)
assert "1 bytes asked for" in str(caught[0]) and "0 bytes free" in str(caught[0]), caught
with SharedMemory.open("all of it") as second:
    assert second.buf[MIB - 1] == 7
"""
    run_limited(run_python, "import posixshm.shared_memory\n" + code, shm="size=1m")


def test_populate_without_enough_memory_allocates_none(run_python):
    code = """
for readonly in (False, True):
    with open(f"{SHM}/sparse", "wb") as file:
        file.truncate(4 * MIB)
    with SharedMemory.open("sparse", readonly=readonly) as shm:
        with unchanged(), raises(errno.ENOSPC) as caught:
            shm.populate()
        assert caught[0].filename == "sparse" and str(4 * MIB) in str(caught[0]), caught
        with unchanged(), raises(errno.ENOSPC):
            shm.populate(MIB, 2 * MIB)
        shm.populate(0, MIB // 2)
        assert free_bytes() == MIB // 2
        os.truncate(f"{SHM}/sparse", MIB)  # what has its memory needs no more
        shm.refresh()
        shm.populate()
        shm.unlink()
"""
    run_limited(run_python, code, shm="size=1m")


def test_a_limit_on_locked_memory_is_named(run_python):
    code = """
import resource
with SharedMemory.create(sys.argv[1], MIB, delete=True) as shm:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    if os.geteuid() == 0:
        os.seteuid(65534)  # without CAP_IPC_LOCK
    with raises(errno.ENOMEM) as caught:
        shm.lock_pages()
    assert "RLIMIT_MEMLOCK" in str(caught[0]) and "65536" in str(caught[0]), caught
    shm.lock_pages(0, 4096)
    if os.getuid() == 0:
        os.seteuid(0)
"""
    run_limited(run_python, code, "posixshm-test-locked")


def test_a_size_that_no_address_space_has(run_python):
    code = """
with SharedMemory.create("grows", 4096) as shm:
    with unchanged(), raises(errno.ENOMEM) as caught:
        shm.resize(1 << 62)
    assert str(1 << 62) in str(caught[0]) and "address space" in str(caught[0]), caught
    assert caught[0].filename == "grows" and shm.size == 4096
    for call in (
        lambda: SharedMemory.open("grows", max_size=1 << 62),
        lambda: SharedMemory.create("other", 4096, max_size=1 << 62),
    ):
        with unchanged(), raises(errno.ENOMEM) as caught:
            call()
        assert str(1 << 62) in str(caught[0]) and "address space" in str(caught[0]), caught
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    with unchanged(), raises(errno.EFBIG) as caught:
        shm.resize(10_000)
    assert "10000" in str(caught[0]) and "5000" in str(caught[0]), caught
    assert shm.size == 4096
"""
    run_limited(run_python, code, shm="size=1m")


def test_sizes_that_no_machine_has(run_python):
    code = """
for size in (1 << 47, 1 << 56, 1 << 62, 2**63 - 1, 2**63 - 4096):
    for keywords in ({}, {"reserve": False}, {"populate": True}, {"huge_pages": True}):
        with unchanged(), raises(errno.ENOSPC, errno.EFBIG, errno.ENOMEM, errno.EOVERFLOW) as caught:
            SharedMemory.create("big", size, **keywords)
        with unchanged(), raises(errno.ENOSPC, errno.EFBIG, errno.ENOMEM, errno.EOVERFLOW) as caught:
            SharedMemory.unlinked(size, **keywords)
    with unchanged(), raises(errno.ENOMEM):
        SharedMemory.create("big", 10, max_size=size)
    with SharedMemory.create("small", 10) as shm:
        with unchanged(), raises(errno.ENOSPC, errno.EFBIG, errno.ENOMEM):
            shm.resize(size)
        assert shm.size == 10
        with unchanged():
            try:
                shm.map(0, size)
            except ValueError:
                pass
            else:
                raise AssertionError
        shm.unlink()
"""
    run_limited(run_python, code, shm="size=1m")


def test_the_free_space_counts_rather_than_the_total(run_python):
    code = """
first = SharedMemory.create("first", 700 * 1024)
with unchanged(), raises(errno.ENOSPC) as caught:
    SharedMemory.create("second", 500 * 1024)
free = free_bytes()
assert f"{500 * 1024} bytes" in str(caught[0]) and f"{free} bytes free" in str(caught[0]), caught
second = SharedMemory.create("second", 300 * 1024)
first.unlink()
with raises(errno.ENOSPC):
    SharedMemory.create("third", 500 * 1024)
first.close()
third = SharedMemory.create("third", 500 * 1024)
"""
    run_limited(run_python, code, shm="size=1m")


@pytest.mark.parametrize("keywords", ["", ", populate=True", ", huge_pages=True"])
def test_an_object_larger_than_half_of_the_free_space(run_python, keywords):
    code = f"""
shm = SharedMemory.create("large", 200 * MIB{keywords})
assert shm.size == 200 * MIB and free_bytes() == 50 * MIB
shm.buf[-1] = 1
"""
    run_limited(run_python, code, shm="size=250m")


def test_reserve_false_skips_the_reservation(run_python):
    code = """
import resource
shm = SharedMemory.create("big", 2 * MIB, reserve=False)
assert (shm.size, len(shm.buf), os.stat(f"{SHM}/big").st_size) == (2 * MIB,) * 3
assert free_bytes() == MIB
shm.buf[:5000] = bytes(5000)
shm.buf[-1] = 1
assert free_bytes() == MIB - 3 * posixshm.PAGESIZE
for call in (SharedMemory.unlinked, SharedMemory.anonymous):
    with call(2 * MIB, reserve=False) as other:
        other.buf[-1] = 1
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
print("now", flush=True)
shm.buf[:] = bytes(2 * MIB)
"""
    needs_mounts()
    start = START + "private_shm('size=1m')\n"
    status, out, _ = run_python(start + code, env=PATH, check=False)
    assert (status, out) == (-signal.SIGBUS, "now\n")


@pytest.mark.parametrize("max_size", ["None", "8 * MIB"])
def test_growth_without_enough_space_changes_nothing(run_python, max_size):
    code = f"""
max_size = {max_size}
shm = SharedMemory.create("growing", 300_000, max_size=max_size)
shm.buf[:] = bytes([7]) * 300_000
view, resident = shm.buf, shm.resident
other = SharedMemory.open("growing", max_size=max_size)
for size in (2 * MIB, MIB + 1, 7 * MIB):
    with unchanged(), raises(errno.ENOSPC) as caught:
        shm.resize(size)
    message = str(caught[0])
    assert f"{{size - 300_000}} bytes" in message and f"{{free_bytes()}} bytes free" in message, message
    assert SHM in message and caught[0].filename == "growing"
    assert shm.size == other.size == len(view) == len(shm.buf) == 300_000
    assert shm.stat().st_size == 300_000 and shm.resident == resident
    assert bytes(view) == bytes(shm.buf) == bytes(other.buf) == bytes([7]) * 300_000
    assert shm.max_size == max_size and not shm.readonly and not shm.closed
shm.resize(MIB)
assert shm.size == len(shm.buf) == MIB and free_bytes() == 0
shm.buf[:] = bytes([8]) * MIB
assert other.refresh() == MIB and bytes(other.buf) == bytes([8]) * MIB
assert len(view) == 300_000 and view[299_999] == 8
view.release()
"""
    run_limited(run_python, code, shm="size=1m")


def test_no_inodes_left(run_python):
    code = """
first = SharedMemory.create("first", 10)
for call in (
    lambda: SharedMemory.create("second", 10),
    lambda: SharedMemory.create("second", 10, exist_ok=True, delete=True),
    lambda: SharedMemory.create("second", 10, init=lambda buf: None),
    lambda: SharedMemory("second", create=True, size=10),
    lambda: SharedMemory.unlinked(10),
    lambda: SharedMemory.create(None, 10),
):
    with unchanged(), raises(errno.ENOSPC) as caught:
        call()
    assert "inodes" in str(caught[0]) and SHM in str(caught[0]), caught
    assert os.listdir(SHM) == ["first"]
with SharedMemory.create("first", 10, exist_ok=True) as second:
    assert not second.created
first.resize(100_000)
first.unlink()
first.close()
with SharedMemory.unlinked(10) as unnamed:
    unnamed.link("linked")
    unnamed.rename("other")  # takes no inode
    unnamed.rename("linked", replace=True)
    with SharedMemory.open("linked") as again:
        assert again.is_linked()
    assert unnamed.name == "linked" and unnamed.is_linked()
    unnamed.unlink()
"""
    run_limited(run_python, code, shm="size=1m,nr_inodes=2")


def test_growth_on_another_mount_names_that_mount(run_python, tmp_path):
    code = """
mount_tmpfs(sys.argv[1], "size=1m")
fd = os.open(f"{sys.argv[1]}/file", os.O_RDWR | os.O_CREAT)
os.truncate(fd, 10)
with SharedMemory.from_fd(fd) as shm:
    with raises(errno.ENOSPC) as caught:
        shm.resize(2 * MIB)
    message = str(caught[0])
    assert f"not {SHM}" in message and "remount" not in message, message
    assert f"{2 * MIB - 10} bytes asked for" in message, message
    assert shm.size == 10
"""
    run_limited(run_python, code, tmp_path, shm="size=4m")


def test_a_mount_without_a_limit(run_python):
    code = """
room = os.statvfs(SHM)
assert (room.f_blocks, room.f_bfree, room.f_files) == (0, 0, 0)
shm = SharedMemory.create("object", 100 * MIB)
shm.buf[-1] = 1
shm.resize(200 * MIB)
shm.buf[-1] = 1
with SharedMemory.create("other", 100 * MIB, populate=True):
    pass
"""
    run_limited(run_python, code, shm="size=0,nr_inodes=0")


@pytest.mark.parametrize("keywords", ["", ", populate=True", ", huge_pages=True"])
def test_more_memory_than_the_machine_has_on_a_mount_without_a_limit(run_python, keywords):
    code = f"""
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("1000")  # if it should be tried, then this process is the first one to go
shm = SharedMemory.anonymous(10_000, max_size=1 << 44)
unnamed = SharedMemory.unlinked(10_000)
for size in (1 << 43, 1 << 44):
    for call in (
        lambda: SharedMemory.anonymous(size{keywords}),
        lambda: SharedMemory.create("big", size{keywords}),
        lambda: SharedMemory.unlinked(size{keywords}),
        lambda: shm.resize(size),
        lambda: unnamed.resize(size),
    ):
        with unchanged(), raises(errno.ENOMEM, errno.ENOSPC) as caught:
            call()
        assert f"{{size}} bytes" in str(caught[0]) or f"{{size - 10_000}} bytes" in str(caught[0]), caught
assert shm.size == unnamed.size == 10_000
with SharedMemory.anonymous(1 << 43, reserve=False) as large:
    large.buf[-1] = 1
"""
    run_limited(run_python, code, shm="size=0,nr_inodes=0")


# -- rlimits ------------------------------------------------------------------------------------


def test_the_file_size_limit_raises_without_a_signal(run_python, name):
    code = """
import resource
name, limit = sys.argv[1], 65536
# Python ignores it; a program that embeds Python may not.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
shm = SharedMemory.create(name, 1000, max_size=10 * MIB)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
for size in (limit + 1, MIB, 2**40, 2**63 - 1):
    for call in (
        lambda **keywords: SharedMemory.create(f"{name}-big", size, **keywords),
        lambda **keywords: SharedMemory.unlinked(size, **keywords),
        lambda **keywords: SharedMemory.anonymous(size, **keywords),
    ):
        for keywords in ({}, {"reserve": False}, {"populate": True}, {"huge_pages": True}):
            # Above both limits either will do.
            other = [errno.ENOSPC, errno.ENOMEM] if size > MIB else []
            with unchanged(), raises(errno.EFBIG, *other) as caught:
                call(**keywords)
            assert "RLIMIT_FSIZE" in str(caught[0]) or caught[0].errno != errno.EFBIG, caught
            assert str(size) in str(caught[0]), caught
for other in (shm, SharedMemory.open(name)):
    with unchanged(), raises(errno.EFBIG) as caught:
        other.resize(limit + 1)
    assert "RLIMIT_FSIZE" in str(caught[0]), caught
    assert other.size == 1000 == other.stat().st_size
with SharedMemory.create(f"{name}-fits", limit) as fits:
    fits.buf[-1] = 1
    fits.unlink()
shm.resize(limit)
assert shm.size == limit and shm.buf[-1] == 0
shm.unlink()
"""
    run_limited(run_python, code, name)


def test_address_space_limit(run_python, name):
    code = """
import resource
name = sys.argv[1]
big, unnamed = 1 << 31, SharedMemory.unlinked(1)
there = SharedMemory.create(f"{name}-there", big, reserve=False, max_size=2 * big)
fd = os.open(f"{SHM}/{name}-there", os.O_RDWR)
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * posixshm.PAGESIZE
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (used + 256 * MIB, hard))
for call in (
    lambda: SharedMemory.create(f"{name}-new", big, reserve=False),
    lambda: SharedMemory.create(f"{name}-new", 10, max_size=big),
    lambda: SharedMemory.create(f"{name}-new", 10, max_size=big, exist_ok=True, delete=True),
    lambda: SharedMemory.create(f"{name}-there", 10, exist_ok=True),
    lambda: SharedMemory.unlinked(big, reserve=False),
    lambda: SharedMemory.anonymous(big, reserve=False),
    lambda: SharedMemory.open(f"{name}-there"),
    lambda: SharedMemory.open(f"{name}-there", readonly=True),
    lambda: SharedMemory.open(f"{name}-there", timeout=10),
    lambda: SharedMemory(f"{name}-there"),
    lambda: SharedMemory.from_fd(fd),
    lambda: there.map(),
    lambda: there.map(posixshm.PAGESIZE, 1 << 30, readonly=True),
    lambda: MemoryMap(fd),
    lambda: unnamed.resize(big),
):
    with unchanged(), raises(errno.ENOMEM):
        call()
assert unnamed.size == unnamed.stat().st_size == 1
assert there.stat().st_size == big and there.is_linked()
os.fstat(fd)
there.map(0, MIB)[-1] = 1
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
with SharedMemory.open(f"{name}-there") as second:
    assert second.buf[MIB - 1] == 1
there.unlink()
"""
    run_limited(run_python, code, name)


def test_no_descriptors_left(run_python, name):
    code = """
import pickle, resource
name = sys.argv[1]
shm = SharedMemory.create(name, 10_000, max_size=MIB)
plain = SharedMemory.open(name)
pickled = pickle.dumps(shm)
unnamed = SharedMemory.unlinked(10)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

def descriptors_left(count):
    # The lowest ones are given out first, up to the limit.
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    while True:
        try:
            taken.append(os.dup(0))
        except OSError:
            break
    for fd in taken[:count]:
        os.close(fd)
    return taken[count:]

def give_back(taken):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in taken:
        os.close(fd)

for call in (
    lambda: SharedMemory.create(f"{name}-new", 10),
    lambda: SharedMemory.create(f"{name}-new", 10, init=lambda buf: 1 / 0, delete=True),
    lambda: SharedMemory.create(f"{name}-new", 10, populate=True, exist_ok=True),
    lambda: SharedMemory.create(None, 10),
    lambda: SharedMemory.create(name, 10, exist_ok=True),
    lambda: SharedMemory(f"{name}-new", create=True, size=10),
    lambda: SharedMemory(name),
    lambda: SharedMemory.open(name),
    lambda: SharedMemory.open(name, readonly=True),
    lambda: SharedMemory.open(name, timeout=30),
    lambda: SharedMemory.unlinked(10),
    lambda: SharedMemory.anonymous(10),
    lambda: pickle.loads(pickled),
    lambda: posixshm.shm_open(name, os.O_RDWR),
    lambda: posixshm.shm_open(f"{name}-new", os.O_RDWR | os.O_CREAT),
    lambda: posixshm.listdir(),
    lambda: posixshm.reclaim(name),
):
    with unchanged():
        taken = descriptors_left(0)
        with raises(errno.EMFILE):
            call()
        give_back(taken)

# Calls that do not need a descriptor still work.
taken = descriptors_left(0)
mapping = shm.map()
mapping[0] = 5
shm.resize(20_000)
plain.resize(30_000)
assert plain.refresh() == 30_000 == shm.size and plain.buf[0] == 5
shm.chmod(0o640)
shm.populate()
assert shm.stat().st_size == 30_000 and shm.is_linked()
unnamed.link(f"{name}-linked")
unnamed.unlink()
plain.close()
with SharedMemory.open(name) as plain:  # one is free now
    with raises(errno.EMFILE):
        SharedMemory.open(name)
with SharedMemory.create(f"{name}-one", 10) as one:  # and one is enough
    one.unlink()
with SharedMemory.anonymous(10):
    pass
shm.unlink()
give_back(taken)
"""
    run_limited(run_python, code, name)


def test_too_many_maps(run_python, name):
    needs_plain_build("its own allocations take maps")
    with open("/proc/sys/vm/max_map_count") as file:
        limit = int(file.read())
    if limit > 3_000_000:  # Debian has 65,530, Ubuntu and Fedora 1,048,576
        cannot_be_tested(f"it would take {limit} mappings (vm.max_map_count)")
    code = """
import ctypes, mmap, pickle
name, limit = sys.argv[1], int(sys.argv[2])
shm = SharedMemory.create(name, 10_000, max_size=MIB)
unnamed = SharedMemory.unlinked(posixshm.PAGESIZE)
pickled = pickle.dumps(shm)
fd = shm.fileno()
maps = [None] * 20_000
count = 0

# Nearly all of them are the pages of one range, of which every other one has other rights.
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
most = limit - 10_000
private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
pages = libc.mmap(None, most * posixshm.PAGESIZE, posixshm.PROT_NONE, private, -1, 0)
for page in range(1, most, 2):
    rc = libc.mprotect(pages + page * posixshm.PAGESIZE, posixshm.PAGESIZE, posixshm.PROT_READ)
    assert rc == 0, ctypes.get_errno()

def fill():
    global count
    with raises(errno.ENOMEM):
        while True:
            maps[count] = MemoryMap(fd, posixshm.PAGESIZE)
            count += 1

def make_room():
    # The C library's malloc sometimes needs a mapping.
    global count
    maps[count - 50 : count] = [None] * 50
    count -= 50
    gc.collect()

before = shm_names(), sorted(os.listdir("/proc/self/fd"))
for call in (
    lambda: SharedMemory.create(f"{name}-new", 10),
    lambda: SharedMemory.create(f"{name}-new", 10, max_size=MIB, delete=True),
    lambda: SharedMemory.create(f"{name}-new", 10, init=lambda buf: 1 / 0, exist_ok=True),
    lambda: SharedMemory.create(name, 10, exist_ok=True),
    lambda: SharedMemory.open(name),
    lambda: SharedMemory.open(name, readonly=True, timeout=50),
    lambda: SharedMemory.unlinked(10),
    lambda: SharedMemory.anonymous(10),
    lambda: pickle.loads(pickled),
    lambda: shm.map(),
    lambda: unnamed.resize(100_000),
    lambda: MemoryMap(fd),
):
    fill()
    with raises(errno.ENOMEM):
        call()
    make_room()
    assert (shm_names(), sorted(os.listdir("/proc/self/fd"))) == before
assert unnamed.size == unnamed.stat().st_size == posixshm.PAGESIZE
assert shm.size == 10_000
fill()
assert count > 9_000
make_room()
shm.resize(20_000)
unnamed.resize(100_000)
SharedMemory.open(name).close()
maps[:] = []
gc.collect()
with unchanged():
    SharedMemory.open(name).close()
shm.unlink()
"""
    run_limited(run_python, code, name, limit)


@pytest.mark.parametrize("limit", [0, 8192])
def test_locked_memory_limit(run_python, name, limit):
    needs_root()  # become another user: the limit does not apply to root
    needs_plain_build("it makes mlock do nothing")
    code = """
import resource
from _processes import SOMEBODY, become
name, limit = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
become(SOMEBODY)
shm = SharedMemory.create(name, 100_000)
with unchanged(), raises(errno.ENOMEM, errno.EPERM, errno.EAGAIN):
    shm.lock_pages()
if limit:
    shm.lock_pages(0, 4096)
    shm.unlock_pages()
shm.buf[-1] = 1
shm.unlink()
"""
    run_limited(run_python, code, name, limit)
