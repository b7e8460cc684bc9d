"""Write what the stored figures say into both README.md, between two comments:

<!-- benchmarks: NAME --> and <!-- end -->
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from . import report
from .figures import CHARTS

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
READMES = (FOLDER / "README.md", FOLDER.parent / "README.md")

IN_README = "handover"  # the picture of the top-level README

# The table of the top-level README: an operation, a case, and its contenders.
COLUMNS = ("posixshm", "floor", "standard library", "posix_ipc")
TABLE = (
    (
        "create, close and unlink 64 KiB",
        "create, close and unlink 64 KiB",
        ("posixshm", "floor", "standard library", "posix_ipc and mmap"),
    ),
    (
        "attach and close",
        "attach and close",
        ("posixshm", "floor", "standard library", "posix_ipc and mmap"),
    ),
    (
        "`with lock:`, not contended",
        "with a free lock",
        ("posixshm.Lock", "floor", "multiprocessing.Lock", "posix_ipc.Semaphore"),
    ),
    (
        "add 1 under a lock, 2 processes",
        "add 1 under a lock, 2 processes",
        ("posixshm.Lock", "floor", "multiprocessing.Lock", "posix_ipc.Semaphore"),
    ),
    (
        "add 1 to a shared number",
        "add 1 to a shared number",
        ("posixshm.Atomic", "floor", "multiprocessing.Value", None),
    ),
    (
        "round trip of two processes, with events",
        "a round trip of two processes on one core",
        ("posixshm.Event", "floor of an Event", "multiprocessing.Event", None),
    ),
)


def summary(run: dict[str, Any]) -> list[str]:
    """Microseconds."""
    cases = {case["title"]: case for case in run["cases"]}
    rows = []
    for operation, title, names in TABLE:
        if title in cases:
            found = {row["name"]: row["median"] / 1e3 for row in cases[title]["rows"]}
            cells = [f"{found[name]:.3g}" if name in found else "-" for name in names]
            rows.append((operation, *cells))
    machine = run["machine"]
    cores = machine["processor"].rpartition(", ")[2]
    lines = [
        "The *floor* is an extension that makes only the system calls that the guarantees need.",
        f"Medians in microseconds, with {machine['Python']} on {cores}; `-`: not measured. "
        "See [Benchmarks](benchmarks/README.md).",
        "",
    ]
    return lines + report.table(("Operation", *COLUMNS), rows)


def pictures(run: dict[str, Any]) -> list[str]:
    charts = [case["chart"] for case in run["cases"]]
    return [
        f"![{title}, by {label}](figures/{chart}.svg)"
        for chart, (title, label, _) in CHARTS.items()
        if charts.count(chart) > 1
    ]


def rendered(text: str, run: dict[str, Any]) -> str:
    """A README with the figures of a run."""
    blocks = {
        "run": report.about,
        "goals": report.goals_table,
        "overview": lambda run: list(report.overview(run)),
        "pictures": pictures,
        "summary": summary,
    }

    def block(found: re.Match[str]) -> str:
        return "\n".join((found[1], *blocks[found[2]](run), found[3]))

    comment = r"(<!-- benchmarks: (\w+) -->)\n.*?(<!-- end -->)"
    return re.sub(comment, block, text, flags=re.DOTALL)


def write(run: dict[str, Any]) -> None:
    from .figures import draw_all

    RESULTS.write_text(json.dumps(run, indent=1) + "\n")
    for page in READMES:
        page.write_text(rendered(page.read_text(), run))
    draw_all(run)
