"""Each system call of each operation fails once, and the process dies before and after each.

A failed call raises an exception with that errno, and the operation leaves everything as it was. A
process that dies leaves no incomplete object under the real name, and reclaim() finds all that it
left. The operations are in _scenes.py.
"""

import json
import os
import select
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from _processes import SHM, Faults, cannot_be_tested, go, needs_mounts
from _scenes import scenes

from posixshm import SharedMemory, listdir, reclaim


def groups(kinds):
    """Groups of scenes, each for one child."""
    kinds = sorted(kinds, key=lambda kind: (kind.one_process, kind.__name__))
    ordinary = [kind.__name__ for kind in kinds if not kind.one_process]
    found = [ordinary[at : at + 8] for at in range(0, len(ordinary), 8)]
    found.append([kind.__name__ for kind in kinds if kind.one_process])
    return [pytest.param(group, id="-".join(group)) for group in found if group]


ALL = groups(scenes().values())
WITHOUT_PROC = groups(kind for kind in scenes().values() if kind.without_proc)


@pytest.fixture(scope="module")
def faults(faults):
    needs_mounts()
    return faults


@pytest.fixture
def play(run_python, faults, name):
    def play(player, *args):
        code = f"import sys; from _scenes import *; {player}(*sys.argv[1:])"
        return run_python(code, name, *args, env=faults)

    return play


@pytest.mark.long
@pytest.mark.parametrize("group", ALL)
def test_a_call_that_fails_raises_and_changes_nothing(play, group):
    told = json.loads(play("fail_each", "", *group))
    assert list(told) == group
    for scene, calls in told.items():
        assert calls or scene in ("Close", "CloseDelete"), f"{scene} makes no call that can fail"


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("group", ALL)
def test_a_process_that_dies_leaves_nothing_half_made(play, group):
    play("kill_each", "", *group)


# -- without O_TMPFILE or /proc -----------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("group", WITHOUT_PROC)
def test_without_proc_a_call_that_fails_raises_and_changes_nothing(play, group):
    told = json.loads(play("fail_each", "without /proc", *group))
    assert list(told) == group


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("group", WITHOUT_PROC)
def test_without_proc_a_process_that_dies_leaves_nothing_half_made(play, group):
    play("kill_each", "without /proc", *group)


def test_a_file_system_without_o_tmpfile(run_python, faults, name):
    code = """
        import errno, os, sys
        from _scenes import *
        private_shm()
        faults = Faults()
        for kind in scenes().values():
            if not issubclass(kind, Create):
                continue
            for number in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                for umask in (0o022, 0o777):
                    with explained(kind, number), played(kind, sys.argv[1]) as scene:
                        os.umask(umask)
                        faults.arm("open", 1, Faults.FAIL, number)
                        scene.act()
                        assert faults.disarm() >= 2, faults.log()
                        scene.succeeded()
    """
    run_python(code, name, env=faults)


def test_unlinked_without_o_tmpfile_raises(run_python, faults, name):
    code = """
        import errno, sys
        from _processes import Faults, raises, unchanged
        from posixshm import SharedMemory
        SharedMemory.unlinked(10).close()
        faults = Faults()
        with unchanged(), raises(errno.EOPNOTSUPP):
            faults.arm("open", 1, Faults.FAIL, errno.EOPNOTSUPP)
            SharedMemory.unlinked(10)
    """
    run_python(code, name, env=faults)


def test_a_wait_that_the_kernel_refuses_raises_and_does_not_change_the_primitive(
    run_python, faults
):
    code = """
        import errno
        from _processes import Faults, raises
        from posixshm import Atomic, Condition, Event, Semaphore, SharedMemory
        faults, shm = Faults(), SharedMemory.anonymous(4096)
        word, event = Atomic.at(shm, 0), Event.at(shm, 1024, create=True)
        semaphore = Semaphore.at(shm, 2048, value=0, create=True)
        condition = Condition.at(shm, 3072, create=True)
        condition.acquire()
        for wait in (lambda: word.wait(0, 60), word.notify, event.wait, semaphore.acquire, condition.wait):
            before = bytes(shm)
            with raises(errno.ENOSYS):
                faults.arm("futex", 1, Faults.FAIL, errno.ENOSYS)
                wait()
            faults.disarm()
            assert wait == condition.wait or bytes(shm) == before
        condition.release()
        with condition:
            assert not condition.wait(0)
        event.set()
        semaphore.release()
        assert event.wait() and semaphore.acquire()
    """
    run_python(code, env=faults)


