"""The README's examples that need more than the library and numpy; they are marked py."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent.parent / "README.md"
EXAMPLES = re.findall(r"^```py\n(.*?)^```$", README.read_text(), re.M | re.S)


def test_they_are_there():
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example, run_python):
    run_python(example)
