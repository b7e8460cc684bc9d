"""`posixshm rm` and `reclaim`: the objects that they remove and those that they keep."""

import json
import os

import pytest
from _command import DEADLINE, MOUNT, bad, good, run
from _processes import PATH, needs_mounts, needs_root

from posixshm import Semaphore, SharedMemory

# -- rm ------------------------------------------------------------------------------------------


def test_rm_removes_exactly_the_named_objects(make, names):
    stem = names()
    for last in ("", "a", "b", "c"):
        make(name=f"{stem}{last}")
    assert good("rm", stem, f"/{stem}b") == ""
    assert sorted(n for n in os.listdir(MOUNT) if n.startswith(stem)) == [f"{stem}a", f"{stem}c"]


def test_rm_leaves_the_memory_to_its_users(name):
    with SharedMemory.create(name, 100) as shm:
        shm.buf[:5] = b"bytes"
        good("rm", name)
        assert bytes(shm.buf[:5]) == b"bytes"
        assert not shm.is_linked()


def test_rm_reports_a_missing_name_and_removes_the_others(make, name):
    here = make()
    assert bad("rm", name, here) == (1, f"posixshm: {name}: No such file or directory")
    assert not (MOUNT / here).exists()


def test_rm_force_ignores_a_missing_name_only(make, name):
    here = make()
    assert good("rm", "-f", name, here) == ""
    assert not (MOUNT / here).exists()
    assert bad("rm", "-f", "a/b")[0] == 2


# -- reclaim -------------------------------------------------------------------------------------


def test_reclaim_removes_the_object_of_a_killed_process_only(names, make, start_python):
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
    assert lines[f"{stem}-live"].endswith("in use (1)")
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


def test_reclaim_keeps_objects_that_are_too_young(make):
    name = make()
    for age in ("1h", "2d", "90", "10m", "1.5h"):
        output = good("reclaim", "--prefix", name, "--older-than", age)
        assert output == "Removed 0 of 0 (0 B).\n"
    assert (MOUNT / name).exists()
    assert good("reclaim", "--prefix", name, "--older-than", "0s").startswith("NAME")
    assert not (MOUNT / name).exists()


@pytest.mark.parametrize("age", ["", "1x", "h", "-1", "1h30m", "nan", "inf", "1e3", " 1", "1 h"])
def test_reclaim_refuses_bad_ages(age, make):
    name = make()
    done = run("reclaim", "--prefix", name, f"--older-than={age}")
    assert done.returncode == 2
    assert "such as 90, 30s, 15m, 1h, 2d" in done.stderr
    assert (MOUNT / name).exists()


def test_reclaim_of_an_object_with_unknown_state_needs_force(run_python, names, make):
    needs_root()
    name = make()
    code = """
        import contextlib, io, sys
        from _processes import SOMEBODY, become
        import posixshm._command.main, posixshm._command.removing
        become(SOMEBODY)
        def reclaim(*options):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = posixshm._command.main.main(["reclaim", "--prefix", sys.argv[1], *options])
            return code, out.getvalue(), err.getvalue()
        code, out, err = reclaim()
        assert code == 0 and " unknown (" in out.splitlines()[1], (code, out, err)
        assert "Removed 0 of 1" in out and "--force" in err, (out, err)
        code, out, err = reclaim("--force")
        assert code == 1 and "not removed: Operation not permitted" in out, (code, out, err)
    """
    run_python(code, name, env=PATH)
    assert (MOUNT / name).exists()


def test_a_name_that_another_process_removes_meanwhile(run_python, several):
    """That is an error only if the caller named the object, not if a pattern found it."""
    code = """
        import contextlib, io, os, sys
        import posixshm._command.main
        stem = sys.argv[1]
        def first_of_two(event, args):
            if event == "posixshm.unlink" and os.path.exists(f"/dev/shm/{stem}-b"):
                os.unlink(f"/dev/shm/{stem}-b")
        sys.addaudithook(first_of_two)
        for names, code in ((f"{stem}-?",), 0), ((f"{stem}-a", f"{stem}-b"), 1):
            for each in "ab":
                open(f"/dev/shm/{stem}-{each}", "w").close()
            with contextlib.redirect_stderr(io.StringIO()):
                assert posixshm._command.main.main(["rm", *names]) == code, names
            assert not os.path.exists(f"/dev/shm/{stem}-a")
    """
    run_python(code, several)


def test_reclaim_without_a_choice_removes_nothing(make):
    name = make()
    assert bad("reclaim")[0] == 2
    assert bad("reclaim", "--prefix", "", "--dry-run")[0] == 2
    assert bad("reclaim", "--prefix", "/", "--dry-run")[0] == 2
    assert bad("reclaim", "", "--dry-run")[0] == 2  # as from a shell variable that is not set
    assert bad("reclaim", "/", "--older-than", "1h", "--dry-run")[0] == 2
    assert (MOUNT / name).exists()


# -- patterns, semaphores, and objects of killed processes ----------------------------------------


def left(stem):
    return sorted(
        name.removeprefix("sem.").removeprefix(stem)
        for name in os.listdir(MOUNT)
        if name.removeprefix("sem.").startswith(stem)
    )