def test_no_process_sees_a_temporary_name_under_the_real_one(start_python, faults, name):
    code = """
        import errno, os, sys
        from _processes import SHM, Faults
        from posixshm import SharedMemory
        name, faults = sys.argv[1], Faults()

        def init(buf):
            buf[:] = b"x" * len(buf)
            print(*[each for each in os.listdir(SHM) if each.startswith(name)], flush=True)
            assert sys.stdin.readline() == "go\\n"

        faults.arm("open", 1, Faults.FAIL, errno.EOPNOTSUPP)
        shm = SharedMemory.create(name, 5000, init=init)
        faults.disarm()
        print("made", flush=True)
        sys.stdin.read()
    """
    child = start_python(code, name, env=faults)
    temporary = child.hear()
    assert temporary.startswith(name) and temporary != name
    with pytest.raises(FileNotFoundError):
        SharedMemory.open(name)
    assert [(each.name, each.state) for each in reclaim(name)] == [(temporary, "in use")]
    child.say("go")
    child.hear("made")
    with SharedMemory.open(name) as shm:
        assert bytes(shm.buf) == b"x" * 5000
        shm.unlink()
    assert not [each for each in listdir() if each.startswith(name)]
    child.finish()


# -- two processes, one of them stopped ---------------------------------------------------------

FROZEN = """
    import sys
    from _processes import Faults, ready
    from posixshm import SharedMemory
    name, call, action = sys.argv[1], sys.argv[2], int(sys.argv[3])
    faults = Faults()
    with SharedMemory.create(name + "-", 100) as shm:  # the calls that happen only once
        shm.unlink()
    PREPARE
    ready()
    faults.arm(call, 1, action)
    try:
        result = ACT
        print("done", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
    faults.disarm()
    sys.stdin.read()
"""


@pytest.fixture
def freeze(start_python, faults):
    """Start a child that stops at a system call; return None if it does not make that call."""

    def freeze(act, name, call, action=Faults.STOP_BEFORE, prepare=""):
        code = FROZEN.replace("PREPARE", prepare).replace("ACT", act)
        child = start_python(code, name, call, action, env=faults)
        go(child)
        while True:  # until it stops or prints a line
            pid, status = os.waitpid(child.pid, os.WUNTRACED | os.WNOHANG)
            if pid:
                assert os.WIFSTOPPED(status)
                return child
            if select.select([child.process.stdout], [], [], 0.001)[0]:
                child.finish()
                return None

    return freeze


@pytest.mark.long
def test_an_attacher_overtaken_by_a_reclaimer_gets_no_removed_object(freeze, name):
    for call in ("shm_open", "flock", "fstat", "mmap"):
        for action in (Faults.STOP_BEFORE, Faults.STOP_AFTER):
            for anew in (False, True):
                with SharedMemory.create(name, 100) as shm:
                    shm.buf[0] = 1
                child = freeze("SharedMemory.open(name).size", name, call, action)
                assert child is not None, call
                removed = [each.removed for each in reclaim(name)] == [True]
                if anew and removed:
                    SharedMemory.create(name, 200).close()
                child.signal(signal.SIGCONT)
                if removed and not anew:
                    child.hear("FileNotFoundError")
                else:
                    child.hear("done")
                    assert os.path.exists(f"{SHM}/{name}")
                child.finish()
                for each in reclaim(name):
                    assert each.removed


@pytest.mark.parametrize("exist_ok", [False, True])
def test_a_creator_overtaken_by_another_leaves_its_object(freeze, name, exist_ok):
    act = f"SharedMemory.create(name, 100, exist_ok={exist_ok})"
    child = freeze(act, name, "linkat")
    assert not [each for each in listdir() if each.startswith(name)]
    with SharedMemory.create(name, 300) as shm:
        shm.buf[:2] = b"me"
        child.signal(signal.SIGCONT)
        child.hear("done" if exist_ok else "FileExistsError")
        assert bytes(shm.buf[:2]) == b"me" and shm.is_linked()
        shm.unlink()
    child.finish()


