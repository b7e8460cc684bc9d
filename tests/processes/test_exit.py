"""The end of a process: objects with delete= are removed, others remain, and nothing is printed."""

import os
import signal
import sys

import pytest
from _processes import PATH, SHM

from posixshm import SharedMemory, reclaim

pytestmark = pytest.mark.new_interpreter

START = """
import os, signal, sys
import posixshm
from posixshm import MemoryMap, SharedMemory
name = sys.argv[1]
"""


# The free-threaded CPython 3.13 frees the states of daemon threads at the end. A thread that then
# returns from any system call crashes.
FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
FREED_BY_CPYTHON = FREE_THREADED and sys.version_info < (3, 14)


def names_with(prefix):
    return sorted(name for name in os.listdir(SHM) if name.startswith(prefix))


# How a process ends, and its exit status. A process that ends normally removes its names.
IN_ORDER = {
    "the last line": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an unhandled exception": ("sys.excepthook = lambda *_: None\nraise ValueError", 1),
    "SystemExit": ("raise SystemExit(9)", 9),
    "KeyboardInterrupt": (
        "sys.excepthook = lambda *_: None\nraise KeyboardInterrupt",
        -signal.SIGINT,
    ),
    "SIGTERM with a handler": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()",
        5,
    ),
    "in a function": ("def f():\n    inner = shm\n    sys.exit(2)\nf()", 2),
    "a thread that goes on": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(100,), daemon=True).start()",
        0,
    ),
}
# As after a power failure.
NOT_IN_ORDER = {
    "os._exit": ("os._exit(0)", 0),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "abort": ("import faulthandler; faulthandler.disable(); os.abort()", -signal.SIGABRT),
}

MAKE = """
shm = SharedMemory.create(name, 1000, delete=True)
filled = SharedMemory.create(name + "-filled", 1000, delete=True, init=lambda buf: None)
exist_ok = SharedMemory.create(name + "-exist_ok", 1000, delete=True, exist_ok=True)
renamed = SharedMemory.create(name + "-before", 1000, delete=True)
renamed.rename(name + "-renamed")
fd_closed = SharedMemory.create(name + "-fd_closed", 1000, delete=True)
fd_closed.close_fd()
view = SharedMemory.create(name + "-view", 1000, delete=True).buf
cycle = [SharedMemory.create(name + "-cycle", 1000, delete=True)]
cycle.append(cycle)
"""


@pytest.mark.parametrize("end", IN_ORDER)
def test_objects_with_delete_are_removed_at_exit(run_python, name, end):
    code, wanted = IN_ORDER[end]
    status, out, err = run_python(START + MAKE + code, name, check=False)
    assert (status, out, err) == (wanted, "", "")
    assert names_with(name) == []


@pytest.mark.parametrize("end", NOT_IN_ORDER)
def test_reclaim_removes_objects_with_delete_of_a_killed_process(run_python, name, end):
    code, wanted = NOT_IN_ORDER[end]
    resource = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    status, out, err = run_python(START + resource + MAKE + code, name, check=False)
    assert (status, out, err) == (wanted, "", "")
    left = names_with(name)
    assert {name, f"{name}-filled", f"{name}-exist_ok", f"{name}-renamed"} <= set(left)
    assert f"{name}-before" not in left
    assert {each.name: each.removed for each in reclaim(name)} == dict.fromkeys(left, True)


@pytest.mark.long
@pytest.mark.parametrize("end", [*IN_ORDER, *NOT_IN_ORDER])
def test_the_resource_tracker_removes_registered_names(run_python, name, end):
    code, wanted = {**IN_ORDER, **NOT_IN_ORDER}[end]
    make = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
shm = SharedMemory.create(name, 1000, track=True)
both = SharedMemory.create(name + "-both", 1000, track=True, delete=True)
closed = SharedMemory.create(name + "-closed", 1000, track=True)
closed.close()
assert not closed.closed or closed.is_linked()
"""
    # The tracker keeps the standard error open, so this also waits for its end.
    status, _, err = run_python(START + make + code, name, check=False)
    assert status == wanted, err
    assert "leaked shared_memory objects" in err and "Traceback" not in err
    assert names_with(name) == []


def test_a_terminated_worker_of_multiprocessing(run_python, name):
    """SIGTERM ends the worker without delete=True, but the tracker that its parent shares cleans
    up."""
    code = """
