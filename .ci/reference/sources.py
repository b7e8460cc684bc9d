"""The public names: signatures from the stub and the sources, docstrings from the module."""

import ast
import inspect
import re
import sys
import sysconfig
from pathlib import Path

from topics import TOPICS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src/posixshm"
if (PACKAGE / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}").exists():  # built in place
    sys.path.insert(0, str(ROOT / "src"))

import posixshm  # noqa: E402
from posixshm import _core  # noqa: E402

# Attributes of classes, which have no docstring of their own.
ATTRIBUTES = {
    "nbytes": "The number of bytes that an instance takes in shared memory.",
    "alignment": "The offset of an instance is a multiple of this number of bytes.",
}
ABILITIES = [
    ("__enter__", "the `with` statement"),
    ("__aenter__", "the `async with` statement"),
    ("__len__", "`len()`"),
    ("__getitem__", "indexing"),
    ("__iter__", "iteration"),
    ("__buffer__", "the buffer protocol"),
    ("__array__", "`numpy.asarray()`"),
    ("__dlpack__", "DLPack"),
    ("__fspath__", "`os.fspath()`"),
    ("__reduce__", "pickling by reference"),
]


class Entry:
    """A public name: a class, a function, a member of a class, or a constant."""

    def __init__(self, name, kind, doc, signatures=(), type=None, parameters=(), **more):
        self.name = name
        self.kind = kind
        self.doc = inspect.cleandoc(doc) if doc else ""
        self.signatures = list(signatures)
        self.type = type
        self.parameters = list(parameters)
        self.members = more.get("members", [])
        self.bases = more.get("bases", [])
        self.abilities = more.get("abilities", [])
        self.options = more.get("options", [])
        self.aliases = more.get("aliases", set())
        self.page = None
        self.heading = name  # anchors of a page must not differ in case only
        self.first = None  # the same member of an earlier class, which describes both

    @property
    def anchor(self):
        if self.first:
            return self.first.anchor
        return re.sub(r"[^\w -]", "", self.heading.lower()).replace(" ", "-")

    @property
    def label(self):
        called = self.kind in ("function", "method", "class method")
        return f"{self.name}()" if called else self.name

    def same(self, other):
        """Do two classes share this member?"""

        def shown(entry):
            last = entry.name.rpartition(".")[2]
            own = entry.name.rpartition(".")[0]
            signatures = [re.sub(rf"\b{own}\b", "", text) for text in entry.signatures]
            return last, entry.kind, signatures, entry.type, entry.doc

        return shown(self) == shown(other)


