"""Write the pages of the reference that describe the API: src/posixshm/docs/api-*.md.

    python .ci/reference [--check]

The text is from the docstrings, and the signatures are from the stub and the sources. It also
writes the list of pages in src/posixshm/README.md. Run it with a Python that can import posixshm
and griffe after each change of a docstring, a signature, or the title or first sentence of a page.
With --check it writes nothing and exits with 1 if a page is not up to date.
"""

import argparse
import difflib
import re
import sys

from entries import PACKAGE
from pages import api_pages

BEGIN = "<!-- .ci/reference writes the list from here -->"
END = "<!-- to here, from the title and the first sentence of each page -->"


def line_of(name, text):
    """The line of a page in the list: its title, and the first sentence."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).strip()
    title, first = re.match(r"# (.+)\n+((?:.+\n)+)", text + "\n").groups()
    sentence = re.match(r".*?\.(?= |$)|.*", " ".join(first.split()))[0].rstrip(".:")
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", sentence)
    return f"- [{title}]({name}): {plain}."


def index(pages):
    """The index: guides keep their order; new ones follow."""
    text = (PACKAGE / "README.md").read_text()
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    guides = [f"docs/{path.name}" for path in (PACKAGE / "docs").glob("*.md")]
    guides = [name for name in guides if not name.startswith("docs/api-")]
    guides.sort(key=lambda name: (old.find(f"({name})") % (len(old) + 1), name))
    lines = [BEGIN, "", "## Guides", ""]
    lines += [line_of(name, (PACKAGE / name).read_text()) for name in guides]
    lines += ["", "## Classes, functions and constants", ""]
    lines += [line_of(name, text) for name, text in pages.items()]
    return before + "\n".join([*lines, "", END]) + after


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    pages = api_pages()
    wanted = {**pages, "README.md": index(pages)}
    there = {f"docs/{path.name}" for path in (PACKAGE / "docs").glob("api-*.md")}
    stale = 0
    for name in sorted(wanted.keys() | there):
        path = PACKAGE / name
        old = path.read_text() if path.exists() else ""
        new = wanted.get(name, "")
        if old == new:
            continue
        stale += 1
        if check:
            lines = difflib.unified_diff(old.splitlines(), new.splitlines(), name, lineterm="")
            print(*lines, sep="\n")
        elif new:
            path.write_text(new)
        else:
            path.unlink()
    print(f"{stale} pages {'are not up to date: run .ci/dev docs' if check else 'written'}")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
