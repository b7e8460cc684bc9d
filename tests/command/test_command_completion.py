"""`posixshm completion`: the scripts load in their shells and complete all commands and options."""

import os
import shutil
import stat
import subprocess
import sys

import pytest
from _command import DEADLINE, good, run
from _processes import cannot_be_tested


@pytest.fixture
def command(tmp_path):
    """An environment in which `posixshm` is the command of this package."""
    script = tmp_path / "bin" / "posixshm"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m posixshm "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    path = f"{script.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(tmp_path), "TERM": "dumb"}


def bash(words, environment):
    """The completions that bash offers after these words."""
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    code = (
        'eval "$(posixshm completion bash)"\n'
        f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _posixshm\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", code],
        env=environment,
        cwd=environment["HOME"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_bash_completes_commands_options_and_values(command):
    assert bash(["posixshm", "st"], command) == ["stat"]
    assert {"ls", "reclaim", "doctor"} <= set(bash(["posixshm", ""], command))
    assert bash(["posixshm", "ls", "--so"], command) == ["--sort"]
    assert bash(["posixshm", "ls", "--sort", "al"], command) == ["allocated"]
    assert bash(["posixshm", "completion", "f"], command) == ["fish"]
    assert bash(["posixshm", "docs", "api-ob"], command) == ["api-objects"]


def test_bash_completes_names_and_files(command, make, names, tmp_path):
    stem = names()
    for last in "ab":
        make(name=f"{stem}{last}")
    (tmp_path / "file-here").touch()
    assert bash(["posixshm", "stat", stem], command) == [f"{stem}a", f"{stem}b"]
    assert bash(["posixshm", "load", "file-h"], command) == ["file-here"]


def test_a_name_runs_no_command_in_bash(command, make, names, tmp_path):
    stem = names()
    make(name=f"{stem}$(touch ran)`touch ran`; x")
    assert bash(["posixshm", "rm", stem], command) == [
        rf"{stem}\$\(touch\ ran\)\`touch\ ran\`\;\ x"
    ]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("shell", [pytest.param("zsh", marks=pytest.mark.long), "fish"])
def test_the_script_loads(shell, tmp_path, command):
    if shutil.which(shell) is None:
        cannot_be_tested(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(good("completion", shell))
    before = ["autoload -Uz compinit", "compinit -u"] if shell == "zsh" else []
    after = {
        "zsh": 'test "$_comps[posixshm]" = _posixshm',
        "fish": "complete -C 'posixshm recl' | string match -q 'reclaim*'",
    }[shell]
    code = "\n".join([*before, f"source {script}", f"{after} && echo loaded"])
    options = ["-f"] if shell == "zsh" else ["--no-config"]
    done = subprocess.run(
        [shell, *options, "-c", code],
        env=command,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.stdout, done.stderr) == ("loaded\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_in_the_script(shell):
    script = good("completion", shell)
    commands = [
        line.split()[0]
        for line in run("--help").stdout.splitlines()
        if line.startswith("    ") and not line.startswith("     ")
    ]
    assert len(commands) >= 19
    for command in commands:
        assert command in script


def test_another_shell_is_refused():
    assert run("completion", "csh").returncode == 2
