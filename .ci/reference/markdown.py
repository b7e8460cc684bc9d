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


def inline(text, entry, names=()):
    """Convert plain text to Markdown: names, calls and constants become code, manual pages
    links."""
    parts = re.split(r"(``?[^`]+``?)", text)
    return "".join(
        code(part.strip("`"), entry) if number % 2 else _inline(part, entry, names)
        for number, part in enumerate(parts)
    )


def _inline(text, entry, names):
    done, position = [], 0
    words = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    for match in TOKEN.finditer(text):
        done.append(escape(text[position : match.start()]))
        position = match.end()
        if match["pep"]:
            number = match["number"].zfill(4)
            done.append(f"[{match['pep']}](https://peps.python.org/pep-{number}/)")
        elif match["page"]:
            section = match["section"]
            where = f"https://man7.org/linux/man-pages/man{section}/{match['title']}.{section}.html"
            done.append(f"[{match['page']}]({where})")
        elif match["url"]:
            done.append(f"<{match['url']}>")
        else:
            done.append(code(match[0], entry))
    done.append(escape(text[position:]))
    result = "".join(done)
    if words:  # parameters if they are written like code
        result = re.sub(rf"(?<![\w`])({words})=(?![\w`])", r"`\1=`", result)
    return result


def escape(text):
    text = re.sub(r"([*\\<])", r"\\\1", text)
    return re.sub(r"(?<!\w)(_+\w)|(\w_+)(?!\w)", lambda match: match[0].replace("_", r"\_"), text)


def code(text, entry):
    """Format as code, with a link if it is the name of another entry."""
    shown = f"`{text}`"
    name = text.partition("(")[0].removeprefix("posixshm.")
    owner = entry.name if entry and entry.kind == "class" else ""
    if entry and not owner and "." in entry.name:
        owner = entry.name.rpartition(".")[0]
    if text.startswith("."):
        name = owner + name
    elif "." not in name and name != text and f"{owner}.{name}" in ENTRIES:
        name = f"{owner}.{name}"
    found = ENTRIES.get(name)
    if found is None or entry is None or found is entry or found.name == owner:
        return shown
    if "." not in name and name == text and found.kind == "constant":
        return shown
    page = "" if found.page == entry.page else found.page
    return f"[{shown}]({page}#{found.anchor})"


def paragraphs(doc):
    """Blocks of lines: ('text', line), ('list', lines) or ('code', lines)."""
    if not doc:
        return
    width = max(map(len, doc.splitlines()), default=0)
    for block in re.split(r"\n[ \t]*\n", doc):
        lines = block.splitlines()
        if all(line.startswith("    ") for line in lines if line):
            yield "code", [line[4:] for line in lines]
            continue
        if lines[0].startswith("- "):
            yield "list", re.split(r"(?:^|\n)- ", "\n".join(lines))[1:]
            continue
        text = lines[0].strip()
        for before, line in zip(lines, lines[1:], strict=False):
            first = line.split(" ")[0]
            room = len(before) + 1 + len(first) <= width
            # A line that ends before it is full ends its paragraph.
            if before.endswith(".") and room and re.match(r"[A-Z]", line):
                yield "text", one_space(text)
                text = line.strip()
            else:
                text += " " + line.strip()
        yield "text", one_space(text)


def one_space(text):
    return re.sub(r"(?<=[.:;]) {2,}", " ", text)


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
