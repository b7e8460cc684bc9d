"""`posixshm demo`: what it shows, and that nothing stays behind however it ends."""

import codecs
import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from _command import in_namespace
from _processes import open_terminal

from posixshm import listdir

COMMAND = [sys.executable, "-m", "posixshm", "demo"]
METHODS = ["spawn", "forkserver", "fork"]
DEADLINE = 60
# Runs for many seconds, so that it can be ended at any point of its work.
LONG = ("--size-mib", "32", "--workers", "2", "--rounds", "1000")


def wait_until(condition, timeout=DEADLINE):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "never seen"
        time.sleep(0.01)


def _heed_hang_ups():
    """Whoever started the tests may have them ignored, as nohup does, and that is inherited."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Demo:
    """A demonstration under way, in a session of its own, so that its processes can be found."""

    def __init__(self, *args, **keywords):
        keywords = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | keywords
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, args)],
            start_new_session=True,
            text=True,
            preexec_fn=_heed_hang_ups,
            **keywords,
        )
        self.pid = self.process.pid
        self._workers = []

    def members(self):
        """Its living processes: the parent, the workers and what multiprocessing has beside."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _parent, _group, session = path.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.pid and state not in "ZX":
                    found.append(int(path.parent.name))
        return found

    def starting(self):
        """The processes that are going to work, where they are spawned."""
        found = []
        for pid in self.members():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def workers(self):
        """Those that work. Waits until they have been named."""
        while not self._workers and (line := self.process.stdout.readline()):
            if line.startswith("The workers: "):
                self._workers = [int(pid) for pid in re.findall(r"\d+", line.split("pid")[1])]
        return self._workers

    def names(self):
        return [name for name in listdir() if name.startswith(f"posixshm-demo-{self.pid}-")]

    def attached(self):
        """Those workers that map the array at this moment, a few milliseconds in each round."""
        found = []
        for pid in self.workers():
            with contextlib.suppress(OSError):
                if f"/dev/shm/posixshm-demo-{self.pid}-" in Path(f"/proc/{pid}/maps").read_text():
                    found.append(pid)
        return found

    def wait_for(self, look, count=1):
        """What look() finds, once that is enough."""
        deadline = time.monotonic() + DEADLINE
        while len(found := look()) < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "never seen"
        return found

    def finish(self, timeout=DEADLINE):
        """Its exit code, its output and its errors."""
        output, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, output, errors

    def left_behind(self):
        """Its names and processes that are there a while after its end."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.names() + self.members(), 20)
        return self.names() + self.members()

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.communicate()
        for name in self.names():
            os.unlink(f"/dev/shm/{name}")


@pytest.fixture
def start():
    demos = []

    def start(*args, **keywords):
        demos.append(Demo(*args, **keywords))
        return demos[-1]

    yield start
    for demo in demos:
        demo.end()


# -- what it shows ------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_shows_one_array_and_several_processes(method, start):
    demo = start("--size-mib", 7, "--workers", 3, "--rounds", 2, "--start-method", method)
    code, output, errors = demo.finish()
    assert (code, errors) == (0, "")
    assert "An array of 7 MiB: a film of 7 frames" in output
    assert re.search(rf"^The workers: 3 by {method}, pid \d+, \d+, \d+\.$", output, re.M)
    assert "\n3 processes attached to one object by its name" in output
    assert "No frame was copied." in output
    sent = re.search(r"in shared memory +[\d.]+ s +(\d+) bytes: the name", output)
    assert int(sent[1]) < 1000
    assert re.search(r"through a Pipe and back +[\d.]+ s +14 MiB: every frame", output)
    assert re.search(r"In shared memory \d+\.\d times as fast", output)
    assert f"Checked after each of the 4 runs: all {7 * 512 * 512:,} pixels" in output
    assert output.endswith("Left in /dev/shm: nothing.\n")
    assert demo.left_behind() == []


def test_the_ratio_is_that_of_the_medians(start):
    _, output, _ = start("--size-mib", 16, "--rounds", 3).finish()
    rows = re.findall(r"^  (?:in shared|through a).*", output, re.M)
    medians = []
    for row in rows:
        median, *rounds = map(float, re.findall(r"\d+\.\d{3}", row))
        assert sorted(rounds)[1] == median
        medians.append(median)
    ratio = float(re.search(r"(\d+\.\d) times", output)[1])
    # The table rounds to a millisecond.
    low = (medians[1] - 0.001) / (medians[0] + 0.001) - 0.1
    high = (medians[1] + 0.001) / max(medians[0] - 0.001, 1e-4) + 0.1
    assert low <= ratio <= high


def test_no_more_workers_than_frames(start):
    code, output, _ = start("--size-mib", 1, "--workers", 5, "--rounds", 1).finish()
    assert code == 0
    assert "\n1 process attached" in output


def test_no_control_characters_where_no_terminal_is(start):
    code, output, errors = start("--size-mib", 2, "--workers", 1, "--rounds", 1).finish()
    assert (code, errors) == (0, "")
    assert [c for c in output if not c.isprintable() and c != "\n"] == []


class Terminal:
    """A terminal of its own for a process; it is read at all times, or the process would wait."""

    def __init__(self):
        self.master, self.slave = open_terminal()
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self._reader.start()
        return self

    def __exit__(self, *_):
        os.close(self.slave)  # the last one: the reader sees the end
        self._reader.join(DEADLINE)
        os.close(self.master)

    def _read(self):
        decoder = codecs.getincrementaldecoder("utf-8")()
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while chunk := os.read(self.master, 1 << 16):
                self.shown += decoder.decode(chunk)


@pytest.mark.long
@pytest.mark.parametrize("stop", [False, True], ids=["to the end", "Ctrl-C"])
def test_a_bar_on_a_terminal_that_is_left_in_order(stop, start):
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    for key in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        env.pop(key, None)
    with Terminal() as terminal:
        args = LONG if stop else ("--size-mib", 32, "--rounds", 3)
        slave = terminal.slave
        demo = start(*args, stdin=slave, stdout=slave, stderr=slave, env=env)
        if stop:
            demo.wait_for(lambda: demo.members() if "%" in terminal.shown else [])
            os.killpg(demo.pid, signal.SIGINT)
        code, _, _ = demo.finish()
        assert demo.left_behind() == []
    shown = terminal.shown
    assert code == (130 if stop else 0)
    assert "Traceback" not in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") >= 1  # the cursor is shown again
    assert "%" in shown
    assert ("nothing is left behind" if stop else "times as fast") in shown


# -- however it ends ----------------------------------------------------------------------------


def assert_stopped(demo, signum):
    code, _, errors = demo.finish()
    name = signal.Signals(signum).name
    assert errors == f"posixshm: demo: stopped by {name}; nothing is left behind\n"
    assert code == 128 + signum
    assert demo.left_behind() == []


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("moment", ["at once", "starting", "named", "attached", "later"])
def test_ctrl_c(moment, method, start):
    demo = start(*LONG, "--start-method", method)
    assert demo.process.stdout.readline().startswith("An array of 32 MiB")
    if moment == "starting":
        demo.wait_for(demo.members, 3)
    elif moment == "named":
        demo.wait_for(demo.names)
    elif moment in ("attached", "later"):
        demo.wait_for(demo.attached, 2)
        time.sleep(0.3 if moment == "later" else 0)
    os.killpg(demo.pid, signal.SIGINT)  # as a terminal sends it
    assert_stopped(demo, signal.SIGINT)


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("delay", [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7])
def test_ctrl_c_after(delay, start):
    demo = start(*LONG)
    demo.process.stdout.readline()
    time.sleep(delay)
    os.killpg(demo.pid, signal.SIGINT)
    assert_stopped(demo, signal.SIGINT)


def test_ctrl_c_before_it_says_a_word(start):
    for delay in (0.02, 0.05, 0.1, 0.2, 0.3):
        demo = start(*LONG)
        time.sleep(delay)
        os.killpg(demo.pid, signal.SIGINT)
        try:
            code, _, _ = demo.finish(DEADLINE / 2)
        except subprocess.TimeoutExpired:
            # Python loses one that comes in a callback of an import, and says so.
            os.killpg(demo.pid, signal.SIGINT)
            code, _, errors = demo.finish()
            assert "Exception ignored in" in errors and "\nKeyboardInterrupt" in errors
        assert code in (130, -signal.SIGINT, 1)  # 1: while Python itself starts
        assert demo.left_behind() == []


def test_ctrl_c_again_and_again(start):
    demo = start(*LONG)
    demo.wait_for(demo.attached)
    for _ in range(20):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(demo.pid, signal.SIGINT)
        time.sleep(0.001)
    code, _, errors = demo.finish()
    assert "Traceback" not in errors
    assert code == 130
    assert demo.left_behind() == []


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to_all", [False, True], ids=["parent", "all"])
def test_other_signals_that_end_it(signum, to_all, start):
    demo = start(*LONG)
    demo.wait_for(demo.attached)
    (os.killpg if to_all else os.kill)(demo.pid, signum)
    assert_stopped(demo, signum)


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("delay", [0, 0.1, 0.2, 0.3, 0.4])
def test_a_killed_parent_leaves_no_worker_and_says_nothing(delay, method, start):
    demo = start(*LONG, "--start-method", method)
    demo.wait_for(demo.attached, 2)
    time.sleep(delay)
    demo.process.kill()
    code, _, errors = demo.finish()
    assert (code, errors) == (-signal.SIGKILL, "")
    # Its name is there for an instant in each round, until both have attached.
    command = [sys.executable, "-m", "posixshm", "reclaim", "--json", "--prefix"]
    wait_until(lambda: demo.members() == [])
    subprocess.run([*command, f"posixshm-demo-{demo.pid}-"], capture_output=True, check=True)
    assert demo.left_behind() == []


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize(
    ("moment", "method"),
    [("starting", "spawn"), *itertools.product(["ready", "attached", "later"], METHODS)],
)
def test_a_killed_worker_is_said_and_ends_all(moment, method, start):
    demo = start(*LONG, "--start-method", method)
    if moment == "starting":
        victim = demo.wait_for(demo.starting, 2)[1]
    elif moment == "ready":
        victim = demo.workers()[1]
    else:
        victim = demo.wait_for(demo.attached)[0]
        time.sleep(0.2 if moment == "later" else 0)
    os.kill(victim, signal.SIGKILL)
    code, _, errors = demo.finish()
    assert code == 1
    assert errors == (
        f"posixshm: demo: the worker with pid {victim} was killed by SIGKILL; "
        "the others were stopped, nothing is left\n"
    )
    assert demo.left_behind() == []


@pytest.mark.long
def test_a_worker_that_hangs_does_not_outlive_ctrl_c(start):
    demo = start(*LONG)
    os.kill(demo.wait_for(demo.attached)[0], signal.SIGSTOP)
    time.sleep(0.1)
    os.killpg(demo.pid, signal.SIGINT)
    assert_stopped(demo, signal.SIGINT)


def test_a_full_mount_is_said_in_one_line():
    done = in_namespace("size=1m", *COMMAND, "--size-mib", "2", "--rounds", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("posixshm: demo: No space left on /dev/shm")
    assert "--size-mib" in done.stderr
    # One line, and below it the list of what is left, which is empty.
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_reader_that_has_gone(start):
    read, write = os.pipe()
    os.close(read)
    demo = start("--size-mib", 2, "--rounds", 1, stdout=write)
    os.close(write)
    code, _, errors = demo.finish()
    assert (code, errors) == (141, "")
    assert demo.left_behind() == []


def test_a_missing_package_is_said_with_how_to_install_it(tmp_path):
    package = "numpy"
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError({package!r})\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        COMMAND,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"posixshm: this needs {package}, which is not installed: pip install 'posixshm[numpy]'\n"
    )


@pytest.mark.long
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "", "9" * 30])
@pytest.mark.parametrize("option", ["--size-mib", "--workers", "--rounds"])
def test_bad_numbers(option, value):
    done = subprocess.run(
        [*COMMAND, f"{option}={value}"], capture_output=True, text=True, timeout=DEADLINE
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not a whole number above 0" in done.stderr
