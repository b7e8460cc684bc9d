"""Fixtures of all tests, and the check that no test leaves resources or hangs.

Fixtures: name, names (unused names), run_python and start_python (another interpreter, with a
deadline), run_threads (a barrier and a deadline). Each test is checked for what it leaves.
"""

import contextlib
import faulthandler
import gc
import itertools
import os
import re
import selectors
import signal
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing import forkserver, resource_sharer, resource_tracker
from pathlib import Path

import _fork_server
import pytest
from _processes import SHM, build_faults, shm_names

DEADLINE = 60.0  # seconds; a longer wait is a hang
_PREFIX = f"posixshm-test-{os.getpid()}-"
_numbers = itertools.count()
os.environ["POSIXSHM_TEST_PREFIX"] = _PREFIX  # for shm_names(), also in children

# A script starts a job in the background with SIGINT ignored, which all children would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# By default a computing thread keeps the GIL for 5 ms. With a shorter interval the threads of a
# test interleave more often, and a thread that makes calls waits less after each call.
sys.setswitchinterval(0.0001)


def pytest_collection_finish(session):
    """Freeze the objects that exist before the first test, so that gc.collect() skips them."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config):
    _fork_server.close()


# -- what a test may not leave ------------------------------------------------------------------


def _files():
    return {f"file {SHM}/{name}" for name in shm_names()}


def _descriptors():
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing
            found.add(f"descriptor {fd} -> {os.readlink(f'/proc/self/fd/{fd}')}")
    return found


def _mappings():
    with open("/proc/self/maps", "rb", buffering=0) as maps:
        text = maps.readall()
    if f" {SHM}/".encode() not in text and b" /memfd:" not in text:
        return set()  # as for most tests; this check needs half the time
    lines = os.fsdecode(text).split("\n")
    return {f"mapping {line}" for line in lines if f" {SHM}/" in line or " /memfd:" in line}


def _children():
    found = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            with open(f"/proc/self/task/{task}/children") as children:
                found.update(f"child process {pid}" for pid in children.read().split())
    return found


def _threads():
    return {f"thread {task}" for task in os.listdir("/proc/self/task")}


def _holdings():
    found = _files() | _descriptors() | _mappings() | _children() | _threads()
    return found - _fork_server.holdings() - _tracker_holdings()


def _tracker_holdings():
    """The holdings of the resource tracker of this process, which runs until the end of the
    module."""
    tracker = resource_tracker._resource_tracker
    if tracker._fd is None:
        return set()
    link = os.readlink(f"/proc/self/fd/{tracker._fd}")
    return {f"child process {tracker._pid}", f"descriptor {tracker._fd} -> {link}"}


@pytest.fixture(scope="module", autouse=True)
def stop_tracker():
    """Stop the resource tracker after each module; starting one for each test would be slow."""
    yield
    resource_tracker._resource_tracker._stop()


def _stop_multiprocessing():
    """Stop the servers and threads that multiprocessing starts and keeps."""
    resource_sharer.stop(timeout=10)
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()


def _use_a_lock():
    """Use a lock, which unmaps the memory of locks that ended threads held."""
    import posixshm

    time.sleep(0.06)  # a poll interval
    with posixshm.Lock():
        pass


def _left_behind(before):
    """The holdings that are not in `before`, and all holdings."""
    for attempt in range(6):
        now = _holdings()
        left = now - before
        if not left:
            return [], now
        # Twice: an object that was freed may have been the last reference to another.
        gc.collect()
        if attempt == 2:
            _stop_multiprocessing()
        if attempt >= 3:
            _use_a_lock()
    # A joined thread may still exist in the kernel.
    deadline = time.monotonic() + 10
    while any(what.startswith("thread ") for what in left) and time.monotonic() < deadline:
        time.sleep(0.001)
        left = _holdings() - before
    return sorted(left), None


def _tidy(left):
    for what in left:
        if what.startswith("file "):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(what.removeprefix("file "))


_passed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.stash[_passed] = report.passed
    return report


_before = None  # the holdings before the next test, if they are known from the end of the last


def pytest_fixture_setup(fixturedef):
    _forget_holdings(fixturedef)


def pytest_fixture_post_finalizer(fixturedef):
    _forget_holdings(fixturedef)


def _forget_holdings(fixturedef):
    """A fixture of several tests may hold what none of these tests leaves behind."""
    global _before
    if fixturedef.scope != "function":
        _before = None


@pytest.fixture(autouse=True)
def leaves_nothing(request):
    """Check that a passed test has left no file, descriptor, mapping, child process or thread."""
    global _before
    # Each test has another thread of pytest-timeout.
    before = _before | _threads() if _before else _holdings()
    yield
    request.node.funcargs.clear()  # otherwise pytest would keep the results of other fixtures
    left, _before = _left_behind(before)
    _tidy(left)
    # The traceback of a failed test keeps objects alive, which is not a fault of the library.
    if left and request.node.stash.get(_passed, False):
        pytest.fail("the test left behind:\n  " + "\n  ".join(left))


# -- names --------------------------------------------------------------------------------------


@pytest.fixture
def names():
    """A function that returns an unused name, which begins with `names.prefix`."""

    def fresh():
        return f"{_PREFIX}{next(_numbers)}"

    fresh.prefix = _PREFIX
    return fresh


@pytest.fixture
def name(names):
    """An unused name. A test that creates an object of this name also unlinks it."""
    return names()


# -- objects that no process uses ---------------------------------------------------------------


@pytest.fixture
def make(names):
    """make(content): create an object that no process has open, and return its name; it is removed
    after the test."""
    made = []

    def make(content=b"content", name=None):
        name = name or names()
        (Path(SHM) / name).write_bytes(content)
        (Path(SHM) / name).chmod(0o600)
        made.append(name)
        return name

    yield make
    for name in made:
        (Path(SHM) / name).unlink(missing_ok=True)


@pytest.fixture
def fresh(names):
    """An unused name, which is removed after the test."""
    name = names()
    yield name
    (Path(SHM) / name).unlink(missing_ok=True)


# -- other interpreters -------------------------------------------------------------------------


class Child:
    """Another Python that runs `code` in its own session.

    Its standard input and output are pipes, for say() and hear(). After the deadline it prints the
    stacks of all its threads, and is killed with all its children.
    """

    # new: start a new interpreter instead of forking a server that has imported posixshm.
    def __init__(self, code, *args, options=(), env=None, new=False, **popen):
        code = textwrap.dedent(code)
        start = subprocess.Popen
        if not options and not new:
            start = _fork_server.Forked
            if re.search(r"\b(numpy|array|children)\b", code):
                popen["modules"] = ["numpy", "posixshm.array"]
        self.process = start(
            [sys.executable, "-X", "faulthandler", *options, "-c", code, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **(env or {})},
            **popen,
        )
        self.pid = self.process.pid
        self._heard = b""

    def say(self, text):
        """Write a line to its standard input."""
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, expected=None, timeout=DEADLINE):
        """Return the next line of its standard output without the newline."""
        deadline = time.monotonic() + timeout
        fd = self.process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while b"\n" not in self._heard:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._fail_hanging(timeout)
                chunk = os.read(fd, 1 << 16)
                if not chunk:
                    status, out, err = self._collect()
                    pytest.fail(f"a child process ended early: {status}\n{out}\n{err}")
                self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        line = line.decode()
        if expected is not None:
            assert line == expected
        return line

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """Kill it by SIGKILL, and wait for its end."""
        self.process.kill()
        self._collect()

    def finish(self, timeout=DEADLINE, check=True):
        """Close its input and wait for its end. Returns its exit status, output and errors.

        check: the status must be 0, and standard error must be empty.
        """
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._fail_hanging(timeout)
        out, err = (self._heard + out).decode(), err.decode()
        status = self.process.returncode
        if check and (status != 0 or err):
            pytest.fail(f"a child process ended with {status}\n{out}\n{err}")
        return status, out, err

    def _collect(self):
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, (self._heard + out).decode(), err.decode()

    def _fail_hanging(self, timeout):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGABRT)  # faulthandler prints the stacks
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        _, out, err = self._collect()
        pytest.fail(f"a child process hung for {timeout} seconds\n{out}\n{err}")

    def abandon(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def start_python(leaves_nothing, request):
    """start_python(code, *args, options=, env=, ...): a Child, ended with the test if need be."""
    children = []
    new = request.node.get_closest_marker("new_interpreter") is not None

    def start(code, *args, **keywords):
        child = Child(code, *args, **{"new": new, **keywords})
        children.append(child)
        return child

    yield start
    for child in children:
        child.abandon()


@pytest.fixture
def run_python(start_python):
    """run_python(code, *args): run another Python, which must exit with 0 and print no error;
    return its standard output.

    check=False: return (status, output, errors) for any exit status.
    """

    def run(code, *args, timeout=DEADLINE, check=True, **keywords):
        result = start_python(code, *args, **keywords).finish(timeout, check)
        return result[1] if check else result

    return run


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """The environment of a child that uses _processes.Faults."""
    return build_faults(tmp_path_factory.mktemp("faults"))


# -- threads ------------------------------------------------------------------------------------


@pytest.fixture
def run_threads():
    """run_threads(*functions): run each function in a thread, started together by a barrier.

    Returns their results in order, or raises the first exception.
    """

    def run(*functions, timeout=DEADLINE):
        barrier = threading.Barrier(len(functions))
        results = [None] * len(functions)
        errors = []

        def body(index, function):
            try:
                barrier.wait(timeout)
                results[index] = function()
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=body, args=item, daemon=True) for item in enumerate(functions)
        ]
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            faulthandler.dump_traceback(all_threads=True)
            pytest.fail(f"threads hung for {timeout} seconds; their stacks are on standard error")
        if errors:
            raise errors[0]
        return results

    return run
