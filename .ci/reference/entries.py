"""The public names: griffe reads the stub and the sources; docstrings of C are the module's."""

import inspect
import re
import sys
import sysconfig
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src/posixshm"
if (PACKAGE / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}").exists():  # built in place
    sys.path.insert(0, str(ROOT / "src"))

from posixshm import _core  # noqa: E402

# Pages of posixshm itself: page, title, first paragraph, classes and functions in their order. The
# last page also has all other names; each public submodule has its own page.
TOPICS = [
    (
        "objects",
        "Objects: SharedMemory, MemoryMap, View",
        "The classes that create, open, map and view shared memory. The guides show how to use "
        "them; this page describes each method and attribute.",
        "SharedMemory MemoryMap View",
    ),
    (
        "synchronization",
        "Synchronization: Lock, Event, Semaphore and others",
        "The classes that synchronize processes, modelled on those of the threading module. Each "
        "can have a name or lie at an offset of shared memory.",
        "Lock RLock RWLock Condition Event Barrier Semaphore Atomic OwnerDiedError",
    ),
    (
        "functions",
        "Functions and constants",
        "The functions that take a name or a descriptor, what they return, guard(), and the "
        "constants.",
        "shm_open shm_unlink sem_unlink exists listdir holders Holders Holder reclaim Reclaimed "
        "guard BusError",
    ),
]
# Attributes of classes, which have no docstring of their own.
ATTRIBUTES = {
    "nbytes": "The number of bytes that an instance takes in shared memory.",
    "alignment": "The offset of an instance is a multiple of this number of bytes.",
}
STRUCT_SEQUENCE = ("n_fields", "n_sequence_fields", "n_unnamed_fields")
ENTRIES = {}  # by name
ALIASES = {}  # the types that signatures name


class Entry:
    """A public name: a class, a function, a member of a class, or a constant."""

    def __init__(self, name, node, page):
        self.name, self.node, self.page = name, node, page
        self.owner, _, self.last = name.rpartition(".")
        member = node.parent and node.parent.is_class
        if node.is_class:
            self.kind = "class"
        elif node.is_attribute:
            self.kind = "attribute" if member else "constant"
        elif "classmethod" in node.labels:
            self.kind = "class method"
        else:
            self.kind = "method" if member else "function"
        self.heading = name  # anchors of a page must not differ in case only
        self.first = None  # the same member of an earlier class, which describes both
        self.members = self._members() if node.is_class else []
        self.doc = inspect.cleandoc(self._doc())
        self.type = ""
        if self.kind == "attribute":
            self.type = re.sub(r"^(ClassVar|Final)\[(.*)\]$", r"\2", source(node.annotation))
        call = node
        if node.is_class:
            call = node.members.get("__init__") or node.members.get("__new__")
        functions = call.overloads or [call] if call and call.is_function else []
        self.signatures = [text for each in functions if (text := self._signature(each))]
        self.parameters = [each.last for each in self.members]
        self.options = []
        for each in functions:
            self.parameters += [parameter.name.lstrip("*") for parameter in each.parameters]
            if keywords := re.search(r"Unpack\[(\w+)\]", each.signature()):
                self.options = typed_keywords(each.module[keywords[1]])
        self.parameters += [option.partition(":")[0] for option in self.options]
        if node.is_class and not functions and "NamedTuple" in map(str, node.bases):
            fields = [f"{each.last}: {each.type}" for each in self.members]
            self.signatures = [written(name, fields, "")]
        shown = " ".join([*self.signatures, *self.options])
        self.aliases = {each for each in ALIASES if re.search(rf"\b{each}\b", shown)}
        ENTRIES[name] = self

    @property
    def anchor(self):
        if self.first:
            return self.first.anchor
        return re.sub(r"[^\w -]", "", self.heading.lower()).replace(" ", "-")

    def shared(self):
        """The parts that are equal if two classes share this member."""
        signatures = [re.sub(rf"\b{self.owner}\b", "", text) for text in self.signatures]
        return self.last, self.kind, signatures, self.type, self.doc

    def _members(self):
        public = {
            last: node
            for last, node in self.node.members.items()
            if not last.startswith("_") and last not in STRUCT_SEQUENCE and not node.is_alias
        }
        return [Entry(f"{self.name}.{last}", node, self.page) for last, node in public.items()]

    def _doc(self):
        if self.node.docstring:
            return self.node.docstring.value
        if self.kind == "attribute" and "property" not in self.node.labels:
            return ATTRIBUTES.get(self.last, "")
        value = _core
        for part in self.name.split("."):
            value = inspect.getattr_static(value, part, None)
        return value and inspect.getdoc(value) or ""

    def _signature(self, function):
        generator = any("contextmanager" in str(each.value) for each in function.decorators)
        text = source(function.signature(return_type=False)).partition("(")[2].removesuffix(")")
        text = re.sub(r"mode: int = (\d+)", lambda mode: f"mode: int = {int(mode[1]):#o}", text)
        text = re.sub(r": Unpack\[\w+\]", "", text)
        parameters = [part for part in split(text, ",") if part]
        if self.kind == "class" and parameters == ["*args: Any", "**keywords: Any"]:
            return ""  # the class cannot be called
        before, returns = "", ""
        if "async" in function.labels:
            before = "async with " if generator else "await "
        if self.kind != "class" and function.returns and before != "async with ":
            returns = f" -> {source(function.returns)}"
        return before + written(self.name, parameters, returns)


