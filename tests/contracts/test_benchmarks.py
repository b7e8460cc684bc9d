"""The benchmarks run, their verdicts and comparisons are right, and the documents show their figures.

The figures of a run are not asserted.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentTypeError

import pytest
from _documents import ROOT
from _processes import cannot_be_tested

sys.path.insert(0, str(ROOT))

from benchmarks import publish, report  # noqa: E402
from benchmarks.__main__ import NAMES, main, read_run  # noqa: E402
from benchmarks.harness import Case, Contender, Goal  # noqa: E402

pytestmark = [pytest.mark.once]


def bench(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=360,
    )


@pytest.fixture
def compiler():
    if shutil.which(shlex.split(os.environ.get("CC", "cc"))[0]) is None:
        cannot_be_tested("no C compiler for the floor")
    pytest.importorskip("setuptools", minversion="77")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_all_questions_run_quickly(tmp_path, compiler):
    figures = tmp_path / "figures.json"
    done = bench("--quick", "--seconds", "0.02", "--json", figures)
    assert (done.returncode, done.stderr) == (0, "")
    cases = json.loads(figures.read_text())["cases"]
    assert len({case["question"] for case in cases}) >= len(NAMES) - 1  # strace may be missing
    for case in cases:
        assert f"### {case['title']}\n" in done.stdout
        assert any(row["kind"] == "posixshm" for row in case["rows"]), case
        for row in case["rows"]:
            assert f"\n| {row['name']} | " in done.stdout


def test_a_missing_package_is_named(tmp_path, compiler):
    # A module that cannot be imported simulates one that is not installed.
    (tmp_path / "posix_ipc.py").write_text("raise ImportError\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = bench("attach", "--quick", "--seconds", "0.02", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^- left out: posix_ipc\b", done.stdout, re.MULTILINE)
    assert "| posix_ipc and mmap |" not in done.stdout


# -- what the figures say ------------------------------------------------------


def run_of(ours, control=(100.0,) * 9, goal=None):
    """A stored run with one case, in which the floor takes 100 ns in each of 9 rounds."""
    contenders = [("floor", "floor"), ("posixshm", "posixshm"), ("floor, once more", "control")]
    case = Case(
        "a case",
        [Contender(name, lambda _: 0.0, kind) for name, kind in contenders],
        [goal or Goal("posixshm", 1.1, "floor")],
    )
    figures = {"floor": [100.0] * 9, "posixshm": [ours] * 9, "floor, once more": list(control)}
    summary = report.summary_of("a question?", report.described(case), [figures])
    return {
        "machine": {"Python": "CPython", "processor": "a processor, 2 of 2 cores"},
        "command": "python -m benchmarks",
        "when": "2026-01-01",
        "seconds": 1.0,
        "cases": [summary],
    }


def stored(folder, run, name="run.json"):
    path = folder / name
    path.write_text(json.dumps(run))
    return path


NOISY = (100.0, 90.0, 125.0, 110.0, 100.0, 94.0, 112.0, 100.0, 88.0)


@pytest.mark.parametrize(
    ("run", "status", "verdict"),
    [
        (run_of(105.0), 0, "met"),
        (run_of(120.0), 1, "missed"),
        (run_of(150.0, NOISY), 1, "missed"),
        (run_of(112.0, NOISY), 3, "too noisy"),
        (run_of(105.0, NOISY), 3, "too noisy"),
        (run_of(80.0, [200.0] * 9), 3, "too noisy"),
        (run_of(80.0, goal=Goal("posixshm", 85.0)), 0, "met"),
        (run_of(90.0, goal=Goal("posixshm", 85.0)), 1, "missed"),
        (run_of(90.0, goal=Goal("posixshm", at_least=95.0)), 1, "missed"),
    ],
)
def test_verdicts(run, status, verdict):
    assert [found for _, _, found in report.verdicts(run)] == [verdict]
    assert report.status_of(run) == status


def test_check_fails_if_a_goal_is_missed(tmp_path):
    path = stored(tmp_path, run_of(120.0))
    done = bench("--stored", path, "--check")
    assert done.returncode == 1, done.stderr
    assert "| a case | posixshm | 1.20 | at most 1.1 of floor | 0.0 % | **missed** |" in done.stdout
    assert bench("--stored", path).returncode == 0


@pytest.mark.parametrize(
    ("ours", "control", "change", "words"),
    [
        (132.0, (100.0,) * 9, "+20 %", "slower"),
        (88.0, (100.0,) * 9, "-20 %", "faster"),
        (111.0, (100.0,) * 9, "+1 %", ""),
        (115.5, NOISY, "+5 %", ""),
    ],
)
def test_comparison(ours, control, change, words):
    [_, _, line] = report.compared(run_of(110.0), run_of(ours, control))
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert (cells[:4], cells[5], cells[7]) == (
        ["a case", "posixshm", "floor", "1.10"],
        change,
        words,
    )


def test_compare(tmp_path):
    old, new = stored(tmp_path, run_of(110.0), "old.json"), stored(tmp_path, run_of(132.0))
    done = bench("--stored", new, "--compare", old)
    assert done.returncode == 0, done.stderr
    assert "| a case | posixshm | floor | 1.10 | 1.32 | +20 % | 3.0 % | slower |" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "'nothing' is not a benchmark"),
        (["lock", "--compare", "absent.json"], "cannot read absent.json: No such file"),
        (["lock", "--compare", "README.md"], "README.md is not a file that --json wrote"),
        (["--stored", "benchmarks"], "cannot read benchmarks: Is a directory"),
        (["lock", "--json", "absent/new.json"], "cannot write absent/new.json"),
        (["lock", "--json", "tests"], "cannot write tests"),
        (["lock", "--seconds", "-1"], "must be greater than 0, not -1"),
        (["lock", "--seconds", "nan"], "must be greater than 0, not nan"),
        (["lock", "--stored", "benchmarks/results.json"], "--stored does not run anything"),
        (["lock", "--publish"], "--publish needs a full run"),
    ],
)
def test_bad_arguments_are_refused_before_the_run(monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "1", "{}", '{"cases": []}', '{"cases": [{}]}'])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ArgumentTypeError, match="is not a file that --json wrote"):
        read_run(str(path))


def test_only_a_full_run_is_published(tmp_path, monkeypatch, capsys):
    for words in ("lock", "--quick"):
        path = stored(tmp_path, {**run_of(105.0), "command": f"python -m benchmarks {words}"})
        monkeypatch.setattr(sys, "argv", ["benchmarks", "--stored", str(path), "--publish"])
        with pytest.raises(SystemExit):
            main()
        assert "--publish needs a full run" in capsys.readouterr().err


# -- the documents -------------------------------------------------------------


@pytest.mark.parametrize("page", publish.READMES, ids=lambda page: page.parent.name)
def test_the_tables_show_the_stored_figures(page):
    text = page.read_text()
    assert publish.rendered(text, json.loads(publish.RESULTS.read_text())) == text
    others = re.sub(r"<!-- benchmarks: \w+ -->.*?<!-- end -->", "", text, flags=re.DOTALL)
    times = r"\d\s*(?:ns|µs|us|ms|nanoseconds|microseconds|milliseconds|times as)\b"
    allowed = ["100 ms"] if page.parent == ROOT else []  # a promise
    assert re.findall(rf"[\d.,]*{times}", others) == allowed


def test_the_pictures_are_there():
    text = "".join(page.read_text() for page in publish.READMES)
    named = set(re.findall(r"figures/(\w+)\.svg", text))
    assert named == {path.stem for path in (ROOT / "benchmarks/figures").glob("*.svg")}
