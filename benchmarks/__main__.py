"""What does posixshm cost, beside the floor, raw C and other libraries?

Each question runs in several processes, because the layout of memory differs between them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from . import native, report
from .harness import CannotRun, Settings, run

FOLDER = Path(__file__).parent
NAMES = (
    *("create", "attach", "calls", "processes", "lock", "contention", "atomic", "wake", "memory"),
    *("names", "pages", "save", "travel", "handover", "views"),
)
PROCESSES = 3
SECONDS, QUICK_SECONDS = 3.0, 0.25  # for each case, in all its processes together


def question_of(name: str) -> Any:
    return importlib.import_module(f"{__package__}.bench_{name}")


# -- the process of a question -------------------------------------------------


def work(name: str, settings: Settings, output: Path) -> None:
    """Measure a question and write its figures, a line for each case."""
    resource_tracker.ensure_running()  # before pinning; it would share this core
    with output.open("w") as file, contextlib.closing(question_of(name).cases(settings)) as cases:
        for case in cases:
            figures = run(case, settings)
            file.write(json.dumps([report.described(case), figures]) + "\n")


def measured(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The cases of a question."""
    question = question_of(name)
    processes = 1 if args.quick else getattr(question, "PROCESSES", PROCESSES)
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    descriptions: dict[str, Any] = {}
    runs: dict[str, list[dict[str, list[float]]]] = defaultdict(list)
    command = [sys.executable, "-m", __package__, name, f"--seconds={seconds / processes}"]
    command += ["--quick"] if args.quick else []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "figures")
        for _ in range(processes):
            done = subprocess.run([*command, "--work", str(output)])
            if done.returncode != 0:
                raise CannotRun(f"{name} ended with exit status {done.returncode}")
            for line in output.read_text().splitlines():
                case, figures = json.loads(line)
                descriptions[case["title"]] = case
                runs[case["title"]].append(figures)
    doc = question.__doc__.partition("\n")[0]
    return [report.summary_of(doc, case, runs[title]) for title, case in descriptions.items()]


# -- the run -------------------------------------------------------------------


def measure(args: argparse.Namespace) -> dict[str, Any]:
    from .machine import machine

    native.build()
    start = time.monotonic()
    words = [*args.names, *(["--quick"] if args.quick else [])]
    words += [f"--seconds={args.seconds:g}"] if args.seconds else []
    result: dict[str, Any] = {
        "machine": machine(),
        "command": " ".join(["python", "-m", "benchmarks", *words]),
        "when": datetime.date.today().isoformat(),
        "quick": args.quick,
        "seconds": 0.0,
        "cases": [],
    }
    for name in args.names or NAMES:
        cases = measured(name, args)
        print(f"## {question_of(name).__doc__.partition(chr(10))[0]}\n")
        for case in cases:
            print("\n".join(report.case_table(case)), flush=True)
        result["cases"] += cases
    result["seconds"] = time.monotonic() - start
    return result


def conclude(result: dict[str, Any], args: argparse.Namespace) -> int:
    print("\n".join(["## Goals", "", *report.goals_table(result), "", *report.about(result)]))
    if args.compare:
        print("\n".join(["", "## Comparison", "", *report.compared(args.compare, result)]))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.publish:
        from . import publish

        publish.write(result)
    return report.status_of(result) if args.check else 0


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be greater than 0, not {text}")
    return number


def read_run(text: str) -> dict[str, Any]:
    """The figures in a file that --json wrote. Read before the run, which takes minutes."""
    try:
        found: dict[str, Any] = json.loads(Path(text).read_text())
        for tables in (report.goals_table, report.about):
            tables(found)
        report.compared(found, found)
        return found
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error.strerror}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text} is not a file that --json wrote") from None


def can_write(file: Path) -> bool:
    return not file.is_dir() and os.access(file if file.exists() else file.parent, os.W_OK)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="short rounds, nothing large")
    parser.add_argument("--seconds", type=positive, help=f"for each case ({SECONDS:g})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--compare", type=read_run, metavar="OLD", help="with the figures in this file"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit status 1 if a goal is missed, 3 if the run was too noisy to tell",
    )
    parser.add_argument(
        "--stored", type=read_run, metavar="FILE", help="use these figures; do not run"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write results.json, the pictures, and the tables of both README.md",
    )
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.names:
        if name not in NAMES:
            parser.error(f"{name!r} is not a benchmark; choose from: {', '.join(NAMES)}")
    if args.json and not can_write(args.json):
        parser.error(f"--json: cannot write {args.json}")
    if args.stored and (args.names or args.quick or args.seconds):
        parser.error("--stored does not run anything: leave out NAME, --quick and --seconds")
    words = args.stored["command"].split() if args.stored else args.names
    if args.publish and (args.quick or "--quick" in words or not set(NAMES).isdisjoint(words)):
        parser.error("--publish needs a full run: all questions, without --quick")
    return args


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the names are removed
    if args.work:
        work(
            args.names[0],
            Settings(args.quick, args.seconds, max(os.sched_getaffinity(0))),
            args.work,
        )
        return 0
    result = args.stored or measure(args)
    return conclude(result, args)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CannotRun as error:
        print(f"benchmarks: cannot run: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
