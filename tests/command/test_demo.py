"""`posixshm demo`: its output, and that no kind of end leaves anything."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from _command import bad, good, in_namespace, wait_for, without

from posixshm import exists

COMMAND = [sys.executable, "-m", "posixshm", "demo"]
DEADLINE = 60


class Demo:
    """A demo in its own session, which is killed at the end of the block."""

    def __enter__(self):
        self.process = subprocess.Popen(
            COMMAND,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.name = f"posixshm-demo-{self.process.pid}"
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        if exists(self.name):
            os.unlink(f"/dev/shm/{self.name}")

    def members(self):
        """The running processes of the session."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _parent, _group, session = path.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid and state not in "ZX":
                    found.append(int(path.parent.name))
        return found

    def workers(self):
        found = []
        for pid in self.members():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def stop_in_its_work(self):
        """Stop the workers, so that the demo waits for them after it has filled the array."""
        wait_for(self.workers, "a worker")
        for pid in self.workers():
            os.kill(pid, signal.SIGSTOP)
        wait_for(self.array_is_filled, "the array")

    def array_is_filled(self):
        with contextlib.suppress(FileNotFoundError), open(f"/dev/shm/{self.name}", "rb") as file:
            file.seek(-4, os.SEEK_END)
            return file.read() != bytes(4)

    def finish(self):
        """Return its exit code and standard error; check that nothing is left."""
        _, errors = self.process.communicate(timeout=DEADLINE)
        wait_for(lambda: not self.members(), "the end of all processes")
        assert not exists(self.name)
        return self.process.returncode, errors


@pytest.mark.long
def test_both_ways_return_the_same_film():
    output = good("demo")
    assert re.match(
        r"A film of \d+ frames, 1024 x 1024 float32 \(\d+\.0 MiB\), for \d worker ", output
    )
    assert re.search(r"\n  in shared memory +\d+\.\d{3} s +[\d.]+ Ki?B sent\n", output)
    assert re.search(r"\n  through pipes +\d+\.\d{3} s +[\d.]+ MiB sent\n", output)
    assert output.endswith("times as fast. The results are equal.\n")


def test_the_film_needs_at_most_half_of_the_free_space():
    done = in_namespace("size=20m", *COMMAND)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("A film of 2 frames")


@pytest.mark.parametrize(
    ("mount", "setup"),
    [
        pytest.param("size=1m", "", marks=pytest.mark.long),
        ("size=8m", "head -c 8m /dev/zero > /dev/shm/other || true"),
    ],
    ids=["small", "full"],
)
def test_a_full_mount_is_one_line_of_error(mount, setup):
    done = in_namespace(mount, *COMMAND, setup=setup)
    assert (done.returncode, done.stdout) == (1, "")
    complaint, *left = done.stderr.splitlines()
    assert re.fullmatch(
        r"posixshm: /dev/shm: [\d.]+ \w+ are free; the demo needs 8\.0 MiB", complaint
    )
    assert left == (["other"] if setup else [])


@pytest.mark.parametrize(
    ("send", "signum"),
    [(os.killpg, signal.SIGINT), pytest.param(os.kill, signal.SIGTERM, marks=pytest.mark.long)],
    ids=["INT", "TERM"],
)
def test_a_signal_ends_all_processes(send, signum):
    with Demo() as demo:
        demo.stop_in_its_work()
        send(demo.process.pid, signum)
        assert demo.finish() == (128 + signum, "")


@pytest.mark.long
def test_ctrl_c_while_the_workers_start():
    with Demo() as demo:
        wait_for(demo.workers, "a worker")
        os.killpg(demo.process.pid, signal.SIGINT)
        assert demo.finish() == (130, "")


@pytest.mark.long
def test_ctrl_c_does_not_interrupt_a_worker():
    with Demo() as demo:
        demo.stop_in_its_work()
        for pid in demo.workers():
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGCONT)
        assert demo.finish() == (0, "")


@pytest.mark.long
def test_a_killed_worker_is_one_line_of_error():
    with Demo() as demo:
        demo.stop_in_its_work()
        os.kill(demo.workers()[0], signal.SIGKILL)
        code, errors = demo.finish()
        assert code == 1
        assert errors == "posixshm: a worker process ended before its work was done\n"


@pytest.mark.long
def test_a_killed_parent_leaves_nothing():
    with Demo() as demo:
        demo.stop_in_its_work()
        demo.process.kill()
        for pid in demo.workers():
            os.kill(pid, signal.SIGCONT)
        code, errors = demo.finish()
        assert code == -signal.SIGKILL
        assert "Traceback" not in errors


def test_a_closed_standard_output():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(COMMAND, stdout=write, stderr=subprocess.PIPE, timeout=DEADLINE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [
        ("numpy", [], "numpy"),
        pytest.param("matplotlib", ["--plot", "demo.png"], "plot", marks=pytest.mark.long),
    ],
)
def test_a_missing_package_is_one_line_of_error(package, options, extra, tmp_path):
    code, complaint = bad("demo", *options, env=without(tmp_path, package), cwd=tmp_path)
    text = f"{package} is not installed: pip install 'posixshm[{extra}]'"
    assert (code, complaint) == (2, f"posixshm: {text}")
