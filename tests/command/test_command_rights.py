"""`posixshm chmod`, `chown`, `getfacl`, `setfacl`, `mv` and `ln`, which do not follow links."""

import json
import os
import shutil
import stat
import subprocess

import pytest
from _command import DEADLINE, MOUNT, bad, good, run
from _processes import PATH, SOMEBODY, cannot_be_tested, needs_root

from posixshm import Semaphore, SharedMemory


def mode_of(name):
    return stat.S_IMODE(os.stat(MOUNT / name).st_mode)


@pytest.fixture
def link(names, make):
    """A symbolic link in /dev/shm and the object that it refers to."""
    target, link = make(), names()
    os.symlink(target, MOUNT / link)
    yield link, target
    os.unlink(MOUNT / link)


# -- chmod --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("640", 0o640),
        ("0000", 0),
        ("g+r", 0o640),
        ("go+rw", 0o666),
        ("a=r", 0o444),
        ("u-w,o=r", 0o404),
        ("+x", 0o711),
        ("o=", 0o600),
        ("ug=rw,g-w", 0o640),
    ],
)
def test_chmod(change, expected, make):
    name = make()
    assert good("chmod", "--", change, name) == ""
    assert mode_of(name) == expected


@pytest.mark.parametrize("change", ["8", "1777", "g~r", "", "u+s", "g+r,", "rw"])
def test_chmod_refuses_bad_modes(change, make):
    name = make()
    code, line = bad("chmod", "--", change, name)
    assert (code, line.startswith(f"posixshm: bad mode {change!r}")) == (2, True)
    assert mode_of(name) == 0o600


def test_chmod_of_an_object_that_its_owner_cannot_read(make):
    name = make()
    os.chmod(MOUNT / name, 0)
    good("chmod", "600", f"/{name}")
    assert mode_of(name) == 0o600


def test_chmod_reports_a_missing_name_and_changes_the_others(make, name):
    here = make()
    assert bad("chmod", "640", name, here) == (1, f"posixshm: {name}: No such file or directory")
    assert mode_of(here) == 0o640


@pytest.mark.parametrize("command", [["chmod", "666"], ["chown", str(os.geteuid())]])
def test_other_files_are_refused(command, link, names):
    name, target = link
    line = f"posixshm: {name}: Not a shared memory object"
    assert bad(*command, name) == (1, line)
    assert mode_of(target) == 0o600
    fifo = names()
    os.mkfifo(MOUNT / fifo, 0o600)
    try:
        assert bad(*command, fifo) == (1, line.replace(name, fifo))
        assert mode_of(fifo) == 0o600
    finally:
        os.unlink(MOUNT / fifo)


def test_chmod_takes_patterns(make, names):
    stem = names()
    for last in "abc":
        make(name=f"{stem}-{last}")
    good("chmod", "640", f"{stem}-[ab]")
    assert [mode_of(f"{stem}-{last}") for last in "abc"] == [0o640, 0o640, 0o600]
    line = f"posixshm: {stem}-z*: No such file or directory"
    assert bad("chmod", "640", f"{stem}-z*") == (1, line)


def test_chmod_of_a_semaphore(name):
    semaphore = Semaphore(name, 1, create=True)
    try:
        good("chmod", "660", f"sem.{name}")
        assert mode_of(f"sem.{name}") == 0o660
    finally:
        semaphore.unlink()


# -- chown --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("54321", (54321, 0)),
        (":54322", (0, 54322)),
        ("54321:54322", (54321, 54322)),
        ("root", (0, 0)),
    ],
)
def test_chown(owner, expected, make):
    needs_root()
    name = make()
    os.chown(MOUNT / name, 0, 0)
    assert good("chown", owner, name) == ""
    status = os.stat(MOUNT / name)
    assert (status.st_uid, status.st_gid) == expected


@pytest.mark.parametrize("owner", ["", ":", "no-such-user", ":no-such-group", "-1", "4294967295"])
def test_chown_refuses_bad_owners(owner, make):
    code, line = bad("chown", "--", owner, make())
    assert code == 2
    assert line.startswith("posixshm: ")


def test_another_users_object_cannot_be_changed(make, run_python):
    needs_root()
    name = make()
    code = """
        import sys
        from _processes import SOMEBODY, become
        import posixshm._command.rights
        from posixshm._command.main import main
        become(SOMEBODY)
        assert main(["chmod", "666", sys.argv[1]]) == 1
        assert main(["chown", str(SOMEBODY), sys.argv[1]]) == 1
    """
    _, output, errors = run_python(code, name, env=PATH, check=False)
    assert output == ""
    assert errors == f"posixshm: {name}: Operation not permitted\n" * 2
    assert mode_of(name) == 0o600


# -- access control lists -----------------------------------------------------------------------


