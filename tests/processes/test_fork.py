"""Fork and exec: a child does not remove its parent's names, and exec closes all descriptors."""

import multiprocessing
import os
import subprocess
import sys

import pytest
from _processes import PATH, SHM, needs_mounts

from posixshm import SharedMemory, reclaim

START = """
import gc, os, subprocess, sys
from _processes import SHM
import posixshm
from posixshm import MemoryMap, SharedMemory, listdir
name = sys.argv[1]

def wait(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def there(name):
    return os.path.exists(f"{SHM}/{name}")

def say(words):
    os.write(1, words.encode() + b"\\n")  # at once, for several processes write there
"""

ENDS = {
    "close": "shm.close(); os._exit(0)",
    "leaving a with block": "shm.__enter__().__exit__(None, None, None); os._exit(0)",
    "del": "del shm; gc.collect(); os._exit(0)",
    "_exit": "os._exit(0)",
    "exit": "sys.exit()",
    "an exception": "sys.excepthook = lambda *_: print('unhandled'); raise ValueError",
    "finalizers at exit": "import atexit; atexit._run_exitfuncs(); os._exit(0)",
    "detach": "os.close(shm.detach()); os._exit(0)",
    "close_fd and exit": "shm.close_fd(); sys.exit()",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_forked_child_does_not_remove_its_parents_object(run_python, name, end):
    code = f"""{START}
shm = SharedMemory.create(name, 1000, delete=True)
shm.buf[:6] = b"parent"
child = os.fork()
if child == 0:
    shm.buf[:5] = b"child"
    {ENDS[end]}
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == ("exception" in {end!r}), status
assert there(name) and shm.is_linked()
assert bytes(shm.buf[:6]) == b"childt"
with SharedMemory.open(name) as second:
    assert bytes(second.buf[:5]) == b"child"
shm.close()
assert not there(name)
"""
    run_python(code, name, env=PATH)


def test_a_grandchild_or_an_orphan_does_not_remove_the_object(start_python, name):
    code = f"""{START}
shm = SharedMemory.create(name, 1000, delete=True)
if os.fork() == 0:
    if os.fork() == 0:
        say("grandchild waits")
        sys.stdin.readline()
        say("there" if there(name) else "gone")
        SharedMemory.create(name, 2000).close()
        shm.close()
        say("there" if there(name) else "gone")
        sys.exit()
    os._exit(0)
os.wait()
say("parent goes")
"""
    child = start_python(code, name, env=PATH)
    said = {child.hear(), child.hear()}
    assert said == {"parent goes", "grandchild waits"}
    child.process.wait(60)
    child.say("on")
    child.hear("gone")  # the parent removed the name when it ended
    child.hear("there")  # the grandchild's handle does not remove the new object
    child.finish()
    with SharedMemory.open(name) as shm:
        assert shm.size == 2000
        shm.unlink()


def test_a_child_removes_the_objects_that_it_created(run_python, name):
    code = f"""{START}
parents = SharedMemory.create(name, 100, delete=True)
for end in ("close", "exit"):
    child = os.fork()
    if child == 0:
        own = SharedMemory.create(name + "-own", 100, delete=True)
        assert there(name + "-own")
        if end == "close":
            own.close()
            assert not there(name + "-own")
            os._exit(0)
        sys.exit()
    wait(child)
    assert not there(name + "-own"), end
assert there(name)
"""
    run_python(code, name, env=PATH)
    assert not os.path.exists(f"{SHM}/{name}")


def test_a_child_may_unlink_explicitly(run_python, name):
    code = f"""{START}
shm = SharedMemory.create(name, 100, delete=True)
child = os.fork()
if child == 0:
    shm.unlink()
    os._exit(0)
wait(child)
assert not there(name) and not shm.is_linked()
with SharedMemory.create(name, 200) as other:
    shm.close()
    assert there(name), "it removed an object that is not its own"
    other.unlink()
"""
    run_python(code, name, env=PATH)


def body(name, shm):
    shm.buf[:5] = b"child"
    with SharedMemory.open(name) as second:
        assert bytes(second.buf[:5]) == b"child"


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_of_multiprocessing_does_not_remove_its_parents_object(name, method):
    context = multiprocessing.get_context(method)
    with SharedMemory.create(name, 100, delete=True) as shm:
        process = context.Process(target=body, args=(name, shm))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        process.close()
        assert shm.is_linked() and bytes(shm.buf[:5]) == b"child"
    assert not os.path.exists(f"{SHM}/{name}")


kept = []


def leave_open(name):
    from multiprocessing import util

    with SharedMemory.create(f"{name}-closed", 100, delete=True):
        pass
    calls = len(util._finalizer_registry)
    SharedMemory.create(f"{name}-dropped", 100, delete=True)
    assert len(util._finalizer_registry) == calls, "the list of finalizers grows"
    kept.append(SharedMemory.create(name, 100, delete=True))
    kept.append(SharedMemory.create(f"{name}-before", 100, delete=True))
    kept[-1].rename(f"{name}-after")
    if os.fork() == 0:
        # A child of the worker must not run the worker's finalizers.
        util._exit_function()
        os._exit(0)
    assert os.wait()[1] == 0
    assert all(shm.is_linked() for shm in kept)
    SharedMemory.create(f"{name}-stays", 100).close()


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_of_multiprocessing_removes_its_own_objects_at_exit(name, method):
    process = multiprocessing.get_context(method).Process(target=leave_open, args=(name,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    process.close()
    assert [each for each in os.listdir(SHM) if each.startswith(name)] == [f"{name}-stays"]
    os.unlink(f"{SHM}/{name}-stays")


def test_a_child_with_the_process_id_of_its_parent_does_not_remove_the_object(run_python, name):
    needs_mounts()
    code = f"""{START}
import _processes
_processes.private_shm()
_processes.private_processes()
assert os.getpid() == 1
shm = SharedMemory.create(name, 100, delete=True)
_processes._check(_processes._libc.unshare(0x20000000))  # CLONE_NEWPID
child = os.fork()
if child == 0:
    assert os.getpid() == 1
    shm.close()
    del shm
    sys.exit()
wait(child)
assert there(name)
shm.close()
assert not there(name)
"""
    run_python(code, name, env=PATH)


def test_close_in_a_child_does_not_affect_the_parent(run_python, name):
    code = f"""{START}
shm = SharedMemory.create(name, 8192, max_size=1 << 20)
view, mapping = shm.buf, shm.map(4096)
view[0] = 1
for close in (shm.close, shm.close_fd, lambda: shm.detach() and None):
    child = os.fork()
    if child == 0:
        view.release()
        close()
        globals().pop("mapping")
        gc.collect()
        os._exit(0)
    wait(child)
    assert not shm.closed and shm.stat().st_size == shm.size and view[0] == 1
    # The use lock, which both processes shared, remains the parent's.
    probe = os.fork()
    if probe == 0:
        assert [each.state for each in posixshm.reclaim(name)] == ["in use"]
        os._exit(0)
    wait(probe)
shm.resize(100_000)
assert len(shm.buf) == 100_000 and mapping[0] == 0
shm.unlink()
"""
    run_python(code, name, env=PATH)


def test_the_use_lock_is_held_until_the_last_process_ends(start_python, name):
    code = f"""{START}
shm = SharedMemory.create(name, 100)
if os.fork():
    shm.close()
    del shm
    gc.collect()
    say("parent closed")
    os.wait()
else:
    say("child holds")
    sys.stdin.read()
    os._exit(0)
"""
    child = start_python(code, name, env=PATH)
    assert {child.hear(), child.hear()} == {"parent closed", "child holds"}
    assert [each.state for each in reclaim(name)] == ["in use"]
    child.finish()
    assert [each.removed for each in reclaim(name)] == [True]


def test_fork_while_other_threads_are_in_calls(run_python, name):
    code = f"""{START}
import threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of just this
done = threading.Event()
shm = SharedMemory.create(name, 4096, max_size=1 << 20)

def work(number):
    turn = 0
    while not done.is_set():
        turn += 1
        with SharedMemory.create(f"{{name}}-{{number}}", 100_000, delete=True) as own:
            own.buf[0] = 1
        with SharedMemory.open(name, readonly=True) as second:
            second.buf[0]
        try:
            shm.resize(4096 * (2 + turn % 200))
        except (ValueError, BufferError):
            pass
        shm.stat(), shm.size, shm.is_linked()

threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
try:
    for _ in range(40):
        child = os.fork()
        if child == 0:
            try:
                # The child can continue, regardless of the calls that the other threads were in.
                shm.size, shm.stat(), shm.buf[0]
                shm.resize(1 << 20)
                with SharedMemory.create(f"{{name}}-child", 100) as own:
                    own.unlink()
                shm.close()
                with SharedMemory.open(name) as second:
                    second.buf[0]
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        wait(child)
finally:
    done.set()
    for thread in threads:
        thread.join()
assert shm.is_linked()
shm.unlink()
"""
    run_python(code, name, env=PATH)


IN_THE_MIDDLE = """
from _processes import Faults
faults = Faults()

def in_a_child(check):
    "Call this in a child that is forked in the middle of a call."
    def hook():
        child = os.fork()
        if child == 0:
            try:
                check()
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        wait(child)
    faults.call(hook)
"""


@pytest.mark.parametrize("action", ["HOOK_BEFORE", "HOOK_AFTER"])
def test_a_child_forked_while_the_object_grows_sees_its_size(run_python, faults, name, action):
    code = f"""{START}{IN_THE_MIDDLE}
shm = SharedMemory.create(name, 4096, max_size=1 << 20, delete=True)

def check():
    for size in (20_000, 30_000):
        os.truncate(f"{{SHM}}/{{name}}", size)
        assert shm.size == size == len(shm.buf) == len(memoryview(shm))
        shm.buf[size - 1] = 1

in_a_child(check)
faults.arm("fallocate", 1, Faults.{action})
shm.resize(8192)
assert faults.disarm() == 1
assert shm.size == 30_000
"""
    run_python(code, name, env=faults)


@pytest.mark.parametrize("action", ["HOOK_BEFORE", "HOOK_AFTER"])
def test_a_child_forked_while_the_protection_changes_can_change_it(
    run_python, faults, name, action
):
    code = f"""{START}{IN_THE_MIDDLE}
from posixshm import PROT_NONE, PROT_READ, PROT_WRITE
shm = SharedMemory.create(name, 4096, delete=True)

def check():
    for prot in (PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE, PROT_READ | PROT_WRITE):
        shm.protect(prot)
        assert shm.readonly == (not prot & PROT_WRITE)
    shm.buf[0] += 1

in_a_child(check)
for prot in (PROT_READ, PROT_NONE, PROT_READ | PROT_WRITE):
    faults.arm("mprotect", 1, Faults.{action})
    shm.protect(prot)
    assert faults.disarm() == 1
assert shm.buf[0] == 3
"""
    run_python(code, name, env=faults)


# -- descriptors --------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["shm.resize(1, shrink=True)", "shm.protect(3)"])
def test_a_child_forked_while_a_call_waits_for_the_mapping_can_use_the_handle(
    run_python, name, act
):
    """Without the GIL, a call that waits for the mapping must not hold the handle's lock."""
    code = f"""{START}
import signal, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of threads and fork
size = 16 << 20
shm = SharedMemory.unlinked(size, max_size=size)
mapping, data = shm.view().obj, bytes(size)

def repeat(act):
    def body():
        while True:
            try:
                act()
            except BufferError:
                pass
    threading.Thread(target=body, daemon=True).start()

repeat(lambda: mapping.__setitem__(slice(None), data))
repeat(lambda: {act})
for delay in range(20):
    time.sleep(delay / 1000)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        shm.view("B", 1)
        os._exit(0)
    wait(child)
os._exit(0)
"""
    run_python(code, name, env=PATH)


def test_descriptors_are_closed_by_exec(name, run_python):
    code = f"""{START}
import pickle
keep = [
    SharedMemory.create(name, 100, init=lambda buf: None),
    SharedMemory.create(name, 100, exist_ok=True),
    SharedMemory(name),
    SharedMemory.open(name),
    SharedMemory.open(name, readonly=True, timeout=5, max_size=10_000),
    SharedMemory.unlinked(100),
    SharedMemory.anonymous(100),
    SharedMemory.from_fd(os.dup(os.open(f"{{SHM}}/{{name}}", os.O_RDWR))),
]
linked = SharedMemory.unlinked(100)
linked.link(name + "-linked")
linked.rename(name + "-renamed")
linked.resize(10_000)
inheritable = os.open(f"{{SHM}}/{{name}}", os.O_RDWR)
os.set_inheritable(inheritable, True)
keep += [linked, SharedMemory.from_fd(inheritable)]
again = pickle.loads(pickle.dumps(linked))
assert again.fileno() == linked.fileno()
fds = [shm.fileno() for shm in keep]
fds += [posixshm.shm_open(name, os.O_RDWR), SharedMemory.open(name).detach()]
assert len(set(fds)) == len(fds) and min(fds) > 2
assert not any(os.get_inheritable(fd) for fd in fds)
seen = subprocess.run(
    ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True
).stdout
assert SHM not in seen and "memfd" not in seen, seen
keep[0].unlink()
linked.unlink()
"""
    run_python(code, name, env=PATH)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2), (0, 2)])
