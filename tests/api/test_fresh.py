"""stale= and replace=: attach to an object in use, and replace an object that no process uses."""

import contextlib
import mmap
import os
import random

import pytest
from _processes import PATH, SOMEBODY, needs_mounts, needs_root
from children.fresh_user import FILLED, SIZE, make

import posixshm
from posixshm import SharedMemory, array

KINDS = ["SharedMemory", "array.create", "array.save", "Lock", "RLock", "Semaphore", "Condition"]
KINDS += ["Event", "Barrier", "RWLock"]
kinds = pytest.mark.parametrize("kind", KINDS)
USE = "import sys; from children import fresh_user; fresh_user.use(*sys.argv[1:])"
RACE = "import sys; from children import fresh_user; fresh_user.race(*sys.argv[1:])"
STALE = {"exist_ok": True, "stale": "replace"}


@pytest.fixture(autouse=True)
def no_names_left(names):
    yield
    posixshm.reclaim(names.prefix)
    for name in os.listdir("/dev/shm"):
        if name.startswith(f"sem.{names.prefix}"):
            os.unlink(f"/dev/shm/{name}")


@pytest.fixture
def user(start_python):
    """user(kind, name, "word=value", ...): a process that has the object, and the line it
    printed."""

    def user(kind, name, *words):
        child = start_python(USE, kind, name, *words, env=PATH)
        return child, child.hear()

    return user


def inode(made):
    return (made if isinstance(made, SharedMemory) else made.shm).stat().st_ino


@kinds
def test_an_object_of_a_live_process_is_attached(kind, name, user):
    child, said = user(kind, name)
    assert said == "new"
    for stale in ("attach", "replace", "error"):
        made, new = make(kind, name, exist_ok=True, stale=stale)
        assert not new
        made.close()
    child.finish()


@kinds
def test_an_object_of_a_killed_process_is_replaced(kind, name, user):
    child, _ = user(kind, name)
    child.kill()
    made, new = make(kind, name, exist_ok=True)
    assert not new, "without stale= the caller attaches to the old object"
    old = inode(made)
    made.close()
    del made
    with pytest.raises(
        FileExistsError, match=r"no process uses it, .* changed at 2.*stale='replace'"
    ):
        make(kind, name, exist_ok=True, stale="error")
    made, new = make(kind, name, **STALE)
    assert new and inode(made) != old
    again, new = make(kind, name, exist_ok=True, stale="error")
    assert not new and inode(again) == inode(made)
    made.close()
    again.close()


@kinds
def test_replace_leaves_the_old_object_to_its_users(kind, name, user):
    child, _ = user(kind, name)
    old, new = make(kind, name, exist_ok=True)
    assert not new
    fresh, new = make(kind, name, replace=True)
    assert new and inode(fresh) != inode(old)
    third, new = make(kind, name, **STALE)
    assert not new and inode(third) == inode(fresh)
    child.finish()
    for made in (old, fresh, third):
        made.close()


@kinds
def test_replace_creates_an_object_if_the_name_is_free(kind, name):
    made, new = make(kind, name, replace=True)
    assert new
    made.close()


def test_a_program_that_only_maps_the_file_uses_the_object(name, start_python):
    """A C program or numpy.memmap does not take the use lock of this library."""
    SharedMemory.create(name, SIZE).close()
    child = start_python(
        """
        import mmap, os, sys
        fd = os.open("/dev/shm/" + sys.argv[1], os.O_RDONLY)
        mapping = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        os.close(fd)
        print("maps", flush=True)
        sys.stdin.read()
        """,
        name,
    )
    child.hear("maps")
    with SharedMemory.create(name, SIZE, **STALE) as shm:
        assert not shm.created
    with pytest.raises(FileExistsError, match=f"process {child.pid} uses it"):
        SharedMemory.create(name, SIZE)
    child.kill()
    with SharedMemory.create(name, SIZE, **STALE) as shm:
        assert shm.created


def test_inspecting_an_object_is_not_a_use(name, run_threads):
    """Inspecting a name opens the object for a short time only; create() waits until it is
    unused."""
    done = []

    def inspect():
        while not done:
            with contextlib.suppress(FileNotFoundError):
                os.close(posixshm.shm_open(name, os.O_RDONLY))
            posixshm.reclaim(name, dry_run=True)

    def restart():
        try:
            for _ in range(200):
                with SharedMemory.create(name, SIZE, **STALE) as shm:
                    assert shm.created
        finally:
            done.append(True)

    run_threads(inspect, restart)


