"""Locks whose bytes are written over, free or held: no crash, and no wait past its timeout."""

import pytest
from _processes import PATH

FUZZ = "import sys; from children import lock_fuzz; lock_fuzz.main(*map(int, sys.argv[1:]))"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 9))
def test_locks_that_are_written_over_at_random(seed, start_python):
    status, _, errors = start_python(FUZZ, seed, 60, env=PATH).finish(check=False)
    assert status == 0, errors