import multiprocessing
def work(connection):
    kept = SharedMemory.create(name + "-delete", 10, delete=True)
    tracked = SharedMemory.create(name + "-track", 10, track=True)
    connection.send("made")
    signal.pause()
ours, theirs = multiprocessing.Pipe()
from multiprocessing import resource_tracker
resource_tracker.ensure_running()
worker = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
worker.start()
assert ours.poll(60) and ours.recv() == "made"
worker.terminate()
worker.join()
"""
    status, _, err = run_python(START + code, name, check=False)
    assert status == 0 and "Traceback" not in err, err
    assert names_with(name) == [f"{name}-delete"]
    assert [each.removed for each in reclaim(name)] == [True]


def test_objects_without_delete_remain(run_python, name):
    code = """
shm = SharedMemory.create(name, 1000, init=lambda buf: buf.__setitem__(0, 7))
again = SharedMemory.create(name, 1000, exist_ok=True, delete=True)
assert not again.created
by_constructor = SharedMemory(name + "-constructed", create=True, size=10)
detached = SharedMemory.create(name + "-detached", 1000, delete=True)
fd = detached.detach()
linked = SharedMemory.unlinked(10)
linked.link(name + "-linked")
"""
    run_python(START + code, name)
    with SharedMemory.open(name) as shm:
        assert shm.buf[0] == 7
    kept = [name, f"{name}-constructed", f"{name}-detached", f"{name}-linked"]
    assert names_with(name) == kept
    assert {each.name: each.removed for each in reclaim(name)} == dict.fromkeys(kept, True)


def test_only_this_object_is_deleted(run_python, name):
    code = """
shm = SharedMemory.create(name, 1000, delete=True)
os.unlink(f"/dev/shm/{name}")
SharedMemory.create(name, 2000).close()
"""
    run_python(START + code, name)
    with SharedMemory.open(name) as shm:
        assert shm.size == 2000
        shm.unlink()


def test_handles_after_the_finalizers_at_exit_remove_their_objects(run_python, name):
    code = """
import atexit

@atexit.register  # registered so early that it runs after the finalizers
def late():
    with SharedMemory.create(name + "-late", 1000, delete=True) as shm:
        assert shm.is_linked()
    assert not shm.is_linked()
    shm = SharedMemory.create(name + "-dropped", 1000, delete=True)
    del shm
    assert not os.path.exists(f"/dev/shm/{name}-dropped")
    global kept
    kept = SharedMemory.create(name + "-kept", 1000, delete=True)

SharedMemory.create(name, 1000, delete=True)
"""
    run_python(START + code, name)
    assert names_with(name) == []


def test_an_object_that_was_already_removed_is_skipped_at_exit(run_python, name):
    code = """
for way in (SharedMemory.unlink, SharedMemory.close, lambda shm: os.unlink(f"/dev/shm/{shm.name}")):
    shm = SharedMemory.create(name, 1000, delete=True)
    way(shm)
keep = shm
"""
    run_python(START + code, name)
    assert names_with(name) == []


def test_deallocating_a_handle_removes_its_object(name):
    shm = SharedMemory.create(name, 1000, delete=True)
    view = shm.buf
    assert names_with(name) == [name]
    del shm
    assert names_with(name) == []
    view[0] = 1
    assert view[0] == 1


# -- no output ----------------------------------------------------------------------------------


def test_live_handles_and_views_print_nothing_at_exit(run_python, name):
    code = """
import ctypes, weakref
handles = [
    SharedMemory.create(name, 8192, delete=True, max_size=1 << 20),
    SharedMemory.open(name),
    SharedMemory.open(name, readonly=True),
    SharedMemory.anonymous(8192),
    SharedMemory.unlinked(8192),
    SharedMemory.from_fd(os.open(f"/dev/shm/{name}", os.O_RDWR)),
]
closed = SharedMemory.open(name)
left = closed.buf
closed.close()
views = [shm.buf for shm in handles] + [memoryview(shm)[10:20] for shm in handles]
mappings = [shm.map() for shm in handles] + [MemoryMap(handles[0].fileno())]
arrays = [ctypes.c_char.from_buffer(handle) for handle in handles if not handle.readonly]
try:
    import numpy
    arrays += [numpy.frombuffer(shm, "B") for shm in handles]
    arrays += [numpy.ndarray(10, "B", shm) for shm in handles]
