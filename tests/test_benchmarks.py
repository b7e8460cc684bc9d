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
from _processes import needs_plain_build

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = [
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not here"),
    pytest.mark.skipif(
        shutil.which(shlex.split(os.environ.get("CC", "cc"))[0]) is None,
        reason="no C compiler for the raw C peers",
    ),
]


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


def test_raw_c_makes_the_system_calls_that_posixshm_makes():
    needs_plain_build("it makes calls of its own")
    if shutil.which("strace") is None:
        pytest.skip("NOT TESTED: strace is not installed")
    done = bench("bench_calls.py", "--calls", "--check")
    if "cannot run" in done.stderr:
        pytest.skip(f"NOT TESTED: {done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DIFFERENT" not in done.stdout
