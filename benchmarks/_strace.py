"""The system calls of a piece of code, as strace(1) reports them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from _common import CannotRun
from _peers import PREFIX

# Two failing calls that mark the trace.
BEGIN = "/begin"
END = "/end"

# Differences between two runs, or two C libraries, that do not matter.
NOISE = (
    (r'getrandom\(".*", ', "getrandom(BYTES, "),
    (r"\)\s+= .*", ")"),  # the result
    (r"\{.*\}", "{}"),
    (r"0x[0-9a-f]+", "ADDRESS"),
    (rf"{PREFIX}\d+-", ""),
    (r"~[0-9a-f]+", "~HEX"),
    (r"\(\d+", "(FD"),
    (r"MAP_SHARED, \d+", "MAP_SHARED, FD"),
    # The C library, and the one that a wheel was built with, decide which of the three calls is
    # made, so all are replaced by one name.
    (r'newfstatat\(FD, "", {}, AT_EMPTY_PATH\)', "fstat(FD, {})"),
    (r"newfstatat\(AT_FDCWD, (.*), {}, AT_SYMLINK_NOFOLLOW\)", r"lstat(\1, {})"),
    (r"newfstatat\(AT_FDCWD, (.*), {}, 0\)", r"stat(\1, {})"),
)


@contextmanager
def marked() -> Iterator[None]:
    """A block whose system calls `traced` returns."""
    with suppress(OSError):
        os.stat(BEGIN)
    yield
    with suppress(OSError):
        os.stat(END)


def traced(*command: str) -> list[str]:
    """The system calls of the `marked` block of a command."""
    if not shutil.which("strace"):
        raise CannotRun("strace is not installed")
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        done = subprocess.run(
            ["strace", "-s", "300", "-o", str(trace), *command], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise CannotRun(f"strace: {done.stderr.strip()}")
        lines = trace.read_text().splitlines()
    begin, end = (
        next(i for i, line in enumerate(lines) if f'"{mark}"' in line) for mark in (BEGIN, END)
    )
    # If the vDSO does not have the clock, reading it is a system call.
    calls = [line for line in lines[begin + 1 : end] if "clock_gettime" not in line]
    return [without_noise(call) for call in calls]


def without_noise(call: str) -> str:
    for pattern, instead in NOISE:
        call = re.sub(pattern, instead, call)
    return call