def test_an_exception_of_init_leaves_the_old_object(name):
    SharedMemory.create(name, SIZE, init=lambda buffer: buffer.__setitem__(0, 3)).close()
    for how in (STALE, {"replace": True}):
        with pytest.raises(ZeroDivisionError):
            SharedMemory.create(name, SIZE, init=lambda _: 1 / 0, **how)
        with SharedMemory.open(name) as shm:
            assert shm.buf[0] == 3


def test_a_faster_process_creates_the_object_while_init_runs(name):
    """The slower process attaches to the object of the faster process."""
    SharedMemory.create(name, SIZE).close()
    faster = []

    def init(buffer):
        faster.append(SharedMemory.create(name, SIZE, **STALE))

    with SharedMemory.create(name, SIZE, init=init, **STALE) as slower:
        assert faster[0].created and not slower.created
        assert inode(slower) == inode(faster[0])
    faster[0].close()


def test_a_process_that_attaches_while_init_runs_keeps_its_object(name):
    SharedMemory.create(name, SIZE).close()
    attached = []
    with SharedMemory.create(
        name, SIZE, init=lambda buffer: attached.append(SharedMemory.open(name)), **STALE
    ) as shm:
        assert not shm.created and shm.is_linked() and attached[0].is_linked()
    attached[0].close()


def test_an_object_of_another_owner_is_not_replaced(name):
    needs_root()
    SharedMemory.create(name, SIZE, uid=SOMEBODY).close()
    with pytest.raises(PermissionError, match=f"belongs to the user with uid {SOMEBODY}"):
        SharedMemory.create(name, SIZE, **STALE)
    with SharedMemory.create(name, SIZE, owner="any", **STALE) as shm:
        assert shm.created


def test_an_unknown_state_counts_as_in_use(name, run_python):
    """The kernel grants the write lease only to the owner."""
    needs_root()
    SharedMemory.create(name, SIZE, mode=0o666).close()
    run_python(
        """
        import sys
        from _processes import become
        from posixshm import SharedMemory
        become(int(sys.argv[2]))
        how = {"exist_ok": True, "owner": "any"}
        assert not SharedMemory.create(sys.argv[1], 10, stale="replace", **how).created
        assert not SharedMemory.create(sys.argv[1], 10, stale="error", **how).created
        try:
            SharedMemory.create(sys.argv[1], 10)
        except FileExistsError as error:
            assert "whether a process uses it is unknown" in str(error), error
        """,
        name,
        SOMEBODY,
        env=PATH,
    )


@pytest.mark.parametrize("kind", ["FIFO", "symbolic link", "directory"])
def test_other_kinds_of_files_are_not_replaced(name, kind):
    path = f"/dev/shm/{name}"
    {
        "FIFO": os.mkfifo,
        "directory": os.mkdir,
        "symbolic link": lambda path: os.symlink("/etc/passwd", path),
    }[kind](path)
    try:
        with pytest.raises(OSError, match=f"Not a shared memory object, but a {kind}"):
            SharedMemory.create(name, SIZE, **STALE)
        assert os.path.lexists(path)
    finally:
        (os.rmdir if kind == "directory" else os.unlink)(path)


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["SharedMemory", "array.create", "array.save", "Lock", "Semaphore"]
)
def test_arguments_that_contradict_each_other(kind, name):
    for how, text in (
        ({"exist_ok": True, "replace": True}, "give one of the two"),
        ({"stale": "replace"}, "stale='replace' needs exist_ok=True"),
        ({"stale": "error"}, "stale='error' needs exist_ok=True"),
        ({"exist_ok": True, "stale": "new"}, "'attach', 'replace' or 'error', not 'new'"),
    ):
        with pytest.raises(ValueError, match=text):
            make(kind, name, **how)
    with pytest.raises(TypeError, match="stale must be '.*', not True"):
        make(kind, name, exist_ok=True, stale=True)
    assert name not in posixshm.listdir()


def test_arguments_that_need_a_name():
    for word in ("replace", "exist_ok"):
        with pytest.raises(ValueError, match=f"{word} needs a name"):
            SharedMemory.create(None, SIZE, **{word: True})
        with pytest.raises(ValueError, match=f"{word} goes with a name"):
            posixshm.Lock(**{word: True})
        with pytest.raises(ValueError, match="this array is anonymous"):
            array.create(None, SIZE, **{word: True})