@pytest.fixture
def several(names, make):
    stem = names()
    for last in ("-a1", "-a2", "-b1", "-[x]"):
        make(name=f"{stem}{last}")
    return stem


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("-a*", ["-[x]", "-b1"]),
        ("-?1", ["-[x]", "-a2"]),
        ("-[ab]1", ["-[x]", "-a2"]),
        ("-[x]", ["-a1", "-a2", "-b1"]),  # an object has exactly this name
    ],
)
def test_rm_takes_patterns(pattern, expected, several):
    assert good("rm", f"{several}{pattern}") == ""
    assert left(several) == expected


def test_rm_by_prefix_and_age(several):
    assert good("rm", "--prefix", f"{several}-a", "--older-than", "1h") == ""
    assert len(left(several)) == 4
    listed = good("rm", "--prefix", f"{several}-a", "--dry-run").split()
    assert listed == [f"{several}-a1", f"{several}-a2"]
    assert len(left(several)) == 4
    good("rm", "--prefix", f"{several}-a")
    assert left(several) == ["-[x]", "-b1"]
    assert bad("rm", "--prefix", "")[0] == 2
    assert bad("rm")[0] == 2


def test_a_pattern_without_a_match_is_an_error(several):
    line = f"posixshm: {several}-z*: No such file or directory"
    assert bad("rm", f"{several}-z*") == (1, line)
    assert good("rm", "-f", f"{several}-z*") == ""


def test_reclaim_takes_a_pattern(several):
    output = good("reclaim", f"{several}-a*")
    assert output.endswith("Removed 2 of 2 (14 B).\n")
    assert left(several) == ["-[x]", "-b1"]
    assert good("reclaim", f"{several}-").endswith("Removed 2 of 2 (14 B).\n")


def test_names_that_are_not_text_can_be_removed(names, make):
    stem = names()
    first, second = (os.fsdecode(stem.encode() + last) for last in (b"-\xff", b"-\xfe"))
    make(name=first)
    make(name=second)
    listed = good("rm", f"{stem}-?", "--dry-run", text=False)
    assert sorted(listed.split()) == [os.fsencode(second), os.fsencode(first)]
    assert good("rm", first) == ""
    assert good("reclaim", stem).endswith("Removed 1 of 1 (7 B).\n")
    assert left(stem) == []


def test_a_semaphore_is_removed_by_the_name_of_its_file(name):
    Semaphore(name, 1, create=True)
    assert good("rm", f"sem.{name}") == ""
    assert left(name) == []
    assert bad("rm", f"sem.{name}") == (1, f"posixshm: sem.{name}: No such file or directory")


@pytest.mark.parametrize("made", ["Semaphore", "Lock", "SharedMemory"])
def test_reclaim_removes_the_objects_of_killed_processes(made, names, start_python):
    stem = names()
    code = """
        import sys, posixshm
        from _processes import ready
        name = sys.argv[1]
        made = {
            "Semaphore": lambda: posixshm.Semaphore(name, 1, create=True),
            "Lock": lambda: posixshm.Lock(name, create=True),
            "SharedMemory": lambda: posixshm.SharedMemory.create(name, 100),
        }[sys.argv[2]]()
        ready()
    """
    killed = [start_python(code, f"{stem}-{i}", made, env=PATH) for i in range(2)]
    for child in killed:
        child.hear("ready")
    assert good("reclaim", stem, "--dry-run").count("in use (1)") == 2
    killed[0].kill()
    output = good("reclaim", stem)
    assert "Removed 1 of 2" in output
    assert left(stem) == ["-1"]
    killed[1].kill()
    good("reclaim", stem)
    assert left(stem) == []


def test_reclaim_checks_again_after_the_question(make, run_python):
    """An object that a process opens while the command asks the question is kept."""
    name = make()
    code = """
        import sys
        from posixshm import SharedMemory
        from posixshm._command import main, removing
        def confirmed(*args):
            confirmed.shm = SharedMemory.open(sys.argv[1])
            return True
        removing._confirmed = confirmed
        sys.exit(main.main(["reclaim", sys.argv[1]]))
    """
    output = run_python(code, name)
    assert output.splitlines()[1].endswith("in use")
    assert "Removed 0 of 1" in output
    assert (MOUNT / name).exists()


def test_an_object_that_another_pid_namespace_uses_is_kept(run_python):
    needs_mounts()
    code = """
        import os, subprocess, sys
        from _processes import private_processes, private_shm
        from posixshm import SharedMemory
        private_shm()
        shm = SharedMemory.create("object", 100)
        SharedMemory.create("free", 100).close()
        os.set_inheritable(shm.fileno(), False)
        command = [sys.executable, "-m", "posixshm", "reclaim", "--older-than", "0s"]
        pid = os.fork()
        if pid == 0:
            private_processes()
            shm.close()
            del shm
            os.execv(sys.executable, command)
        os.waitpid(pid, 0)
        print(sorted(os.listdir("/dev/shm")))
    """
    output = run_python(code, env=PATH)
    assert output.splitlines()[-1] == "['object']"
    (line,) = [line for line in output.splitlines() if line.startswith("object")]
    assert line.endswith("in use")  # the kernel reports the use; the process is not visible
