"""Repeated calls of posixshm.arrow do not leak: see test_leaks."""

import os
from pathlib import Path

from _processes import COUNTING, TESTS

HERE = {**COUNTING, "PYTHONPATH": os.pathsep.join([str(TESTS), str(Path(__file__).parent)])}


def test_cycles(run_python, name):
    run_python("from _leaks import main; main('_leak_arrow')", name, env=HERE)


def test_every_public_name_has_a_cycle(run_python, name):
    code = """
        import _leaks, _surface
        assert _leaks.names("_leak_arrow") == _surface.public_names("posixshm.arrow")
    """
    run_python(code, name, env=HERE)
