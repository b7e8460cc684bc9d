"""The pages of the reference, and the entry or section that a topic means."""

from __future__ import annotations

import difflib
import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from posixshm._command.markdown import words

FOLDER = Path(__file__).resolve().parent.parent / "docs"
_API = "api-"
_MANY, _FEW = 12, 4  # names in a message


class Section(NamedTuple):
    title: str
    level: int
    anchor: str
    text: str


class Page:
    """A file of the reference. name: that of the file, without its ending."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.text = path.read_text(encoding="utf-8")
        found = re.search(r"^# +(.+)$", self.text, re.MULTILINE)
        self.title = words(found[1]) if found else self.name
        self.describes_names = self.name.startswith(_API)

    @cached_property
    def sections(self) -> list[Section]:
        """The parts that begin with a heading; a part contains those below it."""
        found: list[tuple[int, str, int]] = []
        fenced, start = False, 0
        for line in self.text.splitlines(keepends=True):
            fenced ^= line.lstrip().startswith("```")
            heading = re.match(r"(##+) +(.*)", line)
            if heading and not fenced:
                found.append((len(heading[1]), words(heading[2]), start))
            start += len(line)
        sections = []
        for number, (level, title, start) in enumerate(found):
            later = (begin for other, _, begin in found[number + 1 :] if other <= level)
            anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
            text = self.text[start : next(later, len(self.text))]
            sections.append(Section(title, level, anchor, text))
        return sections


def pages() -> list[Page]:
    """All pages, in the order of the index."""
    try:
        index = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LookupError(f"the pages are not installed: there is no {FOLDER}") from None
    names = re.findall(r"^- \[[^\n]*\]\(docs/([\w-]+)\.md\)", index, re.MULTILINE)
    return [Page(FOLDER / f"{name}.md") for name in names]


def find(topic: str) -> str:
    """The Markdown of a page, an entry or a section. LookupError: none, or several."""
    query = topic.strip().removesuffix("()").removeprefix("posixshm.")
    every = pages()
    for name in (query.lower(), _API + query.lower().replace("_", "-")):
        for page in every:
            if page.name == name:
                return page.text
    entries = {
        section.title.removesuffix(" (class)"): section
        for page in every
        if page.describes_names
        for section in page.sections
    }
    if query in entries:
        return entries[query].text
    for found in (_common(query, every), _constant(query, every)):
        if found is not None:
            return found
    for matches in (
        [name for name in entries if name.lower() == query.lower()],
        [name for name in entries if name.endswith(f".{query}")],
    ):
        if matches:
            return entries[_only(topic, matches)].text
    return _by_words(topic, query, every, entries)


def _common(query: str, every: list[Page]) -> str | None:
    """The entry of a member that a class has in common with an earlier one."""
    owner, _, member = query.rpartition(".")
    for page in every:
        for section in page.sections if page.describes_names and owner else ():
            if section.title == owner:
                link = re.search(rf"\[`{re.escape(member)}(?:\(\))?`\]\(#([\w-]+)\)", section.text)
                for other in page.sections:
                    if link and other.anchor == link[1]:
                        return other.text
    return None


def _constant(query: str, every: list[Page]) -> str | None:
    for page in every:
        if page.describes_names:
            line = re.search(rf"^- `{re.escape(query)}`: .*$", page.text, re.MULTILINE)
            if line and query.isupper():
                return line[0]
    return None


def _by_words(topic: str, query: str, every: list[Page], entries: dict[str, Section]) -> str:
    """The page or the section of a guide that has the words in its title."""
    pattern = re.compile(rf"\b{re.escape(query)}", re.IGNORECASE)
    titles = {page.title: page.text for page in every if query and pattern.search(page.title)}
    if not titles:
        titles = {
            section.title: section.text
            for page in every
            if not page.describes_names
            for section in page.sections
            if query and pattern.search(section.title)
        }
    if titles:
        return titles[_only(topic, [*titles])]
    known = {name.lower(): name for name in entries}
    known |= {page.name.removeprefix(_API): page.name.removeprefix(_API) for page in every}
    last = {name.rpartition(".")[2].lower(): name for name in entries}
    close = difflib.get_close_matches(query.lower(), [*known, *last], _FEW, 0.6)
    names = dict.fromkeys((known | last)[name] for name in close)
    like = f"; similar: {', '.join(names)}" if names else ""
    if mentions := _mentions(query, every):
        like += f"; mentioned in: {', '.join(mentions)}"
    raise LookupError(f"{topic!r} is not a topic{like} ('posixshm docs' lists all)")


def _mentions(query: str, every: list[Page]) -> list[str]:
    """The titles of the sections that have the words most often."""
    word = re.compile(rf"(?<!\w){re.escape(query)}(?!\w)", re.IGNORECASE)
    counts = {
        section.title: len(word.findall(section.text.partition("\n#")[0]))
        for page in every
        for section in page.sections
    }
    found = sorted((title for title in counts if counts[title]), key=lambda title: -counts[title])
    return found[:_FEW] if query else []


def _only(topic: str, names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    more = ", ..." if len(names) > _MANY else ""
    raise LookupError(f"{topic!r} means several topics: {', '.join(names[:_MANY])}{more}")