except ImportError:
    pass
references = [weakref.ref(shm, lambda _: None) for shm in handles]

class Late:
    "Uses everything again while the interpreter is finalized."
    def __init__(self, shm, view):
        self.shm, self.view = shm, view
    def __del__(self):
        self.view[0]
        self.shm.size, self.shm.closed, self.shm.name
        self.shm.close()
        self.shm.close()

late = [Late(shm, shm.buf) for shm in handles]
late.append(late)
sys.keep = handles, Late(handles[0], handles[0].buf)
threading_local = __import__("threading").local()
threading_local.shm = handles[0]
"""
    for options in ((), ("-X", "dev"), ("-W", "error")):
        run_python(START + code, name, options=options)
        assert names_with(name) == []


@pytest.mark.parametrize("delete", [True, "last"])
def test_threads_that_are_in_calls_at_exit(run_python, name, delete):
    code = f"""
import contextlib, threading
kept = [SharedMemory.create(f"{{name}}{{i}}", 4096, delete={delete!r}) for i in range(100)]
started = threading.Barrier(4)

def wait_forever():
    started.wait()
    SharedMemory.open(name + "-absent", timeout=1000)

def make(number):
    started.wait()
    while True:
        # The finalizer may be deleting the previous object at this time; close() then leaves it
        # alone.
        with contextlib.suppress(FileExistsError):
            with SharedMemory.create(f"{{name}}-{{number}}", 1 << 20, delete={delete!r}):
                pass

threading.Thread(target=wait_forever, daemon=True).start()
for number in range(2):
    threading.Thread(target=make, args=(number,), daemon=True).start()
started.wait()
"""
    for _ in range(5):
        status, out, err = run_python(START + code, name, check=False)
        if status == -signal.SIGSEGV and FREED_BY_CPYTHON:
            assert err.startswith("Fatal Python error: Segmentation fault"), err
        else:
            assert (status, out, err) == (0, "", "")
        # Objects that daemon threads were creating when they were frozen are left for reclaim().
        assert {each.removed for each in reclaim(f"{name}-")} <= {True}
        assert names_with(name) == []


def test_an_object_that_gets_its_name_after_its_finalizer_has_run(run_python, name):
    """A daemon thread may be giving an object its name while the process ends."""
    code = """
import threading
from posixshm._core import _remove_all

def make(number):
    kept.append([SharedMemory.create(f"{name}{number}-{i}", 10, delete=True) for i in range(1000)])

kept = []
threads = [threading.Thread(target=make, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    _remove_all()  # as at the end of the process
for thread in threads:
    thread.join()
assert len(kept) == 3
"""
    for _ in range(3):
        run_python(START + code, name)
        assert names_with(name) == []


@pytest.mark.parametrize("delete", [True, "last"])
def test_a_handle_that_is_created_at_any_line_during_exit(run_python, name, delete):
    """The trace function creates the handle in Python code that runs at exit, as a thread could."""
    code = f"""
import atexit
kept, lines = [], []

def make():
    kept.append(SharedMemory.create(f"{{name}}-{{len(kept)}}", 10, delete={delete!r}))

def trace(frame, event, _):
    line = frame.f_code, frame.f_lineno
    if frame.f_globals["__name__"] != "__main__" and lines.count(line) < 3:
        lines.append(line)
        make()
    return trace

for _ in range(3):
    make()
atexit.register(sys.settrace, trace)
"""
    run_python(START + code, name)
    assert names_with(name) == []


def test_an_object_of_an_ended_thread_is_removed_at_exit(run_python, name):
    code = """
import threading
made = []
thread = threading.Thread(target=lambda: made.append(SharedMemory.create(name, 10, delete=True)))
thread.start()
thread.join()
assert os.path.exists(f"/dev/shm/{name}")
"""
    run_python(START + code, name, env=PATH)
    assert names_with(name) == []
