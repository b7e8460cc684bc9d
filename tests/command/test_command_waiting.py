"""`posixshm wait` and `watch`."""

import os
import re
import signal
import subprocess

import pytest
from _command import COMMAND, DEADLINE, bad, good, on_terminal

from posixshm import SharedMemory


@pytest.fixture
def waiting():
    """waiting(*args): start a command that waits."""
    started = []

    def start(*args):
        process = subprocess.Popen(
            [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_wait_ends_when_the_object_appears(waiting, name):
    process = waiting("wait", name, "--timeout", DEADLINE)
    assert process.poll() is None
    with SharedMemory.create(name, 10, delete=True):
        assert process.communicate(timeout=DEADLINE) == ("", "")
    assert process.returncode == 0


def test_wait_for_an_existing_object(make):
    assert good("wait", make()) == ""
    assert good("wait", make(), "--free") == ""


def test_wait_ignores_an_object_without_a_size(make):
    name = make(b"")
    line = f"posixshm: {name}: the object does not exist after 0.05 s"
    assert bad("wait", name, "--timeout", "0.05") == (1, line)


@pytest.mark.parametrize(
    ("option", "text"),
    [("--gone", "the name still exists"), ("--free", "the object is still in use")],
    ids=["gone", "free"],
)
def test_wait_ends_when_the_object_is_removed(option, text, waiting, name):
    with SharedMemory.create(name, 10, delete=True):
        line = f"posixshm: {name}: {text} after 0 s"
        assert bad("wait", name, option, "--timeout", "0") == (1, line)
        process = waiting("wait", name, option)
    assert process.communicate(timeout=DEADLINE) == ("", "")
    assert process.returncode == 0


def test_wait_answers_ctrl_c(name):
    with on_terminal("wait", name) as terminal:
        # The test sends Ctrl-C after the command has parsed its arguments.
        wait_until_sleeping(terminal.process.pid)
        terminal.type("\x03")
        assert terminal.finish() == 130
        assert terminal.output in ("", "^C")


def wait_until_sleeping(pid):
    from _command import wait_for

    def sleeps():
        with open(f"/proc/{pid}/wchan") as file, open(f"/proc/{pid}/syscall") as call:
            return "nanosleep" in file.read() or call.read().split()[0] in ("230", "115")

    wait_for(sleeps, "it waits")


def test_wait_refuses_a_bad_name():
    assert bad("wait", "a/b")[0] == 2


# -- watch --------------------------------------------------------------------------------------


def test_watch_prints_tables_to_a_pipe(make):
    name = make()
    output = good("watch", name, "--count", "2", "--interval", "0")
    assert output.count(f"\n{name}  plain") == 2
    assert output.count("1 object") == 2
    assert "\x1b" not in output


def test_watch_shows_new_objects_until_ctrl_c(make, names):
    stem = names()
    with on_terminal("watch", stem, "--interval", "0.05", columns=100) as terminal:
        terminal.read_until("0 objects")
        make(name=f"{stem}-a")
        terminal.read_until(f"{stem}-a")
        terminal.type("\x03")
        assert terminal.finish() == 0
    assert terminal.output.endswith("\x1b[?25h\x1b[?1049l")


def test_watch_fits_a_small_terminal(make, names):
    stem = names()
    for i in range(30):
        make(name=f"{stem}-{i:02}")
    with on_terminal("watch", stem, "--count", "1", columns=34, lines=10) as terminal:
        assert terminal.finish() == 0
    shown = terminal.output.partition("\x1b[H")[2].partition("\x1b[J")[0]
    lines = [re.sub(r"\x1b\[[0-9]*[Km]", "", line) for line in shown.splitlines()]
    assert len(lines) == 9
    assert max(map(len, lines)) <= 34


def test_watch_that_is_terminated_restores_the_terminal(make, names):
    with on_terminal("watch", names()) as terminal:
        terminal.read_until("0 objects")
        os.kill(terminal.process.pid, signal.SIGTERM)
        assert terminal.finish() == 128 + signal.SIGTERM
    assert terminal.output.endswith("\x1b[?25h\x1b[?1049l")
