"""Signals during a call: if the handler raises, the call is undone; otherwise it continues.

The large objects are in a /dev/shm of the child, so that other programs do not run out of memory.
"""

import signal
import time

import pytest
from _processes import PATH, TESTS, needs_mounts

START = """
import errno, gc, os, signal, sys, threading, time, warnings
from _processes import free_bytes, private_shm, raises, unchanged
from posixshm import SharedMemory
private_shm("size=1500m")
warnings.filterwarnings("ignore", "huge_pages=True has no effect")
BIG = 1 << 30

class Interrupted(Exception):
    pass

def raising(number, frame):
    raise Interrupted

count = 0
def counting(number, frame):
    global count
    count += 1

def every(seconds, handler, first=None):
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, first or seconds, seconds)

def once(seconds, handler):
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0)

def quiet():
    signal.setitimer(signal.ITIMER_REAL, 0, 0)
"""


@pytest.fixture
def run(run_python, name):
    def run(code, **keywords):
        needs_mounts()
        return run_python(START + code, name, env=PATH, **keywords)

    return run


BIG_ONES = {
    "create": 'SharedMemory.create("big", BIG)',
    "create, delete": 'SharedMemory.create("big", BIG, delete=True, exist_ok=True)',
    "create, populate": 'SharedMemory.create("big", BIG, populate=True)',
    "create, huge_pages": 'SharedMemory.create("big", BIG, huge_pages=True)',
    "constructor": 'SharedMemory("big", create=True, size=BIG)',
    "unlinked": "SharedMemory.unlinked(BIG, populate=True)",
    "anonymous": "SharedMemory.anonymous(BIG)",
    "init": 'SharedMemory.create("big", 1000, init=lambda buf: time.sleep(30))',
    "init, long": 'SharedMemory.create("big", BIG >> 2, init=fill)',
    "open": 'SharedMemory.open("absent", timeout=30)',
    "open, without a timeout": 'SharedMemory.open("absent", timeout=float("inf"))',
    "open, empty": 'SharedMemory.open("empty", timeout=30)',
}

GROWTH = {
    "resize": "small.resize(BIG)",
    "resize in place": "growing.resize(BIG)",
}
CASES = BIG_ONES | GROWTH

PREPARE = """
small = SharedMemory.create("small", 10_000)
small.buf[:] = bytes([7]) * 10_000
growing = SharedMemory.create("growing", 10_000, max_size=BIG)
growing.buf[:] = bytes([8]) * 10_000
open("/dev/shm/empty", "w").close()

def fill(buf):
    while True:
        buf[: 1 << 20] = bytes(1 << 20)
"""


@pytest.mark.long
@pytest.mark.parametrize("case", BIG_ONES)
def test_a_handler_that_raises_undoes_the_call(run, case):
    code = f"""
{PREPARE}
for after in (0.01, 0.05):
    with unchanged():
        once(after, raising)
        try:
            {BIG_ONES[case]}
        except Interrupted:
            pass
        else:
            raise AssertionError("the call ended before the signal arrived")
        finally:
            quiet()
    assert sorted(os.listdir("/dev/shm")) == ["empty", "growing", "small"]
    for shm, byte in ((small, 7), (growing, 8)):
        assert shm.size == shm.stat().st_size == 10_000 and not shm.closed
        assert bytes(shm.buf) == bytes([byte]) * 10_000
"""
    run(code)


