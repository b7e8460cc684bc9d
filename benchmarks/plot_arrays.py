"""Draw the figures of bench_arrays.py: the time to pass an array to another process.

python benchmarks/bench_arrays.py --json benchmarks/arrays.json
python benchmarks/plot_arrays.py benchmarks/arrays.json > benchmarks/arrays.svg
"""

from __future__ import annotations

import argparse
import json
from html import escape
from pathlib import Path

CASE = "hand over 64 MiB"
LABELS = {  # of the drawn contenders
    "multiprocessing Queue": "multiprocessing.Queue",
    "multiprocessing Pipe": "multiprocessing.Pipe",
    "SharedArray": "SharedArray",
    "stdlib SharedMemory": "multiprocessing.shared_memory",
    "posixshm array.save, array.load": "posixshm: save(), load()",
    "posixshm array that both keep": "posixshm: copy into a shared array",
    "posixshm array by reference, no copy": "posixshm: send a shared array",
    "copy it, in one process": "a copy in one process",
}
LEFT, WIDTH, ROW = 250, 330, 24  # pixels: width of the labels, of the longest bar, height of a line


def bar(y: int, label: str, ms: float, longest: float) -> str:
    color = "#1f6feb" if label.startswith("posixshm") else "#8c959f"
    width = WIDTH * ms / longest
    return (
        f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>\n'
        f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="17" fill="{color}"/>\n'
        f'<text x="{LEFT + width + 6:.1f}" y="{y + 13}">{ms:.0f} ms</text>\n'
    )


def draw(report: dict) -> str:
    [case] = [case for case in report["cases"] if case["case"] == CASE]
    times = {row["contender"]: row["ns"] / 1e6 for row in case["rows"]}
    rows = [(label, times[name]) for name, label in LABELS.items() if name in times]
    rows.sort(key=lambda row: -row[1])
    bars = "".join(bar(40 + ROW * n, label, ms, rows[0][1]) for n, (label, ms) in enumerate(rows))
    machine = report["machine"]
    about = f"{machine['python']}, {machine['cpu'].rpartition(', ')[2]}, median"
    width, height = LEFT + WIDTH + 80, 40 + ROW * len(rows) + 26
    # With a background it is legible on light and dark pages.
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="13" '
        'fill="#1f2328">\n'
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>\n'
        '<text x="12" y="24" font-weight="bold">'
        "Time until another process has read an array of 64 MiB (shorter is better)</text>\n"
        f"{bars}"
        f'<text x="12" y="{height - 12}" font-size="11" fill="#57606a">{escape(about)}</text>\n'
        "</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("figures", type=Path, help="what bench_arrays.py --json wrote")
    print(draw(json.loads(parser.parse_args().figures.read_text())), end="")


if __name__ == "__main__":
    main()
