"""delete="last": the last process that uses an object removes its name."""

import contextlib
import fcntl
import os
import pickle
import random
import signal
import struct

import numpy as np
import pytest
from _processes import PATH, SOMEBODY, go, needs_root
from children.fresh_user import FILLED, SIZE, make
from test_fresh import KINDS, no_names_left, user  # noqa: F401

import posixshm
from posixshm import SharedMemory, array

kinds = pytest.mark.parametrize("kind", KINDS)
LAST = {"exist_ok": True, "delete": "last"}
RACE = "import sys; from children import fresh_user; fresh_user.race_to_close(*sys.argv[1:])"


def exists(name):
    return os.path.lexists(f"/dev/shm/{name}") or os.path.lexists(f"/dev/shm/sem.{name}")


@kinds
def test_the_last_process_removes_the_name(kind, name, user):  # noqa: F811
    child, _ = user(kind, name, "delete=last")
    made, new = make(kind, name, **LAST)
    assert not new
    made.close()
    del made
    assert exists(name)
    child.finish()
    assert not exists(name)


@kinds
def test_the_last_process_need_not_be_the_creator(kind, name, user):  # noqa: F811
    """A process that attaches need not pass delete="last"."""
    child, _ = user(kind, name, "delete=last")
    made, _ = make(kind, name, exist_ok=True)
    child.finish()
    assert exists(name)
    made.close()
    del made
    assert not exists(name)


def test_a_view_keeps_the_name_as_it_keeps_the_memory(name):
    shm = SharedMemory.create(name, SIZE, delete="last")
    view, mapping = np.frombuffer(shm.buf, "u1"), shm.map()
    shm.close()
    assert exists(name) and SharedMemory.open(name).size == SIZE
    del view
    assert exists(name)
    del mapping
    assert not exists(name)
    shm.close()


def test_every_way_to_attach(name):
    pickled = SharedMemory.create(name, SIZE, delete="last")
    attached = [
        SharedMemory.open(name),
        SharedMemory.open(name, readonly=True),
        SharedMemory.open(name, max_size=1 << 20),
        SharedMemory.create(name, SIZE, exist_ok=True),
        pickle.loads(pickle.dumps(pickled)),
        posixshm.shared_memory.SharedMemory(name),
    ]
    random.Random(3).shuffle(attached)
    pickled.close()
    while attached:
        assert exists(name)
        attached.pop().close()
    assert not exists(name)


def test_delete_last_may_be_passed_when_attaching(name):
    """A process that attaches may pass it first; it then applies to all later handles."""
    first = SharedMemory.create(name, SIZE)
    second = SharedMemory.create(name, SIZE, **LAST)
    third = SharedMemory.open(name)
    third.close()
    second.close()
    assert exists(name)
    with SharedMemory.create(name, SIZE, **LAST):
        first.close()
    assert not exists(name)


def test_without_delete_last_the_name_remains(name):
    with SharedMemory.create(name, SIZE), SharedMemory.open(name):
        pass
    assert exists(name)
    posixshm.shm_unlink(name)


@pytest.mark.parametrize("last", ["the one that renamed it", "the other one"])
def test_an_object_that_another_handle_renamed(name, names, last):
    new = names()
    first = SharedMemory.create(name, 10, delete="last")
    second = SharedMemory.open(name)
    second.rename(new)
    closed = (first, second) if last == "the one that renamed it" else (second, first)
    for handle in closed:
        assert exists(new)
        handle.close()
    assert exists(new) == (last == "the other one")
    if exists(new):
        posixshm.shm_unlink(new)


def test_an_object_that_is_resized_or_renamed(name, names):
    other = names()
    shm = SharedMemory.create(name, SIZE, delete="last")
    view = shm.buf
    shm.resize(100_000)
    shm.rename(other)
    assert not exists(name)
    shm.close()
    assert exists(other)
    view.release()
    del view
    assert not exists(other)


def test_a_name_that_refers_to_another_object_remains(name):
    shm = SharedMemory.create(name, SIZE, delete="last")
    with SharedMemory.create(name, SIZE, replace=True) as other:
        shm.close()
        assert other.is_linked()
    assert exists(name)
    posixshm.shm_unlink(name)


def test_a_detached_descriptor_keeps_the_name(name):
    shm = SharedMemory.create(name, SIZE, delete="last")
    os.close(shm.detach())
    assert exists(name)
    posixshm.shm_unlink(name)