@pytest.mark.parametrize("case", GROWTH)
def test_a_handler_that_raises_interrupts_growth_before_or_after_it(run, case):
    """Growing cannot be undone, because other processes may already use the memory: it is one
    step."""
    shm = GROWTH[case].partition(".")[0]
    code = f"""
{PREPARE}
shm, used = {shm}, free_bytes()
view = shm.buf
once(0.01, raising)
try:
    {GROWTH[case]}
    time.sleep(30)  # the call may have ended before the signal
except Interrupted:
    pass
assert shm.size == shm.stat().st_size == len(shm.buf)
assert (shm.size, used - free_bytes()) in ((10_000, 0), (BIG, BIG - 3 * 4096))
assert bytes(shm.buf[:10_000]) == bytes(view) == bytes([shm.buf[0]]) * 10_000
shm.buf[-1] = 1
assert free_bytes() >= (1500 << 20) - BIG - 3 * 4096
shm.resize(BIG)
assert shm.size == BIG
"""
    run(code)


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    ["create", "create, populate", "create, huge_pages", "anonymous", "unlinked", *GROWTH],
)
def test_a_handler_that_does_not_raise_changes_nothing(run, case):
    code = f"""
BIG = 1 << 29
{PREPARE}
every(0.0005, counting)
shm = {CASES[case]}
quiet()
assert count > 0
if isinstance(shm, int):  # resize() returns the size
    shm = {CASES[case].partition(".")[0]}
assert shm.size == BIG == len(shm.buf)
# All memory is allocated: a write needs no more.
assert shm.stat().st_blocks * 512 >= BIG
shm.buf[-1] = 1
"""
    run(code)


def test_signals_while_open_waits_do_not_change_its_timeout(run):
    code = """
every(0.001, counting)
start = time.monotonic()
with unchanged(), raises(errno.ETIMEDOUT):
    SharedMemory.open("absent", timeout=0.7)
waited = time.monotonic() - start
quiet()
assert waited >= 0.7 and count > 1, (waited, count)

made = []
def make():
    time.sleep(0.3)
    made.append(SharedMemory.create("late", 100))
thread = threading.Thread(target=make)
thread.start()
every(0.001, counting)
with SharedMemory.open("late", timeout=60) as shm:
    quiet()
    assert shm.size == 100
thread.join()
"""
    run(code)


def test_signals_while_init_fills(run):
    code = """
def fill(buf):
    for at in range(0, len(buf), 4096):
        buf[at : at + 4096] = bytes([9]) * 4096

every(0.0005, counting)
with SharedMemory.create("filled", 64 << 20, init=fill) as shm:
    quiet()
    assert count > 1
    for at in range(0, len(shm.buf), 1 << 20):
        assert bytes(shm.buf[at : at + (1 << 20)]) == bytes([9]) * (1 << 20)
"""
    run(code)


def test_a_handler_that_raises_again_and_again(run):
    code = """
interrupted = done = 0
for attempt in range(100):
    try:
        once(0.0005 + attempt * 0.0001, raising)
        try:
            with SharedMemory.create("again", 8 << 20) as shm:
                quiet()
                assert shm.size == 8 << 20
                shm.unlink()
            done += 1
        finally:
            quiet()
    except Interrupted:
        interrupted += 1
    # A handler may still raise between the return of create() and the with statement. Python then
    # drops the handle, and the name remains, as the name of any object outlives its handles.
    for name in os.listdir("/dev/shm"):
        assert os.stat(f"/dev/shm/{name}").st_size == 8 << 20
        os.unlink(f"/dev/shm/{name}")
assert interrupted + done == 100 and interrupted > 0, (interrupted, done)
gc.collect()
assert free_bytes() == 1500 << 20
"""
    run(code)


@pytest.mark.parametrize("case", ["create", "create, populate", "open, without a timeout", "init"])
def test_ctrl_c_from_outside(start_python, name, case):
    needs_mounts()
    code = f"""
{PREPARE}
with unchanged():
    try:
        print("now", flush=True)
        {BIG_ONES[case]}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    else:
        print("through", flush=True)
"""
    child = start_python(START + code, name, env=PATH)
    child.hear("now")
    time.sleep(0.02 if "create" in case else 0.3)
    child.signal(signal.SIGINT)
    assert child.hear() == "interrupted"
    child.finish()


