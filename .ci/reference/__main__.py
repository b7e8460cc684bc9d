"""Write the pages of the reference that describe the API: src/posixshm/docs/api-*.md.

    python .ci/reference [--check]

The text is from the docstrings, and the signatures are from the stub and the sources. It also
writes the list of pages in src/posixshm/README.md. Run it with a Python that can import posixshm
after each change of a docstring, a signature, or the title or first sentence of a page. With
--check it writes nothing and exits with 1 if a page is not up to date.
"""

import argparse
import difflib
import sys

from index import index
from pages import api_pages
from sources import PACKAGE, ROOT


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    pages = api_pages()
    wanted = {**pages, "README.md": index(pages)}
    there = {f"docs/{path.name}" for path in (PACKAGE / "docs").glob("api-*.md")}
    stale = sorted(there - wanted.keys())
    for name, text in wanted.items():
        path = PACKAGE / name
        old = path.read_text() if path.exists() else ""
        if old == text:
            continue
        stale.append(name)
        if check:
            lines = difflib.unified_diff(
                old.splitlines(), text.splitlines(), name, "as it must be", lineterm=""
            )
            print(*lines, sep="\n")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    for name in there - wanted.keys():
        if not check:
            (PACKAGE / name).unlink()
            print(f"removed src/posixshm/{name}")
    if check and stale:
        print(f"not up to date: {', '.join(stale)}; run: python .ci/reference", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
