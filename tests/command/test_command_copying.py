"""`posixshm load` and `dump`: complete or not at all."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from _command import COMMAND, DEADLINE, MOUNT, bad, good, in_namespace, run, wait_for
from _processes import cannot_be_tested

from posixshm import SharedMemory

# -- load ----------------------------------------------------------------------------------------


CONTENT = bytes(range(256)) * 10_000 + b"end"  # longer than two pieces of 1 MiB


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
    text = "The device has no end (head -c SIZE copies a part of it)"
    for device in ("/dev/zero", "/dev/urandom"):
        assert bad("load", device, name) == (1, f"posixshm: {device}: {text}")
    with open("/dev/zero", "rb") as zero:
        assert bad("load", "-", name, stdin=zero) == (1, f"posixshm: standard input: {text}")
    assert not (MOUNT / name).exists()


def test_load_reports_a_name_that_another_process_creates_meanwhile(name):
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


def test_load_reads_a_file_that_reports_no_size(fresh):
    good("load", "/proc/self/status", fresh)
    assert (MOUNT / fresh).read_bytes().startswith(b"Name:")


def test_load_does_not_touch_an_existing_object(tmp_path, make):
    name = make(b"old")
    (tmp_path / "file").write_bytes(CONTENT)
    code, line = bad("load", tmp_path / "file", name)
    assert (code, line.startswith(f"posixshm: {name}: File exists")) == (1, True)
    assert (MOUNT / name).read_bytes() == b"old"


def test_load_replace_leaves_the_old_object_to_its_users(tmp_path, name):
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
    """The size of the largest unnamed object that the process has open."""
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


def test_load_of_a_missing_file_creates_no_object(tmp_path, name):
    (tmp_path / "empty").touch()
    assert bad("load", tmp_path / "empty", name)[0] == 1
    assert bad("load", "-", name, stdin=subprocess.DEVNULL)[0] == 1
    assert bad("load", tmp_path, name) == (1, f"posixshm: {tmp_path}: Is a directory")
    missing = tmp_path / "missing"
    assert bad("load", missing, name) == (1, f"posixshm: {missing}: No such file or directory")
    assert not (MOUNT / name).exists()


@pytest.mark.parametrize("known", [True, False], ids=["file", "standard input"])
def test_load_of_a_file_that_is_larger_than_the_free_space(known, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    command = [*COMMAND, "load", tmp_path / "file", "name"]
    if not known:
        command = ["sh", "-c", f'cat "$0" | {sys.executable} -m posixshm load - name']
        command.append(tmp_path / "file")
    done = in_namespace("size=1m", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("posixshm: name: ")
    # One line of error; the list of names below it is empty.
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("mode", ["", "8", "1777", "rw", "0o600", "-1"])
def test_load_refuses_bad_modes(mode, tmp_path, name):
    (tmp_path / "file").write_bytes(CONTENT)
    assert run("load", f"--mode={mode}", tmp_path / "file", name).returncode == 2
    assert not (MOUNT / name).exists()


# -- dump ----------------------------------------------------------------------------------------


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


def test_dump_to_a_reader_that_exits_early(make):
    name = make(CONTENT)
    shell = f"{sys.executable} -m posixshm dump {name} - | head -c 5; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=DEADLINE)
    assert done.stdout == CONTENT[:5] + b"141\n"
    assert done.stderr == b""


def test_ls_to_a_reader_that_has_exited(make):
    name = make()
    shell = f"{sys.executable} -m posixshm ls {name} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout in ("141\n", "0\n")  # 0 if it had written all before the reader exited
    assert done.stderr == ""


def test_dump_of_an_object_that_another_process_truncates_is_an_error(make):
    name = make(CONTENT * 4)
    process = subprocess.Popen(
        [*COMMAND, "dump", name, "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    read = process.stdout.read(10)  # the command has begun and waits for the reader
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


# -- dump: atomic, with holes --------------------------------------------------------------------


def allocated(path):
    return os.stat(path).st_blocks * 512


def test_dump_replaces_its_target_in_one_step(make, tmp_path):
    name = make(CONTENT)
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    with open(tmp_path / "file", "rb") as old:
        good("dump", name, tmp_path / "link")
        assert old.read() == b"old"  # a reader that opened the old file still reads it
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_a_dump_that_fails_keeps_the_old_file(make, tmp_path):
    name = make(CONTENT)
    (tmp_path / "file").write_bytes(b"old")
    done = in_namespace(
        "size=4m",
        "sh",
        "-c",
        'mount -t tmpfs -o size=1m tmpfs "$1" && echo old >"$1/file"; shift; '
        '"$@"; echo $?; cat "$0/file"; ls -A "$0"',
        tmp_path,
        tmp_path,
        *COMMAND,
        "dump",
        "object",
        tmp_path / "file",
        setup="head -c 2M /dev/urandom >/dev/shm/object",
    )
    assert done.stdout == "1\nold\nfile\n"
    assert done.stderr == f"posixshm: {tmp_path / 'file'}: No space left on device\nobject\n"
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (MOUNT / name).exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_dump_that_is_stopped_leaves_nothing(signum, make, tmp_path):
    name = make(CONTENT)
    # The command sends itself the signal in the middle.
    code = (
        "import os, signal, sys; from posixshm._command import copying, main\n"
        "copying.CHUNK = 4096\n"
        "copying.progress = lambda *_: Stop()\n"
        "class Stop:\n"
        "    def __enter__(self):\n"
        "        return lambda n: os.kill(os.getpid(), int(sys.argv[1]))\n"
        "    def __exit__(self, *_): pass\n"
        "sys.exit(main.main(['dump', *sys.argv[2:]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(signum)), name, tmp_path / "file"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stderr) == (128 + signum, "")
    assert os.listdir(tmp_path) == []


def test_dump_keeps_holes(make, tmp_path):
    name = make(b"")
    os.truncate(MOUNT / name, 64 << 20)
    with open(MOUNT / name, "r+b") as file:
        file.seek(16 << 20)
        file.write(b"middle")
        file.seek((64 << 20) - 3)
        file.write(b"end")
    good("dump", name, tmp_path / "file")
    assert (tmp_path / "file").stat().st_size == 64 << 20
    assert allocated(tmp_path / "file") <= 1 << 20
    assert (tmp_path / "file").read_bytes() == (MOUNT / name).read_bytes()
    piped = good("dump", name, "-", text=False)
    assert piped == (tmp_path / "file").read_bytes()


def test_load_keeps_holes_by_default(tmp_path, fresh):
    with open(tmp_path / "file", "wb") as file:
        file.write(b"begin")
        file.seek(16 << 20)
        file.write(b"middle")
        file.truncate(32 << 20)
    if allocated(tmp_path / "file") > 16 << 20:
        cannot_be_tested("the file system of the test has no holes")
    good("load", tmp_path / "file", fresh)
    assert (MOUNT / fresh).stat().st_size == 32 << 20
    assert allocated(MOUNT / fresh) <= 1 << 20
    assert (MOUNT / fresh).read_bytes() == (tmp_path / "file").read_bytes()
    good("load", "--reserve", "--replace", tmp_path / "file", fresh)
    assert allocated(MOUNT / fresh) == 32 << 20
    assert (MOUNT / fresh).read_bytes() == (tmp_path / "file").read_bytes()


def test_a_file_that_is_one_hole(tmp_path, fresh):
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 1 << 20)
    good("load", tmp_path / "file", fresh)
    assert (MOUNT / fresh).read_bytes() == bytes(1 << 20)
    good("dump", fresh, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(1 << 20)


def test_dump_to_a_folder_is_refused(make, tmp_path):
    name = make(CONTENT)
    assert bad("dump", name, tmp_path) == (1, f"posixshm: {tmp_path}: Is a directory")
    missing = tmp_path / "missing" / "file"
    assert bad("dump", name, missing) == (1, f"posixshm: {missing}: No such file or directory")
    assert os.listdir(tmp_path) == []