def test_a_program_that_only_maps_the_file_is_a_user(name, start_python):
    shm = SharedMemory.create(name, SIZE, delete="last")
    child = start_python(
        """
        import mmap, sys
        with open("/dev/shm/" + sys.argv[1], "rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        print("maps", flush=True)
        sys.stdin.read()
        """,
        name,
    )
    child.hear("maps")
    shm.close()
    assert exists(name)
    child.finish()
    with SharedMemory.create(name, SIZE, exist_ok=True, stale="replace", delete="last") as shm:
        assert shm.created
    assert not exists(name)


@kinds
@pytest.mark.parametrize("how", ["reclaim", "stale"])
def test_the_object_of_a_killed_process_can_be_removed(kind, name, user, how):  # noqa: F811
    child, _ = user(kind, name, "delete=last")
    child.kill()
    assert exists(name)
    if how == "stale":
        made, new = make(kind, name, stale="replace", **LAST)
        assert new
        made.close()
        del made
    elif kind == "Semaphore":  # reclaim() skips semaphores
        posixshm.sem_unlink(name)
    else:
        assert [found.removed for found in posixshm.reclaim(name)] == [True]
    assert not exists(name)


# -- processes that end -------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    "way",
    [
        "SharedMemory.create(name, 100, exist_ok=True, delete='last')",
        "array.create(name, 100, exist_ok=True, delete='last')",
        "Lock(name, create=True, exist_ok=True, delete='last')",
    ],
)
@pytest.mark.parametrize("kept", ["by a variable", "by a thread", "by nothing"])
def test_processes_that_end_at_once(name, start_python, way, kept):
    """The last process removes the name, although no process closes its object."""
    code = f"""
        import sys, threading, time
        from _processes import ready
        from posixshm import Lock, SharedMemory, array
        def keep(name):
            made = {way}
            return made, getattr(made, "buf", None)
        def use(name):
            held = keep(name)
            started.set()
            threading.Event().wait()
        name, kept = sys.argv[1:]
        if kept == "by a thread":
            started = threading.Event()
            threading.Thread(target=use, args=(name,), daemon=True).start()
            started.wait()
        elif kept == "by a variable":
            held = keep(name)
            sys.modules["held"] = held
        else:
            held = keep(name)
        ready()
    """
    children = [start_python(code, name, kept, env=PATH) for _ in range(4)]
    go(*children)
    for child in children:
        child.finish()
    assert not exists(name)


def test_a_forked_child_is_a_user(name, run_python):
    run_python(
        """
        import os, sys
        from posixshm import SharedMemory, array
        name = sys.argv[1]
        def exists():
            return os.path.exists("/dev/shm/" + name)

        # The child closes its handle after the parent.
        shm = SharedMemory.create(name, 100, delete="last")
        to_child, from_parent = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(from_parent)
            os.read(to_child, 1)
            assert exists() and shm.is_linked()
            shm.close()
            os._exit(exists())
        os.close(to_child)
        shm.close()
        assert exists()
        os.close(from_parent)
        assert os.waitpid(child, 0)[1] == 0 and not exists()

        # The parent outlives the child.
        shm = SharedMemory.create(name, 100, delete="last")
        child = os.fork()
        if child == 0:
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0 and exists()
        sys.modules["kept"] = shm, shm.buf
        """,
        name,
    )
    assert not exists(name)


