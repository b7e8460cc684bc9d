"""The `posixshm` command itself: usage, exit codes, requirements."""

import json
import re
from importlib.metadata import entry_points

import pytest
from _command import MOUNT, good, run, without

import posixshm


def test_a_command_is_required():
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "COMMAND" in done.stderr


@pytest.mark.parametrize("command", ["ls", "stat", "holders", "df", "reclaim", "doctor"])
def test_help_names_the_fields_of_json(command, make):
    name = make()
    args = {"ls": [name], "stat": [name], "holders": [name], "reclaim": [name, "--dry-run"]}
    record = json.loads(run(command, "--json", *args.get(command, [])).stdout)
    text = " ".join(good(command, "--help").partition("json (bytes")[2].split())
    for key in record[0] if isinstance(record, list) else record:
        assert re.search(rf"\b{key}\b", text), key


def test_every_command_has_help_with_an_example():
    for line in good("--help").splitlines():
        if re.match(r"    [a-z]", line) and (command := line.split()[0]) != "demo":
            assert f"posixshm {command}" in good(command, "--help").partition("examples:")[2]
    assert "exit codes:" in good("--help")


def test_version():
    assert good("--version") == f"posixshm {posixshm.__version__}\n"


def test_the_script_is_the_same_command():
    (script,) = entry_points(group="console_scripts", name="posixshm")
    from posixshm.__main__ import main

    assert script.load() is main


@pytest.mark.new_interpreter
def test_the_library_imports_no_optional_package(run_python):
    imported = run_python(
        "import sys, posixshm, posixshm._command.main\n"
        "print({'numpy', 'psutil', 'rich'} & {name.partition('.')[0] for name in sys.modules})"
    )
    assert imported == "set()\n"


@pytest.mark.parametrize("args", [["ls"], ["stat"], ["holders"], ["df"], ["reclaim", "--dry-run"]])
def test_output_to_a_pipe_does_not_depend_on_optional_packages(args, make, tmp_path):
    name = make()
    args = args if args == ["df"] else [*args, name]
    shown = []
    for done in (run(*args, env=without(tmp_path, "rich", "psutil", "numpy")), run(*args)):
        # Ages and the number of processes differ between the two runs.
        shown.append(re.sub("[0-9]+(s| process)", "", done.stdout + done.stderr))
    assert shown[0] == shown[1]
    assert (MOUNT / name).exists()


@pytest.mark.new_interpreter
def test_ls_imports_neither_numpy_nor_rich(run_python, make):
    output = run_python(
        "import sys; from posixshm._command.main import main\n"
        "main(['ls', sys.argv[1]])\n"
        "print({'numpy', 'rich', 'json', 'ctypes'} & sys.modules.keys())",
        make(),
    )
    assert output.endswith("set()\n")


def test_most_commands_work_without_the_extras(fresh, tmp_path):
    env = without(tmp_path, "rich", "psutil", "numpy")
    content = bytes(range(256)) * 100
    (tmp_path / "file").write_bytes(content)
    good("load", tmp_path / "file", fresh, env=env)
    assert json.loads(good("ls", "--json", fresh, env=env))[0]["size"] == len(content)
    assert json.loads(good("df", "--json", env=env))["objects"] >= 1
    assert good("dump", fresh, "-", env=env, text=False) == content
    good("rm", fresh, env=env)
    assert json.loads(good("reclaim", "--prefix", fresh, "--json", env=env)) == []
