"""The benchmarks run and print their tables. Figures are not asserted.

Only the system calls are checked: raw C must make the same calls, or the comparison is useless.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _processes import cannot_be_tested, needs_plain_build

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("bench_*.py"))

pytestmark = [pytest.mark.once, pytest.mark.long]


@pytest.fixture(autouse=True)
def compiler():
    if shutil.which(shlex.split(os.environ.get("CC", "cc"))[0]) is None:
        cannot_be_tested("no C compiler for the raw C peers")


def bench(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_prints_what_it_writes_to_a_file(script, tmp_path):
    figures = tmp_path / "figures.json"
    done = bench(script, "--quick", "--json", str(figures))
    assert (done.returncode, done.stderr) == (0, "")
    cases = json.loads(figures.read_text())["cases"]
    assert cases
    for case in cases:
        assert case["case"] in done.stdout
        for row in case["rows"]:
            assert row["contender"] in done.stdout


def test_bench_calls_says_which_peers_are_missing(tmp_path):
    # A module that cannot be imported simulates one that is not installed.
    for peer in ("numpy", "posix_ipc"):
        (tmp_path / f"{peer}.py").write_text("raise ImportError\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = bench("bench_calls.py", "--quick", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "posix_ipc + mmap: left out" in done.stdout
    assert "numpy is not installed" in done.stdout

    done = bench("bench_sync.py", "--quick", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "posix_ipc Semaphore: left out" in done.stdout


def test_bench_sync_check_names_the_targets_that_are_missed(tmp_path):
    figures = tmp_path / "figures.json"
    done = bench("bench_sync.py", "--quick", "--check", "--json", str(figures))
    report = json.loads(figures.read_text())
    missed = [
        f"{case['case']}: {row['contender']} "
        for case in report["cases"]
        for row in case["rows"]
        if row["met"] is False
    ] + [f"ping-pong: {peer} " for peer in report["peers_under_semaphore"]]
    assert done.returncode == (1 if missed else 0)
    for line in missed:
        assert f"\n{line}" in done.stdout


def test_bench_arrays_says_which_peers_are_missing(tmp_path):
    for peer in ("torch", "SharedArray"):
        (tmp_path / f"{peer}.py").write_text("raise ImportError\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = bench("bench_arrays.py", "--quick", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    for peer in ("torch", "SharedArray"):
        assert f"{peer}: left out" in done.stdout


def test_raw_c_makes_the_system_calls_that_posixshm_makes():
    needs_plain_build("it makes calls of its own")
    if shutil.which("strace") is None:
        cannot_be_tested("strace is not installed")
    done = bench("bench_calls.py", "--calls", "--check")
    if "cannot run" in done.stderr:
        cannot_be_tested(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DIFFERENT" not in done.stdout


def test_the_picture_of_the_readme_shows_the_figures_beside_it():
    done = bench("plot_arrays.py", str(BENCHMARKS / "arrays.json"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (BENCHMARKS / "arrays.svg").read_text()