class Module:
    """The public names of a source file, or of the stub and the extension module."""

    def __init__(self, path, prefix="", runtime=None):
        self.source = path.read_text()
        self.lines = self.source.encode().split(b"\n")  # columns of ast are counted in bytes
        self.tree = ast.parse(self.source)
        self.doc = ast.get_docstring(self.tree) or ""
        self.prefix = prefix
        self.runtime = runtime
        self.nodes = {}
        self.comments = {}
        self.aliases = {}
        self._collect(self.tree.body)

    def _collect(self, body):
        for node, after in zip(body, [*body[1:], None], strict=False):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.nodes.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
                self.nodes.setdefault(name, []).append(node)
                self.comments[name] = text_of(after)
                if self._text(node.annotation) == "TypeAlias":
                    self.aliases[name] = self._text(node.value).strip("() ")
            elif isinstance(node, ast.If):
                self._collect(node.body)
                self._collect(node.orelse)

    def public(self):
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
                return ast.literal_eval(node.value)
        raise SystemExit(f"{self.prefix or 'posixshm'} has no __all__")

    def entry(self, name):
        nodes = self.nodes[name]
        runtime = getattr(self.runtime, name, None)
        dotted = self.prefix + name
        if isinstance(nodes[0], ast.ClassDef):
            return self._class(dotted, nodes[0], runtime)
        if isinstance(nodes[0], ast.AnnAssign):
            return Entry(dotted, "constant", self.comments[name])
        return self._function(dotted, nodes, runtime, "function")

    def _class(self, name, node, runtime):
        members, found = [], {}
        for child, after in zip(node.body, [*node.body[1:], None], strict=False):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.setdefault(child.name, []).append(child)
            elif isinstance(child, ast.AnnAssign) and child.target.id[0] != "_":
                found[child.target.id] = [(child, after)]
        init = found.get("__init__") or found.get("__new__") or []
        for member, nodes in found.items():
            if member.startswith("_") or member.startswith("n_") and "Reclaimed" in name:
                continue
            dotted = f"{name}.{member}"
            inner = inspect.getattr_static(runtime, member, None) if runtime else None
            if isinstance(nodes[0], tuple):
                child, after = nodes[0]
                doc = text_of(after) or ATTRIBUTES.get(member)
                type = re.sub(r"^(ClassVar|Final)\[(.*)\]$", r"\2", self._text(child.annotation))
                members.append(Entry(dotted, "attribute", doc, type=type))
            elif "property" in decorators(nodes[0]):
                doc = inspect.getdoc(inner) if inner else ast.get_docstring(nodes[0])
                type = self._text(nodes[0].returns)
                members.append(Entry(dotted, "attribute", doc, type=type))
            else:
                kind = "class method" if "classmethod" in decorators(nodes[0]) else "method"
                members.append(self._function(dotted, nodes, inner, kind))
        bases = [self._text(base) for base in node.bases]
        entry = Entry(
            name,
            "class",
            inspect.getdoc(runtime) if runtime else ast.get_docstring(node),
            members=members,
            bases=[base for base in bases if not re.match(r"Generic|tuple\[", base)],
            abilities=[text for method, text in ABILITIES if method in found],
        )
        if init:
            function = self._function(name, init, runtime, "class")
            entry.signatures, entry.parameters = function.signatures, function.parameters
            entry.aliases = function.aliases
        elif "NamedTuple" in bases:
            fields = [f"{each.name.rpartition('.')[2]}: {each.type}" for each in members]
            entry.signatures = [written(name, fields, "")]
        entry.parameters += [each.name.rpartition(".")[2] for each in members]
        return entry

    def _function(self, name, nodes, runtime, kind):
        overloads = [node for node in nodes if "overload" in decorators(node)]
        signatures, parameters, options = [], [], []
        for node in overloads or nodes[:1]:
            bound = kind in ("class", "method", "class method")
            shown, names, more = self._parameters(node.args, bound, runtime)
            if kind == "class" or not node.returns:
                returns = ""
            else:
                returns = f" -> {self._text(node.returns)}"
            before = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
            if "asynccontextmanager" in decorators(node):
                before, returns = "async with ", ""
            if kind == "class" and shown == ["*args: Any", "**keywords: Any"]:
                continue  # the class cannot be called
            signatures.append(before + written(name, shown, returns))
            parameters += [each for each in names if each not in parameters]
            options = options or more
        doc = inspect.getdoc(runtime) if runtime else ast.get_docstring(nodes[-1])
        used = {name for name in self.aliases if any(name in each for each in signatures)}
        used |= {name for name in ALIASES if any(re.search(name + r"\b", o) for o in options)}
        return Entry(name, kind, doc, signatures, None, parameters, options=options, aliases=used)

    def _parameters(self, args, bound, runtime):
        """The parameters as text, their names, and the keywords that **options stands for."""
        shown, names, options = [], [], []
        positional = [*args.posonlyargs, *args.args]
        defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
        pairs = list(zip(positional, defaults, strict=True))
        for number, (each, default) in enumerate(pairs, 1):
            shown.append(self._parameter(each, default, runtime))
            names.append(each.arg)
            if number == len(args.posonlyargs):
                shown.append("/")
        if bound:
            del shown[0], names[0]
            if shown[:1] == ["/"]:
                del shown[0]
        if args.vararg:
            shown.append("*" + self._parameter(args.vararg, None, runtime))
            names.append(args.vararg.arg)
        elif args.kwonlyargs:
            shown.append("*")
        for each, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
            shown.append(self._parameter(each, default, runtime))
            names.append(each.arg)
        if args.kwarg:
            annotation = self._text(args.kwarg.annotation)
            unpacked = re.fullmatch(r"Unpack\[(\w+)\]", annotation)
            options = self._options(unpacked[1]) if unpacked else []
            shown.append(f"**{args.kwarg.arg}" + ("" if unpacked else f": {annotation}"))
            names.append(args.kwarg.arg)
            names += [option.partition(":")[0] for option in options]
        return shown, names, options

    def _options(self, name):
        (node,) = self.nodes[name]
        found = []
        for base in node.bases:
            if self._text(base) in self.nodes:
                found += self._options(self._text(base))
        for each in node.body:
            if isinstance(each, ast.AnnAssign):
                found.append(f"{each.target.id}: {self._text(each.annotation)}")
        return found

    def _parameter(self, each, default, runtime):
        text = each.arg
        if each.annotation:
            text += f": {self._text(each.annotation)}"
        if default is None:
            return text
        value = self._text(default)
        if value == "...":
            value = repr(inspect.signature(runtime).parameters[each.arg].default)
        return text + (f" = {value}" if each.annotation else f"={value}")

    def _text(self, node):
        """The source text of a node in one line; a string is an unevaluated annotation."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "|" in node.value:
            return node.value
        # ast.get_source_segment() would split the whole source each time.
        lines = self.lines[node.lineno - 1 : node.end_lineno]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        text = b"\n".join(lines).decode()
        return re.sub(r",? ?([\])])", r"\1", re.sub(r"\s+", " ", text).replace("( ", "("))


def decorators(node):
    return {each.id for each in node.decorator_list if isinstance(each, ast.Name)}


def text_of(node):
    """The text of the string after an attribute."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return node.value.value
    return None


