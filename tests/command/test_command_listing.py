"""`posixshm ls`, `stat` and `holders`: what they print."""

import json
import os
import re
from pathlib import Path

import pytest
from _command import DEADLINE, MOUNT, bad, good, run
from _processes import PATH, needs_root

from posixshm import SharedMemory

# -- ls ------------------------------------------------------------------------------------------


def test_ls_shows_name_size_mode_and_whether_it_is_in_use(make, names):
    free = make(bytes(3000))
    os.chmod(MOUNT / free, 0o640)
    with SharedMemory.create(names(), 2 << 20, delete=True) as shm:
        lines = [line.split() for line in good("ls", names.prefix).splitlines()]
    assert lines[0] == ["NAME", "KIND", "SIZE", "ALLOCATED", "MODE", "OWNER", "AGE", "STATE"]
    rows = {line[0]: line[1:] for line in lines[1:]}
    assert rows.keys() == {free, shm.name}
    assert rows[free][:6] == ["plain", "2.9", "KiB", "4.0", "KiB", "0640"]
    assert rows[free][-1] == "free"
    assert rows[shm.name][:6] == ["plain", "2.0", "MiB", "2.0", "MiB", "0600"]
    assert rows[shm.name][-3:] == ["in", "use", "(1)"]


def test_ls_with_a_prefix_lists_matching_names_in_order(make, names):
    stem = names()
    for last in "bca":
        make(name=f"{stem}{last}")
    make()
    found = json.loads(good("ls", "--json", stem))
    assert [each["name"] for each in found] == [f"{stem}{last}" for last in "abc"]
    assert [each["name"] for each in json.loads(good("ls", "--json", f"/{stem}"))] == [
        f"{stem}{last}" for last in "abc"
    ]


def test_ls_without_objects_prints_nothing(name):
    assert good("ls", name) == ""
    assert json.loads(good("ls", "--json", name)) == []


def test_ls_json_is_in_bytes_and_seconds(make):
    name = make(bytes(5000))
    (found,) = json.loads(good("ls", "--json", name))
    assert found["size"] == 5000
    assert found["allocated"] == os.stat(MOUNT / name).st_blocks * 512
    assert (found["mode"], found["state"]) == ("0600", "free")
    assert (found["uid"], found["gid"]) == (os.geteuid(), os.stat(MOUNT / name).st_gid)
    assert 0 <= found["age"] < DEADLINE


def test_ls_counts_the_processes_that_use_an_object(make, names, start_python):
    free = make()
    with SharedMemory.create(names(), 100, delete=True) as shm:
        child = start_python(
            "import sys, posixshm; shm = posixshm.SharedMemory.open(sys.argv[1]); print('open')\n"
            "sys.stdout.flush(); sys.stdin.readline()",
            shm.name,
        )
        child.hear("open")
        found = json.loads(run("ls", "--json", names.prefix).stdout)
        table = run("ls", names.prefix).stdout
        child.finish()
    pids = {each["name"]: each["pids"] for each in found}
    assert sorted(pids[shm.name]) == sorted([os.getpid(), child.pid])
    assert pids[free] == []
    assert "in use (2)" in table


def test_a_mapping_of_an_object_that_had_the_name_before_is_not_shown(name):
    with SharedMemory.create(name, 100) as old:
        old.unlink()
        with SharedMemory.create(name, 100, delete=True) as new:
            new.close_fd()
            found = json.loads(run("stat", "--json", name).stdout)
            assert [each["pid"] for each in found["holders"]] == [os.getpid()]
        (MOUNT / name).write_bytes(b"another")
        try:
            assert json.loads(run("stat", "--json", name).stdout)["holders"] == []
        finally:
            (MOUNT / name).unlink()


def test_a_name_cannot_drive_the_terminal(make, names):
    name = make(name=f"{names()}\x1b[31m\n[bold]x")
    for output in (good("ls", names.prefix), run("stat", name).stdout):
        assert "\x1b" not in output
        assert r"\x1b[31m\n[bold]x" in output
    code, line = bad("rm", f"{name}\x1b[2J")
    assert code == 1
    assert "\x1b" not in line


def test_a_long_name_is_not_cut_in_a_pipe(make, names):
    stem = names()
    name = make(name=stem + "n" * (255 - len(stem)))
    assert name in good("ls", stem, env={**os.environ, "COLUMNS": "40"})


# -- stat ----------------------------------------------------------------------------------------


def test_stat_shows_all_about_an_object(make):
    name = make(bytes(70000))
    status = os.stat(MOUNT / name)
    output = run("stat", name).stdout
    assert "70000 bytes (68.4 KiB)" in output
    assert "0600 (-rw-------)" in output
    assert f"(uid {status.st_uid})" in output and f"(gid {status.st_gid})" in output
    assert str(status.st_ino) in output
    assert "free" in output
    assert "no process that is seen" in output

    record = json.loads(run("stat", "--json", f"/{name}").stdout)
    assert record["name"] == name
    assert (record["size"], record["inode"], record["links"]) == (70000, status.st_ino, 1)
    assert record["changed"] == status.st_ctime
    assert record["holders"] == []


