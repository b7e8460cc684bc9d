"""The benchmarks run and print their tables; what they measure is not asserted.

But for the system calls: figures beside raw C say nothing where it makes others.
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

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.once


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


def test_bench_calls_prints_every_case(tmp_path):
    figures = tmp_path / "figures.json"
    done = bench("bench_calls.py", "--quick", "--json", str(figures))
    assert (done.returncode, done.stderr) == (0, "")

    report = json.loads(figures.read_text())
    titles = [case["case"] for case in report["cases"]]
    for subject in ("create + close + unlink", "attach + close", "memoryview(x)"):
        assert any(title.startswith(subject) for title in titles)
    for title in titles:
        assert title in done.stdout
    assert "open segments hold (counted)" in done.stdout


def test_bench_calls_says_which_peers_are_missing(tmp_path):
    # A module that cannot be imported stands in for one that is not installed.
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


def test_bench_sync_prints_every_case(tmp_path):
    figures = tmp_path / "figures.json"
    done = bench("bench_sync.py", "--quick", "--json", str(figures))
    assert (done.returncode, done.stderr) == (0, "")

    report = json.loads(figures.read_text())
    cases = {case["case"]: [row["contender"] for row in case["rows"]] for case in report["cases"]}
    for title, contenders in cases.items():
        assert title in done.stdout
        for contender in contenders:
            assert contender in done.stdout
    for subject, first in {
        "acquire() + release()": "multiprocessing Lock",
        "with lock": "multiprocessing Lock",
        "increment a shared counter": "with posixshm Lock, memoryview",
        "ping-pong": "raw C sem_t",
        "one counter for all: 2 processes": "multiprocessing Lock",
        "one counter for all: 4 processes": "multiprocessing Lock",
    }.items():
        assert [cases[title][0] for title in cases if title.startswith(subject)] == [first]

    targets = [row["target"] for case in report["cases"] for row in case["rows"] if row["target"]]
    assert targets == [0.7, 0.45, 0.3, 1.35]
    for case in report["cases"][-2:]:
        for row in case["rows"]:
            assert row["per_second"] > 0
            assert 0 <= row["fairness"] <= 1


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


def test_bench_arrays_prints_every_case(tmp_path):
    figures = tmp_path / "figures.json"
    done = bench("bench_arrays.py", "--quick", "--json", str(figures))
    assert (done.returncode, done.stderr) == (0, "")

    cases = json.loads(figures.read_text())["cases"]
    for size in ("64 KiB", "1 MiB"):
        [case] = [case for case in cases if case["case"] == f"hand over {size}"]
        contenders = [row["contender"] for row in case["rows"]]
        assert contenders[0] == "copy it, in one process"
        assert len([name for name in contenders if name.startswith("posixshm")]) == 3
        assert all(row["gb_per_second"] > 0 for row in case["rows"])
        for name in contenders:
            assert name in done.stdout
    targets = [row["target"] for case in cases for row in case["rows"] if row["target"]]
    assert len(targets) >= 3 and set(targets) == {1.5}


def test_bench_arrays_says_which_peers_are_missing(tmp_path):
    for peer in ("torch", "SharedArray"):
        (tmp_path / f"{peer}.py").write_text("raise ImportError\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = bench("bench_arrays.py", "--quick", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    for peer in ("torch", "SharedArray"):
        assert f"{peer}: left out" in done.stdout


def test_bench_command_prints_every_contender(tmp_path):
    figures = tmp_path / "figures.json"
    done = bench("bench_command.py", "--quick", "--json", str(figures))
    assert (done.returncode, done.stderr) == (0, "")
    [case] = json.loads(figures.read_text())["cases"]
    for row in case["rows"]:
        assert row["contender"] in done.stdout and row["us"] >= 0
    assert [row["target"] for row in case["rows"] if row["target"]] == [30, 30]


def test_raw_c_makes_the_system_calls_that_posixshm_makes():
    needs_plain_build("it makes calls of its own")
    if shutil.which("strace") is None:
        cannot_be_tested("strace is not installed")
    done = bench("bench_calls.py", "--calls", "--check")
    if "cannot run" in done.stderr:
        cannot_be_tested(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DIFFERENT" not in done.stdout
