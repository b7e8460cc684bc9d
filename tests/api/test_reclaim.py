"""reclaim() removes the objects of dead processes, keeps objects in use, and delays no process."""

import ctypes
import errno
import json
import math
import mmap
import os
import signal
import stat
import time

import conftest
import pytest
from _processes import PATH, SHM, Faults, go, needs_mounts, needs_root
from _waits import until

import posixshm
from posixshm import MemoryMap, Reclaimed, SharedMemory, reclaim


def actions(found):
    return {each.name: "removed" if each.removed else each.state for each in found}


def left(prefix):
    return sorted(each for each in os.listdir(SHM) if each.startswith(prefix))


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 10_000) as shm:
        yield shm
        if shm.is_linked():
            shm.unlink()


def leave(name, size=100, **keywords):
    """Create an object that no process uses."""
    SharedMemory.create(name, size, **keywords).close()


# -- selection ----------------------------------------------------------------------------------


def test_reclaim_requires_a_prefix_or_an_age(name):
    leave(name)
    for wrong in ({}, {"prefix": None}, {"prefix": ""}, {"prefix": "", "dry_run": True}):
        with pytest.raises(ValueError, match="prefix"):
            reclaim(**wrong)
    with pytest.raises(ValueError, match="prefix"):
        reclaim(prefix="", older_than=1e9)
    for wrong in (-1, math.nan, -math.inf):
        with pytest.raises(ValueError, match="older_than"):
            reclaim(name, older_than=wrong)
    for wrong in ("1", b"x", []):
        with pytest.raises(TypeError):
            reclaim(name, older_than=wrong)
    with pytest.raises(TypeError):
        reclaim(name.encode())
    assert left(name) == [name]
    reclaim(name)


def test_reclaim_returns_what_it_did(name):
    leave(name, 12345)
    before = time.time() - os.stat(f"{SHM}/{name}").st_ctime
    found = reclaim(prefix=name)
    assert [(each.name, each.size, each.state) for each in found] == [(name, 12345, "free")]
    assert (found[0].removed, found[0].error, found[0].uninspected) == (True, None, 0)
    assert isinstance(found[0], Reclaimed) and isinstance(found[0], tuple)
    assert found[0] == (name, 12345, found[0].age, "free", True, None, 0)
    assert before - 1 <= found[0].age < before + 60
    assert left(name) == []
    assert reclaim(name) == []


def test_only_names_with_the_prefix_are_touched(names):
    prefix = names()
    wanted = [f"{prefix}-a", f"{prefix}-b", prefix]
    others = [names(), f"x{prefix}", prefix[:-1] + "Z" + prefix[-1:]]
    for each in wanted + others:
        leave(each)
    try:
        assert actions(reclaim(prefix)) == dict.fromkeys(wanted, "removed")
        for each in others:
            assert os.path.exists(f"{SHM}/{each}")
    finally:
        for each in others:
            posixshm.shm_unlink(each)


def test_dry_run_removes_nothing(name, names):
    leave(name)
    before = os.stat(f"{SHM}/{name}")
    for _ in range(3):
        assert actions(reclaim(name, dry_run=True)) == {name: "free"}
        assert os.stat(f"{SHM}/{name}") == before
    with SharedMemory.open(name):
        assert actions(reclaim(name, dry_run=True)) == {name: "in use"}
    assert actions(reclaim(name, dry_run=False)) == {name: "removed"}


def test_objects_that_are_too_young_are_kept_and_not_listed(name):
    leave(name)
    for age in (1e6, 10**9, math.inf):
        assert reclaim(name, older_than=age) == []
    assert reclaim(older_than=math.inf) == reclaim(None, older_than=math.inf, dry_run=True) == []
    assert left(name) == [name]
    assert actions(reclaim(name, older_than=0)) == {name: "removed"}


