"""The pictures: cost by size, by number of processes and by number of names."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from .peers import size_text

FOLDER = Path(__file__).parent / "figures"
BY_TIME = "microseconds"
# The title, the label of x, and what y is: the time, or the ratio to the first contender.
CHARTS = {
    "handover": ("Until another process has read an array", "size of the array", BY_TIME),
    "travel": ("Pickle and unpickle an array", "size of the array", BY_TIME),
    "create": ("Create an object, close it and unlink it", "size of the object", BY_TIME),
    "pages": ("Create an object and write to each page", "size of the object", "ratio"),
    "save": ("Save an array as an object", "size of the array", "ratio"),
    "processes": ("Create, close and unlink, all processes together", "processes", "ratio"),
    "contention": ("Add 1 under one lock, all processes together", "processes", "ratio"),
    "readers": ("Read at the same time, all processes together", "processes", "ratio"),
    "listing": ("List the names", "names", "ratio"),
    "reclaim": ("Reclaim the names", "names", "ratio"),
}
COLORS = {
    "posixshm": ("#0969da", "#54aeff", "#0a3069", "#80ccff"),
    "floor": ("#1f2328", "#6e7781", "#afb8c1"),
    "raw C": ("#1f2328", "#6e7781"),
    "peer": ("#bf8700", "#8250df", "#1a7f37", "#cf222e", "#0a7c86", "#bc4c00"),
}
STYLES = {"floor": "--", "raw C": ":"}


def lines_of(cases: list[dict[str, Any]], by_time: bool) -> dict[tuple[str, str], list[Any]]:
    """The points of each contender, by its name and kind."""
    lines: dict[tuple[str, str], list[Any]] = {}
    for case in sorted(cases, key=lambda case: case["x"]):
        for row in case["rows"]:
            if row["kind"] != "control":
                y = row["median"] / 1e3 if by_time else row["ratio"]
                lines.setdefault((row["name"], row["kind"]), []).append((case["x"], y))
    return lines


def draw(chart: str, run: dict[str, Any]) -> None:
    """Write figures/CHART.svg."""
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

    pyplot.rcParams.update({"svg.hashsalt": "posixshm", "svg.fonttype": "none", "font.size": 9})
    cases = [case for case in run["cases"] if case["chart"] == chart]
    title, label, unit = CHARTS[chart]
    figure, axes = pyplot.subplots(figsize=(7.2, 3.8), layout="constrained")
    colors = {kind: itertools.cycle(of_kind) for kind, of_kind in COLORS.items()}
    lines = lines_of(cases, unit == BY_TIME)
    for (name, kind), points in lines.items():
        axes.plot(
            *zip(*points, strict=True),
            label=name,
            color=next(colors[kind]),
            linestyle=STYLES.get(kind, "-"),
            linewidth=2.5 if kind == "posixshm" else 1.2,
            marker="o",
            markersize=3,
        )
    places = sorted({case["x"] for case in cases})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(
        places, [size_text(x) if label.startswith("size") else f"{x:,}" for x in places]
    )
    if unit != BY_TIME:
        heights = [y for points in lines.values() for _, y in points]
        ticks = [2.0**n for n in range(-10, 20) if min(heights) / 2 < 2.0**n < 2 * max(heights)]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        unit = f"times “{cases[0]['rows'][0]['name']}”"
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel(f"{unit} (less is better)")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    machine = run["machine"]
    about = (
        f"{machine['Python']}, {machine['processor'].rpartition(', ')[2]}, {run['when']}, median"
    )
    figure.supxlabel(about, fontsize=7, color="#57606a")
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / f"{chart}.svg", metadata={"Date": None})
    pyplot.close(figure)


def draw_all(run: dict[str, Any]) -> list[str]:
    """Draw the charts of which the run has at least two points. Returns their names."""
    charts = [case["chart"] for case in run["cases"]]
    drawn = [chart for chart in CHARTS if charts.count(chart) > 1]
    for chart in drawn:
        draw(chart, run)
    return drawn