# -- the GIL ------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    "case", ["create", "create, populate", "create, huge_pages", "anonymous", "open", *GROWTH]
)
def test_other_threads_run_during_a_long_call(run, case):
    """On a busy machine a call may end before another thread runs, so the test repeats the call
    until one has run. If the call held the GIL, no thread would ever run.
    """
    act = CASES[case].replace("30", "0.5")
    code = f"""
BIG = 1 << 29
{PREPARE}
ticks, done = [], threading.Event()
def tick():
    while not done.wait(0.001):
        ticks.append(time.monotonic())
thread = threading.Thread(target=tick, daemon=True)
thread.start()
while not ticks:
    time.sleep(0.001)
deadline = time.monotonic() + 40
among = False
while not among:
    assert time.monotonic() < deadline
    made = None
    start = time.monotonic()
    try:
        made = {act}
    except TimeoutError:
        pass
    end = time.monotonic()
    fifth = (end - start) / 5
    among = any(start + fifth < tick < end - fifth for tick in ticks)
    if isinstance(made, SharedMemory):
        if made.name is not None:
            made.unlink()
        made.close()
    small.resize(10_000, shrink=True)
    growing.resize(10_000, shrink=True)
done.set()
thread.join()
"""
    run(code)


# -- a signal at each system call ---------------------------------------------------------------


@pytest.fixture(scope="module")
def faults(faults):
    needs_mounts()
    return faults


MAKES = {
    "create": "SharedMemory.create('made', 10)",
    "create, delete": "SharedMemory.create('made', 10, delete=True)",
    "create, init": "SharedMemory.create('made', 10, init=lambda buf: None)",
    "create, track": "SharedMemory.create('made', 10, track=True)",
    "constructor": "SharedMemory('made', create=True, size=10)",
    "drop-in": "shared_memory.SharedMemory('made', create=True, size=10)",
}


@pytest.mark.long
@pytest.mark.parametrize("case", MAKES)
def test_a_handler_that_raises_at_any_system_call_of_a_creation(run_python, faults, case):
    code = f"""{START}
from _processes import Faults
from multiprocessing import resource_tracker
from posixshm import shared_memory
resource_tracker.ensure_running()
faults = Faults()
faults.send(signal.SIGUSR1)
signal.signal(signal.SIGUSR1, raising)
for first_time in (True, False):  # the first call also probes the system
    faults.arm(None, 0)
    made = {MAKES[case]}
    calls = faults.disarm()
    made.unlink()
    del made
assert calls > 4
for nth in range(1, 1 + calls):
    for action in (Faults.HOOK_BEFORE, Faults.HOOK_AFTER):
        with unchanged():
            faults.arm(None, nth, action)
            try:
                made = {MAKES[case]}
            except Interrupted:
                pass
            else:
                raise AssertionError((nth, faults.log()))
            finally:
                faults.disarm()
        assert os.listdir("/dev/shm") == []
"""
    run_python(code, env=faults)


@pytest.mark.long
@pytest.mark.parametrize("one_process", [False, True])
def test_a_signal_at_each_system_call_changes_nothing(run_python, faults, name, one_process):
    code = """
        import signal, sys
        from _scenes import *

        came = 0
        def handler(number, frame):
            global came
            came += 1

        def play(kind):
            calls = calls_of(kind, sys.argv[1], faults)
            for nth, call in enumerate(calls, 1):
                for action in (Faults.HOOK_BEFORE, Faults.HOOK_AFTER):
                    with explained(kind, call, nth, calls), played(kind, sys.argv[1]) as scene:
                        before = came
                        faults.arm(None, nth, action)
                        scene.act()
                        faults.disarm()
                        assert came == before + 1
                        scene.succeeded()

        kinds = [kind for kind in scenes().values() if str(kind.one_process) == sys.argv[2]]
        setting(kinds)
        faults = Faults()
        signal.signal(signal.SIGUSR1, handler)
        faults.send(signal.SIGUSR1)
        for kind in kinds:
            play(kind)
    """
    run_python(code, name, one_process, env=faults)


def test_a_handler_that_raises_after_a_call_undoes_that_call(run_python, name):
    """The handler raises in the functions that are written in Python, after each call that they
    make."""
    needs_mounts()
    code = "import runpy; runpy.run_path({!r}, run_name='__main__')"
    program = f"{TESTS}/children/raising_handler.py"
    lines = run_python(code.format(program), name, env=PATH).splitlines()
    assert len(lines) >= 12
    for line in lines:
        assert line.endswith(": tried"), line
