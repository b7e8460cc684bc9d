"""A Python child that is a fork of the server behaves as a new interpreter."""

import os
import signal

import pytest
from _processes import PATH

DESCRIBE = """
import gc, os, signal, sys, threading
described = sorted(set(globals()))

with open("/proc/self/status") as status:
    signals = [line for line in status if line.startswith(("Sig", "Shd"))]
print(
    described, __name__, sys.argv, sys.path, sys.flags, os.getcwd(), sorted(os.environ.items()),
    signals, os.getsid(0) == os.getpid(), os.getppid(), os.umask(0), gc.isenabled(), gc.get_threshold(),
    threading.enumerate()[0].name, sorted(filter(str.isdigit, os.listdir("/proc/self/fd"))),
    [(s.fileno(), s.encoding, s.errors, s.line_buffering) for s in (sys.stdin, sys.stdout, sys.stderr)],
    sys.stdin.read(), sep="\\n",
)
"""


@pytest.fixture
def forked(start_python):
    """start_python(), but the child is certainly a fork of the server."""

    def forked(code, *args, **keywords):
        for _ in range(2):  # the first of a kind is a new interpreter
            start_python("", env=PATH).finish()
        child = start_python(code, *args, env=PATH, **keywords)
        with open(f"/proc/{child.pid}/cmdline") as line:
            is_fork = "_fork_server" in line.read()
        assert is_fork == (os.environ.get("POSIXSHM_TEST_NEW") != "1")
        return child

    return forked


def test_it_has_what_a_new_interpreter_has(start_python, forked, tmp_path):
    children = [
        start_python(DESCRIBE, "an argument", new=True, env=PATH, cwd=tmp_path),
        forked(DESCRIBE, "an argument", cwd=tmp_path),
    ]
    new, fork = (child.finish()[1].splitlines() for child in children)
    assert fork == new


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import os; os._exit(4)", 4),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    ],
)
def test_its_status_is_that_of_the_process(forked, code, expected):
    child = forked("import sys; print('printed', sys.stdin.read(), flush=True)\n" + code)
    status, out, _ = child.finish(check=False)
    assert (status, out) == (expected, "printed \n")


def test_it_is_a_child_of_the_test_and_of_no_server(forked):
    child = forked("import sys; print(); sys.stdout.flush(); sys.stdin.read()")
    child.hear("")
    with open(f"/proc/{child.pid}/stat") as stat:
        parent = int(stat.read().rpartition(")")[2].split()[1])
    assert parent == os.getpid()
    child.kill()
    assert child.process.returncode == -signal.SIGKILL
