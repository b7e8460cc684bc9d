"""The C tests of csrc/posix, which do not need Python. .ci/run also runs them with sanitizers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from _processes import cannot_be_tested

RUN = Path(__file__).parent / "run"
COMPILER = os.environ.get("CC", "gcc").split()[0]


@pytest.mark.long
@pytest.mark.once
@pytest.mark.timeout(300)
@pytest.mark.skipif(not (RUN.parents[2] / "csrc").is_dir(), reason="the C sources are missing")
def test_the_c_tests_of_csrc_posix():
    if shutil.which(COMPILER) is None:
        cannot_be_tested(f"there is no {COMPILER} here")
    run = subprocess.run(
        ["bash", str(RUN), "--quick"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=280,
    )
    assert run.returncode == 0, run.stdout
    assert "C tests: all passed" in run.stdout.splitlines()[-1]
