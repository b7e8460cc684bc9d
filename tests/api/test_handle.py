"""SharedMemory: constructors, names, attributes and closing."""

import copy
import errno
import fcntl
import gc
import mmap
import os
import socket
import stat
import time
import weakref

import numpy as np
import pytest
from _handles import USES
from _processes import PATH, cannot_be_tested, needs_root, shm_names

import posixshm
from posixshm import PAGESIZE, PROT_NONE, PROT_READ, PROT_WRITE, MemoryMap, SharedMemory

READ_WRITE = PROT_READ | PROT_WRITE
SHM = "/dev/shm/"


def exists(name):
    return os.path.lexists(SHM + name)


def maps_of(inode):
    """The number of mappings of the object in this process."""
    with open("/proc/self/maps") as maps:
        return sum(line.split()[4] == str(inode) for line in maps if "shm" in line)


@pytest.fixture
def shm(name):
    """A named object of 1000 bytes."""
    with SharedMemory.create(name, 1000, delete=True) as handle:
        yield handle


@pytest.fixture(params=["create", "init", "open", "anonymous", "unlinked", "from_fd"])
def any_handle(request, name):
    """A writable handle of 1000 bytes, from each constructor."""
    owner = None
    if request.param in ("open", "from_fd"):
        owner = SharedMemory.create(name, 1000, delete=True)
    constructors = {
        "create": lambda: SharedMemory.create(name, 1000),
        "init": lambda: SharedMemory(name, True, 1000),
        "open": lambda: SharedMemory.open(name),
        "anonymous": lambda: SharedMemory.anonymous(1000),
        "unlinked": lambda: SharedMemory.unlinked(1000),
        "from_fd": lambda: SharedMemory.from_fd(os.dup(owner.fileno())),
    }
    handle = constructors[request.param]()
    yield handle
    handle.close()
    if owner is not None:
        owner.close()
    elif exists(name):
        os.unlink(SHM + name)


# -- create -------------------------------------------------------------------------------------


def test_create(name):
    shm = SharedMemory.create(name, 5000)
    assert shm.name == name
    assert shm.size == len(shm.buf) == 5000
    assert shm.created and not shm.closed and not shm.readonly
    assert shm.max_size is None
    assert shm.buf.tobytes() == bytes(5000)
    assert os.stat(SHM + name).st_size == 5000
    shm.unlink()
    assert not exists(name)
    shm.close()


def test_a_leading_slash_is_dropped(name):
    with SharedMemory.create("/" + name, 10, delete=True) as shm:
        assert shm.name == name
        with SharedMemory.open("/" + name) as other, SharedMemory.open(name) as third:
            assert other.name == third.name == name


def test_create_without_a_name_generates_one():
    with (
        SharedMemory.create(None, 10, delete=True) as one,
        SharedMemory.create(None, 10, delete=True) as two,
    ):
        assert one.name != two.name
        assert one.name.startswith("psm_") and exists(one.name)
        assert one.created


def test_memory_is_reserved(name):
    """With reserve (the default) the blocks are allocated at creation; without it, at the first
    write."""
    size = 64 * PAGESIZE
    with SharedMemory.create(name, size, delete=True) as shm:
        assert shm.stat().st_blocks * 512 >= size
    with SharedMemory.create(name, size, reserve=False, delete=True) as shm:
        assert shm.stat().st_blocks * 512 < size
        shm.buf[size - 1] = 1
    for make in (SharedMemory.anonymous, SharedMemory.unlinked):
        with make(size) as shm:
            assert shm.stat().st_blocks * 512 >= size
        with make(size, reserve=False) as shm:
            assert shm.stat().st_blocks * 512 < size


def test_populate_and_huge_pages(name):
    size = 64 * PAGESIZE
    with SharedMemory.create(name, size, populate=True, delete=True) as shm:
        assert shm.resident == size
        assert shm.buf.tobytes() == bytes(size)
    for make in (SharedMemory.anonymous, SharedMemory.unlinked):
        with make(size, populate=True, huge_pages=True) as shm:
            assert shm.resident == size
    with SharedMemory.create(name, 4 << 20, huge_pages=True, delete=True) as shm:
        shm.buf[0] = shm.buf[-1] = 1
    with SharedMemory.anonymous(size, populate=True, reserve=False, max_size=4 * size) as shm:
        assert shm.size == size
        assert shm.buf.tobytes() == bytes(size)


def descriptors():
    """The open descriptors of this process."""
    numbers = [int(number) for number in os.listdir("/proc/self/fd")]
    return {number for number in numbers if os.path.exists(f"/proc/self/fd/{number}")}


def test_one_descriptor_for_a_handle(name):
    before = descriptors()
    with SharedMemory.create(name, 10, delete=True) as shm:
        assert descriptors() - before == {shm.fileno()}
        assert shm.fileno() > 2
        assert not os.get_inheritable(shm.fileno())


# -- init= --------------------------------------------------------------------------------------


def test_init_that_creates_the_name_itself_with_delete(name):
    def race(buf):
        SharedMemory.create(name, 33).close()

    with pytest.raises(FileExistsError):
        SharedMemory.create(name, 100, init=race, delete=True)
    gc.collect()
    with SharedMemory.open(name) as shm:
        assert shm.size == 33
        shm.unlink()


def test_init_must_be_callable(name):
    with pytest.raises(TypeError, match="init"):
        SharedMemory.create(name, 10, init=b"bytes")
    assert not exists(name)


# -- exist_ok -----------------------------------------------------------------------------------


def test_created_is_true_for_the_creator_only(name):
    with SharedMemory.create(name, 100, exist_ok=True) as first:
        assert first.created
        first.buf[0] = 42
        for size in (1, 50, 100):
            with SharedMemory.create(name, size, exist_ok=True) as second:
                assert not second.created
                assert second.size == 100
                assert second.buf[0] == 42
        first.unlink()


def test_exist_ok_and_delete_delete_only_what_was_created(shm):
    SharedMemory.create(shm.name, 10, exist_ok=True, delete=True).close()
    gc.collect()
    assert shm.is_linked()


