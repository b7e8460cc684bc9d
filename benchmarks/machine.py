"""The machine, as far as it explains the figures."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from .peers import PACKAGES, left_out, versions


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware", "cpu model"):
            return value.strip()
    return platform.machine()


def compiler() -> str:
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    try:
        done = subprocess.run(
            [*command.split(), "--version"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.partition("\n")[0] or "unknown"


def is_there(package: str) -> bool:
    """Without importing the slow ones."""
    return package not in left_out and find_spec(package) is not None


def machine() -> dict[str, str]:
    gil = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", without the GIL"
    debug = ", debug" if sysconfig.get_config_var("Py_DEBUG") else ""
    found = versions()
    load, _, _ = os.getloadavg()
    return {
        "processor": f"{cpu_model()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load at the start": f"{load:.1f} runnable processes",
        "C library": " ".join(platform.libc_ver()).strip() or "unknown",
        "Python": f"{platform.python_implementation()} {platform.python_version()}{gil}{debug}",
        "compiler": compiler(),
        "packages": ", ".join(f"{name} {version}" for name, version in found.items()),
        "left out": ", ".join(name for name in PACKAGES if not is_there(name)) or "nothing",
    }
