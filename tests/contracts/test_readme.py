"""The README: its programs and commands run, and its statements about multiprocessing are true."""

import importlib.metadata
import re
import signal
import subprocess
import sys

import pytest
from _documents import ROOT, blocks, examples, run_programs
from _processes import PATH, needs_mounts

README = ROOT / "README.md"
TWO_TERMINALS, RECIPES = examples(README)[:2], examples(README)[2:]


def test_the_readme_fits_on_a_few_screens():
    assert 150 <= len(README.read_text().splitlines()) <= 180


def test_two_terminals(start_python, name):
    """The test uses another name than the README, because the machine may use that name."""
    first, second = (code.replace('"prices"', repr(name)) for code in TWO_TERMINALS)
    terminal = start_python(first)
    _, output, _ = start_python(second).finish()
    assert output == "(1000, 1000) float64 1000000.0\n"
    terminal.say("")
    _, output, _ = terminal.finish()
    assert output == "Run the other program, then press Enter: 5.0\n"


def test_the_recipes_run(run_python, tmp_path):
    assert len(RECIPES) == 5
    run_programs(RECIPES, run_python, tmp_path)


def test_recipes_are_short():
    for recipe in RECIPES:
        assert len([line for line in recipe.splitlines() if line]) <= 10, recipe


def test_the_import_that_replaces_the_standard_library():
    [line] = re.findall(r"by changing one import: `(.+)`", README.read_text())
    namespace = {}
    exec(line, namespace)
    names = namespace["shared_memory"].ShareableList(["a", 1, 2.5])
    assert list(names) == ["a", 1, 2.5]
    names.shm.close()
    names.shm.unlink()


def test_commands(run_python):
    """Each line of the shell example does what its comment says."""
    needs_mounts()
    [commands] = [content for language, content in blocks(README.read_text()) if language == "sh"]
    code = """
        import shlex, subprocess, sys
        from posixshm import SharedMemory, exists
        from _processes import private_shm
        private_shm()
        prices = SharedMemory.create("prices", 4096)
        SharedMemory.create("camera-0", 4096).close()
        seen = []
        for line in sys.argv[1].splitlines():
            command = [sys.executable, "-m", *shlex.split(line, comments=True)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            seen.append((line.split()[1], exists("camera-0"), exists("prices")))
        assert seen == [("ls", True, True), ("stat", True, True), ("reclaim", False, True)], seen
    """
    run_python(code, commands, env=PATH)


@pytest.mark.parametrize(
    ("failure", "code", "output"),
    [
        ("array_after_close", -signal.SIGSEGV, ""),
        ("full", -signal.SIGBUS, "created\n"),
        ("reader_exits", 0, "0 left\n"),
        ("job_is_killed", 0, "1 left\n"),
        ("owner_is_killed", 0, "False\n"),
    ],
)
def test_a_failure_of_multiprocessing(failure, code, output):
    if failure in ("full", "reader_exits", "job_is_killed"):
        needs_mounts()
    done = subprocess.run(
        [sys.executable, "-m", "children.multiprocessing_failures", failure],
        env=PATH,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (code, output), done.stderr


def test_the_description_on_pypi_has_no_relative_links():
    description = importlib.metadata.metadata("posixshm").get_payload()
    assert re.findall(r"\]\((?!https:)[^)]*", description) == []
