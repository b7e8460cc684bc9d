"""Build the floor: setup.py compiles it with the compiler and the flags of posixshm."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from .harness import CannotRun

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / f"floor-{sysconfig.get_config_var('SOABI')}"


def build() -> None:
    """Compile the files that have changed."""
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    command += ["--build-lib", str(FOLDER), "--build-temp", str(FOLDER / "objects")]
    built = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "POSIXSHM_FLOOR": "1"},
        capture_output=True,
        text=True,
    )
    if built.returncode != 0:
        raise CannotRun(
            "the floor cannot be compiled (it needs a C compiler, and setuptools 77 or newer):\n"
            f"{built.stderr}"
        )


def load() -> ModuleType:
    """Import the floor that build() made."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module("floor")