def test_exist_ok_leaves_mode_and_owner(shm):
    shm.chmod(0o644)
    with SharedMemory.create(shm.name, 10, exist_ok=True, mode=0o600) as other:
        assert other.mode == shm.mode == 0o644


# -- delete= ------------------------------------------------------------------------------------


def test_delete_by_close(name):
    shm = SharedMemory.create(name, 10, delete=True)
    assert exists(name)
    shm.close()
    assert not exists(name)
    shm.close()


def test_delete_by_leaving_the_context(name):
    with pytest.raises(ZeroDivisionError), SharedMemory.create(name, 10, delete=True):
        1 / 0  # noqa: B018
    assert not exists(name)


def test_delete_by_the_collector(name):
    class Sub(SharedMemory):
        pass

    shm = Sub.create(name, 10, delete=True)
    shm.self = shm
    del shm
    gc.collect()
    assert not exists(name)


def test_delete_leaves_another_object_of_that_name(name):
    shm = SharedMemory.create(name, 10, delete=True)
    shm.unlink()
    with SharedMemory.create(name, 20) as other:
        shm.close()
        del shm
        gc.collect()
        assert other.is_linked()
        other.unlink()


def test_delete_when_the_name_is_gone_raises_nothing(name):
    shm = SharedMemory.create(name, 10, delete=True)
    os.unlink(SHM + name)
    shm.close()


def test_delete_follows_a_rename(name, names):
    other = names()
    with SharedMemory.create(name, 10, delete=True) as shm:
        shm.rename(other)
        assert exists(other) and not exists(name)
    assert not exists(other)


def test_detach_cancels_delete(name):
    shm = SharedMemory.create(name, 10, delete=True)
    os.close(shm.detach())
    del shm
    gc.collect()
    assert exists(name)
    os.unlink(SHM + name)


# -- open ---------------------------------------------------------------------------------------


def test_attaching_changes_nothing(shm):
    def state():
        status = shm.stat()
        return status.st_size, status.st_mode, status.st_nlink, status.st_uid, status.st_ctime_ns

    before, names = state(), shm_names()
    for _ in range(3):
        SharedMemory.open(shm.name).close()
        SharedMemory.open(shm.name, readonly=True).close()
        SharedMemory(shm.name).close()
    gc.collect()
    assert state() == before
    assert shm_names() == names


# -- open(timeout=) -----------------------------------------------------------------------------


def test_open_continues_to_wait_after_a_signal(start_python, name):
    child = start_python(
        """
        import signal, sys
        from posixshm import SharedMemory
        signal.signal(signal.SIGUSR1, lambda *args: print("signal", flush=True))
        print("waiting", flush=True)
        SharedMemory.open(sys.argv[1], timeout=60).unlink()
        print("attached")
        """,
        name,
    )
    child.hear("waiting")
    for _ in range(3):
        time.sleep(0.02)
        child.signal(10)
        child.hear("signal")
    SharedMemory.create(name, 10).close()
    assert child.finish()[1] == "attached\n"
    assert not exists(name)


# -- the constructor of the standard library ----------------------------------------------------


def test_constructor_creates_and_attaches(name):
    with SharedMemory(name, create=True, size=100) as shm:
        assert shm.created and shm.size == 100 and shm.name == name
        with SharedMemory(name) as other, SharedMemory(name=name, create=False, size=5) as third:
            assert not other.created and other.size == third.size == 100
        with pytest.raises(FileExistsError):
            SharedMemory(name, True, 100)
        shm.unlink()


def test_constructor_generates_a_name():
    with SharedMemory(create=True, size=10) as shm:
        assert shm.name.startswith("psm_")
        shm.unlink()


def test_constructor_without_a_name():
    with pytest.raises(ValueError, match="name"):
        SharedMemory()
    with pytest.raises(ValueError, match="size"):
        SharedMemory(create=True)
    with pytest.raises(ValueError, match="size"):
        SharedMemory(create=True, size=0)


# -- anonymous and unnamed ----------------------------------------------------------------------


def test_anonymous():
    with SharedMemory.anonymous(5000) as shm:
        assert shm.name is None
        assert shm.created and not shm.readonly
        assert shm.size == len(shm.buf) == 5000
        assert shm.seals & posixshm.F_SEAL_SHRINK
        assert not shm.is_linked()
        assert shm.mode & 0o600
        assert os.readlink(f"/proc/self/fd/{shm.fileno()}").startswith("/memfd:posixshm")
        assert not os.get_inheritable(shm.fileno()) and shm.fileno() > 2


def test_anonymous_label():
    with SharedMemory.anonymous(10, name="a label: ü") as shm:
        assert "a label: ü" in os.readlink(f"/proc/self/fd/{shm.fileno()}")
        assert shm.name is None
    SharedMemory.anonymous(10, name="").close()
    SharedMemory.anonymous(10, name="a" * 249).close()
    for label in ("a" * 250, "a\0b", "\ud800", "ü" * 125):
        with pytest.raises(ValueError, match="name"):
            SharedMemory.anonymous(10, name=label)


def test_anonymous_cannot_be_linked_or_renamed(name):
    with SharedMemory.anonymous(10) as shm:
        with pytest.raises(OSError) as caught:
            shm.link(name)
        assert caught.value.errno == errno.EXDEV
        with pytest.raises(ValueError):
            shm.rename(name)
        with pytest.raises(ValueError):
            shm.unlink()
    assert not exists(name)


def test_unnamed_until_it_is_linked(name):
    names = shm_names()
    with SharedMemory.unlinked(100, mode=0o640) as shm:
        assert shm_names() == names
        assert shm.name is None and shm.created and not shm.is_linked()
        assert shm.mode == 0o640
        with pytest.raises(ValueError):
            shm.unlink()
        with pytest.raises(ValueError):
            shm.rename(name)
        shm.buf[:3] = b"abc"
        shm.link("/" + name)
        assert shm.name == name and shm.is_linked()
        with SharedMemory.open(name) as other:
            assert other.buf[:3].tobytes() == b"abc"
            assert other.size == 100 and other.mode == 0o640
        shm.unlink()
        assert not shm.is_linked() and not exists(name)