def test_age_decides_among_many(names):
    prefix = names()
    several = [f"{prefix}-{number}" for number in range(30)]
    created = {}
    for each in several:
        leave(each)
        created[each] = os.stat(f"{SHM}/{each}").st_ctime
        time.sleep(0.02)
    begin = time.time()
    age = begin - created[several[15]]
    found = actions(reclaim(prefix, older_than=age))
    end = time.time()
    assert set(found.values()) == {"removed"}
    # The times of the kernel have the resolution of a tick.
    tick = 0.02
    for each in several:
        if each in found:
            assert end - created[each] >= age - tick
        else:
            assert begin - created[each] < age + tick
    assert set(several[:14]) <= set(found)
    assert left(prefix) == sorted(set(several) - set(found))
    reclaim(prefix)


def test_age_alone_and_other_files(run_python):
    needs_mounts()
    code = """
        import os, socket
        from _processes import SHM, private_shm
        private_shm()
        from posixshm import SharedMemory, listdir, reclaim

        os.mkdir(f"{SHM}/directory")
        os.mkfifo(f"{SHM}/fifo")
        os.symlink("/etc/passwd", f"{SHM}/symlink")
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"{SHM}/socket")
        open(f"{SHM}/sem.plain", "w").close()
        SharedMemory.create("object", 100).close()
        open(f"{SHM}/empty", "w").close()
        used = SharedMemory.create("used", 100)
        others = ["directory", "fifo", "sem.plain", "socket", "symlink"]

        assert sorted(listdir()) == ["empty", "object", "used"]
        assert reclaim(older_than=3600) == []
        found = reclaim(older_than=0, dry_run=True)
        assert sorted((each.name, each.state) for each in found) == [
            ("empty", "free"), ("object", "free"), ("used", "in use")]
        found = reclaim(older_than=0)
        assert sorted((each.name, each.removed) for each in found) == [
            ("empty", True), ("object", True), ("used", False)]
        assert sorted(os.listdir(SHM)) == sorted([*others, "used"])
        for prefix in others:
            assert reclaim(prefix) == []
        assert sorted(os.listdir(SHM)) == sorted([*others, "used"])
    """
    run_python(code, env=PATH)


def test_semaphores_are_never_touched(names):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sem_open.restype = ctypes.c_void_p
    libc.sem_close.argtypes = [ctypes.c_void_p]
    name = names()
    semaphore = libc.sem_open(f"/{name}".encode(), os.O_CREAT | os.O_EXCL, 0o600, 1)
    assert semaphore
    try:
        assert libc.sem_close(semaphore) == 0
        assert left(f"sem.{name}") == [f"sem.{name}"]
        for prefix in (f"sem.{name}", name):
            assert reclaim(prefix) == []
            assert reclaim(prefix, older_than=0) == []
            assert reclaim(prefix, dry_run=True) == []
        assert f"sem.{name}" not in posixshm.listdir()
        assert left(f"sem.{name}") == [f"sem.{name}"]
    finally:
        libc.sem_unlink(f"/{name}".encode())


def test_names_that_are_not_text_are_found_and_reclaimed(name):
    for tail in (
        b"\xff\xfe",
        b"\xe2\x82",
        b"caf\xe9",
        "snow☃".encode(),
        b"line\nbreak",
        b"\x80" * 200,
    ):
        raw = name.encode() + tail
        os.close(os.open(os.fsencode(SHM) + b"/" + raw, os.O_CREAT | os.O_RDWR))
        listed = [each for each in posixshm.listdir() if each.startswith(name)]
        assert [os.fsencode(each) for each in listed] == [raw]
        found = reclaim(name)
        assert [os.fsencode(each.name) for each in found] == [raw]
        assert found[0].removed
        assert left(name) == []


