"""The results: ratios, noise, verdicts, Markdown tables, and the comparison of two runs.

A stored run is a dictionary, see `summary_of` for its cases.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from .harness import Case, Contender, Goal

# If the noise of a case exceeds this, a figure must be farther from its goal than the noise.
NOISY = 0.05
# If the median noise of the cases exceeds this, only cases that are not noisy have verdicts.
TOO_NOISY = 0.15
# Differences of two runs below this are not reported: memory is laid out anew in each process.
SAME = 0.03

MET, MISSED, NO_VERDICT = "met", "missed", "too noisy"


# -- one case ------------------------------------------------------------------


def summary_of(question: str, case: dict[str, Any], runs: list[dict[str, list[float]]]) -> Any:
    """The figures of a case. runs: those of each process, by contender, one for each round."""
    first = case["contenders"][0]["name"]
    rows = []
    for contender in case["contenders"]:
        name = contender["name"]
        q1, ratio, q3 = quartiles(ratios(runs, name, first))
        median = statistics.median(value for run in runs for value in run[name])
        rows.append({**contender, "median": median, "ratio": ratio, "q1": q1, "q3": q3})
    noise = max(
        (noise_of(runs, r["name"], first) for r in rows if r["kind"] == "control"), default=0
    )
    goals = [
        {**goal, "figure": figure_of(goal, runs), "text": str(Goal(**goal))}
        for goal in case["goals"]
    ]
    for goal in goals:
        goal["verdict"] = verdict_of(goal, noise)
    rounds = sum(len(run[first]) for run in runs)
    kept = {key: case[key] for key in ("title", "unit", "chart", "x", "remark")}
    return {"question": question, **kept, "rounds": rounds, "noise": noise, "rows": rows} | {
        "goals": goals
    }


def described(case: Case) -> dict[str, Any]:
    """A case without its functions."""

    def named(contender: Contender) -> dict[str, str]:
        return {"name": contender.name, "kind": contender.kind}

    plain = {key: getattr(case, key) for key in ("title", "unit", "chart", "x", "remark")}
    return plain | {
        "contenders": [named(c) for c in case.contenders],
        "goals": [vars(goal) for goal in case.goals],
    }


def ratios(runs: list[dict[str, list[float]]], name: str, to: str) -> list[float]:
    """To another contender in the same round."""
    pairs = [pair for run in runs for pair in zip(run[name], run[to], strict=True)]
    return [a / b if b else math.nan if a else 1.0 for a, b in pairs]


def quartiles(values: list[float]) -> Sequence[float]:
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def noise_of(runs: list[dict[str, list[float]]], control: str, first: str) -> float:
    """The largest distance of the control from 1 in a process, and the error of that median."""
    noise = 0.0
    for run in runs:
        q1, median, q3 = quartiles(ratios([run], control, first))
        error = 1.86 * (q3 - q1) / math.sqrt(len(run[first]))  # of a normal distribution, 95 %
        noise = max(noise, abs(median - 1) + error)
    return noise


def figure_of(goal: dict[str, Any], runs: list[dict[str, list[float]]]) -> float:
    if goal["to"]:
        return statistics.median(ratios(runs, goal["who"], goal["to"]))
    return statistics.median(value for run in runs for value in run[goal["who"]])


def verdict_of(goal: dict[str, Any], noise: float) -> str:
    at_most = goal["at_most"] is not None
    bound, figure = goal["at_most"] if at_most else goal["at_least"], goal["figure"]
    if noise > NOISY and abs(figure - bound) <= noise * max(figure, bound):
        return NO_VERDICT
    return MET if (figure <= bound if at_most else figure >= bound) else MISSED


# -- a run ---------------------------------------------------------------------


def noise_of_run(run: dict[str, Any]) -> float:
    noises: list[float] = [case["noise"] for case in run["cases"] if case["noise"]]
    return statistics.median(noises or [0.0])


def verdicts(run: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any], str]]:
    """Case, goal and verdict of each goal."""
    refused = noise_of_run(run) > TOO_NOISY
    return [
        (case, goal, NO_VERDICT if refused and case["noise"] > NOISY else goal["verdict"])
        for case in run["cases"]
        for goal in case["goals"]
    ]


def status_of(run: dict[str, Any]) -> int:
    """The exit status of --check: 1 if a goal is missed, 3 if the run was too noisy for one."""
    found = {verdict for _, _, verdict in verdicts(run)}
    return 1 if MISSED in found else 3 if NO_VERDICT in found else 0


# -- tables --------------------------------------------------------------------


def figure_text(value: float, unit: str) -> str:
    if unit != "ns":
        return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g}"
    for name, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:{'.0f' if value >= 100 * scale else '.3g'}} {name}"
    return f"{value:.1f} ns"


def percent(noise: float) -> str:
    return f"{100 * noise:.1f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def case_table(case: dict[str, Any]) -> list[str]:
    rows = [
        (
            row["name"],
            figure_text(row["median"], case["unit"]),
            f"{row['ratio']:.2f}",
            f"{row['q1']:.2f} to {row['q3']:.2f}",
        )
        for row in case["rows"]
    ]
    lines = [f"### {case['title']}", ""]
    lines += table(("", "median", "ratio", "middle half"), rows)
    lines += ["", f"Rounds: {case['rounds']}. Noise: {percent(case['noise'])}."]
    lines[-1] += f" {case['remark'].capitalize()}." if case["remark"] else ""
    return lines + [goal_text(case, goal, goal["verdict"]) for goal in case["goals"]] + [""]


def goal_text(case: dict[str, Any], goal: dict[str, Any], verdict: str) -> str:
    return f"- {verdict}: {goal['who']} {goal_figure(case, goal)}, goal {goal_bound(case, goal)}"


def goal_figure(case: dict[str, Any], goal: dict[str, Any]) -> str:
    return f"{goal['figure']:.2f}" if goal["to"] else figure_text(goal["figure"], case["unit"])


def goal_bound(case: dict[str, Any], goal: dict[str, Any]) -> str:
    if goal["to"] or goal["at_most"] is None:
        return str(goal["text"])
    return f"at most {figure_text(goal['at_most'], case['unit'])}"


def goals_table(run: dict[str, Any]) -> list[str]:
    rows = []
    for case, goal, verdict in verdicts(run):
        figure, bound = goal_figure(case, goal), goal_bound(case, goal)
        words = f"**{verdict}**" if verdict == MISSED else verdict
        rows.append((case["title"], goal["who"], figure, bound, percent(case["noise"]), words))
    return table(("case", "contender", "figure", "goal", "noise", ""), rows)


def overview(run: dict[str, Any]) -> Iterator[str]:
    """A line for each case: the first contender, and the ratios of the others to it."""
    question = None
    for case in run["cases"]:
        if case["question"] != question:
            question = case["question"]
            yield from ("", f"#### {question}", "")
            yield from table(("case", "to", "posixshm", "others"), [])
        first, *rows = [row for row in case["rows"] if row["kind"] != "control"]
        cells = [
            ", ".join(
                f"{row['name']} {row['ratio']:.2f}"
                for row in rows
                if (row["kind"] == "posixshm") == ours
            )
            for ours in (True, False)
        ]
        to = f"{first['name']}: {figure_text(first['median'], case['unit'])}"
        yield f"| {case['title']} | {to} | {cells[0]} | {cells[1]} |"


def about(run: dict[str, Any]) -> list[str]:
    """The machine and the command, and how noisy the run was."""
    noise = noise_of_run(run)
    nothing: dict[str, Any] = {"noise": 0.0, "title": "-"}
    worst = max(run["cases"], key=lambda case: case["noise"], default=nothing)
    lines = [f"- {key}: {value}" for key, value in run["machine"].items()]
    lines.append(f"- command: `{run['command']}`, {run['seconds']:.0f} seconds, {run['when']}")
    said = ", too much for conclusions" if noise > TOO_NOISY else ""
    lines.append(
        f"- noise: {percent(noise)} in half of the cases{said}; the most, "
        f"{percent(worst['noise'])}, in “{worst['title']}”"
    )
    return lines


# -- two runs ------------------------------------------------------------------


def compared(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The rows of posixshm: their ratios to the first contender in both runs."""
    before = {(c["title"], r["name"]): (c, r) for c in old["cases"] for r in c["rows"]}
    rows = []
    for case in new["cases"]:
        for row in case["rows"]:
            if row["kind"] != "posixshm" or (case["title"], row["name"]) not in before:
                continue
            old_case, old_row = before[case["title"], row["name"]]
            first = case["rows"][0]["name"]
            if old_case["rows"][0]["name"] != first or not old_row["ratio"]:
                continue
            change = row["ratio"] / old_row["ratio"] - 1
            noise = max(case["noise"], old_case["noise"], SAME)
            words = "" if abs(change) <= noise else "slower" if change > 0 else "faster"
            cells = f"{old_row['ratio']:.2f}", f"{row['ratio']:.2f}", f"{100 * change:+.0f} %"
            rows.append((case["title"], row["name"], first, *cells, percent(noise), words))
    return table(("case", "contender", "to", "old", "new", "change", "noise", ""), rows)
