"""Attaching: it waits for an accepted object, refuses other files, and changes nothing."""

import ctypes
import errno
import fcntl
import math
import mmap
import os
import signal
import socket
import threading
import time
from multiprocessing import resource_tracker
from multiprocessing import shared_memory as stdlib

import pytest
from _processes import PATH, SHM, SOMEBODY, needs_mounts, needs_root

try:
    import numpy as np  # imported here because it starts threads
except ImportError:
    np = None

import posixshm
from posixshm import MemoryMap, SharedMemory, shared_memory


@pytest.fixture
def path(name):
    """The path of the file of that name in /dev/shm, which the test creates."""
    path = f"{SHM}/{name}"
    yield path
    try:
        os.unlink(path)
    except IsADirectoryError:
        os.rmdir(path)


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 10_000) as shm:
        shm.buf[:5] = b"hello"
        yield shm
        shm.unlink()


def plain_file(path, size, content=b""):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    os.ftruncate(fd, size)
    os.write(fd, content)
    os.close(fd)


# -- existing objects ------------------------------------------------------------------------------


def test_a_plain_file_of_another_program_is_an_object(path, name):
    plain_file(path, 12345, b"from elsewhere")
    for slash in ("", "/"):
        with SharedMemory.open(slash + name) as shm:
            assert (shm.name, shm.size, shm.created) == (name, 12345, False)
            assert bytes(shm.buf[:14]) == b"from elsewhere"
            shm.buf[-1] = 9
    with open(path, "rb") as file:
        assert file.read()[-1] == 9


def test_other_programs_and_the_standard_library_see_the_same_bytes(shm, name):
    other = stdlib.SharedMemory(name)
    try:
        other.buf[:5] = b"HELLO"
        assert bytes(shm.buf[:5]) == b"HELLO"
    finally:
        other.close()
        # The standard library also registers attached objects for deletion.
        resource_tracker.unregister(f"/{name}", "shared_memory")
    with open(f"{SHM}/{name}", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[:5] == b"HELLO"


def test_a_name_without_an_object(name):
    for wrong in (SharedMemory.open, SharedMemory):
        with pytest.raises(FileNotFoundError) as caught:
            wrong(name)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, name)


KINDS = {
    "FIFO": (errno.EINVAL, "FIFO", os.mkfifo),
    "directory": (errno.EISDIR, "directory", os.mkdir),
    "socket": (errno.EINVAL, "socket", None),
    "symlink": (errno.ELOOP, "symbolic link", None),
    "dangling symlink": (errno.ELOOP, "symbolic link", lambda path: os.symlink("/no/such", path)),
    "symlink to a device": (
        errno.ELOOP,
        "symbolic link",
        lambda path: os.symlink("/dev/zero", path),
    ),
    "empty": (errno.ENODATA, "0 bytes", lambda path: plain_file(path, 0)),
    "device": (errno.EINVAL, "device", None),
}


def make(kind, path, target):
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
    elif kind == "symlink":
        os.symlink(target, path)
    elif kind == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    else:
        KINDS[kind][2](path)


@pytest.mark.parametrize("kind", KINDS)
def test_other_files_are_refused_at_once(kind, names):
    if kind == "device":
        needs_root()
    number, words, _ = KINDS[kind]
    name, target = names(), names()
    path = f"{SHM}/{name}"
    plain_file(f"{SHM}/{target}", 100, b"target")
    try:
        make(kind, path, target)
        before = os.lstat(path)
        constructors = [
            lambda: SharedMemory.open(name),
            lambda: SharedMemory.open(name, readonly=True),
            lambda: SharedMemory(name),
            lambda: SharedMemory.create(name, 10, exist_ok=True),
        ]
        if kind != "empty":  # open() would wait for it, and the stdlib raises ValueError
            constructors.append(lambda: SharedMemory.open(name, timeout=50))
            constructors.append(lambda: shared_memory.SharedMemory(name))
        for constructor in constructors:
            with pytest.raises(OSError, match=words) as caught:
                constructor()
            assert (caught.value.errno, caught.value.filename) == (number, name)
        if kind == "directory":
            assert isinstance(caught.value, IsADirectoryError)
        assert os.lstat(path) == before
        with open(f"{SHM}/{target}", "rb") as file:
            assert file.read(6) == b"target"
    finally:
        os.unlink(f"{SHM}/{target}")
        os.rmdir(path) if os.path.isdir(path) else os.unlink(path)