@pytest.mark.parametrize(
    "method", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.long)]
)
def test_workers_of_multiprocessing(name, run_python, tmp_path, method):
    (tmp_path / "work.py").write_text(
        "import sys\n"
        "from posixshm import array\n"
        "def work(frames, name):\n"
        "    frames[0] += 1\n"
        "    sys.modules['kept'] = frames, array.create(name, 3, exist_ok=True, delete='last')\n"
    )
    run_python(
        """
        import multiprocessing, os, sys
        from posixshm import array
        from work import work
        if __name__ == "__main__":
            name, method = sys.argv[1:]
            context = multiprocessing.get_context(method)
            frames = array.create(name, 3, delete="last")
            workers = [context.Process(target=work, args=(frames, name + "-own")) for _ in range(3)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
                assert worker.exitcode == 0
            assert frames.is_linked() and frames[0] >= 1
            assert not os.path.exists("/dev/shm/" + name + "-own")
        """,
        name,
        method,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert not exists(name)


@pytest.mark.parametrize("opens", [False, True])
def test_forked_workers_that_outlive_the_creator(name, run_python, opens):
    """The workers inherit the creator's open file; some also open the object themselves."""
    run_python(
        """
        import multiprocessing, sys
        from posixshm import SharedMemory
        name, opens = sys.argv[1], sys.argv[2] == "True"
        context = multiprocessing.get_context("fork")
        shm, closed = SharedMemory.create(name, 100, delete="last"), context.Event()
        def work():
            own = SharedMemory.open(name) if opens else None
            sys.modules["kept"] = own
            ready.wait()
            closed.wait()
        ready = context.Barrier(4)
        workers = [context.Process(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        ready.wait()
        shm.close()
        closed.set()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        """,
        name,
        str(opens),
    )
    assert not exists(name)


# -- concurrent processes -----------------------------------------------------------------------


@pytest.mark.long
def test_an_object_in_use_keeps_its_name(name, start_python):
    """Processes attach to the object or create it, and close it; some are killed."""
    chance = random.Random(7)

    def start():
        child = start_python(RACE, name, chance.random(), env=PATH)
        child.hear("ready")
        return child

    children = [start() for _ in range(4)]
    for _ in range(5):
        victim = chance.randrange(len(children))
        children[victim].kill()
        children[victim] = start()
    for child in children:
        child.say("stop")
        child.finish()
    # If the last process was killed, its object is left.
    make("SharedMemory", name, stale="replace", **LAST)[0].close()
    assert not exists(name)


def test_a_process_that_opens_the_name_while_it_is_removed(name, run_threads):
    """The process gets an object that has the name, or FileNotFoundError, or waits for the next
    object."""
    done = []

    def come_and_go():
        try:
            for _ in range(400):
                make("SharedMemory", name, **LAST)[0].close()
        finally:
            done.append(True)

    def attach():
        while not done:
            with contextlib.suppress(FileNotFoundError, TimeoutError):
                with SharedMemory.open(name, timeout=random.choice([0, 0.001])) as shm:
                    assert shm.is_linked() and bytes(shm.buf) == bytes([FILLED]) * SIZE

    run_threads(come_and_go, attach, attach)
    assert not exists(name)


# -- permissions and errors ---------------------------------------------------------------------


def test_a_user_that_may_not_remove_it_leaves_it(name, run_python):
    needs_root()
    shm = SharedMemory.create(name, SIZE, mode=0o666, delete="last")
    run_python(
        """
        import sys
        from _processes import become
        from posixshm import SharedMemory
        become(int(sys.argv[2]))
        shm = SharedMemory.open(sys.argv[1])
        print(shm.is_linked())
        shm.close()
        """,
        name,
        SOMEBODY,
        env=PATH,
    )
    assert shm.is_linked()
    shm.close()
    assert not exists(name)


def test_a_reader_cannot_have_the_name_removed(name):
    """The mark is a write lock, so a process that may only read the object cannot set it."""
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 1 << 62, 1, 0)
    SharedMemory.create(name, SIZE).close()
    fd = posixshm.shm_open(name, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 1 << 62, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    shm = SharedMemory.open(name)
    os.close(fd)
    shm.close()
    assert exists(name)
    posixshm.shm_unlink(name)


def test_a_program_that_locks_the_whole_object_does_not_have_the_name_removed(name, start_python):
    """Its lock includes the byte of the mark, but is not a mark."""
    SharedMemory.create(name, SIZE).close()
    child = start_python(
        """
        import fcntl, sys
        with open("/dev/shm/" + sys.argv[1], "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            print("locks", flush=True)
            sys.stdin.read()
        """,
        name,
    )
    child.hear("locks")
    shm = SharedMemory.open(name)
    child.finish()
    shm.close()
    assert exists(name)
    posixshm.shm_unlink(name)


def test_values_of_delete(name):
    for make_one in (
        lambda delete: SharedMemory.create(name, SIZE, delete=delete),
        lambda delete: array.create(name, SIZE, delete=delete),
        lambda delete: posixshm.Lock(name, create=True, delete=delete),
    ):
        with pytest.raises(ValueError, match="delete must be True, False or 'last', not 'first'"):
            make_one("first")
        make_one("last").close()
        make_one(1).close()
    with pytest.raises(ValueError, match="delete goes with a name"):
        posixshm.Lock(delete="last")
    assert not exists(name)


def test_the_resource_tracker_is_notified(name, run_python):
    """The tracker does not warn about a removed name when the process ends."""
    run_python(
        """
        import sys
        from posixshm import SharedMemory
        for _ in range(2):
            SharedMemory.create(sys.argv[1], 100, delete="last", track=True).close()
        kept = SharedMemory.create(sys.argv[1], 100, delete="last", track=True)
        """,
        name,
    )
    assert not exists(name)


def test_ctrl_c_ends_in_order(name, start_python):
    child = start_python(
        """
        import signal, sys
        from posixshm import array
        frames = array.create(sys.argv[1], 100, delete="last")
        print("made", flush=True)
        signal.pause()
        """,
        name,
    )
    child.hear("made")
    child.signal(signal.SIGINT)
    status, _, errors = child.finish(check=False)
    assert status == -signal.SIGINT and "KeyboardInterrupt" in errors
    assert not exists(name)
