"""The README's examples, as they stand there."""

import re
from pathlib import Path

import posixshm
import posixshm.array

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)


def test_examples(run_python, tmp_path):
    """Each runs in an interpreter of its own, in order, and together they leave nothing."""
    assert len(EXAMPLES) >= 6
    before = set(posixshm.listdir())
    for number, example in enumerate(EXAMPLES):
        script = tmp_path / f"example{number}.py"
        script.write_text(example)
        # Not from a string: multiprocessing's spawn imports the main module again.
        run_python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert set(posixshm.listdir()) <= before


def test_every_call_of_the_table_is_there():
    """What the tables name with a dot or as a call exists."""
    names = set(re.findall(r"`(?:SharedMemory)?\.([a-z_]+)(?:\(\))?`", README.read_text()))
    classes = [thing for thing in vars(posixshm).values() if isinstance(thing, type)]
    classes.append(posixshm.array.SharedArray)
    missing = {name for name in names if not any(hasattr(cls, name) for cls in classes)}
    assert not missing
