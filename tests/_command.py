"""Helpers of the tests of the `posixshm` command: run it, also on a terminal."""

import contextlib
import fcntl
import functools
import os
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from _fork_server import Forked, take_terminal
from _processes import needs_mounts, open_terminal

import posixshm._command

MOUNT = Path("/dev/shm")
COMMAND = [sys.executable, "-m", "posixshm"]
DEADLINE = 60
# The modules that the commands import when they need them.
_COMMAND_IMPORTS = ["runpy", "encodings.ascii", "shutil", "unicodedata", "posixshm._holders"]
_COMMAND_IMPORTS += sorted(
    f"posixshm._command.{file.stem}"
    for file in Path(posixshm._command.__file__).parent.glob("[a-z]*.py")
)


def run(*args, **keywords):
    """Run the command; the output is text unless the caller passes text=False."""
    keywords.setdefault("text", True)
    given = keywords.pop("input", None)
    keywords.setdefault("stdin", None if given is None else subprocess.PIPE)
    command = [*COMMAND, *map(str, args)]
    with start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords) as process:
        try:
            out, errors = process.communicate(given, DEADLINE)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def start(command, **keywords):
    """Popen(COMMAND + arguments), by a fork of a server that has imported the command."""
    return Forked(command, _COMMAND_IMPORTS, **keywords)


def good(*args, **keywords):
    """The standard output of a command that must succeed without a message."""
    done = run(*args, **keywords)
    assert (done.returncode, done.stderr) == (0, b"" if keywords.get("text") is False else "")
    return done.stdout


def bad(*args, **keywords):
    """The exit code and the one line of error of a command that must fail."""
    done = run(*args, **keywords)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr.removesuffix("\n")


def wait_for(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never saw {what}"
        time.sleep(0.01)


def without(folder, *modules):
    """An environment in which these modules are not installed."""
    for module in modules:
        (folder / f"{module}.py").write_text(f"raise ModuleNotFoundError({module!r})\n")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def in_namespace(mount_options, *command, setup="", **keywords):
    """Run the command in a mount namespace with its own /dev/shm, after the shell commands
    `setup`."""
    needs_mounts()
    base = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    mount = f"mount -t tmpfs -o {mount_options} tmpfs /dev/shm"
    shell = f'{mount} && {{ {setup or "true"}; }} && "$@"; code=$?; ls -A /dev/shm | head -n 20 >&2; exit $code'
    return subprocess.run(
        [*base, "sh", "-c", shell, "sh"] + list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        **keywords,
    )


class Terminal:
    """The command on a terminal of this size. `output` has both its output and its errors."""

    def __init__(self, *args, columns=80, lines=24, env=None, program=COMMAND):
        self._master, slave = open_terminal()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = {**os.environ, "TERM": "xterm", **(env or {})}
        env.pop("COLUMNS", None)
        if program == COMMAND:
            popen = functools.partial(start, terminal=True)
        else:
            popen = functools.partial(subprocess.Popen, preexec_fn=take_terminal)
        self.process = popen(
            [*program, *map(str, args)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
        )
        os.close(slave)
        self.output = ""

    def read_until(self, text):
        """Wait until the command has printed the text."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.output:
            assert time.monotonic() < deadline, f"never saw {text!r} in {self.output!r}"
            if select.select([self._master], [], [], 1)[0] and not self._read():
                raise AssertionError(f"ended without {text!r}: {self.output!r}")

    def _read(self):
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: no process has the terminal open
            return False
        self.output += data.decode().replace("\r\n", "\n")
        return bool(data)

    def type(self, text):
        os.write(self._master, text.encode())

    def finish(self):
        """Wait for the command to end, and return its exit code."""
        deadline = time.monotonic() + DEADLINE
        while True:
            assert time.monotonic() < deadline, f"the command hangs after {self.output!r}"
            if select.select([self._master], [], [], 1)[0] and not self._read():
                return self.process.wait(DEADLINE)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def on_terminal(*args, **keywords):
    terminal = Terminal(*args, **keywords)
    try:
        yield terminal
    finally:
        terminal.close()
