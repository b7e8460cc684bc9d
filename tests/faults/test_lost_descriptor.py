"""A handle whose descriptor the program has closed does not touch another file."""

import errno
import os
import pickle
from multiprocessing import reduction

import pytest
from _processes import PATH

import posixshm
from posixshm import SharedMemory

USES = {
    "resize": lambda shm: shm.resize(1 << 16),
    "shrink": lambda shm: shm.resize(1, shrink=True),
    "refresh": lambda shm: shm.refresh(),
    "chmod": lambda shm: shm.chmod(0o777),
    "chown": lambda shm: shm.chown(os.geteuid()),
    "getfacl": lambda shm: shm.getfacl(),
    "setfacl": lambda shm: shm.setfacl("other::rwx"),
    "stat": lambda shm: shm.stat(),
    "mode": lambda shm: shm.mode,
    "uid": lambda shm: shm.uid,
    "gid": lambda shm: shm.gid,
    "map": lambda shm: shm.map(),
    "fileno": lambda shm: shm.fileno(),
    "detach": lambda shm: shm.detach(),
    "rename": lambda shm: shm.rename(f"{shm.name}-new"),
}
UNNAMED_USES = {
    "seals": lambda shm: shm.seals,
    "add_seals": lambda shm: shm.add_seals(posixshm.F_SEAL_GROW),
    "link": lambda shm: shm.link("posixshm-test-never"),
    "pickle": lambda shm: reduction.ForkingPickler.dumps(shm),
}


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other"
    path.write_bytes(b"precious")
    return path


def take_over(fd, path):
    """Close the descriptor as a daemon does, and open a file that gets its number."""
    stranger = os.open(path, os.O_RDWR)
    if stranger != fd:
        os.dup2(stranger, fd)
        os.close(stranger)


@pytest.mark.parametrize("use", USES)
def test_another_file_with_the_number_is_not_touched(name, other, use):
    shm = SharedMemory.create(name, 5000)
    fd = shm.fileno()
    take_over(fd, other)
    before = os.stat(other)
    with pytest.raises(OSError, match="closed") as caught:
        USES[use](shm)
    assert (caught.value.errno, caught.value.filename) == (errno.EBADF, name)
    shm.buf[0] = 1  # the memory is still mapped
    shm.close()
    assert os.stat(other) == before and other.read_bytes() == b"precious"
    assert os.fstat(fd).st_ino == before.st_ino  # it was not closed
    os.close(fd)
    shm.unlink()


@pytest.mark.parametrize("use", UNNAMED_USES)
def test_another_file_with_the_number_of_an_unnamed_object_is_not_touched(other, use):
    make = SharedMemory.unlinked if use == "link" else SharedMemory.anonymous
    shm = make(5000)
    fd = shm.fileno()
    take_over(fd, other)
    with pytest.raises(OSError, match="closed") as caught:
        UNNAMED_USES[use](shm)
    assert caught.value.errno == errno.EBADF
    del shm
    assert other.read_bytes() == b"precious"
    os.close(fd)  # it was not closed


@pytest.mark.parametrize("end", ["close", "close_fd", "del", "again"])
def test_a_lost_descriptor_is_not_closed(name, other, end):
    shm = SharedMemory.create(name, 5000, max_size=1 << 20)
    fd = shm.fileno()
    os.close(fd)
    assert shm.size == 5000  # the last known size
    with pytest.raises(OSError, match="closed"):
        shm.stat()
    take_over(fd, other)
    posixshm.shm_unlink(name)
    if end == "del":
        del shm
    elif end == "again":
        shm.__init__(name, create=True, size=10)
        shm.unlink()
    else:
        getattr(shm, end)()
    os.close(fd)


def test_a_named_handle_can_still_be_pickled_by_its_name(name, other):
    with SharedMemory.create(name, 10) as shm:
        fd = shm.fileno()
        take_over(fd, other)
        assert pickle.loads(pickle.dumps(shm)).size == 10
        shm.unlink()
    os.close(fd)


def test_a_daemon_that_closes_all_descriptors(run_python, name, other):
    code = """
        import os, sys
        from posixshm import Lock, SharedMemory
        name, path = sys.argv[1:]
        shm = SharedMemory.create(name, 5000, max_size=1 << 20)
        anonymous = SharedMemory.anonymous(5000)
        part = shm.map()
        lock = Lock.at(anonymous, create=True)
        os.closerange(3, 256)
        fds = [os.open(path, os.O_RDWR) for _ in range(20)]
        if os.fork() == 0:
            del shm, anonymous
            for fd in fds:
                os.fstat(fd)
            os._exit(0)
        assert os.wait()[1] == 0
        for handle in (shm, anonymous):
            for use in (lambda: handle.resize(1 << 16), lambda: handle.chmod(0o777)):
                try:
                    use()
                except OSError as error:
                    assert "closed" in str(error), error
                else:
                    raise AssertionError("not refused")
            handle.buf[100] = 7
        with lock:
            part[0] = 1
        shm.unlink()
        shm.close()
        anonymous.close()
        for fd in fds:
            os.fstat(fd)
        assert os.path.getsize(path) == 8
    """
    run_python(code, name, other, env=PATH)
    assert other.read_bytes() == b"precious"
