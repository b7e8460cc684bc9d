"""holders(): the processes that use an object, and how."""

import errno
import os

import pytest
from _processes import PATH, needs_mounts, needs_root, raises

import posixshm
from posixshm import Holder, Semaphore, SharedMemory, holders

OPEN = """
    import os, sys, posixshm
    from _processes import ready
    shm = posixshm.SharedMemory.open(sys.argv[1])
    {more}
    ready()
"""


@pytest.mark.parametrize(
    ("more", "how"),
    [
        ("", ("map", "fd", "use lock")),
        ("shm.close_fd()", ("map", "use lock")),
        ("fd = os.open(shm.path, os.O_RDONLY); shm.close(); del shm", ("fd",)),
        ("view = shm.buf; shm.close()", ("map", "use lock")),
    ],
    ids=["handle", "without its descriptor", "raw descriptor", "view"],
)
@pytest.mark.new_interpreter
def test_a_process_is_found_by_each_kind_of_use(more, how, name, start_python):
    with SharedMemory.create(name, 100, delete=True) as shm:
        child = start_python(OPEN.format(more=more), name, env=PATH)
        child.hear("ready")
        found = {each.pid: each for each in holders(name)}
        child.say("go")
        child.finish()
        assert set(found) == {os.getpid(), child.pid}
        assert found[child.pid].how == how
        assert found[child.pid].uid == os.geteuid()
        assert "from _processes import ready" in found[child.pid].command
        assert [each.pid for each in holders(f"/{name}")] == [os.getpid()]
    assert isinstance(found[child.pid], Holder)
    assert shm.closed


def test_a_killed_process_is_not_a_holder(name, start_python):
    with SharedMemory.create(name, 100, delete=True) as shm:
        shm.close()
        SharedMemory.create(name, 100).close()
        child = start_python(OPEN.format(more=""), name, env=PATH)
        child.hear("ready")
        assert [each.pid for each in holders(name)] == [child.pid]
        child.kill()
        assert holders(name) == []
        posixshm.shm_unlink(name)


def test_a_forked_child_that_inherited_a_mapping_is_a_holder(name, start_python):
    code = """
        import os, signal, sys, posixshm
        from _processes import ready
        shm = posixshm.SharedMemory.open(sys.argv[1])
        pid = os.fork()
        if pid == 0:
            signal.pause()
        print(pid, flush=True)
        ready()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    """
    with SharedMemory.create(name, 100, delete=True):
        child = start_python(code, name, env=PATH)
        forked = int(child.hear())
        child.hear("ready")
        found = {each.pid: each.how for each in holders(name)}
        assert set(found) == {os.getpid(), child.pid, forked}
        assert "map" in found[forked]
        child.say("go")
        child.finish()


def test_holders_of_an_earlier_object_are_not_listed(name):
    with SharedMemory.create(name, 100) as old:
        old.unlink()
        with SharedMemory.create(name, 100, delete=True) as new:
            new.close_fd()
            assert [each.pid for each in holders(name)] == [os.getpid()]
            new.unlink()
        with open(f"/dev/shm/{name}", "wb"):
            pass
        try:
            assert holders(name) == []
        finally:
            os.unlink(f"/dev/shm/{name}")


def test_the_holders_of_a_semaphore(name):
    semaphore = Semaphore(name, 1, create=True)
    try:
        assert [each.pid for each in holders(f"sem.{name}")] == [os.getpid()]
    finally:
        semaphore.unlink()


def test_files_without_holders(name):
    with raises(errno.ENOENT) as caught:
        holders(name)
    assert caught[0].filename == name
    os.mkfifo(f"/dev/shm/{name}")
    try:
        with raises(errno.EINVAL):
            holders(name)
    finally:
        os.unlink(f"/dev/shm/{name}")
    with pytest.raises(ValueError, match="bad name"):
        holders("a/b")


def test_processes_of_another_user_are_counted(name, run_python):
    needs_root()
    code = """
        import sys, posixshm
        from _processes import SOMEBODY, become
        posixshm.holders
        become(SOMEBODY)
        found = posixshm.holders(sys.argv[1])
        assert found.uninspected > 0
        # The kernel shows every user who took the lock.
        print([(each.pid, each.how) for each in found])
    """
    with SharedMemory.create(name, 100, delete=True):
        output = run_python(code, name, env=PATH)
    assert output == f"[({os.getpid()}, ('use lock',))]\n"


def test_processes_of_another_pid_namespace_are_not_seen(run_python):
    needs_mounts()
    code = """
        import os
        from _processes import private_shm, private_processes
        import posixshm
        posixshm.holders
        private_shm()
        shm = posixshm.SharedMemory.create("object", 100)
        private_processes()  # this process is forked: it has what the other one has
        found = posixshm.holders("object")
        assert [each.pid for each in found] == [os.getpid()], found
        assert found.uninspected == 0
        print("seen")
    """
    assert run_python(code, env=PATH) == "seen\n"