def test_a_fifo_with_a_writer_is_refused_without_reading_it(path, name):
    os.mkfifo(path)
    ours = os.open(path, os.O_RDWR)
    try:
        os.write(ours, b"unread")
        with pytest.raises(OSError, match="FIFO"):
            SharedMemory.open(name, timeout=30)
        assert os.read(ours, 10) == b"unread"
    finally:
        os.close(ours)


# -- waiting ------------------------------------------------------------------------------------


def later(*actions, after=0.2):
    """Run the actions one after the other in a thread, after a short pause each."""

    def body():
        for action in actions:
            time.sleep(after)
            action()

    thread = threading.Thread(target=body)
    thread.start()
    return thread


def test_open_waits_for_the_name_to_appear(name):
    made = []
    start = time.monotonic()
    thread = later(lambda: made.append(SharedMemory.create(name, 500)))
    with SharedMemory.open(name, timeout=60) as shm:
        assert time.monotonic() - start >= 0.2
        assert shm.size == 500
        shm.unlink()
    thread.join()
    made[0].close()


@pytest.mark.parametrize("timeout", [60, math.inf, 1e300, 10**6])
def test_open_waits_for_the_object_to_be_sized(path, name, timeout):
    # As a program that calls shm_open, ftruncate and mmap creates the object.
    thread = later(lambda: plain_file(path, 0), lambda: os.truncate(path, 300))
    with SharedMemory.open(name, timeout=timeout) as shm:
        assert shm.size == 300
    thread.join()


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("timeout", [0.001, 0.3])
def test_open_stops_waiting_at_the_timeout(name, timeout, empty):
    if empty:
        plain_file(f"{SHM}/{name}", 0)
    start = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        SharedMemory.open(name, timeout=timeout)
    assert time.monotonic() - start >= timeout
    assert (caught.value.errno, caught.value.filename) == (errno.ETIMEDOUT, name)
    if empty:
        os.unlink(f"{SHM}/{name}")


@pytest.mark.parametrize("timeout", [0, 0.5, math.inf])
def test_open_with_a_timeout_attaches_to_an_existing_object(shm, name, timeout):
    with SharedMemory.open(name, timeout=timeout) as second:
        assert bytes(second.buf[:5]) == b"hello"


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, -1, -0.001, -math.inf])
def test_a_timeout_of_zero_or_less_does_not_wait(name, timeout):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError):
        SharedMemory.open(name, timeout=timeout)
    plain_file(f"{SHM}/{name}", 0)
    with pytest.raises(OSError) as caught:
        SharedMemory.open(name, timeout=timeout)
    os.unlink(f"{SHM}/{name}")
    assert caught.value.errno == errno.ENODATA
    assert time.monotonic() - start < 5


def test_a_timeout_of_nan_is_refused_before_looking(name):
    with pytest.raises(ValueError, match="timeout"):
        SharedMemory.open(name, timeout=math.nan)


def test_open_without_a_limit_waits_for_the_name(start_python, name):
    code = """
        import sys
        from posixshm import SharedMemory
        print("begins", flush=True)
        with SharedMemory.open(sys.argv[1], timeout=None) as shm:
            print(shm.size, flush=True)
    """
    child = start_python(code, name)
    child.hear("begins")
    with SharedMemory.create(name, 321) as shm:
        child.hear("321")
        child.finish()
        shm.unlink()


def test_other_threads_run_while_open_waits(name):
    ticks = []
    done = threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        SharedMemory.open(name, timeout=0.5)
    end = time.monotonic()
    done.set()
    thread.join()
    quarter = (end - start) / 4
    assert any(start + quarter < tick < end - quarter for tick in ticks)


@pytest.mark.parametrize("timeout", ["30", "math.inf"])
def test_ctrl_c_ends_the_wait(start_python, name, timeout):
    code = f"""
        import math, sys
        from _processes import unchanged
        from posixshm import SharedMemory
        with unchanged():
            print("waiting", flush=True)
            try:
                SharedMemory.open(sys.argv[1], timeout={timeout})
            except KeyboardInterrupt:
                print("interrupted")
    """
    child = start_python(code, name, env=PATH)
    child.hear("waiting")
    time.sleep(0.3)
    child.signal(signal.SIGINT)
    child.hear("interrupted", timeout=20)
    child.finish()


