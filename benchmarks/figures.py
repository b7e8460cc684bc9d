"""The pictures: cost by size, by number of processes and by number of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .peers import size_text

FOLDER = Path(__file__).parent / "figures"
CHARTS = {
    "handover": ("Until another process has read an array", "size of the array"),
    "create": ("Create an object, close it and unlink it", "size of the object"),
    "pages": ("Create an object and write to each page", "size of the object"),
    "save": ("Save an array as an object", "size of the array"),
    "travel": ("Pickle and unpickle an array", "size of the array"),
    "processes": ("Create, close and unlink, all processes together", "processes"),
    "contention": ("Add 1 under one lock, all processes together", "processes"),
    "readers": ("Read at the same time, all processes together", "processes"),
    "listing": ("List the names", "names"),
    "reclaim": ("Reclaim the names, for each name", "names"),
}
PEER_COLORS = ("#bf8700", "#8250df", "#1a7f37", "#cf222e", "#0a7c86", "#bc4c00")
OUR_COLORS = ("#0969da", "#54aeff", "#0a3069", "#80ccff")
STYLES = {"floor": "--", "raw C": ":"}


def lines_of(cases: list[dict[str, Any]]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """The points of each contender, by its name and kind."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for case in sorted(cases, key=lambda case: case["x"]):
        for row in case["rows"]:
            if row["kind"] != "control":
                points = lines.setdefault((row["name"], row["kind"]), [])
                points.append((case["x"], row["median"] / 1e3))
    return lines


def draw(chart: str, run: dict[str, Any]) -> None:
    """Write figures/CHART.svg."""
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "posixshm", "svg.fonttype": "none", "font.size": 9})
    cases = [case for case in run["cases"] if case["chart"] == chart]
    title, label = CHARTS[chart]
    ours, peers = iter(OUR_COLORS * 2), iter(PEER_COLORS * 2)
    figure, axes = pyplot.subplots(figsize=(7.2, 3.8), layout="constrained")
    for (name, kind), points in lines_of(cases).items():
        color = {"posixshm": ours, "peer": peers}.get(kind)
        axes.plot(
            *zip(*points, strict=True),
            label=name,
            color=next(color) if color else "#1f2328",
            linestyle=STYLES.get(kind, "-"),
            linewidth=2.5 if kind == "posixshm" else 1.2,
            marker="o",
            markersize=3,
        )
    places = sorted({case["x"] for case in cases})
    axes.set_xscale("log")
    axes.set_yscale("log")
    texts = [size_text(int(x)) if label.startswith("size") else f"{x:,}" for x in places]
    axes.set_xticks(places, texts)
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel("microseconds (less is better)")
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
