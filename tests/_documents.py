"""The documents of the repository and of the installed package: headings, links, examples."""

import re
from pathlib import Path

from _processes import PATH, can_mount

import posixshm

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = Path(posixshm.__file__).resolve().parent
PAGES = sorted((REFERENCE / "docs").glob("*.md"))
IN_CHECKOUT = (ROOT / ".github").is_dir()  # not in a source distribution
BLOB = "https://github.com/posixshm/posixshm/blob/main/"

_FENCE = re.compile(r"^( *)(```+)([^\n`]*)\n(.*?)^\1\2`* *$", re.MULTILINE | re.DOTALL)
_RUN = """
import os, subprocess, sys
from _processes import SHM, private_shm
own_shm, *scripts = sys.argv[1:]
if own_shm == "True":
    private_shm()
before = set(os.listdir(SHM))
for script in scripts:
    subprocess.run([sys.executable, "-X", "faulthandler", script], check=True)
left = set(os.listdir(SHM)) - before
if own_shm == "False": # other programs may have made some
    said = "".join(open(script).read() for script in scripts)
    left = [name for name in left if f'"{name}"' in said]
assert not left, left
"""


def blocks(text):
    """The fenced blocks of a page as (language, content)."""
    return [(match[3].strip(), match[4]) for match in _FENCE.finditer(text)]


def examples(path):
    """The ```python blocks of a page, in order."""
    return [code for language, code in blocks(path.read_text()) if language == "python"]


def run_examples(path, run_python, folder):
    """Run each example of a page, as run_programs() does."""
    run_programs(examples(path), run_python, folder)


def run_programs(programs, run_python, folder):
    """Run each program in its own interpreter, in order; together they must leave nothing."""
    # Files, because spawn imports the main module again.
    scripts = [folder / f"example{number}.py" for number in range(len(programs))]
    for script, code in zip(scripts, programs, strict=True):
        script.write_text(code)
    run_python(_RUN, can_mount(), *scripts, env=PATH, timeout=110)


def prose(text):
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def anchors(text):
    """The anchors of the headings of a page, as GitHub and the site make them."""
    found = []
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.append(re.sub(r"[^\w -]", "", plain.lower()).strip().replace(" ", "-"))
    return found


def links(text):
    """The targets of the links of a page."""
    without_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", prose(text))
    return re.findall(r"(?<!\\)\]\(<?([^)\s>]+)>?\)", without_code)


def dead_links(path):
    """The links to files or headings of the repository that do not exist."""
    dead = []
    for link in links(path.read_text()):
        target, _, anchor = link.removeprefix(BLOB).partition("#")
        if link.startswith(BLOB):
            if not IN_CHECKOUT:
                continue
            file = ROOT / target
        elif re.match(r"[a-z]+:", link):
            continue
        else:
            file = path.parent / target if target else path
        if not file.exists():
            dead.append(link)
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
            dead.append(link)
    return dead


def api_names():
    """The names that the pages of the API describe."""
    text = "\n".join(page.read_text() for page in PAGES if page.name.startswith("api-"))
    names = set(re.findall(r"^#{2,3} ([\w.]+)", prose(text), re.MULTILINE))
    constants = set(re.findall(r"^- `([A-Z_]+)`: ", text, re.MULTILINE))
    return names | constants & set(posixshm.__all__)