def source(expression):
    return str(expression).replace("'", '"')


def typed_keywords(node):
    """The keywords of a TypedDict, those of its bases first."""
    found = []
    for base in node.resolved_bases:
        found += typed_keywords(base)
    return found + [f"{name}: {source(each.annotation)}" for name, each in node.members.items()]


def split(text, separator):
    """Split the text at the separators outside of brackets."""
    depth, parts = 0, [""]
    for each in text:
        depth += (each in "([") - (each in ")]")
        if each == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += each
    return [part.strip() for part in parts]


def written(name, parameters, returns):
    line = f"{name}({', '.join(parameters)}){returns}"
    if len(line) <= 88:
        return line
    return f"{name}(\n" + "".join(f"    {each},\n" for each in parameters) + f"){returns}"


def load():
    """All pages as (stem, title, introduction, entries), in order."""
    package = griffe.load("posixshm", search_paths=[PACKAGE.parent], allow_inspection=False)
    for module in package.modules.values():
        for name, node in module.attributes.items():
            if not node.is_alias and str(node.annotation) == "TypeAlias":
                ALIASES.setdefault(name, source(node.value))
    rest = set(package.exports) - {"__version__"}
    pages = []
    for stem, title, text, names in TOPICS:
        pages.append((stem, title, text, "", names.split(), package))
        rest -= set(names.split())
    pages[-1][4].extend(sorted(rest))
    for name, module in sorted(package.modules.items(), reverse=True):
        if not name.startswith("_"):
            stem, title, text = name.replace("_", "-"), f"posixshm.{name}", module.docstring.value
            pages.insert(2, (stem, title, text, f"{name}.", module.exports, module))
    result = []
    for stem, title, text, prefix, names, module in pages:
        found, seen = [], []
        for name in names:
            node = module[name].final_target if module[name].is_alias else module[name]
            found.append(Entry(prefix + name, node, f"api-{stem}.md"))
        lower = [entry.name.lower() for entry in found]
        for entry in found:
            if entry.kind == "class" and lower.count(entry.name.lower()) > 1:
                entry.heading += " (class)"
            for member in entry.members:
                shared = (other for other in seen if other.shared() == member.shared())
                member.first = next(shared, None)
            seen += [member for member in entry.members if not member.first]
        result.append((stem, title, text, found))
    return result