def test_replace_goes_with_create(name):
    with pytest.raises(ValueError, match="replace goes with create=True"):
        posixshm.Event(name, replace=True)


# -- typical uses -------------------------------------------------------------------------------


def test_a_service_that_is_killed_and_restarted(name, user):
    """The service attaches to the object while its client uses it."""
    seen = set()
    for _ in range(2):
        service, said = user("SharedMemory", name, "exist_ok=True", "stale=replace")
        client, attached = user("SharedMemory", name, "exist_ok=True", "stale=replace")
        assert (said, attached) == ("new", "attached")
        seen.add(os.stat(f"/dev/shm/{name}").st_ino)
        service.kill()
        restarted, said = user("SharedMemory", name, "exist_ok=True", "stale=replace")
        assert said == "attached", "the client still uses the object"
        for child in (restarted, client):
            child.kill()
    assert seen


def test_a_notebook_can_replace_its_array_repeatedly(name):
    """The views of the first run remain valid after the second run has replaced the object."""
    cell = "frames = array.create(name, shape, 'u1', replace=True); frames[:] = shape[0]"
    space = {"array": array, "name": name}
    exec(cell, {**space, "shape": (2, 3)}, space)
    view = space["frames"][0]
    exec(cell, {**space, "shape": (4, 5)}, space)
    assert view.tolist() == [2, 2, 2] and space["frames"].is_linked()
    assert array.load(name).shape == (4, 5)
    space["frames"].unlink()


@pytest.mark.parametrize("sizes", [(100, 200), (200, 100)])
def test_a_frame_size_that_changes_between_runs(name, start_python, sizes):
    run = """
        import sys
        from posixshm import SharedMemory, array
        name, size = sys.argv[1], int(sys.argv[2])
        frames = array.create(name, (size, 3), "u1", exist_ok=True, stale="replace")
        print(frames.shm.created, *frames.shape, flush=True)
        sys.stdin.read()
    """
    first, second = sizes
    child = start_python(run, name, first)
    child.hear(f"True {first} 3")
    with pytest.raises(FileExistsError, match=f"process {child.pid} uses it: replace=True instead"):
        array.create(name, (second, 3), "u1", **STALE)
    child.kill()
    with pytest.raises(FileExistsError, match="no process uses it.*: stale='replace' makes a new"):
        array.create(name, (second, 3), "u1", exist_ok=True)
    child = start_python(run, name, second)
    child.hear(f"True {second} 3")
    child.finish()


def test_a_pod_whose_container_restarts(name, start_python):
    """In a new PID namespace with the old /dev/shm the primitives are fresh, and no lock is
    held."""
    needs_mounts()
    for number in range(3):
        container = start_python(
            "import sys; from children.fresh_container import serve; serve(*sys.argv[1:])",
            name,
            number,
            env=PATH,
        )
        container.hear("new new new")
        container.hear("ended -9")
        container.finish()


# -- concurrent processes -----------------------------------------------------------------------


@pytest.mark.long
def test_only_one_of_many_processes_replaces_the_object(name, start_python):
    code = """
        import sys
        from _processes import ready
        from children.fresh_user import make
        name = sys.argv[1]
        for number in range(int(sys.argv[2])):
            ready()
            made, new = make("SharedMemory", name, exist_ok=True, stale="replace")
            print("new" if new else "attached", made.stat().st_ino, flush=True)
            assert sys.stdin.readline() == "close\\n"
            made.close()
            print("closed", flush=True)
    """
    rounds, children = 20, []
    for _ in range(6):
        children.append(start_python(code, name, rounds, env=PATH))
    SharedMemory.create(name, SIZE).close()
    for _ in range(rounds):
        old = os.stat(f"/dev/shm/{name}").st_ino
        for child in children:
            child.hear("ready")
        for child in children:
            child.say("go")
        said = [child.hear().split() for child in children]
        assert sorted(word for word, _ in said) == ["attached"] * 5 + ["new"], said
        assert len({number for _, number in said}) == 1
        assert os.stat(f"/dev/shm/{name}").st_ino == int(said[0][1]) != old
        for child in children:
            child.say("close")
        for child in children:
            child.hear("closed")
    for child in children:
        child.finish()