def test_new_descriptors_are_never_the_standard_descriptors(name, tmp_path, closed):
    report = tmp_path / "report"
    code = f"""
import os, pickle, sys, traceback
name, report = sys.argv[1:]
report = os.open(report, os.O_CREAT | os.O_WRONLY)
os.dup2(report, 50)
os.close(report)
try:
    from posixshm import SharedMemory, listdir, reclaim, shm_open
    for fd in {closed}:
        try:
            os.close(fd)
        except OSError:
            pass
    first = SharedMemory.create(name, 100, init=lambda buf: None)
    plain = os.open("/dev/shm/" + name, os.O_RDWR)
    assert plain in {closed}  # from_fd() must move it above 2
    handles = [
        first,
        SharedMemory.from_fd(plain),
        SharedMemory.open(name),
        SharedMemory(name),
        SharedMemory.create(name, 100, exist_ok=True),
        SharedMemory.unlinked(100),
        SharedMemory.anonymous(100),
        pickle.loads(pickle.dumps(first)),
    ]
    fds = [shm.fileno() for shm in handles] + [shm_open(name, os.O_RDWR), SharedMemory.open(name).detach()]
    assert min(fds) > 2, fds
    for fd in {closed}:
        try:
            os.write(fd, b"a stray print")
        except OSError:
            pass
        else:
            raise AssertionError(fd)
    assert name in listdir()
    assert [each.state for each in reclaim(name)] == ["in use"]
    assert bytes(first.buf) == bytes(100)
    first.unlink()
    os.write(50, b"well")
except BaseException as error:
    os.write(50, "".join(traceback.format_exception(error)).encode())
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, name, str(report)], check=True, timeout=60)
    assert report.read_text() == "well"