def test_stat_names_the_processes_that_use_it(name):
    with SharedMemory.create(name, 100, delete=True):
        record = json.loads(run("stat", "--json", name).stdout)
        table = run("stat", name).stdout
    assert record["state"] == "in use"
    (holder,) = record["holders"]
    assert (holder["pid"], holder["uid"]) == (os.getpid(), os.geteuid())
    assert holder["how"] == ["map", "fd", "use lock"]
    assert holder["command"] == Path("/proc/self/cmdline").read_text().rstrip("\0").replace(
        "\0", " "
    )
    assert f"pid {os.getpid()} (" in table
    assert "map, fd, use lock" in table


def test_stat_does_not_need_read_permission(make, run_python):
    needs_root()
    name = make()
    # That user may not be able to read the interpreter's files, so import everything before setuid.
    output = run_python(
        "import contextlib, io, json, os, sys, posixshm._command.main as cli\n"
        "command = ['stat', '--json', sys.argv[1]]\n"
        "with contextlib.redirect_stdout(io.StringIO()) as first: cli.main(command)\n"
        "assert json.loads(first.getvalue())['state'] == 'free'\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "sys.exit(cli.main(command))",
        name,
    )
    record = json.loads(output)
    assert (record["name"], record["uid"], record["state"]) == (name, 0, "unknown")
    assert record["uninspected"] > 0


def test_stat_refuses_other_files(name):
    os.mkfifo(MOUNT / name)
    try:
        assert bad("stat", name) == (1, f"posixshm: {name}: Not a shared memory object")
    finally:
        (MOUNT / name).unlink()


@pytest.mark.parametrize("command", ["stat", "rm", "dump"])
def test_a_missing_name_is_reported_in_one_line(command, name, tmp_path):
    args = [tmp_path / "out"] if command == "dump" else []
    assert bad(command, name, *args) == (1, f"posixshm: {name}: No such file or directory")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["", "/", "a/b", ".", "..", "n" * 256])
@pytest.mark.parametrize("command", ["stat", "rm", "load", "dump"])
def test_an_invalid_name_is_a_usage_error(command, name, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    args = {"load": [file, name], "dump": [name, file]}.get(command, [name])
    code, line = bad(command, *args)
    assert code == 2
    assert line.startswith("posixshm: ")
    assert file.read_bytes() == b"content"


# -- holders, and other users ---------------------------------------------------------------------


def test_holders_for_scripts(name):
    with SharedMemory.create(name, 100, delete=True):
        record = json.loads(run("holders", "--json", name).stdout)
        (found,) = record["holders"]
        assert (found["pid"], found["how"]) == (os.getpid(), ["map", "fd", "use lock"])
        assert run("holders", "-q", f"/{name}").stdout == f"{os.getpid()}\n"
        head, row = run("holders", name).stdout.splitlines()
        assert head.split() == ["PID", "USER", "HOW", "COMMAND"]
        assert row.split()[0] == str(os.getpid())


def test_no_holder_is_exit_code_1(make):
    done = run("holders", "-q", make())
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("key", ["size", "allocated", "age", "name", "state", "kind", "owner"])
def test_ls_sorts(key, make, names):
    stem = names()
    make(bytes(100), f"{stem}-a")
    make(bytes(5000), f"{stem}-b")
    make(bytes(10), f"{stem}-c")
    found = json.loads(good("ls", "--json", "--sort", key, stem))
    values = [each[key] for each in found]
    assert values == sorted(values, reverse=key in ("size", "allocated", "age"))
    backwards = json.loads(good("ls", "--json", "--sort", key, "-r", stem))
    assert [each["name"] for each in backwards] == [each["name"] for each in found][::-1]


def test_ls_names_only(make, names):
    stem = names()
    for last in "ba":
        make(name=f"{stem}-{last}")
    assert good("ls", "-q", stem) == f"{stem}-a\n{stem}-b\n"
    assert good("ls", "-q", "-0", f"{stem}-?") == f"{stem}-a\0{stem}-b\0"
    listed = json.loads(good("ls", "-q", "--json", stem))
    assert [each["name"] for each in listed] == [f"{stem}-a", f"{stem}-b"]
    assert good("ls", "-q", "-r", stem) == f"{stem}-b\n{stem}-a\n"


def test_another_user_sees_use_locks_only(name, make, run_python):
    needs_root()
    free = make()
    os.chmod(MOUNT / free, 0o644)
    os.utime(MOUNT / free, (1, 1))
    before = os.stat(MOUNT / free).st_atime_ns
    code = """
        import json, sys
        from _processes import SOMEBODY, become
        import posixshm._command.listing, posixshm._holders
        from posixshm._command.main import main
        become(SOMEBODY)
        assert main(["ls", "--json", sys.argv[1]]) == 0
        assert main(["ls", sys.argv[1]]) == 0
    """
    with SharedMemory.create(f"{free}-used", 100, delete=True):
        output = run_python(code, free, env=PATH)
    records, _, table = output.partition("]\n")
    first, second = json.loads(records + "]")
    # Only the owner and root get proof from the kernel, and reading would change the access time.
    assert (first["state"], first["kind"]) == ("unknown", None)
    assert first["uninspected"] > 0
    assert re.search(r"unknown \([0-9]+ not inspected\)", table)
    # Every user can see the holders of a use lock.
    assert (second["state"], second["pids"]) == ("in use", [os.getpid()])
    assert os.stat(MOUNT / free).st_atime_ns == before
