"""Output on terminals, to pipes and to full disks, in any locale, and how the command stops."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from _command import (
    COMMAND,
    DEADLINE,
    MOUNT,
    good,
    in_namespace,
    on_terminal,
    run,
    wait_for,
    without,
)

from posixshm import SharedMemory

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def objects(make, names):
    """The prefix of four objects of several sizes."""
    stem = names()
    for name, size in (("a", 1), ("middle", 5000), ("big", 3 << 20)):
        make(bytes(size), f"{stem}-{name}")
    make(b"x", f"{stem}-{'n' * 120}-end")
    return stem


def table(*args, columns, env=None):
    with on_terminal(*args, columns=columns, env=env) as terminal:
        assert terminal.finish() == 0, terminal.output
    return COLOURS.sub("", terminal.output).splitlines()


@pytest.mark.long
@pytest.mark.parametrize("columns", [20, 34, 50, 80, 100, 300])
@pytest.mark.parametrize("command", ["ls", "reclaim"])
def test_a_table_fits_its_terminal(command, columns, objects):
    args = [command, objects] + (["--dry-run"] if command == "reclaim" else [])
    lines = table(*args, columns=columns)
    if command == "reclaim":
        lines.pop()  # the summary, which is a sentence
    assert len(lines) == 5
    assert max(map(len, lines)) <= columns
    head = lines[0].split()
    assert head[0] == "NAME" and head[-1] == "STATE"
    assert all(line.endswith("free") for line in lines[1:])
    if "SIZE" in head:
        assert sum("3.0 MiB" in line for line in lines) == 1
        assert sum("4.9 KiB" in line for line in lines) == 1
    if columns == 300:
        assert "ALLOCATED" in head or command == "reclaim"


@pytest.mark.parametrize("columns", [34, 80])
def test_stat_and_holders_fit_a_terminal(columns, name):
    with SharedMemory.create(name, 70000, delete=True):
        lines = table("stat", name, columns=columns)
        assert max(map(len, lines)) <= columns
        assert any("70000 bytes" in line for line in lines)
        assert any(f"pid {os.getpid()} " in line for line in lines)
        lines = table("holders", name, columns=columns)
        assert max(map(len, lines[:2])) <= columns
        assert lines[1].split()[0] == str(os.getpid())


def test_a_name_that_is_cut_keeps_both_ends(objects):
    lines = table("ls", objects, columns=60)
    assert any(re.match(r"posix\S*\.\.\.n*-end ", line) for line in lines)


def test_output_to_a_pipe_has_all_columns(objects):
    lines = good("ls", objects, env={**os.environ, "COLUMNS": "34"}).splitlines()
    assert "ALLOCATED" in lines[0]
    assert any("n" * 120 in line for line in lines)


def test_colours_need_rich_and_the_users_consent(objects, tmp_path):
    def coloured(env):
        env = {"COLORTERM": "", **env}
        with on_terminal("ls", objects, columns=100, env=env) as terminal:
            terminal.finish()
        shown = COLOURS.sub("", terminal.output)
        return "\x1b[" in terminal.output, re.sub(r" [0-9]+s ", "", shown)

    pytest.importorskip("rich")
    first, second = coloured({}), coloured({"NO_COLOR": "1"})
    third = coloured(without(tmp_path, "rich"))
    assert (first[0], second[0], third[0]) == (True, False, False)
    assert first[1].split() == second[1].split() == third[1].split()


@pytest.mark.long
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
@pytest.mark.parametrize("mode", ["0", "1"], ids=["no UTF-8 mode", "UTF-8 mode"])
def test_any_name_in_any_locale(locale, mode, make, names):
    stem = names()
    for name in (
        f"{stem}-é✓",
        f"{stem}-日本",
        f"{stem}-\x1b[2J",
        os.fsdecode(stem.encode() + b"-\xff"),
    ):
        make(name=name)
    env = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": mode, "PYTHONCOERCECLOCALE": "0"}
    output = good("ls", stem, env=env, text=False)
    assert output.count(b"\n") == 5
    assert b"\x1b" not in output
    assert len(json.loads(good("ls", "--json", stem, env=env))) == 4
    raw = good("ls", "-q", "-0", stem, env=env, text=False)
    assert len(raw.split(b"\0")) == 5 and stem.encode() + b"-\xff" in raw.split(b"\0")


def test_wide_characters_keep_the_columns_in_line(make, names):
    stem = names()
    make(name=f"{stem}-日本")
    make(name=f"{stem}-abcd")
    first, second = table("ls", stem, columns=100)[1:]
    # Two characters have double width.
    assert first.index("plain") == second.index("plain") + 2


# -- output that cannot be written --------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [["ls"], ["ls", "--json"], ["ls", "-q"], ["df"], ["doctor"], ["--help"], ["ls", "--help"]],
)
def test_a_full_disk_is_one_line(args, make):
    make()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE
        )
    assert done.returncode == 1
    assert done.stderr == "posixshm: standard output: No space left on device\n"


def test_closed_standard_output_is_one_line(make):
    name = make()
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "ls", name],
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 1
    assert done.stderr == "posixshm: standard output: Bad file descriptor\n"
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *COMMAND, "rm", name])
    assert done.returncode == 0
    assert not (MOUNT / name).exists()


# -- 100,000 names ------------------------------------------------------------------------------

MANY = """
import os, subprocess, sys, posixshm
for i in range(100_000):
    os.close(os.open(f"/dev/shm/object-{i:06}", os.O_CREAT | os.O_WRONLY, 0o600))