def test_a_name_without_any_text_stays_in_its_directory(run_python):
    needs_mounts()
    code = r"""
        import os
        from _processes import SHM, private_shm
        private_shm()
        from posixshm import reclaim
        for raw in (b"\x80" * 255, b"\xbf" * 240, b"~" * 255, b"a" + b"\x80" * 254):
            os.close(os.open(os.fsencode(SHM) + b"/" + raw, os.O_CREAT | os.O_RDWR))
            before = sorted(os.listdir(b"/dev"))
            found = reclaim(older_than=0)
            assert [(os.fsencode(each.name), each.removed) for each in found] == [(raw, True)]
            assert os.listdir(SHM) == []
            assert sorted(os.listdir(b"/dev")) == before
    """
    run_python(code, env=PATH)


# -- objects in use -----------------------------------------------------------------------------


HOLDERS = {
    "a handle": "shm = SharedMemory.open(name)",
    "a read-only handle": "shm = SharedMemory.open(name, readonly=True)",
    "its creator": "SharedMemory.open(name).unlink(); shm = SharedMemory.create(name, 10)",
    "one who unpickled it": "shm = pickle.loads(pickle.dumps(SharedMemory.open(name)))",
    "a detached descriptor": "fd = SharedMemory.open(name).detach()",
    "from_fd": "shm = SharedMemory.from_fd(os.open('/dev/shm/' + name, os.O_RDWR))",
    "a mapping after close_fd": "shm = SharedMemory.open(name); shm.close_fd()",
    "a view after close": "shm = SharedMemory.open(name); view = shm.buf; shm.close()",
    "a MemoryMap": "m = MemoryMap(os.open('/dev/shm/' + name, os.O_RDWR)); os.closerange(3, 50)",
    "a plain mmap": """
fd = os.open('/dev/shm/' + name, os.O_RDONLY)
plain = mmap.mmap(fd, 100, prot=mmap.PROT_READ)
os.closerange(3, 50)""",
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_an_object_is_in_use_until_its_user_is_killed(start_python, name, holder):
    leave(name)
    code = f"""
import mmap, os, pickle, sys
from posixshm import MemoryMap, SharedMemory
name = sys.argv[1]
{HOLDERS[holder]}
print("using it", flush=True)
sys.stdin.read()
"""
    child = start_python(code, name)
    child.hear("using it")
    inode = os.stat(f"{SHM}/{name}").st_ino
    for keywords in ({}, {"dry_run": True}, {"older_than": 0}):
        assert actions(reclaim(name, **keywords)) == {name: "in use"}
    assert os.stat(f"{SHM}/{name}").st_ino == inode
    assert left(name) == [name]
    child.kill()
    assert actions(reclaim(name)) == {name: "removed"}


def test_an_object_that_this_process_uses_is_in_use(shm, name):
    assert actions(reclaim(name)) == {name: "in use"}
    shm.close_fd()
    assert actions(reclaim(name)) == {name: "in use"}
    view = shm.buf
    shm.close()
    assert actions(reclaim(name)) == {name: "in use"}
    part = shm_part(name)
    view.release()
    assert actions(reclaim(name)) == {name: "in use"}
    del part
    assert actions(reclaim(name)) == {name: "removed"}


def shm_part(name):
    fd = os.open(f"{SHM}/{name}", os.O_RDWR)
    try:
        return MemoryMap(fd, mmap.PAGESIZE, mmap.PAGESIZE)
    finally:
        os.close(fd)


def test_each_handle_has_its_own_use_lock(shm, name):
    second = SharedMemory.open(name)
    view = second.buf
    shm.close()
    assert actions(reclaim(name)) == {name: "in use"}
    del view
    second.close()
    assert actions(reclaim(name)) == {name: "removed"}


# Programs that do not use this library, some with only a descriptor. They run as the same user, as
# another user, and in another PID namespace, in which our /proc need not show their descriptors.
STRANGERS = {
    "a raw descriptor": "fd = posixshm.shm_open(name, os.O_RDONLY)",
    "a descriptor for writing": "fd = os.open('/dev/shm/' + name, os.O_WRONLY)",
    "a mapping": """
fd = os.open('/dev/shm/' + name, os.O_RDWR)
plain = mmap.mmap(fd, 100)
os.close(fd)""",
    "a descriptor under way": """
one, other = socket.socketpair()
fd = posixshm.shm_open(name, os.O_RDONLY)
socket.send_fds(one, [b"x"], [fd])
os.close(fd)""",
}


@pytest.mark.parametrize("where", ["same user", "another user", "another PID namespace"])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_use_without_the_use_lock_is_found(start_python, name, stranger, where):
    if where != "same user":
        needs_root()
    leave(name, mode=0o666)
    code = f"""
import ctypes, mmap, os, socket, sys
import posixshm
from _processes import SOMEBODY, become
name = sys.argv[1]
if {where!r} == "another user":
    become(SOMEBODY)
if {where!r} == "another PID namespace":
    assert ctypes.CDLL(None).unshare(0x20000000) == 0
    begun, ready = os.pipe()
    if (child := os.fork()):
        os.close(ready)
        os.read(begun, 1)  # its line comes first
        os.write(1, f"{{child}}\\n".encode())
        sys.exit(os.waitpid(child, 0)[1])
    assert os.getpid() == 1
{STRANGERS[stranger]}
print("using it", flush=True)
if {where!r} == "another PID namespace":
    os.close(ready)
sys.stdin.read()
"""
    child = start_python(code, name, env=PATH)
    child.hear("using it")
    inner = int(child.hear()) if where == "another PID namespace" else None
    for keywords in ({}, {"dry_run": True}, {"force": True}):
        (found,) = reclaim(name, **keywords)
        assert (found.state, found.removed, found.error) == ("in use", False, None)
    assert left(name) == [name]
    if inner is not None:
        os.kill(inner, signal.SIGKILL)
        child.finish(check=False)
    else:
        child.kill()
    # The kernel closes descriptors in the socket of a dead process some time later.
    until(lambda: actions(reclaim(name)) == {name: "removed"})


def test_a_reclaimer_in_a_container_finds_a_process_outside(run_python, shm, name):
    """The container shares only /dev/shm."""
    needs_root()
    code = """
        import ctypes, sys
        from _processes import private_processes
        from posixshm import reclaim
        CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
        assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        assert ctypes.CDLL(None).mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
        private_processes()
        for force in (False, True):
            (found,) = reclaim(sys.argv[1], force=force)
            assert (found.state, found.removed) == ("in use", False), found
    """
    fd = posixshm.shm_open(name, os.O_RDONLY)
    shm.close()
    run_python(code, name, env=PATH)
    assert shm.is_linked()
    os.close(fd)


def test_without_a_write_lease_the_state_is_unknown(run_python, faults, name):
    """As on a kernel that does not grant write leases. A use that /proc shows still counts."""
    code = """
        import mmap, os, sys
        from _processes import Faults
        import posixshm
        from posixshm import SharedMemory, reclaim
        faults, name = Faults(), sys.argv[1]
        def found(**keywords):
            faults.arm("fcntl", 1, Faults.FAIL_ON, 22)
            try:
                (row,) = reclaim(name, **keywords)
            finally:
                faults.disarm()
            return row.state, row.removed, row.error
        with SharedMemory.create(name, 100):
            assert found(force=True) == ("in use", False, None)
        assert found() == found(dry_run=True, force=True) == ("unknown", False, None)
        fd = posixshm.shm_open(name, os.O_RDONLY)
        assert found(force=True) == ("in use", False, None)
        plain = mmap.mmap(fd, 100, prot=mmap.PROT_READ)
        os.close(fd)
        assert found(force=True) == ("in use", False, None)
        plain.close()
        assert found(force=True) == ("unknown", True, None)
    """
    run_python(code, name, env=faults)
    assert left(name) == []


# -- objects of dead processes ------------------------------------------------------------------


def test_thousands_of_objects_of_killed_jobs(start_python, names):
    prefix, each = names(), 700
    code = """
        import resource, sys
        from posixshm import SharedMemory
        prefix, count = sys.argv[1], int(sys.argv[2])
        held = []
        for number in range(count):
            shm = SharedMemory.create(f"{prefix}-{number}", 100)
            if number < 200:  # an ordinary user may be limited to fewer descriptors
                held.append(shm)
            else:
                shm.close()
        print("made", flush=True)
        sys.stdin.read()
    """
    jobs = [start_python(code, f"{prefix}-{job}", each) for job in range(3)]
    for job in jobs:
        job.hear("made")
    jobs[0].kill()
    jobs[1].kill()
    found = actions(reclaim(prefix, dry_run=True))
    assert len(found) == 3 * each
    assert sum(action == "in use" for action in found.values()) == 200
    found = actions(reclaim(f"{prefix}-0"))
    assert set(found.values()) == {"removed"} and len(found) == each
    found = actions(reclaim(prefix))
    assert len(found) == 2 * each
    for name, action in found.items():
        _, job, number = name.removeprefix(prefix).split("-")
        assert action == ("in use" if job == "2" and int(number) < 200 else "removed")
    jobs[2].kill()
    found = actions(reclaim(prefix))
    assert set(found.values()) == {"removed"} and len(found) == 200
    assert left(prefix) == []


def test_a_stopped_process_keeps_its_object(start_python, name):
    child = start_python(
        """
        import sys
        from posixshm import SharedMemory
        shm = SharedMemory.create(sys.argv[1], 100)
        print("made", flush=True)
        sys.stdin.read()
        """,
        name,
    )
    child.hear("made")
    child.signal(signal.SIGSTOP)
    assert actions(reclaim(name)) == {name: "in use"}
    child.kill()
    assert actions(reclaim(name)) == {name: "removed"}


# -- attaching during reclaim() -----------------------------------------------------------------


def test_an_attacher_gets_the_live_object_or_none(start_python, names):
    batches, size = 10, 400
    attacher = """
        import json, os, random, sys
        from _processes import SHM
        from posixshm import SharedMemory

        seed, size = int(sys.argv[1]), int(sys.argv[2])
        random.seed(seed)
        print("ready", flush=True)
        for line in sys.stdin:
            batch = line.strip()
            numbers = list(range(size))
            random.shuffle(numbers)
            held, absent = {}, 0
            for number in numbers:
                name = f"{batch}-{number}"
                try:
                    shm = SharedMemory.open(name)
                except FileNotFoundError:
                    absent += 1
                    continue
                assert bytes(shm.buf[:8]) == b"original", bytes(shm.buf[:8])
                assert shm.is_linked(), "attached to a removed object"
                assert os.stat(f"{SHM}/{name}").st_ino == os.fstat(shm.fileno()).st_ino
                held[name] = shm
                if len(held) % 4 == 0:  # a reclaimer may have it later
                    held.pop(random.choice(list(held))).close()
            # They all stayed, whatever the reclaimer did meanwhile.
            for name, shm in held.items():
                assert shm.is_linked(), "removed under its holder"
                assert os.stat(f"{SHM}/{name}").st_ino == os.fstat(shm.fileno()).st_ino
            print(json.dumps([sorted(held), absent]), flush=True)
            assert sys.stdin.readline() == "drop\\n"
            for shm in held.values():
                assert shm.is_linked(), "removed under its holder"
                shm.close()
            print("dropped", flush=True)
    """
    reclaimer = """
        import sys
        from posixshm import reclaim
        print("ready", flush=True)
        for line in sys.stdin:
            removed = 0
            for _ in range(2):
                for each in reclaim(line.strip()):
                    assert each.state in ("free", "in use"), each
                    removed += each.removed
            print(removed, flush=True)
    """
    attachers = [start_python(attacher, seed, size, env=PATH) for seed in (1, 2)]
    reclaimers = [start_python(reclaimer) for _ in range(2)]
    for child in (*attachers, *reclaimers):
        child.hear("ready")
    for _ in range(batches):
        batch = names()
        for number in range(size):
            with SharedMemory.create(f"{batch}-{number}", 5000) as shm:
                shm.buf[:8] = b"original"
        for child in (*attachers, *reclaimers):
            child.say(batch)
        removed = sum(int(child.hear()) for child in reclaimers)
        held = set()
        for child in attachers:
            names_held, _ = json.loads(child.hear())
            held |= set(names_held)
        there = set(left(f"{batch}-"))
        assert held <= there
        assert len(there) == size - removed
        assert set(actions(reclaim(batch))) == there
        assert held <= set(left(batch))
        for child in attachers:
            child.say("drop")
        for child in attachers:
            child.hear("dropped")
        assert set(actions(reclaim(batch)).values()) <= {"removed"}
        assert left(batch) == []
    for child in (*attachers, *reclaimers):
        child.finish()


def test_a_name_that_is_created_again_and_again(start_python, name):
    """The reclaimer must not remove a new object after it inspected the old object."""
    creator = """
        import sys
        from _processes import ready, stopped
        from posixshm import SharedMemory
        name = sys.argv[1]
        ready()
        rounds = 0
        while rounds == 0 or not stopped():
            with SharedMemory.create(name, 100) as shm:
                for _ in range(rounds % 3):
                    assert shm.is_linked(), "a reclaimer removed an object in use"
                try:
                    assert shm.is_linked(), "a reclaimer removed an object in use"
                    if rounds % 2:
                        shm.unlink()
                        shm.name
                        rounds += 1
                        continue
                except FileNotFoundError:
                    raise AssertionError("a reclaimer removed an object in use")
            rounds += 1
            try:
                with SharedMemory.open(name) as shm:
                    assert shm.is_linked()
                    shm.unlink()
            except FileNotFoundError:  # reclaimed while no process used it
                pass
        print(rounds)
    """
    reclaimer = """
        import sys
        from _processes import ready
        from posixshm import reclaim
        ready()
        removed = 0
        for _ in range(60):
            for each in reclaim(sys.argv[1]):
                assert each.state in ("free", "in use"), each
                removed += each.removed
        print(removed)
    """
    creators = [start_python(creator, name, env=PATH)]
    reclaimers = [start_python(reclaimer, name, env=PATH) for _ in range(2)]
    go(*creators, *reclaimers)
    for child in reclaimers:
        child.finish()
    creators[0].say("stop")
    assert int(creators[0].finish()[1]) > 0
    assert left(name) == []


# A reclaimer that is stopped or killed at one of its system calls.
FROZEN = """
    import sys
    from _processes import Faults
    from posixshm import reclaim
    faults = Faults()
    print("ready", flush=True)
    name, call, nth, action = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    faults.arm(call, nth, action)
    found = reclaim(name)
    faults.disarm()
    print(*[f"{each.name}={'removed' if each.removed else each.state}" for each in found], sep="\\n", flush=True)
"""


def freeze(start_python, faults, name, call, nth, action):
    """A reclaimer, and whether it stopped at the call; it ends if it does not make that call."""
    child = start_python(FROZEN, name, call, nth, action, env=faults)
    child.hear("ready")
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return child, True
    child.process.returncode = os.waitstatus_to_exitcode(status)
    return child, False


CALLS = (
    "opendir readdir stat open fdopen getline shm_open fcntl flock fstat lstat getrandom rename "
    "renameat2 link linkat unlink shm_unlink close"
).split()


@pytest.fixture(scope="module")
def points(tmp_path_factory, faults):
    """(name, number) of each system call of reclaim() at which a reclaimer should stop."""
    code = f"""
        import json, sys
        from _processes import Faults
        from posixshm import SharedMemory, reclaim
        faults, name, counts = Faults(), sys.argv[1], {{}}
        for call in {CALLS}:
            SharedMemory.create(name, 100).close()
            faults.arm(call, 0)
            assert [each.removed for each in reclaim(name)] == [True]
            counts[call] = faults.disarm()
        print(json.dumps(counts))
    """
    name = f"posixshm-test-{os.getpid()}-points"
    child = conftest.Child(code, name, env=faults)
    counts = json.loads(child.finish()[1])
    assert counts["shm_open"] >= 1 and counts["flock"] >= 1
    return [
        (call, nth)
        for call, count in counts.items()
        for nth in range(1, 1 + (min(count, 1) if call in Faults.MANY else count))
    ]


@pytest.mark.long
def test_a_reclaimer_stopped_at_any_call_blocks_no_process(
    start_python, faults, names, points
):
    outcomes = set()
    for call, nth in points:
        name = names()
        leave(name, 5000)
        child, frozen = freeze(start_python, faults, name, call, nth, Faults.STOP_BEFORE)
        assert frozen, (call, nth)
        holder = None
        try:
            holder = SharedMemory.open(name)
            outcome = "attached"
            assert holder.is_linked()
        except FileNotFoundError:
            outcome = "gone"
            with SharedMemory.create(name, 70) as second:
                assert second.created
        except BlockingIOError:
            outcome = "refused"  # the reclaimer was stopped while it held its write lease
        outcomes.add(outcome)
        child.signal(signal.SIGCONT)
        said = child.finish()[1].split("\n")[:-1]
        if outcome == "attached":
            assert said in ([f"{name}=in use"], [""]), (call, nth, said)
            assert left(name) == [name] and holder.is_linked(), (call, nth)
            holder.close()
            assert actions(reclaim(name)) == {name: "removed"}
        elif outcome == "gone":
            assert left(name) == [name], (call, nth)  # the new object is kept
            with SharedMemory.open(name) as second:
                assert second.size == 70
                second.unlink()
        else:
            assert said == [f"{name}=removed"], (call, nth, said)
        assert left(name) == []
    assert outcomes == {"attached", "gone", "refused"}


@pytest.mark.parametrize("action", [Faults.KILL_BEFORE, Faults.KILL_AFTER])
def test_a_reclaimer_killed_at_any_call_leaves_only_reclaimable_objects(
    start_python, faults, names, points, action
):
    for call, nth in points:
        name = names()
        leave(name, 5000)
        child, _ = freeze(start_python, faults, name, call, nth, action)
        assert child.process.returncode == -signal.SIGKILL
        child.finish(check=False)
        assert set(actions(reclaim(name)).values()) <= {"removed"}, (call, nth)
        assert left(name) == [], (call, nth)


def test_an_object_that_replaces_another_during_reclaim_is_kept(start_python, faults, names):
    for call in ("shm_open", "flock", "fstat", "lstat"):
        name, other = names(), names()
        leave(name, 5000)
        with SharedMemory.create(other, 60):
            child, frozen = freeze(start_python, faults, name, call, 1, Faults.STOP_BEFORE)
            if not frozen:
                child.finish()
                assert left(name) == []
                posixshm.shm_unlink(other)
                continue
            os.rename(f"{SHM}/{other}", f"{SHM}/{name}")  # replace the object without the name lock
            child.signal(signal.SIGCONT)
            child.finish()
            assert os.stat(f"{SHM}/{name}").st_size == 60, call
            posixshm.shm_unlink(name)
        reclaim(name)
        assert left(name) == [], call


# -- permission ---------------------------------------------------------------------------------


def test_an_object_without_permission_to_remove_is_reported_and_kept(run_python, names):
    needs_root()
    prefix = names()
    code = """
        import json, os, stat, sys
        from _processes import SHM, SOMEBODY, become
        from posixshm import SharedMemory, reclaim
        prefix = sys.argv[1]
        assert os.stat(SHM).st_mode & stat.S_ISVTX
        become(SOMEBODY)
        SharedMemory.create(f"{prefix}-mine", 10).close()
        SharedMemory.create(f"{prefix}-mine-0400", 10, mode=0o400).close()
        before = {name: os.stat(f"{SHM}/{name}") for name in os.listdir(SHM) if prefix in name}
        for force in (False, True):
            print(json.dumps({
                each.name.removeprefix(prefix): [
                    each.state, each.removed, each.error and each.error.errno, each.uninspected > 0
                ]
                for each in reclaim(prefix, force=force)
            }))
        for name in os.listdir(SHM):
            if prefix in name:
                assert os.stat(f"{SHM}/{name}").st_ino == before[name].st_ino
    """
    modes = {"-0600": 0o600, "-0644": 0o644, "-0666": 0o666}
    for tail, mode in modes.items():
        leave(prefix + tail, mode=mode)
    leave(f"{prefix}-held", mode=0o644)
    try:
        with SharedMemory.open(f"{prefix}-held"):
            first, second = run_python(code, prefix, env=PATH).splitlines()
        unknown, refused = ["unknown", False, None, True], ["unknown", False, errno.EPERM, True]
        held, gone = ["in use", False, None, False], ["free", True, None, False]
        assert json.loads(first) == {
            **dict.fromkeys(modes, unknown),
            "-held": held,
            "-mine": gone,
            "-mine-0400": gone,
        }
        assert json.loads(second) == {**dict.fromkeys(modes, refused), "-held": held}
        assert left(prefix) == sorted(f"{prefix}{tail}" for tail in (*modes, "-held"))
        for tail, mode in modes.items():
            assert stat.S_IMODE(os.stat(f"{SHM}/{prefix}{tail}").st_mode) == mode
    finally:
        assert set(actions(reclaim(prefix)).values()) == {"removed"}


def test_an_object_without_permission_to_open_is_reported_if_selected(run_python, name):
    needs_root()
    code = """
        import os, sys
        from _processes import SHM, SOMEBODY, become
        from posixshm import reclaim
        name = sys.argv[1]
        become(SOMEBODY)
        for dry_run in (False, True):
            assert reclaim(name, older_than=3600, dry_run=dry_run) == []
            (row,) = reclaim(name, older_than=0, dry_run=dry_run)
            assert (row.state, row.removed, row.error) == ("unknown", False, None), row
            assert row.size == 12345 and 0 < row.age < 600, row
            assert reclaim(name, dry_run=dry_run)[0][:2] == (name, 12345)
    """
    leave(name, 12345)
    try:
        run_python(code, name, env=PATH)
    finally:
        reclaim(name)


def test_a_read_only_object_of_its_user_is_in_use_while_it_is_open(run_python, name):
    needs_root()
    code = """
        import os, subprocess, sys
        from _processes import SOMEBODY, become
        from posixshm import SharedMemory, reclaim
        name = sys.argv[1]
        become(SOMEBODY)
        with SharedMemory.create(name, 10, mode=0o400):
            assert [each.state for each in reclaim(name)] == ["in use"]
        with SharedMemory.open(name, readonly=True):
            assert [each.state for each in reclaim(name)] == ["in use"]
        assert [each.removed for each in reclaim(name)] == [True]
    """
    run_python(code, name, env=PATH)


def test_reclaim_by_another_user_finds_its_own_mapping(run_python, name):
    needs_root()
    code = """
        import mmap, os, sys
        from _processes import SOMEBODY, become
        from posixshm import SharedMemory, reclaim
        name = sys.argv[1]
        become(SOMEBODY)
        SharedMemory.create(name, 4096).close()
        fd = os.open(f"/dev/shm/{name}", os.O_RDONLY)
        plain = mmap.mmap(fd, 4096, prot=mmap.PROT_READ)
        os.close(fd)
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(into)
            os.read(out, 1)
            os._exit(0)
        plain.close()
        assert [each.state for each in reclaim(name)] == ["in use"]
        os.close(into)
        assert os.waitpid(child, 0)[1] == 0
        assert [each.removed for each in reclaim(name)] == [True]
    """
    run_python(code, name, env=PATH)
