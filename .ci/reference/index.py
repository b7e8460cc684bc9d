"""The list of pages in src/posixshm/README.md: title and first sentence of each."""

import re

from sources import PACKAGE
from topics import GUIDES

INDEX = PACKAGE / "README.md"
BEGIN = "<!-- .ci/reference writes the list from here -->"
END = "<!-- to here, from the title and the first sentence of each page -->"


def line_of(name, text):
    """The line of a page in the list: its title, and the first sentence."""
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    if title is None:
        raise SystemExit(f"{name} has no title: a line that begins with '# '")
    after = re.sub(r"<!--.*?-->", "", text[title.end() :], flags=re.DOTALL)
    first = " ".join(after.strip().partition("\n\n")[0].split())
    sentence = re.match(r".*?\.(?= |$)|.*", first)[0].rstrip(".:")
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", sentence)
    return f"- [{title[1]}]({name}): {plain}."


def index(pages):
    guides = {
        path.stem: f"docs/{path.name}"
        for path in sorted((PACKAGE / "docs").glob("*.md"))
        if not path.name.startswith("api-")
    }
    order = [*(stem for stem in GUIDES if stem in guides)]
    order += [stem for stem in guides if stem not in order]
    lines = [BEGIN, ""]
    if order:
        lines += ["## Guides", ""]
        for stem in order:
            lines.append(line_of(guides[stem], (PACKAGE / guides[stem]).read_text()))
        lines.append("")
    lines += ["## Classes, functions and constants", ""]
    lines += [line_of(name, text) for name, text in pages.items()]
    text = INDEX.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{INDEX} has no lines {BEGIN!r} and {END!r}")
    return before + "\n".join([*lines, "", END]) + after