# -- nothing changes ----------------------------------------------------------------------------


def state(name):
    status = os.stat(f"{SHM}/{name}")
    # Except the access time, which reading from a mapping may set.
    return [
        getattr(status, field)
        for field in dir(status)
        if field.startswith("st_") and "atime" not in field
    ]


CONSTRUCTORS = [
    "SharedMemory.open(name)",
    "SharedMemory.open(name, readonly=True)",
    "SharedMemory.open(name, max_size=1 << 30)",
    "SharedMemory.open(name, timeout=10)",
    "SharedMemory(name)",
    "SharedMemory(name, size=5)",
    "SharedMemory.create(name, 5000, exist_ok=True)",
    "SharedMemory.create(name, 5000, exist_ok=True, delete=True)",
    "SharedMemory.create(name, 5000, mode=0o666, exist_ok=True, populate=True)",
    "shared_memory.SharedMemory(name)",
    "pickle.loads(pickled)",
]


@pytest.mark.long
@pytest.mark.parametrize("end", ["shm.close()", "del shm", "pass", "sys.exit()", "os._exit(0)"])
def test_attaching_reading_and_closing_changes_nothing(shm, name, start_python, end):
    before = state(name)
    code = f"""
        import os, pickle, sys
        from posixshm import SharedMemory, shared_memory
        name = sys.argv[1]
        with SharedMemory.open(name) as shm:
            pickled = pickle.dumps(shm)
        for constructor in {CONSTRUCTORS}:
            child = os.fork()
            if child == 0:
                shm = eval(constructor)
                assert bytes(shm.buf[:5]) == b"hello" and shm.size == 10_000
                {end}
                sys.exit()
            assert os.waitpid(child, 0)[1] == 0, constructor
            os.write(1, b"look\\n")
            sys.stdin.readline()
    """
    child = start_python(code, name)
    for constructor in CONSTRUCTORS:
        child.hear("look")
        assert state(name) == before, constructor
        child.say("on")
    child.finish()
    assert state(name) == before
    assert shm.is_linked()


def test_a_size_is_not_rounded_up_to_pages(shm, name):
    with SharedMemory(name) as second:
        assert len(second.buf) == second.size == 10_000


# -- read-only ----------------------------------------------------------------------------------


def test_a_read_only_object_cannot_be_written_in_any_way(shm, name):
    with SharedMemory.open(name, readonly=True) as second:
        assert second.readonly and not second.created
        assert fcntl.fcntl(second.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert second.buf.readonly and memoryview(second).readonly
        with pytest.raises(TypeError):
            second.buf[0] = 1
        with pytest.raises(TypeError):
            ctypes.c_char.from_buffer(second)
        for array in np is not None and (
            np.ndarray(10, "B", second),
            np.ndarray(10, "B", second.buf),
            np.frombuffer(second, "B"),
            np.asarray(second.buf),
        ):
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="WRITEABLE|writeable"):
                array.flags.writeable = True
        for mapping in (second.map(), second.map(4096, 100), second.map(readonly=True)):
            assert mapping.readonly and memoryview(mapping).readonly
        with pytest.raises(PermissionError):
            second.map(readonly=False)
        with pytest.raises(PermissionError):
            second.protect(posixshm.PROT_READ | posixshm.PROT_WRITE)
        with pytest.raises(PermissionError):
            MemoryMap(second.fileno())
        for refused in (lambda: second.resize(20_000), lambda: second.resize(10, shrink=True)):
            with pytest.raises(OSError) as caught:
                refused()
            assert caught.value.errno in (errno.EBADF, errno.EINVAL, errno.EACCES, errno.EPERM)
        assert os.stat(f"{SHM}/{name}").st_size == 10_000
    assert bytes(shm.buf[:5]) == b"hello"