with posixshm.SharedMemory.create("object-in-use", 10, delete=True):
    sys.exit(subprocess.run([sys.executable, "-m", "posixshm", *sys.argv[1:]]).returncode)
"""


def many(*args, shell=None):
    command = [sys.executable, "-c", MANY, *args]
    if shell is not None:
        command = ["bash", "-c", f'"$@" | {shell}; echo ${{PIPESTATUS[0]}}', "bash", *command]
    # in_namespace() prints the names that are left to standard error.
    return in_namespace("size=64m,nr_inodes=200000", *command)


@pytest.mark.long
def test_ls_of_100_000_names():
    done = many("ls")
    lines = done.stdout.splitlines()
    assert len(lines) == 100_002
    assert len(set(map(len, (line[: lines[0].index("STATE")] for line in lines)))) == 1
    assert lines[-1].startswith("object-in-use") and lines[-1].endswith("in use (1)")


@pytest.mark.long
def test_reclaim_of_100_000_names():
    done = many("reclaim", "object")
    assert done.stdout.endswith("Removed 100000 of 100001 (0 B).\n")
    assert done.stderr == ""


@pytest.mark.long
def test_a_reader_that_exits_after_some_of_100_000_names():
    done = many("ls", shell="head -n 3")
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and lines[0].startswith("NAME")
    assert lines[-1] == "141"


# -- Ctrl-C and questions -----------------------------------------------------------------------


def has_new_object(pid):
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/dev/shm/"):
                return True
    return False


def test_ctrl_c_ends_the_command_without_a_message(names):
    with on_terminal("load", "-", names()) as terminal:
        wait_for(lambda: has_new_object(terminal.process.pid), "it reads")
        terminal.type("\x03")
        assert terminal.finish() == 130
    assert "Traceback" not in terminal.output


@pytest.mark.parametrize(
    ("answer", "removed"), [("y", True), ("yes", True), ("n", False), ("", False)]
)
def test_reclaim_asks_on_a_terminal(answer, removed, make):
    name = make(bytes(5000))
    with on_terminal("reclaim", name, columns=100) as terminal:
        terminal.read_until("Remove 1 name (8.0 KiB)? [y/N] ")
        assert (MOUNT / name).exists()
        terminal.type(answer + "\n")
        assert terminal.finish() == 0
    assert (MOUNT / name).exists() is not removed


def test_ctrl_c_at_the_question_removes_nothing(make):
    name = make()
    with on_terminal("reclaim", name) as terminal:
        terminal.read_until("[y/N] ")
        terminal.type("\x03")
        assert terminal.finish() == 130
    assert (MOUNT / name).exists()


@pytest.mark.parametrize("option", ["-y", "--dry-run", "--json"])
def test_reclaim_does_not_ask_with_the_option(option, make):
    name = make()
    with on_terminal("reclaim", name, option) as terminal:
        terminal.finish()
    assert "[y/N]" not in terminal.output
    assert (MOUNT / name).exists() == (option == "--dry-run")


def test_without_an_object_to_remove_it_does_not_ask(name):
    with SharedMemory.create(name, 10, delete=True):
        with on_terminal("reclaim", name) as terminal:
            assert terminal.finish() == 0
    assert "[y/N]" not in terminal.output


def test_binary_is_never_written_to_a_terminal(make):
    name = make(b"\x00\x1b[2J")
    with on_terminal("dump", name, "-") as terminal:
        assert terminal.finish() == 2
    assert terminal.output.startswith("posixshm: standard output is a terminal")
    assert "\x1b" not in terminal.output


@pytest.mark.parametrize("rich", [True, False])
def test_a_progress_bar_on_a_terminal(rich, make, tmp_path):
    name = make(bytes(1 << 20))
    env = {} if rich else without(tmp_path, "rich")
    # The bar appears after 0 seconds, as if the file took long.
    code = (
        "import sys; from posixshm._command import progress, main\n"
        "progress._FIRST = progress._INTERVAL = 0\n"
        f"sys.exit(main.main(['dump', {name!r}, {str(tmp_path / 'file')!r}]))"
    )
    with on_terminal("-c", code, program=[sys.executable], env=env) as terminal:
        assert terminal.finish() == 0
    assert "100%" in terminal.output and name in terminal.output
    assert (tmp_path / "file").read_bytes() == bytes(1 << 20)
    assert run("dump", name, tmp_path / "file").stderr == ""


def test_sigterm_leaves_no_part_of_a_dump(make, tmp_path):
    name = make(bytes(64 << 10) * 64)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen([*COMMAND, "dump", name, fifo], stderr=subprocess.PIPE)
    try:
        with open(fifo, "rb", 0) as reader:
            assert reader.read(1) == b"\0"
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 128 + signal.SIGTERM
        assert process.stderr.read() == b""
        assert os.listdir(tmp_path) == ["fifo"]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