def test_setfacl_replaces_adds_and_removes(make):
    name = make()
    assert good("setfacl", "--set", f"u:{SOMEBODY}:r", name) == ""
    entries = good("getfacl", "-n", "-c", name).splitlines()
    assert entries == ["user::rw-", f"user:{SOMEBODY}:r--", "group::---", "mask::r--", "other::---"]
    good("setfacl", "-m", "g:54322:rw,o:r", name)
    entries = good("getfacl", "-n", "-c", name).splitlines()
    assert f"user:{SOMEBODY}:r--" in entries
    assert {"group:54322:rw-", "mask::rw-", "other::r--"} <= set(entries)
    good("setfacl", "-m", f"u:{SOMEBODY}:rw", name)
    assert f"user:{SOMEBODY}:rw-" in good("getfacl", "-n", "-c", name)
    (record,) = json.loads(good("ls", "--json", name))
    assert record["acl"] is True
    assert "0664+" in good("ls", name)
    good("setfacl", "-b", name)
    assert good("getfacl", "-n", "-c", name).count("\n") == 3
    assert json.loads(good("ls", "--json", name))[0]["acl"] is False


def test_setfacl_has_the_result_of_the_program_setfacl(make):
    if shutil.which("setfacl") is None or shutil.which("getfacl") is None:
        cannot_be_tested("the programs getfacl and setfacl (package acl) are not installed")
    ours, theirs = make(), make()
    for arguments in (
        ["--set", "u::rw,u:54321:r,g::-,o::-"],
        ["-m", "u:54322:rwx,g:54323:r"],
        ["-m", "u:54321:-"],
        ["-m", "m::r"],
        ["-b"],
    ):
        good("setfacl", *arguments, ours)
        subprocess.run(["setfacl", *arguments, MOUNT / theirs], check=True, timeout=DEADLINE)
        command = ["getfacl", "-n", "-c", "-E", "--absolute-names"]
        shown = [
            subprocess.run([*command, MOUNT / name], capture_output=True, check=True).stdout
            for name in (ours, theirs)
        ]
        assert shown[0] == shown[1], arguments


def test_getfacl_prints_the_header_of_the_program_getfacl(make, names):
    name = make(name=f"{names()} a\\b")
    lines = good("getfacl", "-n", name).splitlines()
    assert (
        lines[0]
        == f"# file: {name.replace(chr(92), chr(92) + '134').replace(' ', chr(92) + '040')}"
    )
    assert lines[1:3] == [f"# owner: {os.geteuid()}", f"# group: {os.stat(MOUNT / name).st_gid}"]
    assert lines[3:] == ["user::rw-", "group::---", "other::---"]
    two = good("getfacl", name, make())
    assert two.count("# file: ") == 2 and "\n\n# file: " in two


def test_a_bad_list_changes_nothing(make):
    name = make()
    for arguments in (["--set", "u:x"], ["-m", "d:u:1:r"], ["--set", "u:1:r", "-b"], []):
        assert bad("setfacl", *arguments, name)[0] == 2
    assert good("getfacl", "-c", "-n", name).count("\n") == 3


# -- mv and ln ----------------------------------------------------------------------------------


def test_mv_keeps_the_object(make, fresh):
    name = make(b"content")
    inode = os.stat(MOUNT / name).st_ino
    assert good("mv", name, f"/{fresh}") == ""
    assert not (MOUNT / name).exists()
    assert os.stat(MOUNT / fresh).st_ino == inode


def test_mv_replaces_only_with_the_option(make):
    one, two = make(b"one"), make(b"two")
    assert bad("mv", one, two) == (1, f"posixshm: {two}: File exists (see --replace)")
    assert (MOUNT / two).read_bytes() == b"two"
    with SharedMemory.open(two) as old:
        good("mv", "--replace", one, two)
        assert bytes(old.buf) == b"two"
    assert (MOUNT / two).read_bytes() == b"one"
    assert not (MOUNT / one).exists()


def test_ln_gives_a_second_name(make, fresh):
    name = make(b"content")
    assert good("ln", name, fresh) == ""
    assert os.stat(MOUNT / fresh).st_ino == os.stat(MOUNT / name).st_ino
    assert json.loads(run("stat", "--json", name).stdout)["links"] == 2
    assert bad("ln", name, fresh) == (1, f"posixshm: {fresh}: File exists")


def test_mv_and_ln_do_not_follow_links(link, fresh):
    name, target = link
    for command in ("mv", "ln"):
        assert bad(command, name, fresh)[0] == 1
    assert not (MOUNT / fresh).exists()
    assert (MOUNT / name).is_symlink() and (MOUNT / target).exists()


@pytest.mark.parametrize("command", ["mv", "ln"])
@pytest.mark.parametrize("new", ["", "a/b", "..", "sem.x", "n" * 256])
def test_an_invalid_new_name_is_refused(command, new, make):
    name = make()
    assert bad(command, name, new)[0] == 2
    assert (MOUNT / name).exists()


@pytest.mark.parametrize("command", ["mv", "ln"])
def test_mv_and_ln_report_a_missing_name_in_one_line(command, name, fresh):
    assert bad(command, name, fresh) == (1, f"posixshm: {name}: No such file or directory")