@pytest.mark.long
def test_no_object_in_use_is_ever_replaced(name, start_python):
    """Processes start, end and are killed; each object keeps its name while a process uses it."""
    chance = random.Random(5)
    children = []

    def start():
        child = start_python(RACE, name, chance.random(), env=PATH)
        child.hear("ready")
        return child

    for _ in range(4):
        children.append(start())
    for _ in range(8):
        victim = chance.randrange(len(children))
        children[victim].kill()
        children[victim] = start()
    for child in children:
        child.say("stop")
        child.finish()


def test_readers_see_a_complete_object_while_it_is_replaced(name, run_threads):
    """A reader that opens the name always gets a complete object."""
    SharedMemory.create(
        name, SIZE, init=lambda b: b.__setitem__(slice(None), b"\x07" * SIZE)
    ).close()
    done = []

    def read():
        count = 0
        while not done or count == 0:
            with SharedMemory.open(name, readonly=True) as shm:
                assert bytes(shm.buf) == bytes([FILLED]) * SIZE
            with (
                open(f"/dev/shm/{name}", "rb") as file,
                mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping,
            ):
                assert mapping[:] == bytes([FILLED]) * SIZE
            count += 1

    def replace():
        try:
            for number in range(300):
                how = STALE if number % 2 else {"replace": True}
                make("SharedMemory", name, **how)[0].close()
        finally:
            done.append(True)

    run_threads(read, replace)


# -- messages -----------------------------------------------------------------------------------


def test_the_error_names_the_processes(name, user):
    first, _ = user("SharedMemory", name)
    second, _ = user("SharedMemory", name, "exist_ok=True")
    pids = "|".join(map(str, {first.pid, second.pid}))
    with pytest.raises(FileExistsError) as caught:
        SharedMemory.create(name, SIZE)
    text = str(caught.value)
    assert f"{first.pid}" in text and f"{second.pid}" in text and "use it: exist_ok=True" in text
    for make_name in (
        lambda: SharedMemory.unlinked(SIZE).link(name),
        lambda: array.save(name, [1]),
        lambda: posixshm.Lock(name, create=True),
        lambda: SharedMemory.create(name, 10 * SIZE, exist_ok=True),
        lambda: SharedMemory.create(name, 10, exist_ok=True, max_size=20),
        lambda: posixshm.shared_memory.SharedMemory(name, create=True, size=10),
    ):
        with pytest.raises(
            FileExistsError, match=rf"processes ({pids}), ({pids}) use it: "
        ) as caught:
            make_name()
        assert caught.value.filename == name
    first.kill()
    with pytest.raises(FileExistsError, match=f"process {second.pid} uses it: "):
        SharedMemory.create(name, SIZE)
    second.kill()


@pytest.mark.parametrize(
    "make_it, kind",
    [(os.mkdir, "a directory"), (os.mkfifo, "a FIFO"), (lambda path: os.symlink("/", path), "a symb")],
)
def test_the_error_names_the_type_of_another_file(name, make_it, kind):
    """The message does not suggest an argument, because none would help."""
    path = f"/dev/shm/{name}"
    make_it(path)
    try:
        with pytest.raises(FileExistsError, match=f"not by a shared memory object, but by {kind}"):
            SharedMemory.create(name, SIZE)
    finally:
        (os.rmdir if kind == "a directory" else os.unlink)(path)


def test_the_error_says_that_the_object_is_unused_and_since_when(name):
    import time

    SharedMemory.create(name, SIZE).close()
    os.utime(f"/dev/shm/{name}", (1, 1))
    changed = os.stat(f"/dev/shm/{name}").st_ctime
    then = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(changed))
    unused = f"no process uses it, and it was last changed at {then}: "
    for make_name, hint in (
        (
            lambda: SharedMemory.create(name, SIZE),
            "replace=True, or exist_ok=True with stale='repl",
        ),
        (lambda: SharedMemory.create(name, 100, exist_ok=True), "stale='replace' makes a new one"),
        (lambda: SharedMemory.unlinked(9).link(name), "replace=True takes the name from it"),
        (
            lambda: posixshm.Lock(name, create=True),
            "replace=True, or exist_ok=True with stale='rep",
        ),
    ):
        with pytest.raises(FileExistsError) as caught:
            make_name()
        assert unused + hint in str(caught.value), caught.value
