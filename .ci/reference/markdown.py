"""Convert the text of a docstring to Markdown."""

import re

from entries import ENTRIES, split

ERROR = r"(?:(?:[a-z]+\.)?[A-Z]\w*(?:Error|Exit|Interrupt)|struct\.error)"
SENTENCE = r"(?:^|(?<=[.;:)]\s))"
TOKEN = re.compile(
    r"(?P<pep>\bPEP (?P<number>\d+)\b)"
    r"|(?P<page>\b(?P<title>[a-z][a-z0-9_-]*)\((?P<section>[1-8])\))"
    r"|(?P<url>\bhttps?://[^\s)>]+[^\s)>.,;:])"
    r"|(?P<call>(?<![\w.`])\.?[A-Za-z_][\w.]*\((?:[\w.,='\"/ ]*)\))"
    rf"|(?P<error>\b{ERROR}\b)"
    r"|(?P<name>(?<![\w`])\.?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)"
    r"|(?P<code>(?<![\w`])(?:True|False|None|[A-Z][A-Z0-9]*_[A-Z0-9_*]+|_?[a-z]+_[a-z_]+=?\w*|"
    r"__\w+__|\d+\*\*\d+|'[^'\n]{1,24}'|[a-z_]+=(?:[\w.]*\w|'[^']*'|\"[^\"]*\")?|"
    r"\.[a-z_]{3,}|SharedMemory|MemoryMap|RLock|RWLock|SharedArray|ShareableList)(?![\w`]))"
)


def inline(text, entry):
    """Convert plain text to Markdown: names, calls and constants become code, manual pages
    links."""
    done = []
    for number, part in enumerate(re.split(r"``?([^`]+)``?", text)):
        if number % 2:
            done.append(code(part, entry))
            continue
        position = 0
        for match in TOKEN.finditer(part):
            done += escape(part[position : match.start()]), link(match, entry)
            position = match.end()
        done.append(escape(part[position:]))
    return "".join(done)


def link(match, entry):
    if match["pep"]:
        return f"[{match['pep']}](https://peps.python.org/pep-{match['number']:0>4}/)"
    if match["page"]:
        section = match["section"]
        where = f"https://man7.org/linux/man-pages/man{section}/{match['title']}.{section}.html"
        return f"[{match['page']}]({where})"
    return f"<{match['url']}>" if match["url"] else code(match[0], entry)


def escape(text):
    text = re.sub(r"([*\\<])", r"\\\1", text)
    return re.sub(r"(?<!\w)(_+\w)|(\w_+)(?!\w)", lambda match: match[0].replace("_", r"\_"), text)


def code(text, entry):
    """Format as code, with a link if it is the name of another entry."""
    shown = f"`{text}`"
    name = text.partition("(")[0].removeprefix("posixshm.")
    owner = entry.name if entry.kind == "class" else entry.owner
    if name.startswith("."):
        name = owner + name
    elif name != text and f"{owner}.{name}" in ENTRIES:
        name = f"{owner}.{name}"
    found = ENTRIES.get(name)
    if found in (None, entry) or found.name == owner or name == text and found.kind == "constant":
        return shown
    page = "" if found.page == entry.page else found.page
    return f"[{shown}]({page}#{found.anchor})"


def paragraphs(doc):
    """Blocks of lines: ('text', line), ('list', lines) or ('code', lines)."""
    width = max(map(len, doc.splitlines()), default=0)
    for block in re.split(r"\n[ \t]*\n", doc) if doc else ():
        lines = block.splitlines()
        if all(line.startswith("    ") for line in lines if line):
            yield "code", [line[4:] for line in lines]
            continue
        if lines[0].startswith("- "):
            yield "list", re.split(r"(?:^|\n)- ", block)[1:]
            continue
        text = before = ""
        for line in lines:
            # A line that ends before it is full ends its paragraph.
            room = before and len(before) + 1 + len(line.split(" ")[0]) <= width
            if room and before.endswith(".") and re.match(r"[A-Z]", line):
                yield "text", text.strip()
                text = ""
            text += " " + re.sub(r"(?<=[.:;]) {2,}", " ", line.strip())
            before = line
        yield "text", text.strip()


def sections(text, parameters):
    """Parts of a paragraph: ('', text), ('name, name', text), ('Raises', text), ('See', text)."""
    names = "|".join(sorted(map(re.escape, parameters), key=len, reverse=True)) or "(?!)"
    name = rf"\*{{0,2}}(?:{names})"
    marker = re.compile(
        rf"{SENTENCE}(?:(?P<names>{name}(?:(?:,| and|, and) {name})*)(?P<note> \([^)]*\))?: "
        rf"|(?P<raises>Raises):? (?=\S)|(?P<returns>Returns) )"
    )
    found, start, title = [], 0, ""
    for match in marker.finditer(text):
        found.append((title, text[start : match.start()].strip()))
        title = match["names"] or match["raises"] or match["returns"]
        start = match.end() - (len(match["note"]) + 2 if match["note"] else 0)
    found.append((title, text[start:].strip()))
    return [(title, part) for title, part in found if part]


def outcome(title, text, entry):
    """The results or exceptions of a call; exceptions as a list if no other text precedes them."""
    parts = split(text, ";")
    if title == "Returns" or len(parts) == 1 or not all(re.match(ERROR, part) for part in parts):
        return ["", f"**{title}** {inline(text, entry)}"]
    last, stop, more = re.match(r"(.*?)(\.(?= [A-Z])|\.?$)(.*)", parts.pop()).groups()
    items = [f"- {inline(part, entry)}" for part in (*parts, last)]
    return ["", f"**{title}**", "", *items, *(["", inline(more.strip(), entry)] if more else [])]


def body(entry):
    """The docstring as Markdown."""
    lines, listing = [], False
    for kind, block in paragraphs(entry.doc):
        if kind == "code":
            lines += ["", "```py", *block, "```"]
            continue
        if kind == "list":
            lines += [""] + ["- " + inline(" ".join(each.split()), entry) for each in block]
            continue
        for title, text in sections(block, entry.parameters):
            if title in ("Returns", "Raises"):
                lines += outcome(title, text, entry)
                listing = False
            elif title:
                names = re.split(r", and |, | and ", title)
                if not listing:
                    lines.append("")
                shown = ", ".join(f"`{name}`" for name in names)
                note = re.match(r" ?(\([^)]*\)): ", text)
                if note:
                    shown, text = f"{shown} {inline(note[1], entry)}", text[note.end() :]
                lines.append(f"- {shown}: {inline(text.rstrip(';'), entry)}")
                listing = True
            else:
                lines += ["", inline(text, entry)]
                listing = False
    return lines
