"""Statements of the guides that no other test checks."""

import os
import re
import shlex
import signal
import struct
import time

import numpy as np
import pytest
from _documents import PAGES, blocks
from _processes import rounds

import posixshm
from posixshm import Semaphore, SharedMemory, array
from posixshm._command.parser import make_parser

GUIDES = {page.stem: page for page in PAGES if not page.name.startswith("api-")}


# -- the command --------------------------------------------------------------------------------


def command_lines():
    """Each command of posixshm in a console block of a guide."""
    for page in GUIDES.values():
        for language, code in blocks(page.read_text()):
            if language == "console":
                for line in re.findall(r"^\$ (.*)$", code, re.MULTILINE):
                    for part in re.split(r"[|)]|\$\(", line.partition(" #")[0]):
                        if part.strip().startswith("posixshm "):
                            yield part.strip()


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_the_command_accepts_the_arguments_of_the_guides(line):
    make_parser().parse_args(shlex.split(line)[1:])


def test_the_guide_lists_every_command():
    listed = re.findall(r"^\| `([a-z]+)[ `]", GUIDES["command"].read_text(), re.MULTILINE)
    (commands,) = make_parser()._subparsers._group_actions
    assert set(commands.choices) <= set(listed)


# -- the sizes of primitives --------------------------------------------------------------------


def test_the_table_of_sizes():
    text = GUIDES["synchronization"].read_text()
    header, sizes, alignments = re.search(
        r"^\| (\| `Lock`.*)\n\|---.*\n\| `.nbytes` (.*)\n\| `.alignment` (.*)$", text, re.MULTILINE
    ).groups()
    classes = [getattr(posixshm, name) for name in re.findall(r"\w+", header)]
    for attribute, row in (("nbytes", sizes), ("alignment", alignments)):
        values = [int(number.split()[-1]) for number in row.strip("| ").split(" | ")]
        assert values == [getattr(cls, attribute) for cls in classes]


# -- memory order -------------------------------------------------------------------------------

OLD, NEW = (struct.unpack("d", bytes([n]) * 8)[0] for n in (17, 34))


@pytest.mark.parametrize(
    "read", ["view", *(pytest.param(way, marks=pytest.mark.long) for way in ("numpy", "memoryview"))]
)
def test_an_aligned_float_is_old_or_new(read):
    """A process writes two values alternately, in each way."""
    shm = SharedMemory.anonymous(4096)
    reader = {
        "view": shm.view("d", 1, 64),
        "numpy": np.ndarray((1,), "f8", shm.buf, 64),
        "memoryview": shm.buf[64:72].cast("d"),
    }[read]
    reader[0] = OLD
    pid = os.fork()
    if pid == 0:
        writers = shm.view("d", 1, 64), np.ndarray((1,), "f8", shm.buf, 64)
        while True:
            for writer in writers:
                writer[0] = NEW
                writer[0] = OLD
    try:
        seen, changes, deadline = OLD, 0, time.monotonic() + 60
        while changes < rounds(300, 3_000):  # the processes run at the same time
            assert time.monotonic() < deadline
            for _ in range(1000):
                value = float(reader[0])
                assert value in (OLD, NEW)
                changes += value != seen
                seen = value
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# -- other libraries ----------------------------------------------------------------------------


def test_posix_ipc_shares_objects_and_semaphores(run_python, name):
    code = """
        import os, sys
        import posix_ipc
        from posixshm import Semaphore, SharedMemory

        name = sys.argv[1]
        theirs = posix_ipc.SharedMemory(f"/{name}", posix_ipc.O_CREX, size=4096)
        with SharedMemory.open(name) as ours:
            os.pwrite(theirs.fd, b"x", 7)
            assert ours.buf[7] == ord("x")
            theirs.close_fd()
            ours.unlink()
        semaphore = posix_ipc.Semaphore(f"/{name}", posix_ipc.O_CREX, initial_value=2)
        assert Semaphore(name).acquire(timeout=0)
        assert semaphore.value == 1
        semaphore.unlink()
        semaphore.close()
    """
    # A Python without the GIL warns that posix_ipc turns it on.
    run_python(code, name, options=["-W", "ignore"])


# -- limits -------------------------------------------------------------------------------------


def test_the_limits_of_names(name):
    with SharedMemory.create(name + "x" * (255 - len(name)), 1, delete=True) as shm:
        assert len(shm.name) == posixshm.NAME_MAX == 255
    Semaphore(name + "x" * (251 - len(name)), create=True).unlink()
    for bad in ("", "a/b", "x" * 256, "sem.x"):
        with pytest.raises(ValueError, match="name"):
            SharedMemory.create(bad, 1)
    with pytest.raises(ValueError, match="name"):
        Semaphore("x" * 252, create=True)


def test_an_array_over_the_handle_hides_from_resize_whether_it_exists(names):
    for buffer_of, allowed in ((lambda shm: shm, False), (lambda shm: shm.buf, True)):
        with SharedMemory.create(names(), 8192, delete=True) as shm:
            np.frombuffer(buffer_of(shm), "u1")
            if allowed:
                assert shm.resize(4096, shrink=True) == 4096
            else:
                with pytest.raises(BufferError):
                    shm.resize(4096, shrink=True)


# -- arrays -------------------------------------------------------------------------------------


def test_a_new_version_leaves_the_old_array_whole(name):
    old = array.save(name, np.zeros(1000))
    new = array.save(name, np.ones(1000), replace=True)
    assert not old.is_linked() and new.is_linked()
    assert not old.any() and array.load(name).all()
    new.unlink()