def test_link_is_exclusive(name):
    with SharedMemory.create(name, 10, delete=True) as first, SharedMemory.unlinked(20) as second:
        with pytest.raises(FileExistsError) as caught:
            second.link(name)
        assert caught.value.filename == name
        assert second.name is None
        assert first.is_linked() and not second.is_linked()
        second.link(name, replace=True)
        assert second.is_linked() and not first.is_linked()
        with SharedMemory.open(name) as other:
            assert other.size == 20
        with pytest.raises(FileNotFoundError):
            first.unlink()
        second.unlink()


def test_link_only_once(name, names):
    other = names()
    with SharedMemory.unlinked(10) as shm:
        shm.link(name)
        with pytest.raises(ValueError, match=name):
            shm.link(other)
        assert not exists(other)
        shm.unlink()


def test_an_object_whose_name_was_removed_is_linked_from_another_name(name, names):
    second, third = names(), names()
    shm = SharedMemory.create(name, 100)
    shm.buf[0] = 7
    os.link(SHM + name, SHM + second)
    os.unlink(SHM + name)  # as RemoveIPC of systemd does
    assert not shm.is_linked()
    shm.link(name)
    assert shm.is_linked() and shm.name == name
    with pytest.raises(ValueError, match="rename"):
        shm.link(third)
    os.unlink(SHM + name)
    shm.link(third)
    with SharedMemory.open(third) as other:
        assert shm.name == third and other.buf[0] == 7
    shm.unlink()
    os.unlink(SHM + second)


def test_delete_follows_an_object_that_is_linked_again(name, names):
    second, third = names(), names()
    with SharedMemory.create(name, 100, delete=True) as shm:
        os.rename(SHM + name, SHM + second)
        shm.link(third)
    assert not exists(third) and exists(second)
    os.unlink(SHM + second)


@pytest.mark.parametrize("replace", [False, True])
def test_an_object_that_lost_its_last_name_cannot_be_linked(name, replace):
    shm = SharedMemory.create(name, 100)
    shm.buf[:3] = b"abc"
    os.unlink(SHM + name)
    with pytest.raises(FileNotFoundError, match="copy") as caught:
        shm.link(name, replace)
    assert caught.value.filename == name
    copy = SharedMemory.unlinked(shm.size)  # as the error suggests
    copy.buf[:] = shm.buf
    copy.link(name)
    with SharedMemory.open(name) as other:
        assert bytes(other.buf[:3]) == b"abc"
    copy.unlink()


@pytest.mark.parametrize("who", ["user", "root of a user namespace"])
def test_a_refused_replace_does_not_change_the_object(run_python, name, names, who):
    needs_root()
    spare = names()
    code = """
        import errno, os, subprocess, sys
        from _processes import SHM, SOMEBODY, become
        from posixshm import SharedMemory
        name, spare, who = sys.argv[1:]
        become(SOMEBODY)
        if who != "user" and SharedMemory.create(spare, 1).unlink() is None:
            import ctypes
            if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) != 0:  # CLONE_NEWUSER
                print("no user namespaces")
                sys.exit()
            for file, line in (("setgroups", "deny"), ("uid_map", f"0 {SOMEBODY} 1")):
                with open(f"/proc/self/{file}", "w") as out:
                    out.write(line)
            assert os.geteuid() == 0
        shm = SharedMemory.unlinked(100)
        for _ in range(2):
            try:
                shm.link(name, replace=True)
            except PermissionError as error:
                assert error.filename == name
            else:
                raise AssertionError("it was not refused")
            assert shm.name is None
            assert not [each for each in os.listdir(SHM) if each.startswith(name + "~")]
        shm.link(spare, replace=True)
        assert shm.is_linked()
        try:
            shm.rename(name, replace=True)
        except PermissionError:
            pass
        assert shm.is_linked() and shm.name == spare
        shm.unlink()
        print("refused")
    """
    with SharedMemory.create(name, 10, mode=0o666) as shm:
        said = run_python(code, name, spare, who, env=PATH)
        if said.strip() == "no user namespaces":
            cannot_be_tested(said)
        assert said.strip() == "refused"
        assert shm.is_linked()
        shm.unlink()


def test_only_one_of_many_threads_links(names, run_threads):
    wanted = [names() for _ in range(8)]
    for _ in range(20):
        shm = SharedMemory.unlinked(10)

        def link(name, shm=shm):
            try:
                shm.link(name)
            except (ValueError, BufferError):
                return None
            return name

        won = [name for name in run_threads(*[lambda n=n: link(n) for n in wanted]) if name]
        there = [name for name in wanted if exists(name)]
        shm.close()
        for name in there:
            os.unlink(SHM + name)
        assert len(there) == 1
        assert won == there
        assert shm.name == there[0]


def test_unnamed_leaves_nothing(name):
    names = shm_names()
    shm = SharedMemory.unlinked(100)
    view = shm.buf
    del shm
    gc.collect()
    view[0] = 1
    assert shm_names() == names


# -- from_fd ------------------------------------------------------------------------------------


def test_from_fd(shm):
    shm.buf[:3] = b"abc"
    fd = os.dup(shm.fileno())
    with SharedMemory.from_fd(fd) as other:
        assert other.fileno() == fd
        assert other.name is None and not other.created and not other.readonly
        assert other.size == 1000
        assert other.buf[:3].tobytes() == b"abc"
        assert not os.get_inheritable(fd)
        assert not other.is_linked()
        with pytest.raises(ValueError):
            other.unlink()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_from_fd_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"on a disk")
    with SharedMemory.from_fd(os.open(path, os.O_RDWR)) as shm:
        assert shm.buf.tobytes() == b"on a disk"
        shm.buf[0] = ord("O")
        shm.sync()
    assert path.read_bytes() == b"On a disk"


