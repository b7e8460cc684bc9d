"""The pages of the API."""

from types import SimpleNamespace

from entries import ALIASES, ENTRIES, load
from markdown import body, inline

CONSTANTS = [
    ("PROT_", "For `protect()`: mprotect(2)."),
    ("MADV_", "For `advise()`: madvise(2)."),
    ("MS_", "For `sync()`: msync(2)."),
    ("F_SEAL_", "For `add_seals()` and `require_seals=`: fcntl(2)."),
    ("", "Sizes and limits."),
]
ABILITIES = {
    "__enter__": "the `with` statement",
    "__aenter__": "the `async with` statement",
    "__len__": "`len()`",
    "__getitem__": "indexing",
    "__iter__": "iteration",
    "__buffer__": "the buffer protocol",
    "__array__": "`numpy.asarray()`",
    "__dlpack__": "DLPack",
    "__fspath__": "`os.fspath()`",
    "__reduce__": "pickling by reference",
}

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
    call = "()" if entry.kind in ("function", "method", "class method") else ""
    return f"[`{entry.last}{call}`](#{entry.anchor})"


def base_class(name):
    """The name of a base class, with a link; empty if a reader does not need it."""
    plain = name.removeprefix("_core.").partition("[")[0]
    if plain in ENTRIES:
        known = ENTRIES[plain]
        return f"[`{plain}`]({known.page}#{known.anchor}), which describes the rest"
    if plain in ("Generic", "NamedTuple", "tuple"):
        return ""
    return "`numpy.ndarray`" if plain == "_Base" else f"`{name}`"


def describe(entry):
    lines = heading(2, entry)
    bases = [base_class(str(base)) for base in getattr(entry.node, "bases", ())]
    if any(bases):
        lines += ["", f"A subclass of {', '.join(filter(None, bases))}."]
    lines += body(entry) + options(entry)
    methods = entry.node.members.keys() | entry.node.overloads if entry.kind == "class" else ()
    if abilities := [text for name, text in ABILITIES.items() if name in methods]:
        shown = " and ".join(filter(None, [", ".join(abilities[:-1]), abilities[-1]]))
        lines += ["", f"It supports {shown}."]
    own = [member for member in entry.members if not member.first]
    common = {}
    for member in entry.members:
        if member.first:
            common.setdefault(member.first.owner, []).append(member)
    for title, attributes in (("Attributes", True), ("Methods", False)):
        found = [link(each) for each in own if (each.kind == "attribute") == attributes]
        if found:
            lines += ["", f"{title}: {', '.join(found)}."]
    for owner, members in common.items():
        found = ", ".join(map(link, members))
        lines += ["", f"As in [`{owner}`](#{ENTRIES[owner].anchor}): {found}."]
    for member in own:
        lines += heading(3, member) + body(member) + options(member)
    return lines


def page(title, text, entries):
    lines = [WARNING, "", f"# {title}"]
    of = entries[0]
    introduction = SimpleNamespace(
        name=f"{of.owner}.", owner=of.owner, kind="page", page=of.page, doc=text, parameters=[]
    )
    lines += body(introduction)
    shown = [entry for entry in entries if entry.kind != "constant"]
    if len(shown) > 1:
        lines += ["", "On this page: " + ", ".join(map(link, shown)) + "."]
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
    described = [each for entry in entries for each in (entry, *entry.members)]
    if used := {alias for each in described for alias in each.aliases}:
        lines += ["", "## Types in the signatures", ""]
        lines += [f"- `{name}`: `{ALIASES[name]}`" for name in sorted(used)]
    return "\n".join(lines) + "\n"


def api_pages():
    return {f"docs/api-{stem}.md": page(*rest) for stem, *rest in load()}