@pytest.mark.parametrize(
    "act", ["shm.unlink()", "shm.close()", "shm.rename(name + '-new')", "shm.link(name + '-new')"]
)
def test_a_name_that_now_refers_to_another_object_is_not_removed(freeze, names, act):
    """The test replaces the name before the check, without the name lock, as another program
    would."""
    calls = {"flock", "lstat"} if "link(name" not in act else {"getrandom", "linkat", "unlink"}
    for call in calls:
        for action in (Faults.STOP_BEFORE, Faults.STOP_AFTER):
            if (call, action) == ("lstat", Faults.STOP_AFTER):
                continue  # between check and removal, only the name lock protects a name
            name, other = names(), names()
            prepare = f"shm = SharedMemory.create(name, 100, delete={'close' in act})"
            if "link(name" in act:
                prepare = "shm = SharedMemory.unlinked(100)"
            child = freeze(act, name, call, action, prepare)
            if child is None:
                for left in list_of(name):
                    os.unlink(f"{SHM}/{left}")
                continue
            with SharedMemory.create(other, 60) as second:
                os.rename(f"{SHM}/{other}", f"{SHM}/{name}")  # replaces the name if it exists
                child.signal(signal.SIGCONT)
                said = child.hear()
                assert said in ("done", "FileNotFoundError"), (call, said)
                status = os.stat(f"{SHM}/{name}")
                assert (status.st_size, status.st_ino) == (60, second.stat().st_ino), (call, action)
            child.finish()
            for left in list_of(name):
                os.unlink(f"{SHM}/{left}")


# -- the name lock ------------------------------------------------------------------------------


def test_replacing_a_name_waits_for_a_process_that_removes_it(freeze, names):
    """Otherwise unlink() would remove the name of the new object, having checked the old one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        name = names()
        child = freeze("shm.unlink()", name, "unlink", prepare="shm = SharedMemory.create(name, 9)")
        with SharedMemory.unlinked(60) as new, ThreadPoolExecutor(1) as pool:
            begun = time.monotonic()
            replacing = pool.submit(new.link, name, replace=True)
            time.sleep(0.003)
            child.signal(signal.SIGCONT)
            said = child.hear()
            quick = time.monotonic() - begun < 0.08  # link() waits for 0.1 seconds
            replacing.result(60)
            assert new.is_linked() and list_of(name) == [name]
            new.unlink()
        child.finish()
        if quick:
            assert said == "done"
            return
    cannot_be_tested("this machine was too busy for a minute")


@pytest.mark.parametrize("call", ["lstat", "unlink"])
def test_no_process_waits_long_for_a_stopped_process(freeze, name, call):
    """If a process is stopped while it holds the name lock, the others continue without the lock.

    If it was stopped between its check and its removal, it removes the object that has the name
    then.
    """
    prepare = "shm = SharedMemory.create(name, 9)"
    child = freeze("shm.unlink()", name, call, prepare=prepare)
    with SharedMemory.unlinked(60) as new:
        begun = time.monotonic()
        new.link(name, replace=True)
        assert time.monotonic() - begun < 5
        child.signal(signal.SIGCONT)
        child.hear("done" if call == "unlink" else "FileNotFoundError")
        assert new.is_linked() is (call == "lstat")
        if call == "lstat":
            new.unlink()
        assert not list_of(name)
    child.finish()


def test_an_object_keeps_its_temporary_name_if_the_last_step_of_link_fails(run_python, faults, name):
    code = """
        import errno, re, sys
        from _processes import Faults
        from posixshm import SharedMemory
        name, faults = sys.argv[1], Faults()
        old, shm = SharedMemory.create(name, 100), SharedMemory.unlinked(200)
        faults.arm("rename", 1, Faults.FAIL, errno.EIO)
        try:
            shm.link(name, replace=True)
        except OSError as error:
            problem = error
        finally:
            faults.disarm()
        assert (problem.errno, problem.filename) == (errno.EIO, name)
        assert re.fullmatch(name + "~[0-9a-f]{16}", shm.name), shm.name
        assert repr(shm.name) in problem.strerror, problem
        assert shm.is_linked() and old.is_linked()
        shm.rename(name, replace=True)
        assert SharedMemory.open(name).size == 200 and not old.is_linked()
        shm.unlink()
    """
    run_python(code, name, env=faults)


def list_of(prefix):
    return [each for each in os.listdir(SHM) if each.startswith(prefix)]
