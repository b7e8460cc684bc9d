"""`posixshm doctor` and `df`, in a mount of their own, with limits, and as another user."""

import json
import os
import sys

import pytest
from _command import COMMAND, MOUNT, good, in_namespace, on_terminal, run
from _processes import PATH, needs_mounts, needs_root


def doctor(*command, options="size=512m", **keywords):
    """The exit code and the checks by name, in a /dev/shm of its own."""
    done = in_namespace(options, *command, *COMMAND, "doctor", "--json", **keywords)
    report = json.loads(done.stdout)
    found = {check["check"]: check for check in report["checks"]}
    assert done.returncode == (1 if report["problems"] else 0)
    assert report["problems"] == sum(c["verdict"] == "problem" for c in report["checks"])
    return found


def test_every_check_has_a_meaning_and_advice():
    found = doctor()
    assert len(found) >= 14
    for check in found.values():
        assert check["verdict"] in ("ok", "note", "problem")
        assert check["value"] and check["meaning"]
        if check["verdict"] != "ok" and check["check"] != "size":
            assert check["advice"] or check["check"] == "PID namespace", check


def test_a_sound_mount_is_ok():
    found = doctor()
    for name in ("/dev/shm", "size", "inodes", "O_TMPFILE", "reserving memory", "write leases"):
        assert found[name]["verdict"] == "ok", found[name]
    assert found["/dev/shm"]["value"] == "tmpfs, mode 1777"
    assert found["size"]["value"].startswith("512.0 MiB")


def test_a_container_gets_little_room():
    found = doctor(options="size=64m")
    assert found["size"]["verdict"] == "problem"
    assert "--shm-size" in found["size"]["advice"]


def test_a_mount_that_is_nearly_full():
    found = doctor(setup="head -c 490M /dev/zero > /dev/shm/object")
    assert found["size"]["verdict"] == "problem"
    assert "reclaim" in found["size"]["advice"]


def test_a_mount_without_free_inodes():
    found = doctor(options="size=512m,nr_inodes=4", setup="touch /dev/shm/a /dev/shm/b /dev/shm/c")
    assert found["inodes"]["verdict"] == "problem"


def test_a_mount_without_a_limit():
    found = doctor(options="size=0,nr_inodes=0")
    assert found["size"]["verdict"] == "note"
    assert found["inodes"]["verdict"] == "ok"


def test_a_read_only_mount():
    found = doctor(options="size=512m,ro")
    assert found["/dev/shm"]["verdict"] == "problem"


def test_a_directory_that_is_missing():
    done = in_namespace(
        "size=1m", *COMMAND, "doctor", "--json", setup="mount -t tmpfs tmpfs /dev && ls -A /dev"
    )
    report = json.loads(done.stdout)
    found = {check["check"]: check for check in report["checks"]}
    assert done.returncode == 1
    assert found["/dev/shm"]["verdict"] == "problem"
    assert "mount -t tmpfs" in found["/dev/shm"]["advice"]


def test_a_ramfs_has_no_lists():
    # A ramfs cannot reserve memory, either.
    done = in_namespace(
        "size=1m",
        *COMMAND,
        "doctor",
        "--json",
        setup="mount -t ramfs -o mode=1777 ramfs /dev/shm",
    )
    found = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["reserving memory"]["verdict"] == "problem"
    assert found["access control lists"]["verdict"] == "note"


def test_limits_of_a_process():
    found = doctor("sh", "-c", 'ulimit -n 200; ulimit -l 64; "$@"', "sh")
    assert found["RLIMIT_NOFILE"]["verdict"] == "note"
    assert found["RLIMIT_NOFILE"]["value"].startswith("200")
    assert found["RLIMIT_MEMLOCK"]["verdict"] == "note"
    assert found["RLIMIT_MEMLOCK"]["value"] == "64.0 KiB"


def test_a_pid_namespace(run_python):
    needs_mounts()
    code = """
        import json, subprocess, sys
        from _processes import private_shm, private_processes
        private_shm("size=512m")
        private_processes()
        done = subprocess.run(
            [sys.executable, "-m", "posixshm", "doctor", "--json"], capture_output=True, text=True
        )
        found = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
        print(found["PID namespace"]["verdict"], found["hidepid of /proc"]["verdict"])
    """
    assert run_python(code, env=PATH) == "note ok\n"


