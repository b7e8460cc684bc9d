"""The `posixshm` command: what it prints, what it does, and its exit codes."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from _processes import PATH, needs_mounts, needs_root

import posixshm
from posixshm import SharedMemory

MOUNT = Path("/dev/shm")
COMMAND = [sys.executable, "-m", "posixshm"]
DEADLINE = 60


def run(*args, **keywords):
    """Run the command; its output as text unless input is bytes."""
    keywords.setdefault("text", True)
    return subprocess.run(
        [*COMMAND, *map(str, args)], capture_output=True, timeout=DEADLINE, **keywords
    )


def good(*args, **keywords):
    """The standard output of a command that has to succeed, and to complain of nothing."""
    done = run(*args, **keywords)
    assert (done.returncode, done.stderr) == (0, b"" if keywords.get("text") is False else "")
    return done.stdout


def bad(*args, **keywords):
    """The exit code and the one line of a command that has to fail."""
    done = run(*args, **keywords)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr.removesuffix("\n")


def wait_for(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never saw {what}"
        time.sleep(0.01)


@pytest.fixture
def make(names):
    """make(content): the name of a new object, removed after the test. Nobody has it open."""
    made = []

    def make(content=b"content", name=None):
        name = name or names()
        (MOUNT / name).write_bytes(content)
        (MOUNT / name).chmod(0o600)
        made.append(name)
        return name

    yield make
    for name in made:
        (MOUNT / name).unlink(missing_ok=True)


@pytest.fixture
def fresh(names):
    """A name that nobody has, removed after the test."""
    name = names()
    yield name
    (MOUNT / name).unlink(missing_ok=True)


@pytest.fixture
def without(tmp_path):
    """without(modules): an environment in which they are not installed."""

    def without(*modules):
        for module in modules:
            (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError({module!r})\n")
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "PYTHONPATH": path}

    return without


def in_namespace(mount_options, *command):
    """The command with a /dev/shm of its own, in a mount namespace."""
    needs_mounts()
    base = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    mount = f"mount -t tmpfs -o {mount_options} tmpfs /dev/shm"
    return subprocess.run(
        [*base, "sh", "-c", f'{mount} && "$@"; code=$?; ls -A /dev/shm >&2; exit $code', "sh"]
        + list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


# -- ls -----------------------------------------------------------------------------------------


def test_ls_shows_name_size_mode_and_whether_it_is_in_use(make, names):
    free = make(bytes(3000))
    os.chmod(MOUNT / free, 0o640)
    with SharedMemory.create(names(), 2 << 20, delete=True) as shm:
        lines = [line.split() for line in good("ls", names.prefix).splitlines()]
    assert lines[0] == ["NAME", "SIZE", "MODE", "OWNER", "AGE", "STATE"]
    rows = {line[0]: line[1:] for line in lines[1:]}
    assert rows.keys() == {free, shm.name}
    assert rows[free][:3] == ["2.9", "KiB", "0640"]
    assert rows[free][-1] == "free"
    assert rows[shm.name][:3] == ["2.0", "MiB", "0600"]
    assert rows[shm.name][-2:] == ["in", "use"]


def test_ls_lists_only_what_starts_with_the_prefix_in_order(make, names):
    stem = names()
    for last in "bca":
        make(name=f"{stem}{last}")
    make()
    found = json.loads(good("ls", "--json", stem))
    assert [each["name"] for each in found] == [f"{stem}{last}" for last in "abc"]
    assert [each["name"] for each in json.loads(good("ls", "--json", f"/{stem}"))] == [
        f"{stem}{last}" for last in "abc"
    ]


def test_ls_prints_nothing_where_nothing_is(name):
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


def test_ls_pids_names_who_maps_it_and_nobody_else(make, names, start_python):
    free = make()
    with SharedMemory.create(names(), 100, delete=True) as shm:
        child = start_python(
            "import sys, posixshm; shm = posixshm.SharedMemory.open(sys.argv[1]); print('open')\n"
            "sys.stdout.flush(); sys.stdin.readline()",
            shm.name,
        )
        child.hear("open")
        found = json.loads(run("ls", "--json", "--pids", names.prefix).stdout)
        table = run("ls", "--pids", names.prefix).stdout
        child.finish()
    pids = {each["name"]: each["pids"] for each in found}
    assert sorted(pids[shm.name]) == sorted([os.getpid(), child.pid])
    assert pids[free] == []
    assert str(child.pid) in table
    assert table.splitlines()[0].endswith("MAPPED BY")


def test_a_mapping_of_an_object_that_had_the_name_before_is_not_shown(name):
    with SharedMemory.create(name, 100) as old:
        old.unlink()
        with SharedMemory.create(name, 100, delete=True) as new:
            new.close_fd()
            found = json.loads(run("stat", "--json", name).stdout)
            assert [each["pid"] for each in found["mapped_by"]] == [os.getpid()]
        (MOUNT / name).write_bytes(b"another")
        try:
            assert json.loads(run("stat", "--json", name).stdout)["mapped_by"] == []
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


def test_a_long_name_is_not_cut_for_another_program(make, names):
    stem = names()
    name = make(name=stem + "n" * (255 - len(stem)))
    assert name in good("ls", stem, env={**os.environ, "COLUMNS": "40"})


# -- stat ---------------------------------------------------------------------------------------


def test_stat_shows_all_about_an_object(make):
    name = make(bytes(70000))
    status = os.stat(MOUNT / name)
    output = run("stat", name).stdout
    assert "70000 bytes (68.4 KiB)" in output
    assert "0600 (-rw-------)" in output
    assert f"uid {status.st_uid}, gid {status.st_gid}" in output
    assert str(status.st_ino) in output
    assert "free" in output
    assert "nobody" in output

    record = json.loads(run("stat", "--json", f"/{name}").stdout)
    assert record["name"] == name
    assert (record["size"], record["inode"], record["links"]) == (70000, status.st_ino, 1)
    assert record["changed"] == status.st_ctime
    assert record["mapped_by"] == []


def test_stat_says_who_maps_it(name):
    with SharedMemory.create(name, 100, delete=True):
        record = json.loads(run("stat", "--json", name).stdout)
        table = run("stat", name).stdout
    assert record["state"] == "in use"
    (holder,) = record["mapped_by"]
    assert holder["pid"] == os.getpid()
    assert f"{os.getpid()} {holder['process']} ({holder['user']})" in table


def test_stat_needs_no_right_to_read(make, run_python):
    needs_root()
    name = make()
    # That user may be unable to read the interpreter's own files: first all imports, then setuid.
    output = run_python(
        "import contextlib, io, json, os, sys, posixshm._cli as cli\n"
        "command = ['stat', '--json', sys.argv[1]]\n"
        "with contextlib.redirect_stdout(io.StringIO()) as first: cli.main(command)\n"
        "assert json.loads(first.getvalue())['state'] == 'free'\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "sys.exit(cli.main(command))",
        name,
    )
    record = json.loads(output)
    assert (record["name"], record["uid"], record["state"]) == (name, 0, "unknown")
    assert record["not_looked_at"] > 0


def test_stat_refuses_what_is_no_object(name):
    os.mkfifo(MOUNT / name)
    try:
        assert bad("stat", name) == (1, f"posixshm: {name}: Not a shared memory object")
    finally:
        (MOUNT / name).unlink()


@pytest.mark.parametrize("command", ["stat", "rm", "dump"])
def test_a_name_that_is_not_there_is_said_in_one_line(command, name, tmp_path):
    args = [tmp_path / "out"] if command == "dump" else []
    assert bad(command, name, *args) == (1, f"posixshm: {name}: No such file or directory")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "/", "a/b", ".", "..", "n" * 256])
@pytest.mark.parametrize("command", ["stat", "rm", "load", "dump"])
def test_a_name_that_cannot_be_is_a_usage_error(command, name, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    args = {"load": [file, name], "dump": [name, file]}.get(command, [name])
    code, line = bad(command, *args)
    assert code == 2
    assert line.startswith("posixshm: ")
    assert file.read_bytes() == b"content"


# -- rm -----------------------------------------------------------------------------------------


def test_rm_removes_exactly_the_named(make, names):
    stem = names()
    for last in ("", "a", "b", "c"):
        make(name=f"{stem}{last}")
    assert good("rm", stem, f"/{stem}b") == ""
    assert sorted(n for n in os.listdir(MOUNT) if n.startswith(stem)) == [f"{stem}a", f"{stem}c"]


def test_rm_leaves_the_memory_to_who_has_it(name):
    with SharedMemory.create(name, 100) as shm:
        shm.buf[:5] = b"bytes"
        good("rm", name)
        assert bytes(shm.buf[:5]) == b"bytes"
        assert not shm.is_linked()


def test_rm_goes_on_after_a_missing_name_and_tells(make, name):
    here = make()
    assert bad("rm", name, here) == (1, f"posixshm: {name}: No such file or directory")
    assert not (MOUNT / here).exists()


def test_rm_force_ignores_a_missing_name_only(make, name):
    here = make()
    assert good("rm", "-f", name, here) == ""
    assert not (MOUNT / here).exists()
    assert bad("rm", "-f", "a/b")[0] == 2


# -- reclaim ------------------------------------------------------------------------------------


def test_reclaim_removes_what_a_killed_process_left_and_nothing_else(names, make, start_python):
    stem = names()
    child = start_python(
        "import sys, posixshm; shm = posixshm.SharedMemory.create(sys.argv[1], 4096)\n"
        "print('made'); sys.stdout.flush(); sys.stdin.readline()",
        f"{stem}-dead",
    )
    child.hear("made")
    child.kill()
    other = make()
    with SharedMemory.create(f"{stem}-live", 4096, delete=True) as live:
        output = good("reclaim", "--prefix", f"{stem}-")
        assert live.is_linked()
    lines = {line.split()[0]: line for line in output.splitlines()}
    assert lines[f"{stem}-dead"].endswith("removed")
    assert lines[f"{stem}-live"].endswith("in use")
    assert output.endswith("Removed 1 of 2 (4.0 KiB).\n")
    assert not (MOUNT / f"{stem}-dead").exists()
    assert (MOUNT / other).exists()


def test_reclaim_dry_run_removes_nothing(make):
    name = make(bytes(2048))
    output = good("reclaim", "--prefix", name, "--dry-run")
    assert output.splitlines()[1].endswith("free")
    assert output.endswith("Could remove 1 of 1 (2.0 KiB).\n")
    assert (MOUNT / name).exists()


def test_reclaim_json(make):
    name = make(bytes(2048))
    (found,) = json.loads(good("reclaim", "--prefix", name, "--json"))
    assert (found["name"], found["size"], found["state"]) == (name, 2048, "free")
    assert (found["removed"], found["error"], found["uninspected"]) == (True, None, 0)
    assert 0 <= found["age"] < DEADLINE
    assert json.loads(good("reclaim", "--prefix", name, "--json")) == []


def test_reclaim_spares_what_is_young(make):
    name = make()
    for age in ("1h", "2d", "90", "10m", "1.5h"):
        output = good("reclaim", "--prefix", name, "--older-than", age)
        assert output == "Removed 0 of 0 (0 B).\n"
    assert (MOUNT / name).exists()
    assert good("reclaim", "--prefix", name, "--older-than", "0s").startswith("NAME")
    assert not (MOUNT / name).exists()


@pytest.mark.parametrize("age", ["", "1x", "h", "-1", "1h30m", "nan", "inf", "1e3", " 1", "1 h"])
def test_reclaim_refuses_what_is_no_time(age, make):
    name = make()
    done = run("reclaim", "--prefix", name, f"--older-than={age}")
    assert done.returncode == 2
    assert "such as 90, 30s, 15m, 1h, 2d" in done.stderr
    assert (MOUNT / name).exists()


def test_reclaim_of_what_cannot_be_known_takes_force(run_python, names, make):
    needs_root()
    name = make()
    code = """
        import contextlib, io, sys
        from _processes import SOMEBODY, become
        import posixshm._cli, rich.console, rich.table, rich.text
        become(SOMEBODY)
        def reclaim(*options):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = posixshm._cli.main(["reclaim", "--prefix", sys.argv[1], *options])
            return code, out.getvalue(), err.getvalue()
        code, out, err = reclaim()
        assert code == 0 and out.splitlines()[1].endswith("unknown"), (code, out, err)
        assert "Removed 0 of 1" in out and "--force" in err, (out, err)
        code, out, err = reclaim("--force")
        assert code == 1 and "not removed: Operation not permitted" in out, (code, out, err)
    """
    run_python(code, name, env=PATH)
    assert (MOUNT / name).exists()


def test_reclaim_without_a_choice_removes_nothing(make):
    name = make()
    assert bad("reclaim")[0] == 2
    assert bad("reclaim", "--prefix", "", "--dry-run")[0] == 2
    assert (MOUNT / name).exists()


# -- df -----------------------------------------------------------------------------------------


def test_df_shows_the_room(make):
    name = make(bytes(1 << 20))
    record = json.loads(good("df", "--json"))
    mount = os.statvfs(MOUNT)
    assert record["path"] == "/dev/shm"
    assert record["size"] == (mount.f_blocks * mount.f_frsize or None)
    assert record["inodes"] == (mount.f_files or None)
    assert record["objects"] >= 1
    assert record["objects_bytes"] >= os.stat(MOUNT / name).st_blocks * 512
    head, row = good("df").splitlines()
    assert head.split()[:4] == ["MOUNT", "SIZE", "USED", "FREE"]
    assert row.startswith("/dev/shm")


def test_df_says_where_there_is_no_limit():
    done = in_namespace("size=0,nr_inodes=0", *COMMAND, "df")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no limit") == 4  # size, free, inodes, free inodes
    done = in_namespace("size=0,nr_inodes=0", *COMMAND, "df", "--json")
    record = json.loads(done.stdout)
    assert [record[key] for key in ("size", "free", "inodes", "inodes_free")] == [None] * 4
    assert record["used"] == 0


# -- load ---------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 10_000 + b"end"  # more than two copies of 1 MiB


def test_load_copies_a_file(tmp_path, fresh):
    (tmp_path / "file").write_bytes(CONTENT)
    assert good("load", tmp_path / "file", fresh) == ""
    assert (MOUNT / fresh).read_bytes() == CONTENT
    assert stat.S_IMODE(os.stat(MOUNT / fresh).st_mode) == 0o600


def test_load_mode_is_not_masked(tmp_path, fresh):
    (tmp_path / "file").write_bytes(CONTENT)
    good("load", "--mode", "0666", tmp_path / "file", fresh, umask=0o077)
    assert stat.S_IMODE(os.stat(MOUNT / fresh).st_mode) == 0o666


def test_load_refuses_a_device_without_an_end(name):
    text = "It is a device without an end (head -c SIZE copies a part of it)"
    for device in ("/dev/zero", "/dev/urandom"):
        assert bad("load", device, name) == (1, f"posixshm: {device}: {text}")
    with open("/dev/zero", "rb") as zero:
        assert bad("load", "-", name, stdin=zero) == (1, f"posixshm: standard input: {text}")
    assert not (MOUNT / name).exists()


def test_load_tells_of_a_name_taken_meanwhile(name):
    process = subprocess.Popen(
        [*COMMAND, "load", "-", name], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        process.stdin.write(CONTENT)
        process.stdin.flush()
        wait_for(lambda: size_of_descriptors(process.pid) == len(CONTENT), "the bytes arrive")
        with SharedMemory.create(name, 10, delete=True):
            _, errors = process.communicate(timeout=DEADLINE)
        assert errors.decode() == f"posixshm: {name}: File exists (see --replace)\n"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("size", [1, 4096, len(CONTENT)])
def test_load_reads_standard_input(size, fresh):
    good("load", "-", fresh, input=CONTENT[:size], text=False)
    assert (MOUNT / fresh).read_bytes() == CONTENT[:size]


def test_load_reads_a_file_that_does_not_know_its_size(fresh):
    good("load", "/proc/self/status", fresh)
    assert (MOUNT / fresh).read_bytes().startswith(b"Name:")


def test_load_does_not_touch_what_has_the_name(tmp_path, make):
    name = make(b"old")
    (tmp_path / "file").write_bytes(CONTENT)
    code, line = bad("load", tmp_path / "file", name)
    assert (code, line.startswith(f"posixshm: {name}: File exists")) == (1, True)
    assert (MOUNT / name).read_bytes() == b"old"


def test_load_replace_leaves_the_old_to_who_has_it(tmp_path, name):
    (tmp_path / "file").write_bytes(CONTENT)
    with SharedMemory.create(name, 100) as old:
        old.buf[:3] = b"old"
        good("load", "--replace", tmp_path / "file", name)
        assert bytes(old.buf[:3]) == b"old"
        with SharedMemory.open(name) as new:
            assert bytes(new.buf) == CONTENT
            new.unlink()


def test_load_is_seen_only_when_complete(names, fresh):
    process = subprocess.Popen([*COMMAND, "load", "-", fresh], stdin=subprocess.PIPE)
    try:
        process.stdin.write(CONTENT)
        process.stdin.flush()
        wait_for(lambda: size_of_descriptors(process.pid) == len(CONTENT), "the bytes arrive")
        assert not (MOUNT / fresh).exists()
        process.stdin.close()
        assert process.wait(DEADLINE) == 0
        assert (MOUNT / fresh).read_bytes() == CONTENT
    finally:
        process.kill()
        process.wait()


def size_of_descriptors(pid):
    """How large the largest unnamed object is that the process has open."""
    sizes = [0]
    with contextlib.suppress(FileNotFoundError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(fd).startswith("/dev/shm/"):
                    sizes.append(os.stat(fd).st_size)
    return max(sizes)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_load_that_is_stopped_leaves_nothing(signum, fresh):
    process = subprocess.Popen(
        [*COMMAND, "load", "-", fresh], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        process.stdin.write(CONTENT)
        process.stdin.flush()
        wait_for(lambda: size_of_descriptors(process.pid) == len(CONTENT), "the bytes arrive")
        process.send_signal(signum)
        assert process.wait(DEADLINE) == (130 if signum == signal.SIGINT else -signum)
        assert process.stderr.read() == b""
        assert not (MOUNT / fresh).exists()
    finally:
        process.kill()
        process.stdin.close()
        process.stderr.close()
        process.wait()


def test_load_of_nothing_makes_nothing(tmp_path, name):
    (tmp_path / "empty").touch()
    assert bad("load", tmp_path / "empty", name)[0] == 1
    assert bad("load", "-", name, stdin=subprocess.DEVNULL)[0] == 1
    assert bad("load", tmp_path, name) == (1, f"posixshm: {tmp_path}: Is a directory")
    missing = tmp_path / "missing"
    assert bad("load", missing, name) == (1, f"posixshm: {missing}: No such file or directory")
    assert not (MOUNT / name).exists()


@pytest.mark.parametrize("known", [True, False], ids=["file", "standard input"])
def test_load_of_more_than_there_is_room_for(known, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    command = [*COMMAND, "load", tmp_path / "file", "name"]
    if not known:
        command = ["sh", "-c", f'cat "$0" | {sys.executable} -m posixshm load - name']
        command.append(tmp_path / "file")
    done = in_namespace("size=1m", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("posixshm: name: ")
    # One line, and below it the list of what is left, which is empty.
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("mode", ["", "8", "1777", "rw", "0o600", "-1"])
def test_load_refuses_what_is_no_mode(mode, tmp_path, name):
    (tmp_path / "file").write_bytes(CONTENT)
    assert run("load", f"--mode={mode}", tmp_path / "file", name).returncode == 2
    assert not (MOUNT / name).exists()


# -- dump ---------------------------------------------------------------------------------------


def test_dump_copies_an_object(make, tmp_path):
    name = make(CONTENT)
    assert good("dump", name, tmp_path / "new") == ""
    assert (tmp_path / "new").read_bytes() == CONTENT
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o600
    (tmp_path / "old").write_bytes(CONTENT * 2)
    good("dump", name, tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == CONTENT
    assert good("dump", f"/{name}", "-", text=False) == CONTENT


def test_dump_changes_nothing(make):
    name = make(CONTENT)
    os.chmod(MOUNT / name, 0o400)
    before = os.stat(MOUNT / name)
    good("dump", name, "-", text=False)
    after = os.stat(MOUNT / name)
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_dump_onto_itself_is_refused(make):
    name = make(CONTENT)
    assert bad("dump", name, MOUNT / name)[0] == 1
    assert (MOUNT / name).read_bytes() == CONTENT


def test_dump_to_a_reader_that_has_seen_enough(make):
    name = make(CONTENT)
    shell = f"{sys.executable} -m posixshm dump {name} - | head -c 5; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=DEADLINE)
    assert done.stdout == CONTENT[:5] + b"141\n"
    assert done.stderr == b""


def test_ls_to_a_reader_that_has_gone(make):
    name = make()
    shell = f"{sys.executable} -m posixshm ls {name} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout in ("141\n", "0\n")  # 0: it had written before the reader went
    assert done.stderr == ""


def test_dump_of_what_another_process_truncates_is_an_error_not_a_crash(make):
    name = make(CONTENT * 4)
    process = subprocess.Popen(
        [*COMMAND, "dump", name, "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    read = process.stdout.read(10)  # it is under way, and waits for us
    os.truncate(MOUNT / name, 100)
    rest, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert errors.decode().startswith(f"posixshm: {name}: Truncated by another process")
    assert (CONTENT * 4).startswith(read + rest)


def test_dump_to_a_full_disk(make):
    name = make(CONTENT)
    expected = (1, "posixshm: /dev/full: No space left on device")
    assert bad("dump", name, "/dev/full") == expected


def test_dump_of_an_empty_object(make, tmp_path):
    name = make(b"")
    code, line = bad("dump", name, tmp_path / "file")
    assert code == 1
    assert line.startswith(f"posixshm: {name}: ")
    assert not (tmp_path / "file").exists()


# -- the command itself -------------------------------------------------------------------------


def test_a_command_is_required():
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "COMMAND" in done.stderr


def test_version():
    assert good("--version") == f"posixshm {posixshm.__version__}\n"


def test_the_script_is_the_same_command():
    (script,) = entry_points(group="console_scripts", name="posixshm")
    from posixshm.__main__ import main

    assert script.load() is main


def test_the_library_imports_nothing_that_has_to_be_installed(run_python):
    imported = run_python(
        "import sys, posixshm, posixshm._cli\n"
        "print({'numpy', 'psutil', 'rich'} & {name.partition('.')[0] for name in sys.modules})"
    )
    assert imported == "set()\n"


@pytest.mark.parametrize("args", [["ls"], ["stat"], ["df"], ["reclaim", "--prefix"]])
def test_without_rich_a_table_says_how_to_install_it(args, make, without):
    name = make()
    args = args if args == ["df"] else [*args, name]
    line = "posixshm: this needs rich, which is not installed: pip install 'posixshm[cli]'"
    assert bad(*args, env=without("rich")) == (2, line)
    assert (MOUNT / name).exists()


@pytest.mark.parametrize("args", [["stat", "--json"], ["ls", "--pids", "--json"]])
def test_without_psutil_who_maps_it_says_how_to_install_it(args, make, without):
    line = "posixshm: this needs psutil, which is not installed: pip install 'posixshm[cli]'"
    assert bad(*args, make(), env=without("psutil")) == (2, line)


def test_what_needs_no_extra_works_without(fresh, tmp_path, without):
    env = without("rich", "psutil", "numpy")
    (tmp_path / "file").write_bytes(CONTENT)
    good("load", tmp_path / "file", fresh, env=env)
    assert json.loads(good("ls", "--json", fresh, env=env))[0]["size"] == len(CONTENT)
    assert json.loads(good("df", "--json", env=env))["objects"] >= 1
    assert good("dump", fresh, "-", env=env, text=False) == CONTENT
    good("rm", fresh, env=env)
    assert json.loads(good("reclaim", "--prefix", fresh, "--json", env=env)) == []
