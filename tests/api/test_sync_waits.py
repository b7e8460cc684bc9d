"""Every call that waits lets other threads run, keeps its timeout, and ends on Ctrl-C."""

import contextlib
import decimal
import fractions
import math
import os
import signal
import threading
import time

import numpy as np
import pytest
from _processes import PATH
from _waits import CASES

from posixshm import SharedMemory

DEADLINE = 30
FOR_EVER = [None, math.inf, 1e300, 10**15]
NEGATIVE = [-0.001, -0.5, -2, -1e300, -math.inf]
NO_NUMBERS = ["1", "", b"1", True, False, 1j, [], (), {}, object()]


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def case(request, name):
    with SharedMemory.create(name, 16384, delete=True) as shm:
        case = request.param(shm)
        yield case
        case.end()
        # pytest keeps the value of the fixture until after the check for leaks.
        vars(case).clear()


def in_vain(case, timeout):
    """Block with this timeout; return the seconds that the call took."""
    before = time.monotonic()
    if case.late is False:
        assert case.block(timeout) is False
    else:
        with pytest.raises(case.late):
            case.block(timeout)
    return time.monotonic() - before


class Later(threading.Thread):
    """Call the function in another thread after a delay; join() raises its exception."""

    def __init__(self, seconds, action):
        super().__init__(daemon=True)
        self.seconds, self.action, self.error, self.at = seconds, action, None, None
        self.start()

    def run(self):
        time.sleep(self.seconds)
        self.at = time.monotonic()
        try:
            self.action()
        except BaseException as error:
            self.error = error

    def end(self):
        self.join(DEADLINE)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def handler(number, function):
    old = signal.signal(number, function)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(number, old)


def test_other_threads_run_during_a_wait(case):
    """Otherwise no thread could unblock the call."""

    def count_and_unblock():
        total = 0
        for i in range(50_000):
            total += i
        case.unblock()

    later = Later(0.02, count_and_unblock)
    assert case.block(DEADLINE) is True
    later.end()


def test_without_a_limit(case):
    for timeout in FOR_EVER + ([-1, -1.0] if case.acquires else []):
        before = time.monotonic()
        later = Later(0.02, case.unblock)
        assert case.block(timeout) is True
        assert time.monotonic() - before >= 0.02
        later.end()


@pytest.mark.long
def test_a_timeout_is_not_early_and_not_absurdly_late(case):
    for timeout in (1e-9, 0.001, 0.06, 0.13, fractions.Fraction(1, 50), decimal.Decimal("0.01")):
        assert timeout <= in_vain(case, timeout) < float(timeout) + 5
    assert in_vain(case, np.float64(0.01)) >= 0.01
    later = Later(0, case.unblock)
    assert case.block(DEADLINE) is True
    later.end()


def test_a_timeout_of_zero_or_less(case):
    """A negative timeout means that the deadline has passed, as in threading."""
    for timeout in [0, 0.0, -0.0, np.int64(0)] + ([] if case.acquires else [*NEGATIVE, -1, -1.0]):
        assert in_vain(case, timeout) < 5


def test_bad_timeouts(case):
    """Bad timeouts are refused at once, without an effect."""
    for timeout in [math.nan] + (NEGATIVE if case.acquires else []):
        with pytest.raises(ValueError, match="timeout"):
            case.block(timeout)
    for timeout in NO_NUMBERS:
        with pytest.raises(TypeError, match="timeout"):
            case.block(timeout)
    with pytest.raises(OverflowError):
        case.block(10**400)

    class Raising:
        def __float__(self):
            raise KeyError("from __float__")

    with pytest.raises(KeyError):
        case.block(Raising())
    later = Later(0.01, case.unblock)
    assert case.block(DEADLINE) is True
    later.end()


@pytest.mark.long
@pytest.mark.parametrize("timeout", [None, DEADLINE])
def test_ctrl_c_ends_a_wait(case, timeout):
    """The call ends within 100 ms on an idle machine, without an effect."""

    sent = []
    about_to = threading.Event()  # set when an interrupt is expected

    def interrupt():
        about_to.wait(DEADLINE)
        time.sleep(0.03)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    with handler(signal.SIGINT, signal.default_int_handler):
        took = []
        for _ in range(3):
            about_to.clear()
            later = Later(0, interrupt)
            with pytest.raises(KeyboardInterrupt):
                about_to.set()
                case.block(timeout)
                time.sleep(DEADLINE)
            took.append(time.monotonic() - sent[-1])
            later.end()
            case.sane()
        assert min(took) < 0.5 and max(took) < 5, took
    later = Later(0.01, case.unblock)
    assert case.block(DEADLINE) is True
    later.end()


@pytest.mark.long
def test_a_handler_that_returns_does_not_end_a_wait(case):
    count = []
    with handler(signal.SIGALRM, lambda *_: count.append(1)):
        signal.setitimer(signal.ITIMER_REAL, 0.004, 0.004)
        assert in_vain(case, 0.2) >= 0.2
        assert len(count) >= 2
        later = Later(0.12, case.unblock)
        assert case.block(None) is True
        later.end()
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_handler_runs_during_a_wait(case):
    """The handler may end the wait itself."""
    ran = []

    def unblock(*_):
        ran.append(time.monotonic())
        thread = threading.Thread(target=case.unblock)
        thread.start()

    with handler(signal.SIGALRM, unblock):
        before = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        assert case.block(DEADLINE) is True
    assert len(ran) == 1 and ran[0] - before < 5


def test_stopped_and_continued(start_python, name):
    """SIGSTOP and SIGCONT interrupt system calls, too; the wait goes on."""
    code = f"""
import time
from _processes import PATH
from _waits import CASES
from posixshm import SharedMemory
print("begins", flush=True)
for kind in CASES:
    with SharedMemory.create({name!r}, 16384, delete=True) as shm:
        case = kind(shm)
        before = time.monotonic()
        try:
            assert case.block(0.05) is False
        except Exception as error:
            assert case.late and isinstance(error, case.late), repr(error)
        assert time.monotonic() - before >= 0.05
        case.end()
"""
    child = start_python(code, env=PATH)
    child.hear("begins")
    deadline = time.monotonic() + DEADLINE
    while child.process.poll() is None and time.monotonic() < deadline:
        child.signal(signal.SIGSTOP)
        time.sleep(0.004)
        child.signal(signal.SIGCONT)
        time.sleep(0.01)
    child.finish()