def test_from_fd_of_a_read_only_descriptor_is_read_only(shm):
    with SharedMemory.from_fd(os.open(SHM + shm.name, os.O_RDONLY)) as reader:
        assert reader.readonly and reader.buf.readonly
    with SharedMemory.from_fd(os.dup(shm.fileno()), readonly=True) as reader:
        assert reader.readonly and reader.buf.readonly
    with SharedMemory.from_fd(os.dup(shm.fileno()), readonly=False) as writer:
        assert not writer.readonly


def test_from_fd_of_a_write_sealed_object_is_read_only():
    fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.write(fd, b"abc")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with SharedMemory.from_fd(fd) as shm:
        assert shm.readonly
        assert shm.buf.tobytes() == b"abc"
        assert shm.seals & fcntl.F_SEAL_WRITE


def lockable(path):
    """Return whether no process has a lock on the descriptor."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_a_failed_from_fd_does_not_close_the_descriptor(name):
    """The descriptor still belongs to the caller and does not have a use lock."""
    path = SHM + name
    with open(path, "wb") as file:
        file.write(bytes(1000))
    reader, writer = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
    os.set_inheritable(reader, True)
    for fd, options in [
        (reader, {"readonly": False}),
        (writer, {}),
        (writer, {"readonly": True}),
    ]:
        with pytest.raises(PermissionError):
            SharedMemory.from_fd(fd, **options)
        os.fstat(fd)
    with pytest.raises(ValueError, match="max_size"):
        SharedMemory.from_fd(reader, max_size=10)
    assert os.get_inheritable(reader)
    assert lockable(path)
    os.close(reader)
    os.close(writer)
    os.unlink(path)


def test_from_fd_takes_regular_files_only(tmp_path):
    def refused(fd, number, says=""):
        with pytest.raises(OSError, match=f"(?i){says}") as caught:
            SharedMemory.from_fd(fd)
        assert caught.value.errno == number
        os.fstat(fd)
        os.close(fd)

    reader, writer = os.pipe()
    refused(reader, errno.EINVAL, "FIFO")
    refused(writer, errno.EINVAL, "FIFO")
    left, right = socket.socketpair()
    refused(left.detach(), errno.EINVAL, "socket")
    right.close()
    refused(os.open(tmp_path, os.O_RDONLY), errno.EISDIR, "directory")
    refused(os.open("/dev/zero", os.O_RDWR), errno.EINVAL, "device")
    refused(os.memfd_create("empty"), errno.ENODATA, "0 bytes")
    fd = os.memfd_create("closed")
    os.close(fd)
    with pytest.raises(OSError) as caught:
        SharedMemory.from_fd(fd)
    assert caught.value.errno == errno.EBADF
    for fd in (-1, 2**31, 2**64):
        with pytest.raises(ValueError):
            SharedMemory.from_fd(fd)
    for fd in ("3", 3.0, None, True):
        with pytest.raises(TypeError):
            SharedMemory.from_fd(fd)


def test_from_fd_moves_a_standard_descriptor(run_python, name):
    """A stray print must not overwrite shared data."""
    run_python(
        """
        import os, sys
        from posixshm import SharedMemory
        errors = os.dup(2)
        keep = os.dup(1)
        os.close(1)
        fd = os.memfd_create("low")
        assert fd == 1, fd
        os.truncate(f"/proc/self/fd/{fd}", 100)
        shm = SharedMemory.from_fd(fd)
        assert shm.fileno() > 2, shm.fileno()
        try:
            os.fstat(1)
        except OSError:
            pass
        else:
            raise SystemExit("descriptor 1 is still open")
        others = [SharedMemory.create(sys.argv[1], 10, delete=True), SharedMemory.anonymous(10),
                  SharedMemory.unlinked(10), SharedMemory.open(sys.argv[1])]
        assert all(other.fileno() > 2 for other in others)
        os.dup2(keep, 1)
        """,
        name,
    )


# -- detach, close, close_fd --------------------------------------------------------------------


def test_detach(shm):
    view = shm.buf
    fd = shm.detach()
    assert shm.closed
    os.pwrite(fd, b"abc", 0)
    assert view[:3].tobytes() == b"abc"
    assert not os.get_inheritable(fd)
    with pytest.raises(ValueError):
        shm.detach()
    os.close(fd)
    shm.unlink()


def test_close_is_harmless_and_may_be_repeated(any_handle):
    view = any_handle.buf
    inode = any_handle.stat().st_ino
    fd = any_handle.fileno()
    assert any_handle.close() is None
    assert any_handle.closed
    with pytest.raises(OSError):
        os.fstat(fd)
    view[:] = b"x" * 1000
    assert bytes(view) == b"x" * 1000
    for _ in range(3):
        any_handle.close()
    mapped = maps_of(inode)
    del view
    gc.collect()
    assert maps_of(inode) == mapped - 1


def test_a_second_close_does_not_close_another_descriptor(shm):
    fd = shm.fileno()
    shm.close()
    other = os.open("/dev/null", os.O_RDONLY)
    assert other == fd
    shm.close()
    shm.close()
    os.fstat(other)
    os.close(other)


def test_close_unmaps_unused_memory(any_handle):
    inode = any_handle.stat().st_ino
    before = maps_of(inode)
    any_handle.buf.release()
    any_handle.close()
    assert maps_of(inode) == before - 1


def test_the_object_remains_after_close(name):
    shm = SharedMemory.create(name, 10)
    shm.buf[0] = 5
    shm.close()
    assert exists(name) and shm.is_linked()
    with SharedMemory.open(name) as again:
        assert again.buf[0] == 5
    shm.unlink()
    assert not exists(name)


def test_use_after_close(any_handle):
    any_handle.close()
    for use in USES.values():
        with pytest.raises(ValueError):
            use(any_handle)
    assert not exists("posixshm-test-never")


def test_a_closed_handle_keeps_its_name_and_size(shm, name):
    shm.close()
    assert shm.closed and shm.name == name and shm.size == 1000
    assert shm.created is True and shm.readonly is False and shm.max_size is None
    assert shm.is_linked() is False  # delete=True
    assert name in repr(shm)


def test_close_fd_keeps_the_memory(shm):
    fd = shm.fileno()
    shm.buf[0] = 1
    view = shm.buf
    shm.close_fd()
    shm.close_fd()
    assert not shm.closed
    with pytest.raises(OSError):
        os.fstat(fd)
    view[1] = 2
    assert shm.buf[:2].tobytes() == b"\1\2"
    assert np.frombuffer(shm, "u1", 2).tolist() == [1, 2]
    assert shm.is_linked()
    for needs_it in (
        shm.fileno,
        shm.stat,
        shm.detach,
        shm.refresh,
        shm.map,
        lambda: shm.resize(2000),
        lambda: shm.chmod(0o600),
        lambda: shm.mode,
        lambda: shm.seals,
    ):
        with pytest.raises(ValueError):
            needs_it()
    assert shm.size == 1000
    shm.sync()
    shm.populate()


def test_a_mapped_object_is_not_reclaimed(names):
    """The use lock is held until both the descriptor is closed and the memory is unmapped."""
    shm = SharedMemory.create(names.prefix + "used", 10)
    view = shm.buf
    shm.close_fd()
    for _ in range(2):
        (found,) = posixshm.reclaim(names.prefix)
        assert found.state == "in use"
        shm.close()
    assert shm.is_linked()
    view[0] = 1
    del view
    gc.collect()
    (found,) = posixshm.reclaim(names.prefix)
    assert found.removed
    assert not shm.is_linked()


@pytest.mark.parametrize("way", ["close", "del", "detach"])
def test_a_handle_holds_the_use_lock(name, way):
    shm = SharedMemory.create(name, 10)
    path = SHM + name
    assert not lockable(path)
    with SharedMemory.open(name, readonly=True):
        if way == "close":
            shm.close()
        elif way == "del":
            del shm
        else:
            fd = shm.detach()
            assert not lockable(path)
            os.close(fd)
        gc.collect()
        assert not lockable(path)
    assert lockable(path)
    os.unlink(path)


def test_context_manager(name):
    with SharedMemory.create(name, 10) as shm:
        assert isinstance(shm, SharedMemory)
        view = shm.buf
        with shm as again:
            assert again is shm
        assert shm.closed
    view[0] = 1
    shm.unlink()
    with pytest.raises(ValueError), shm:
        pass


# -- names --------------------------------------------------------------------------------------


def test_unlink(name):
    shm = SharedMemory.create(name, 10)
    view = shm.buf
    assert shm.is_linked() is True
    assert shm.unlink() is None
    assert shm.is_linked() is False
    view[0] = 1
    with pytest.raises(FileNotFoundError) as caught:
        shm.unlink()
    assert caught.value.filename == name
    assert shm.name == name
    shm.close()


def test_unlink_works_after_close(name):
    shm = SharedMemory.create(name, 10)
    shm.close()
    assert shm.is_linked()
    shm.unlink()
    assert not shm.is_linked() and not exists(name)


def test_unlink_removes_its_own_object_only(name):
    old = SharedMemory.create(name, 10)
    old.unlink()
    with SharedMemory.create(name, 20, delete=True) as new:
        assert not old.is_linked() and new.is_linked()
        with pytest.raises(FileNotFoundError, match="another") as caught:
            old.unlink()
        assert caught.value.filename == name
        with pytest.raises(FileNotFoundError):
            old.rename(name + "-other")
        assert new.is_linked()
        assert not exists(name + "-other")
    old.close()


def test_an_attached_handle_may_unlink(name):
    shm = SharedMemory.create(name, 10)
    with SharedMemory.open(name, readonly=True) as other:
        other.unlink()
    assert not shm.is_linked()
    shm.close()


def test_is_linked_after_another_file_took_the_name(shm):
    path = SHM + shm.name
    os.unlink(path)
    assert not shm.is_linked()
    os.mkdir(path)
    assert not shm.is_linked()
    with pytest.raises(FileNotFoundError):
        shm.unlink()
    assert os.path.isdir(path)
    os.rmdir(path)


def test_rename(name, names):
    new = names()
    with SharedMemory.create(name, 10) as shm, SharedMemory.open(name) as other:
        shm.buf[0] = 3
        assert shm.rename("/" + new) is None
        assert shm.name == new and shm.is_linked()
        assert not exists(name) and exists(new)
        # Another handle knows the old name.
        assert other.name == name and not other.is_linked()
        with SharedMemory.open(new) as third:
            assert third.buf[0] == 3
        shm.unlink()
    assert not exists(new)


def test_rename_is_exclusive(name, names):
    taken = names()
    with (
        SharedMemory.create(name, 10, delete=True) as shm,
        SharedMemory.create(taken, 20, delete=True) as other,
    ):
        with pytest.raises(FileExistsError) as caught:
            shm.rename(taken)
        assert caught.value.filename == taken
        assert shm.name == name and shm.is_linked() and other.is_linked()
        shm.rename(taken, replace=True)
        assert shm.name == taken and shm.is_linked() and not other.is_linked()
        assert not exists(name)


@pytest.mark.parametrize("replace", [False, True])
def test_rename_to_its_own_name_does_nothing(shm, name, replace):
    shm.rename(name, replace=replace)
    assert shm.name == name
    assert shm.is_linked()
    shm.unlink()
    with pytest.raises(FileNotFoundError):
        shm.rename(name, replace=replace)


def test_a_handle_whose_name_another_handle_changed_raises_an_error(name, names):
    new = names()
    with SharedMemory.create(name, 10) as shm, SharedMemory.open(name) as other:
        other.rename(new)
        for call in (shm.unlink, lambda: shm.rename(names())):
            with pytest.raises(FileNotFoundError, match="no longer has the name") as caught:
                call()
            assert caught.value.filename == name
        assert other.is_linked()
        other.unlink()


def test_a_closed_handle_without_a_name_raises_an_error():
    for shm in (SharedMemory.anonymous(10), SharedMemory.unlinked(10)):
        shm.close()
        with pytest.raises(ValueError, match="without a name is closed"):
            shm.fileno()


def test_rename_of_a_removed_name(name, names):
    new = names()
    with SharedMemory.create(name, 10) as shm:
        shm.unlink()
        with pytest.raises(FileNotFoundError) as caught:
            shm.rename(new)
        assert caught.value.filename == name
    assert not exists(new)


def test_rename_by_a_reader(name, names):
    new = names()
    with SharedMemory.create(name, 10) as shm:
        with SharedMemory.open(name, readonly=True) as reader:
            reader.rename(new)
            assert reader.is_linked()
            reader.unlink()
        assert not exists(name)
        assert shm.stat().st_nlink == 0


# -- attributes ---------------------------------------------------------------------------------


def test_stat(shm):
    status = shm.stat()
    assert isinstance(status, os.stat_result)
    there = os.stat(SHM + shm.name)
    assert tuple(status) == tuple(there)
    for field in ("st_ino", "st_dev", "st_mtime_ns", "st_ctime_ns", "st_blocks", "st_rdev"):
        assert getattr(status, field) == getattr(there, field)
    assert stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    shm.unlink()
    assert shm.stat().st_nlink == 0


def test_every_bit_of_the_mode_is_set_at_creation(name, run_python):
    """Setting the size of an object clears two of these bits for users other than root."""
    run_python(
        """
        import os, sys, warnings
        import weakref
        import posixshm._acl, posixshm._huge_pages
        from posixshm import SharedMemory
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        warnings.simplefilter("ignore")
        for options in {}, {"reserve": False}, {"populate": True}, {"huge_pages": True}, {"acl": "u::7"}:
            for mode in 0o4755, 0o2755, 0o2745, 0o6711, 0o7777:
                with SharedMemory.create(sys.argv[1], 10000, mode=mode, delete=True, **options) as shm:
                    assert shm.mode == mode, (options, oct(mode), oct(shm.mode))
        """,
        name,
    )


def test_chmod(shm):
    for mode in (0o644, 0o000, 0o4755, 0o1777, 0o600):
        assert shm.chmod(mode) is None
        assert shm.mode == mode
        assert stat.S_IMODE(os.stat(SHM + shm.name).st_mode) == mode
    for mode in (-1, 0o10000, 2**32, 2**64):
        with pytest.raises(ValueError, match="mode"):
            shm.chmod(mode)
    for mode in ("600", 0o600 + 0.0, None, True):
        with pytest.raises(TypeError, match="mode"):
            shm.chmod(mode)
    assert shm.mode == 0o600


def test_mode_is_read_each_time(shm):
    os.chmod(SHM + shm.name, 0o640)
    assert shm.mode == 0o640


def test_chown(shm):
    needs_root()
    assert shm.chown(12345, 54321) is None
    assert (shm.uid, shm.gid) == (12345, 54321)
    shm.chown(gid=7)
    assert (shm.uid, shm.gid) == (12345, 7)
    shm.chown(uid=8)
    assert (shm.uid, shm.gid) == (8, 7)
    shm.chown()
    shm.chown(-1, -1)
    assert (shm.uid, shm.gid) == (8, 7)
    shm.chown(2**32 - 2)
    assert shm.uid == 2**32 - 2


def test_chown_bad_arguments(shm):
    for owner in (-2, 2**32 - 1, 2**32, 2**64):
        with pytest.raises(ValueError):
            shm.chown(owner)
        with pytest.raises(ValueError):
            shm.chown(gid=owner)
    for owner in ("root", 0.0, True):
        with pytest.raises(TypeError):
            shm.chown(owner)
    assert shm.uid == os.geteuid()


def test_properties_cannot_be_set(shm):
    for (
        attribute
    ) in "buf name size mode uid gid readonly closed created max_size seals resident".split():
        with pytest.raises(AttributeError):
            setattr(shm, attribute, 1)
        with pytest.raises(AttributeError):
            delattr(shm, attribute)


def test_buf_is_a_new_view_each_time(shm):
    one, two = shm.buf, shm.buf
    assert one is not two
    one.release()
    two[0] = 1
    assert isinstance(shm.buf.obj, MemoryMap)
    assert shm.buf.obj is two.obj
    assert (two.format, two.ndim, two.itemsize) == ("B", 1, 1)


def test_repr(any_handle):
    text = repr(any_handle)
    assert "SharedMemory" in text and "1000" in text and repr(any_handle.name) in text
    any_handle.close()
    assert "SharedMemory" in repr(any_handle)


def test_compared_by_identity(shm):
    with SharedMemory.open(shm.name) as other:
        assert shm != other and shm == shm
        assert len({shm, other}) == 2


def test_copying_is_by_reference_like_pickling(shm):
    """A copy is another handle of the same object."""
    with copy.copy(shm) as other:
        assert other is not shm and not other.created
        other.buf[0] = 99
        assert shm.buf[0] == 99
        assert other.fileno() == shm.fileno()
    assert not shm.closed


# -- ranges, protection, pages ------------------------------------------------------------------


def test_map(name):
    with SharedMemory.create(name, 3 * PAGESIZE + 5, delete=True) as shm:
        shm.buf[PAGESIZE] = 17
        whole = shm.map()
        assert isinstance(whole, MemoryMap)
        assert len(whole) == shm.size and not whole.readonly
        part = shm.map(PAGESIZE, 10)
        assert len(part) == 10 and part[0] == 17
        reader = shm.map(offset=PAGESIZE, length=None, readonly=True)
        assert reader.readonly and len(reader) == 2 * PAGESIZE + 5 and reader[0] == 17
        for arguments in [
            (1,),
            (0, shm.size + 1),
            (4 * PAGESIZE,),
            (PAGESIZE, shm.size),
            (-PAGESIZE,),
            (0, 0),
            (0, -1),
            (2**63,),
        ]:
            with pytest.raises(ValueError):
                shm.map(*arguments)
        for arguments in [("0",), (0.0,), (None,), (0, "1"), (0, True)]:
            with pytest.raises(TypeError):
                shm.map(*arguments)
    part[1] = 18
    assert reader[1] == 18


def test_map_of_a_read_only_handle(shm):
    with SharedMemory.open(shm.name, readonly=True) as reader:
        assert reader.map().readonly
        assert reader.map(readonly=None).readonly
        assert reader.map(readonly=True).readonly
        with pytest.raises(PermissionError):
            reader.map(readonly=False)


def test_map_has_the_protection_of_the_handle(shm):
    shm.protect(PROT_READ)
    assert shm.map().readonly and shm.map(readonly=None).readonly
    with pytest.raises(TypeError):
        shm.map()[0] = 1
    assert not shm.map(readonly=False).readonly  # the new map is not protected
    shm.protect(READ_WRITE)
    assert not shm.map().readonly


@pytest.mark.parametrize("grown", [False, True])
def test_a_read_only_handle_ignores_the_permissions_of_the_descriptor(shm, grown):
    with SharedMemory.from_fd(os.dup(shm.fileno()), readonly=True) as reader:
        if grown:
            shm.resize(3 * PAGESIZE)
            reader.refresh()
        for turn_writable in (
            lambda: reader.map(readonly=False),
            lambda: reader.protect(READ_WRITE),
            lambda: reader.map().protect(READ_WRITE),
            lambda: reader.buf.obj.protect(READ_WRITE),
        ):
            with pytest.raises(PermissionError, match="read-only") as caught:
                turn_writable()
            assert caught.value.errno == errno.EACCES
        assert reader.readonly and reader.buf.readonly and reader.map().readonly
        reader.map().protect(PROT_NONE)
    with SharedMemory.open(shm.name, readonly=True) as reader:
        for turn_writable in (
            lambda: reader.map(readonly=False),
            lambda: reader.protect(READ_WRITE),
        ):
            with pytest.raises(PermissionError) as caught:
                turn_writable()
            assert caught.value.filename == shm.name


def test_errors_about_the_memory_contain_the_name(shm):
    both = posixshm.MS_SYNC | posixshm.MS_ASYNC
    with pytest.raises(OSError, match=shm.name) as caught:
        shm.sync(flags=both)
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, shm.name)
    with SharedMemory.anonymous(10) as other:
        with pytest.raises(OSError) as caught:
            other.sync(flags=both)
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, None)
    with pytest.raises(ValueError):
        shm.sync(offset=1)


def test_protect(shm):
    shm.protect(PROT_READ)
    assert shm.readonly and shm.buf.readonly
    with pytest.raises(TypeError):
        shm.buf[0] = 1
    shm.protect(READ_WRITE)
    assert not shm.readonly
    shm.protect(PROT_NONE)
    with pytest.raises(BufferError):
        memoryview(shm)
    with pytest.raises(BufferError):
        _ = shm.buf
    shm.protect(READ_WRITE)
    shm.buf[0] = 1


@pytest.mark.parametrize(
    "take",
    [
        lambda shm: shm.buf,
        memoryview,
        lambda shm: np.frombuffer(shm, "u1"),
        lambda shm: np.ndarray(1, "u1", buffer=shm),
        lambda shm: np.ndarray(1, "u1", buffer=shm.buf),
        lambda shm: shm.buf[5:10],
    ],
)
def test_protect_is_refused_while_a_view_needs_the_permission(shm, take):
    view = take(shm)
    for prot in (PROT_READ, PROT_NONE):
        with pytest.raises(BufferError):
            shm.protect(prot)
    view[0] = 1
    assert not shm.readonly


def test_resize_keeps_the_protection(name):
    """Growing by a new mapping does not restore a removed permission."""
    with SharedMemory.create(name, 100, delete=True) as shm:
        shm.protect(PROT_READ)
        shm.resize(PAGESIZE * 3)
        assert shm.readonly and shm.buf.readonly


@pytest.mark.parametrize("prot", [PROT_WRITE, 4, 7, -1, 2**31, 2**64])
def test_other_protections_are_refused(shm, prot):
    with pytest.raises(ValueError):
        shm.protect(prot)


def test_the_page_calls_of_a_handle(name):
    with SharedMemory.create(name, 4 * PAGESIZE, reserve=False, delete=True) as shm:
        assert shm.resident == 0
        shm.populate(0, PAGESIZE)
        assert shm.resident >= PAGESIZE
        shm.populate()
        assert shm.resident == 4 * PAGESIZE
        shm.advise(posixshm.MADV_DONTNEED)
        shm.advise(posixshm.MADV_NORMAL, PAGESIZE, PAGESIZE)
        shm.sync()
        shm.sync(0, PAGESIZE, posixshm.MS_ASYNC)
        shm.lock_pages(PAGESIZE, PAGESIZE)
        shm.unlock_pages()
        for call in (shm.populate, shm.sync, shm.lock_pages, shm.unlock_pages):
            with pytest.raises(ValueError):
                call(1)
            with pytest.raises(ValueError):
                call(0, 5 * PAGESIZE)
        for advice in (mmap.MADV_REMOVE, mmap.MADV_DONTFORK, 12345, -1):
            with pytest.raises(ValueError):
                shm.advise(advice)


def test_page_calls_name_the_protection(name):
    with SharedMemory.create(name, PAGESIZE, delete=True) as shm:
        shm.protect(PROT_NONE)
        for call in (shm.populate, shm.lock_pages):
            with pytest.raises(PermissionError, match="PROT_NONE"):
                call()
        shm.protect(PROT_READ | PROT_WRITE)
        shm.populate()


# -- seals --------------------------------------------------------------------------------------


def test_seals():
    with SharedMemory.anonymous(PAGESIZE) as shm:
        sealed = shm.seals  # newer kernels also add a seal against execution
        assert sealed & ~posixshm.F_SEAL_EXEC == posixshm.F_SEAL_SHRINK
        with pytest.raises(PermissionError):
            shm.resize(10, shrink=True)
        assert shm.size == PAGESIZE == len(shm.buf)
        shm.resize(2 * PAGESIZE)
        assert shm.add_seals(posixshm.F_SEAL_GROW) is None
        assert shm.seals == sealed | posixshm.F_SEAL_GROW
        with pytest.raises(PermissionError):
            shm.resize(3 * PAGESIZE)
        assert shm.size == 2 * PAGESIZE == len(shm.buf) == shm.stat().st_size
        shm.add_seals(posixshm.F_SEAL_SEAL)
        with pytest.raises(PermissionError):
            shm.add_seals(posixshm.F_SEAL_WRITE)


def test_sealing_against_writing():
    with SharedMemory.anonymous(PAGESIZE) as shm:
        shm.buf[0] = 1
        with pytest.raises(BufferError, match="FUTURE_WRITE"):
            shm.add_seals(posixshm.F_SEAL_WRITE)
        try:
            shm.add_seals(posixshm.F_SEAL_FUTURE_WRITE)
        except OSError as error:
            assert error.errno == errno.EINVAL  # before Linux 5.1
            return
        shm.buf[0] = 2
        with SharedMemory.from_fd(os.dup(shm.fileno())) as other:
            assert other.readonly and other.buf[0] == 2
        with pytest.raises(PermissionError):
            shm.map(readonly=False)


def test_bad_seals():
    with SharedMemory.anonymous(10) as shm:
        sealed = shm.seals
        for seals in (-1, 2**31, 2**64):
            with pytest.raises(ValueError):
                shm.add_seals(seals)
        with pytest.raises((OSError, ValueError)):
            shm.add_seals(1 << 20)
        for seals in ("1", 1.0, None):
            with pytest.raises(TypeError):
                shm.add_seals(seals)
        assert shm.seals == sealed


def test_named_objects_cannot_be_sealed(shm):
    with pytest.raises(OSError) as caught:
        shm.add_seals(posixshm.F_SEAL_SHRINK)
    assert caught.value.errno in (errno.EPERM, errno.EINVAL)
    assert shm.seals in (0, posixshm.F_SEAL_SEAL)


# -- subclasses ---------------------------------------------------------------------------------


class Sub(SharedMemory):
    """A subclass with an attribute that only the constructor sets."""

    def __init__(self, *args, **keywords):
        self.made = "by __init__"
        super().__init__(*args, **keywords)

    @property
    def first(self):
        return self.buf[0]


def test_each_constructor_returns_the_subclass(name):
    made = []
    with Sub.create(name, 10, delete=True) as shm:
        made += [shm, Sub.open(name), Sub.anonymous(10), Sub.unlinked(10)]
        made += [Sub.from_fd(os.dup(shm.fileno())), Sub.create(name, 5, exist_ok=True)]
        for handle in made:
            assert type(handle) is Sub
            assert handle.first == 0
            assert not hasattr(handle, "made")
            handle.close()


def test_the_constructor_of_a_subclass(name):
    with Sub(name, create=True, size=10) as shm:
        assert shm.made == "by __init__"
        assert shm.first == 0
        shm.unlink()


def test_a_subclass_has_attributes_and_weak_references(name):
    with Sub.create(name, 10, delete=True) as shm:
        shm.extra = [1]
        weak = weakref.ref(shm)
        assert weak() is shm and shm.__dict__ == {"extra": [1]}
    del shm
    gc.collect()
    assert weak() is None


def test_a_subclass_with_slots(name):
    class Slotted(SharedMemory):
        __slots__ = ("extra",)

    with Slotted.create(name, 10, delete=True) as shm:
        shm.extra = 1
        with pytest.raises(AttributeError):
            shm.other = 1


def test_the_class_itself_cannot_be_changed(shm):
    with pytest.raises(TypeError):
        SharedMemory.extra = 1
    with pytest.raises(AttributeError):
        shm.extra = 1


def test_a_handle_supports_weak_references(name):
    seen = []
    shm = SharedMemory.create(name, 10, delete=True)
    weak = weakref.ref(shm, seen.append)
    view = shm.buf
    assert weak() is shm
    del shm
    gc.collect()
    assert weak() is None and seen == [weak]
    view[0] = 1


def test_overridden_methods_are_called(name):
    calls = []

    class Noisy(SharedMemory):
        def close(self):
            calls.append("close")
            super().close()

        def unlink(self):
            calls.append("unlink")
            super().unlink()

    shm = Noisy.create(name, 10)
    shm.unlink()
    shm.close()
    assert calls == ["unlink", "close"]


def test_a_new_that_returns_other_objects(name):
    class Wrong(SharedMemory):
        def __new__(cls):
            return object()

    class Picky(SharedMemory):
        def __new__(cls, needed):
            return super().__new__(cls)

    class Failing(SharedMemory):
        def __new__(cls):
            raise RuntimeError("from __new__")

    for cls, error in [(Wrong, TypeError), (Picky, TypeError), (Failing, RuntimeError)]:
        for constructor in (
            lambda cls: cls.create(name, 10),
            lambda cls: cls.create(name, 10, delete=True),
            lambda cls: cls.anonymous(10),
            lambda cls: cls.unlinked(10),
        ):
            with pytest.raises(error):
                constructor(cls)
            assert not exists(name)
    with SharedMemory.create(name, 10, delete=True) as shm:
        for cls, error in [(Wrong, TypeError), (Picky, TypeError), (Failing, RuntimeError)]:
            with pytest.raises(error):
                cls.open(name)
            fd = os.dup(shm.fileno())
            with pytest.raises(error):
                cls.from_fd(fd)
            os.close(fd)


def test_a_new_that_returns_an_open_handle(name, shm):
    """The object of the open handle must not be replaced."""

    class Singleton(SharedMemory):
        def __new__(cls):
            return shm

    other = name + "-other"
    shm.buf[0] = 7
    with pytest.raises(TypeError):
        Singleton.create(other, 10)
    assert not exists(other)
    assert shm.buf[0] == 7 and shm.name == name


def test_an_object_is_created_even_if_multiprocessing_cannot_register_it(run_python):
    """For example in a daemon that changed its user and cannot read the package any more."""
    run_python(
        """
        import multiprocessing.reduction, sys
        import posixshm._support
        from posixshm import SharedMemory

        def fail():
            raise KeyboardInterrupt

        posixshm._support.register, register = fail, posixshm._support.register
        try:
            SharedMemory.anonymous(10)
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError
        posixshm._support.register = register
        sys.modules["posixshm._reduction"] = None
        assert SharedMemory.anonymous(10).size == 10
        """
    )