def test_hidden_processes_and_removal_at_logout(run_python):
    needs_root()
    needs_mounts()
    code = """
        import os
        from _processes import SOMEBODY, become, private_shm
        import posixshm._command.checks_system as checks
        import ctypes
        private_shm("size=512m")
        MS_REMOUNT = 32
        libc = ctypes.CDLL(None, use_errno=True)
        os.mkdir("/dev/shm/proc")
        assert libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=2") == 0
        become(SOMEBODY)
        (hidden, _) = checks.processes()
        print(hidden.verdict, hidden.value)
    """
    output = run_python(code, env=PATH)
    assert output in ("note 2\n", "note invisible\n")


@pytest.mark.parametrize("columns", [34, 80])
def test_the_report_fits_a_terminal(columns):
    with on_terminal("doctor", columns=columns, env={"NO_COLOR": "1"}) as terminal:
        assert terminal.finish() in (0, 1)
    lines = terminal.output.splitlines()
    assert max(map(len, lines)) <= columns
    assert "problem" in lines[-1]


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
    head, row, *_ = good("df").splitlines()
    assert head.split()[:4] == ["MOUNT", "SIZE", "USED", "FREE"]
    assert row.startswith("/dev/shm")


def test_df_reports_a_mount_without_a_limit():
    done = in_namespace("size=0,nr_inodes=0", *COMMAND, "df")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no limit") == 4  # size, free, inodes, free inodes
    done = in_namespace("size=0,nr_inodes=0", *COMMAND, "df", "--json")
    record = json.loads(done.stdout)
    assert [record[key] for key in ("size", "free", "inodes", "inodes_free")] == [None] * 4
    assert record["used"] == 0


MAKE = """
import os, sys
import posixshm
for name, size, uid in (("a", 8 << 20, 0), ("b", 2 << 20, 12345), ("c", 1 << 20, 12345)):
    posixshm.SharedMemory.create(name, size).close()
    os.chown("/dev/shm/" + name, uid, 0)
os.close(os.open("/dev/shm/sparse", os.O_CREAT | os.O_WRONLY))
os.truncate("/dev/shm/sparse", 100 << 20)
gone = posixshm.SharedMemory.create("gone", 4 << 20)
gone.unlink()
os.execv(sys.executable, [sys.executable, "-m", "posixshm", "df", *sys.argv[1:]])
"""


def test_df_lists_the_bytes_of_each_user():
    needs_root()
    done = in_namespace("size=64m", sys.executable, "-c", MAKE, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["size"] == 64 << 20
    assert record["objects"] == 4
    assert record["objects_bytes"] == 11 << 20
    assert record["objects_size"] == 111 << 20
    first, second = record["owners"]
    assert (first["owner"], first["objects"], first["allocated"]) == ("root", 2, 8 << 20)
    assert (first["size"], second["uid"], second["allocated"]) == (108 << 20, 12345, 3 << 20)


def test_df_counts_objects_without_a_name():
    code = """
import subprocess, sys, posixshm
kept = posixshm.SharedMemory.create("gone", 4 << 20)
kept.unlink()
sys.exit(subprocess.run([sys.executable, "-m", "posixshm", "df", *sys.argv[1:]]).returncode)
"""
    done = in_namespace("size=64m", sys.executable, "-c", code, "--json")
    assert json.loads(done.stdout)["without_name"] == 4 << 20
    done = in_namespace("size=64m", sys.executable, "-c", code)
    assert "Objects whose names were removed take 4.0 MiB." in done.stdout


@pytest.mark.parametrize("columns", [34, 60, 200])
def test_df_fits_a_terminal(columns):
    with on_terminal("df", columns=columns, env={"NO_COLOR": "1"}) as terminal:
        assert terminal.finish() == 0
    table = [line for line in terminal.output.splitlines() if line[:1] in "M/"]
    assert max(map(len, table[:2])) <= columns
    assert "FREE" in table[0] and "iB" in table[1]


def test_df_reports_the_limit_of_a_control_group(tmp_path, run_python):
    (tmp_path / "memory.max").write_text("1048576\n")
    (tmp_path / "memory.current").write_text("4096\n")
    (tmp_path / "memory.stat").write_text("anon 1\nshmem 2048\n")
    (tmp_path / "above").mkdir()
    code = """
        import sys
        from posixshm._command import cgroup
        cgroup._ROOT = sys.argv[1]
        print(cgroup.memory_limit())
    """
    output = run_python(code, tmp_path)
    assert output == "Limit(limit=1048576, used=4096, shared=2048)\n"


def test_doctor_on_this_machine_succeeds():
    done = run("doctor")
    assert done.returncode in (0, 1) and done.stderr == ""
    assert good("doctor", "--help").startswith("usage: posixshm doctor")
    assert os.path.isdir("/dev/shm")
