"""The README's examples, as they stand there."""

import re
from pathlib import Path

from _documents import run_examples
from _processes import PATH, needs_mounts

README = Path(__file__).parent.parent / "README.md"
COMMANDS = re.search(r"^```sh\n(.*?)^```$", README.read_text(), re.M | re.S)[1]


def test_examples(run_python, tmp_path):
    run_examples(README, run_python, tmp_path)


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
