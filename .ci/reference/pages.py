"""The pages of the API."""

from markdown import KNOWN, body, inline
from sources import ALIASES, Entry, load
from topics import CONSTANTS

WARNING = "<!-- .ci/reference writes this page from the docstrings. -->"


def heading(level, entry):
    lines = ["", f"{'#' * level} {entry.heading}"]
    if entry.type:
        lines += ["", f"`{entry.name}: {entry.type}`"]
    if entry.signatures:
        lines += ["", "```py", *"\n".join(entry.signatures).splitlines(), "```"]
    if entry.kind == "class method":
        lines += ["", "A class method."]
    return lines


def options(entry):
    if not entry.options:
        return []
    shown = ", ".join(f"`{option}`" for option in entry.options)
    return ["", f"The keywords of `**options`: {shown}."]


def link(entry):
    return f"[`{entry.label.rpartition('.')[2]}`](#{entry.anchor})"


def describe(entry):
    lines = heading(2, entry)
    bases = []
    for base in entry.bases:
        name = base.removeprefix("_core.").partition("[")[0]
        known = KNOWN.get(name) if name != entry.name else None
        if known:
            bases.append(f"[`{name}`]({known.page}#{known.anchor}), which describes the rest")
        elif name == "_Base":
            bases.append("`numpy.ndarray`")
        elif name != "NamedTuple":
            bases.append(f"`{base}`")
    if bases:
        lines += ["", f"A subclass of {', '.join(bases)}."]
    lines += body(entry) + options(entry)
    if entry.abilities:
        lines += ["", f"It supports {listed(entry.abilities)}."]
    own = [member for member in entry.members if not member.first]
    common = {}
    for member in entry.members:
        if member.first:
            common.setdefault(member.first.name.rpartition(".")[0], []).append(member)
    for title, kinds in (("Attributes", ("attribute",)), ("Methods", ("method", "class method"))):
        found = [link(member) for member in own if member.kind in kinds]
        if found:
            lines += ["", f"{title}: {', '.join(found)}."]
    for owner, members in common.items():
        found = ", ".join(link(member) for member in members)
        lines += ["", f"As in [`{owner}`](#{KNOWN[owner].anchor}): {found}."]
    for member in own:
        lines += heading(3, member) + body(member) + options(member)
    return lines


def listed(texts):
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def page(title, text, entries):
    lines = [WARNING, "", f"# {title}"]
    introduction = Entry(entries[0].name.rpartition(".")[0] + ".", "page", text)
    introduction.page = entries[0].page
    lines += body(introduction)
    shown = [entry for entry in entries if entry.kind != "constant"]
    if len(shown) > 1:
        lines += ["", "On this page: " + ", ".join(link(entry) for entry in shown) + "."]
    for entry in shown:
        lines += describe(entry)
    constants = [entry for entry in entries if entry.kind == "constant"]
    if constants:
        lines += ["", "## Constants"]
        for prefix, text in CONSTANTS:
            found = [entry for entry in constants if entry.name.startswith(prefix)]
            constants = [entry for entry in constants if entry not in found]
            if found:
                lines += ["", inline(text, introduction), ""]
                for entry in found:
                    lines.append(f"- `{entry.name}`: {inline(' '.join(entry.doc.split()), entry)}")
    used = set()
    for entry in entries:
        for each in (entry, *entry.members):
            used |= each.aliases
    if used:
        lines += ["", "## Types in the signatures", ""]
        for name in sorted(used):
            lines.append(f"- `{name}`: `{ALIASES[name]}`")
    return "\n".join(lines) + "\n"


def api_pages():
    pages = load()
    for _, _, _, entries in pages:
        for entry in entries:
            for each in (entry, *entry.members):
                KNOWN[each.name] = each
    return {
        f"docs/api-{stem}.md": page(title, text, entries) for stem, title, text, entries in pages
    }