@pytest.mark.parametrize(
    "exporter",
    [
        "SharedMemory.open(name, readonly=True)",
        "SharedMemory.open(name, readonly=True, max_size=1 << 20)",
        "SharedMemory.open(name, readonly=True).buf",
        "SharedMemory.open(name, readonly=True).map()",
        "SharedMemory.open(name).map(readonly=True)",
        "MemoryMap(os.open('/dev/shm/' + name, os.O_RDWR), readonly=True)",
        "pickle.loads(pickle.dumps(SharedMemory.open(name, readonly=True)))",
        "protected(SharedMemory.open(name))",
    ],
)
def test_a_write_to_read_only_pages_kills_the_writer(shm, name, run_python, exporter):
    code = f"""
        import ctypes, os, pickle, resource, sys
        from _processes import address_of
        from posixshm import MemoryMap, PROT_READ, SharedMemory

        def protected(shm):
            shm.protect(PROT_READ)
            return shm

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        name = sys.argv[1]
        exporter = {exporter}
        address = address_of(exporter)
        assert ctypes.string_at(address, 5) == b"hello"
        print("read it", flush=True)
        ctypes.memset(address, 0, 1)
        print("wrote it")
    """
    status, out, _ = run_python(code, name, env=PATH, check=False)
    assert (status, out) == (-signal.SIGSEGV, "read it\n")
    assert bytes(shm.buf[:5]) == b"hello"


def test_an_object_without_write_permission_can_be_read(run_python, name):
    needs_root()
    code = """
        import errno, sys
        from _processes import SOMEBODY, become, raises, unchanged
        from posixshm import SharedMemory
        become(SOMEBODY)
        with unchanged(), raises(errno.EACCES):
            SharedMemory.open(sys.argv[1])
        with SharedMemory.open(sys.argv[1], readonly=True) as shm:
            assert bytes(shm.buf[:3]) == b"abc"
    """
    with SharedMemory.create(name, 100, mode=0o444) as shm:
        shm.buf[:3] = b"abc"
        run_python(code, name, env=PATH)
        shm.unlink()


# -- locks that others hold ---------------------------------------------------------------------