def written(name, parameters, returns):
    line = f"{name}({', '.join(parameters)}){returns}"
    if len(line) <= 88:
        return line
    return f"{name}(\n" + "".join(f"    {each},\n" for each in parameters) + f"){returns}"


STUB = Module(PACKAGE / "_core.pyi", runtime=_core)
ALIASES = STUB.aliases


def load():
    """All pages as (stem, title, introduction, entries), in order."""
    facade = Module(PACKAGE / "__init__.py")
    entries = {}
    for name in facade.public():
        if name == "__version__":
            continue
        if name in posixshm._LATER:
            module = Module(PACKAGE / f"{posixshm._LATER[name]}.py")
            ALIASES.update(module.aliases)
        else:
            module = STUB
        entries[name] = module.entry(name)
    pages = []
    placed = {name for _, _, _, names in TOPICS for name in names}
    for stem, title, text, names in TOPICS:
        if stem == TOPICS[-1][0]:
            names = [*names, *sorted(entries.keys() - placed)]
        pages.append((stem, title, text, [entries[name] for name in names if name in entries]))
    submodules = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_"))
    for number, name in enumerate(submodules):
        module = Module(PACKAGE / f"{name}.py", f"{name}.")
        found = [module.entry(each) for each in module.public()]
        pages.insert(2 + number, (name.replace("_", "-"), f"posixshm.{name}", module.doc, found))
    for stem, _, _, found in pages:
        lower = [entry.name.lower() for entry in found]
        seen = []
        for entry in found:
            entry.page = f"api-{stem}.md"
            if entry.kind == "class" and lower.count(entry.name.lower()) > 1:
                entry.heading += " (class)"
            for member in entry.members:
                member.page = entry.page
                member.first = next((other for other in seen if other.same(member)), None)
            seen += [member for member in entry.members if not member.first]
    return pages
