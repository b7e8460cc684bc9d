"""Repeated calls of every public name, with good and bad arguments, do not leak."""

from pathlib import Path

import pytest
from _processes import COUNTING, TESTS

MODULES = sorted(file.stem for file in Path(TESTS).glob("_leak_*.py"))
DEADLINE = 100  # counting is slow in a debug build


@pytest.mark.long
@pytest.mark.parametrize("module", MODULES)
def test_cycles(run_python, name, module):
    code = f"from _leaks import main; main({module!r})"
    run_python(code, name, env=COUNTING, timeout=DEADLINE)


def test_every_public_name_has_a_cycle(run_python, name):
    """Every cycle also belongs to a public name."""
    code = f"""
        import _leaks, _surface
        modules = set(_surface.MODULES) - {{"posixshm.arrow"}}  # see tests/consumers
        cycles, public = _leaks.names(*{MODULES}), _surface.public_names(*modules)
        assert len(public) > 250
        assert not public - cycles, f"without a cycle: {{sorted(public - cycles)}}"
        assert not cycles - public, f"of nothing: {{sorted(cycles - public)}}"
    """
    run_python(code, name, env=COUNTING)