HOSTILE = """
    import fcntl, os, sys
    from _processes import become, SOMEBODY
    name = sys.argv[1]
    become(SOMEBODY)
    fd = os.open(f"/dev/shm/{name}", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_lock_of_another_user_does_not_prevent_attaching(start_python, name):
    needs_root()
    SharedMemory.create(name, 100, mode=0o644).close()  # without a use lock of this process
    hostile = start_python(HOSTILE, name, env=PATH)
    hostile.hear("locked")
    start = time.monotonic()
    for _ in range(20):
        with SharedMemory.open(name) as shm, SharedMemory.open(name, readonly=True) as other:
            assert not shm.holds_use_lock and not other.holds_use_lock
            assert "without a use lock" in repr(shm)
        with SharedMemory.create(name, 100, exist_ok=True) as shm:
            assert not shm.created and not shm.holds_use_lock
    assert time.monotonic() - start < 30
    with SharedMemory.open(name) as shm:
        assert [each.state for each in posixshm.reclaim(name)] == ["in use"]
        shm.resize(200)
        with SharedMemory.from_fd(os.dup(shm.fileno())) as copy:
            assert not copy.holds_use_lock
    hostile.finish()
    with SharedMemory.open(name) as shm:
        assert shm.holds_use_lock and "use lock" not in repr(shm)
        shm.unlink()
    assert not shm.holds_use_lock


# -- owners -------------------------------------------------------------------------------------


def test_exist_ok_refuses_an_object_of_another_user(start_python, name):
    needs_root()
    code = """
        import os, sys
        from _processes import SOMEBODY, become
        from posixshm import SharedMemory
        become(SOMEBODY)
        SharedMemory.create(sys.argv[1], 100, mode=0o666).close()
        SharedMemory.create(sys.argv[1], 100, mode=0o666, exist_ok=True).close()
        print("made", flush=True)
    """
    start_python(code, name, env=PATH).hear("made")
    for owner in ({}, {"owner": "self"}, {"owner": 0}, {"owner": "root"}, {"owner": {0, 1}}):
        with pytest.raises(PermissionError, match=str(SOMEBODY)) as caught:
            SharedMemory.create(name, 100, exist_ok=True, **owner)
        assert (caught.value.errno, caught.value.filename) == (errno.EACCES, name)
    for owner in ("any", SOMEBODY, {SOMEBODY}, [1, SOMEBODY], ("root", SOMEBODY)):
        with SharedMemory.create(name, 100, exist_ok=True, owner=owner) as shm:
            assert not shm.created and shm.uid == SOMEBODY
    # An object that the call itself would make for that user is accepted.
    with SharedMemory.create(name, 100, exist_ok=True, uid=SOMEBODY) as shm:
        assert not shm.created
    with pytest.raises(PermissionError):
        SharedMemory.create(name, 100, exist_ok=True, uid=SOMEBODY, owner="self")
    posixshm.shm_unlink(name)


def test_open_accepts_the_owners_of_its_argument(start_python, name):
    needs_root()
    with SharedMemory.create(name, 100, mode=0o666, uid=SOMEBODY) as shm:
        for owner in ({}, {"owner": "any"}, {"owner": SOMEBODY}, {"owner": {0, SOMEBODY}}):
            SharedMemory.open(name, **owner).close()
        for owner in ("self", 0, "root", [0, 1]):
            with pytest.raises(PermissionError, match=str(SOMEBODY)):
                SharedMemory.open(name, owner=owner, timeout=60)
        shm.chown(0)
        SharedMemory.open(name, owner="root").close()
        code = """
            import sys
            from _processes import SOMEBODY, become
            from posixshm import SharedMemory
            become(SOMEBODY)
            SharedMemory.open(sys.argv[1], owner="self").close()
            SharedMemory.create(sys.argv[1], 10, exist_ok=True).close()
            try:
                SharedMemory.open(sys.argv[1], owner=SOMEBODY)
            except PermissionError:
                print("refused", flush=True)
        """
        start_python(code, name, env=PATH).hear("refused")  # root is trusted, but not named
        shm.unlink()


def test_a_refused_object_is_not_changed(name):
    needs_root()
    with SharedMemory.create(name, 100, uid=SOMEBODY) as shm:
        before = shm.stat()
        with pytest.raises(PermissionError):
            SharedMemory.open(name, owner=0)
        assert shm.stat() == before
        descriptors = len(os.listdir("/proc/self/fd"))
        with pytest.raises(PermissionError):
            SharedMemory.open(name, owner=0)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        shm.unlink()


def test_a_second_user_attaches_and_has_a_use_lock(start_python, name):
    needs_root()
    code = """
        import sys
        from _processes import SOMEBODY, become
        from posixshm import SharedMemory
        become(SOMEBODY)
        shm = SharedMemory.open(sys.argv[1], readonly=True)
        print("attached", flush=True)
        sys.stdin.read()
    """
    SharedMemory.create(name, 100, mode=0o604).close()
    child = start_python(code, name, env=PATH)
    child.hear("attached")
    assert [each.state for each in posixshm.reclaim(name)] == ["in use"]
    child.finish()
    assert [each.removed for each in posixshm.reclaim(name)] == [True]
    assert SOMEBODY != os.geteuid()


# -- sparse objects -----------------------------------------------------------------------------


@pytest.mark.parametrize("readonly", [False, True])
def test_reserve_allocates_a_sparse_object_or_raises_enospc(
    run_python, name, readonly
):
    needs_mounts()
    code = """
        import errno, os, sys
        from _processes import private_shm
        from posixshm import SharedMemory
        private_shm("size=2m")
        name, readonly = sys.argv[1], sys.argv[2] == "True"
        size = 1 << 20
        with open(f"/dev/shm/{name}", "wb") as file:  # as the standard library makes it
            file.truncate(size)
        with SharedMemory.open(name, readonly=readonly) as shm:
            assert shm.stat().st_blocks == 0
        with SharedMemory.open(name, readonly=readonly, reserve=True) as shm:
            assert shm.stat().st_blocks * 512 == size == shm.size
            with SharedMemory.create(f"{name}-full", size - (64 << 10)) as full:
                SharedMemory.open(name, readonly=readonly, reserve=True).close()  # it has it
                with open(f"/dev/shm/{name}-sparse", "wb") as file:
                    file.truncate(size)
                try:
                    SharedMemory.open(f"{name}-sparse", readonly=readonly, reserve=True)
                except OSError as error:
                    assert error.errno == errno.ENOSPC and "free" in error.strerror, error
                else:
                    raise AssertionError("reserved")
    """
    run_python(code, name, readonly, env=PATH)


@pytest.mark.parametrize("readonly", [False, True])
def test_a_failed_reservation_does_not_fill_the_mount(run_python, name, readonly):
    needs_mounts()
    code = """
        import errno, os, sys
        from _processes import private_shm
        from posixshm import SharedMemory
        private_shm("size=200m")
        name, readonly = sys.argv[1], sys.argv[2] == "True"
        with open(f"/dev/shm/{name}", "wb") as file:
            file.truncate(300 << 20)
        before = os.statvfs("/dev/shm").f_bavail
        try:
            SharedMemory.open(name, readonly=readonly, reserve=True)
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            assert f"{300 << 20} bytes asked for" in error.strerror, error
        else:
            raise AssertionError("reserved")
        assert os.statvfs("/dev/shm").f_bavail == before
    """
    run_python(code, name, readonly, env=PATH)


# -- missing directories and sizes --------------------------------------------------------------


def test_the_error_without_dev_shm_names_it(run_python, name):
    needs_mounts()
    code = """
        import errno, os, subprocess, sys
        from _processes import private_shm
        from posixshm import SharedMemory
        private_shm()
        subprocess.run(["mount", "-t", "tmpfs", "none", "/dev"], check=True)
        name = sys.argv[1]
        for constructor in (
            lambda: SharedMemory.open(name),
            lambda: SharedMemory(name),
            lambda: SharedMemory.create(name, 10),
            lambda: SharedMemory(name, create=True, size=10),
            lambda: SharedMemory.unlinked(10),
        ):
            try:
                constructor()
            except FileNotFoundError as error:
                assert "/dev/shm for shared memory does not exist" in error.strerror, error
            else:
                raise AssertionError("there is one")
        assert SharedMemory.anonymous(10).size == 10
    """
    run_python(code, name, env=PATH)


def test_exist_ok_waits_for_another_program_to_size_its_object(path, name):
    thread = later(lambda: plain_file(path, 0), lambda: os.truncate(path, 300))
    while not os.path.exists(path):
        time.sleep(0.001)
    with SharedMemory.create(name, 100, exist_ok=True) as shm:
        assert shm.size == 300 and not shm.created
    thread.join()


def test_the_error_for_an_existing_name_lists_its_users(start_python, name):
    code = """
        import sys
        from posixshm import SharedMemory
        shm = SharedMemory.create(sys.argv[1], 100)
        print("made", flush=True)
        sys.stdin.read()
    """
    child = start_python(code, name)
    child.hear("made")
    with pytest.raises(FileExistsError, match=str(child.pid)) as caught:
        SharedMemory.create(name, 100)
    assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, name)
    child.finish()
    with pytest.raises(FileExistsError):
        SharedMemory.create(name, 100)
    posixshm.shm_unlink(name)


# -- required seals -----------------------------------------------------------------------------


def test_from_fd_takes_only_an_object_with_the_seals(name):
    shrink, grow = posixshm.F_SEAL_SHRINK, posixshm.F_SEAL_GROW
    shm = SharedMemory.anonymous(100)
    SharedMemory.from_fd(os.dup(shm.fileno()), require_seals=shrink).close()
    fd = os.dup(shm.fileno())
    with pytest.raises(PermissionError, match="seals") as caught:
        SharedMemory.from_fd(fd, require_seals=shrink | grow)
    assert caught.value.errno == errno.EPERM
    shm.add_seals(grow)
    SharedMemory.from_fd(fd, require_seals=shrink | grow).close()
    with SharedMemory.create(name, 100) as named:
        fd = os.dup(named.fileno())
        with pytest.raises(PermissionError, match="seals"):
            SharedMemory.from_fd(fd, require_seals=shrink)
        os.close(fd)
        with pytest.raises(PermissionError, match="Named objects cannot be sealed"):
            named.add_seals(shrink)
        named.unlink()


# -- paths --------------------------------------------------------------------------------------


def test_path_and_exists(name, names):
    assert not posixshm.exists(name)
    with SharedMemory.create(name, 5) as shm:
        assert posixshm.exists(name) and posixshm.exists("/" + name)
        shm.buf[:] = b"bytes"
        assert shm.path == os.fspath(shm) == f"{SHM}/{name}"
        with open(shm, "rb") as file:
            assert file.read() == b"bytes"
        other = names()
        shm.rename(other)
        assert shm.path == f"{SHM}/{other}" and not posixshm.exists(name)
        shm.unlink()
    os.mkdir(f"{SHM}/{name}")
    assert not posixshm.exists(name)
    os.rmdir(f"{SHM}/{name}")
    nameless = SharedMemory.unlinked(5)
    assert nameless.path is None
    with pytest.raises(ValueError, match="no name"):
        os.fspath(nameless)
    for wrong in ("", "a/b", "x" * 256):
        with pytest.raises(ValueError):
            posixshm.exists(wrong)
