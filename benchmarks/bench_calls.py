"""How many system calls do create, attach and close make?

strace(1) counts them, if it is installed and allowed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from .cycles import Cycles, anonymous, attaching, creating
from .harness import Case, Contender, Settings, constant
from .peers import posixshm, scratch_names

SIZE = 4 << 10
MARK = "/posixshm-benchmark"  # stat(2) of it begins and ends the counted part

CYCLES: dict[str, Callable[[], Cycles]] = {
    "create, close and unlink": creating,
    "create and close without a name": anonymous,
    "attach and close": attaching,
}


def make(title: str, who: str) -> None:
    """Make the calls of a contender between two marks."""
    _, statement, names = CYCLES[title]()[who]
    code = compile(statement, "cycle", "exec")
    with scratch_names() as name:
        names |= {"name": name(), "size": SIZE}
        if "attach" in title:
            posixshm.SharedMemory.create(names["name"], SIZE).close()
        for _ in range(50):  # so that the allocators have their memory
            exec(code, names)
        for counted in (True, False):
            with suppress(OSError):
                os.stat(MARK)
            if counted:
                exec(code, names)


def count(title: str, who: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace")
        program = [sys.executable, "-m", __spec__.name, title, who]
        subprocess.run(["strace", "-o", str(trace), *program], check=True, capture_output=True)
        lines = trace.read_text().splitlines()
    first, last = (i for i, line in enumerate(lines) if f'"{MARK}"' in line)
    return last - first - 1


def cases(_: Settings) -> Iterator[Case]:
    if subprocess.run(["sh", "-c", "strace -o /dev/null true"], capture_output=True).returncode:
        return
    for title, found in CYCLES.items():
        calls = {who: count(title, who) for who in found()}
        contenders = [
            Contender(who, constant(calls[who]), kind) for who, (kind, _, _) in found().items()
        ]
        yield Case(f"system calls: {title}", contenders, unit="count", once=True, rounds=1)


if __name__ == "__main__":
    make(*sys.argv[1:])
