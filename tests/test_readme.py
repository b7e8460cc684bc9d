"""The README's examples, as they stand there."""

import re
from pathlib import Path

from _processes import PATH, can_mount, needs_mounts

import posixshm
import posixshm.array

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)
COMMANDS = re.search(r"^```sh\n(.*?)^```$", README.read_text(), re.M | re.S)[1]


def test_examples(run_python, tmp_path):
    """Each runs in an interpreter of its own, in order, and together they leave nothing."""
    # Files, for multiprocessing's spawn imports the main module again.
    scripts = [tmp_path / f"example{number}.py" for number in range(len(EXAMPLES))]
    for script, example in zip(scripts, EXAMPLES, strict=True):
        script.write_text(example)
    code = """
        import os, subprocess, sys
        from _processes import SHM, private_shm
        own_shm, *scripts = sys.argv[1:]
        if own_shm == "True":
            private_shm()
        before = set(os.listdir(SHM))
        for script in scripts:
            subprocess.run([sys.executable, "-X", "faulthandler", script], check=True)
        left = set(os.listdir(SHM)) - before
        if own_shm == "False": # other programs may have made some
            said = "".join(open(script).read() for script in scripts)
            left = [name for name in left if f'"{name}"' in said]
        assert not left, left
    """
    run_python(code, can_mount(), *scripts, env=PATH, timeout=110)


def test_commands(run_python):
    """Each line of the shell example does what its comment says to the objects that it names."""
    needs_mounts()
    code = """
        import shlex, subprocess, sys
        from posixshm import SharedMemory, exists
        from _processes import private_shm
        private_shm()
        prices = SharedMemory.create("prices", 4096)
        SharedMemory.create("camera-0", 4096).close()
        seen = []
        for line in sys.argv[1].splitlines():
            command = [sys.executable, "-m", *shlex.split(line, comments=True)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            seen.append((line.split()[1], exists("camera-0"), exists("prices")))
        assert seen == [
            ("ls", True, True), ("stat", True, True), ("df", True, True),
            ("reclaim", True, True), ("reclaim", False, True), ("rm", False, False),
        ], seen
        assert len(prices.buf) == 4096
    """
    run_python(code, COMMANDS, env=PATH)


def test_every_call_of_the_table_is_there():
    """What the tables name with a dot or as a call exists."""
    names = set(re.findall(r"`(?:SharedMemory)?\.([a-z_]+)(?:\(\))?`", README.read_text()))
    classes = [thing for thing in vars(posixshm).values() if isinstance(thing, type)]
    classes.append(posixshm.array.SharedArray)
    missing = {name for name in names if not any(hasattr(cls, name) for cls in classes)}
    assert not missing
