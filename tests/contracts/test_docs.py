"""The reference: its pages are complete and linked, and their examples run."""

import builtins
import importlib
import inspect
import re
import threading

import pytest
from _documents import (
    IN_CHECKOUT,
    PAGES,
    REFERENCE,
    ROOT,
    anchors,
    api_names,
    blocks,
    dead_links,
    examples,
    links,
    prose,
    run_examples,
)
from _surface import MODULES

import posixshm

GUIDES = [page for page in PAGES if not page.name.startswith("api-")]
OTHERS = sorted(
    {page for folder in ("", ".github", "benchmarks") for page in (ROOT / folder).glob("*.md")}
    | {page for folder in ("csrc", "tests") for page in (ROOT / folder).rglob("*.md")}
)


def name_of(page):
    root = ROOT if page in OTHERS else REFERENCE.parent
    return str(page.relative_to(root))


reference = pytest.mark.parametrize("page", [REFERENCE / "README.md", *PAGES], ids=name_of)
documents = pytest.mark.parametrize(
    "page", [REFERENCE / "README.md", *PAGES, *(OTHERS if IN_CHECKOUT else [])], ids=name_of
)


# -- the pages ----------------------------------------------------------------------------------


def public():
    """Yield (name, object) of each public class, function, method and attribute of the library."""
    for module in map(importlib.import_module, MODULES):
        prefix = module.__name__.partition(".")[2]
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, int | str):
                continue
            dotted = f"{prefix}.{name}".lstrip(".")
            yield dotted, value
            if isinstance(value, type):
                for member in vars(value):
                    static = inspect.getattr_static(value, member)
                    ours = getattr(static, "__module__", "posixshm") or "posixshm"
                    documented = callable(static) or hasattr(static, "__get__")
                    if not member.startswith("_") and documented and "posixshm" in ours:
                        yield f"{dotted}.{member}", getattr(value, member, static)


# Members that numpy documents, and fields of a record, which the docstring of its class describes.
def is_described_elsewhere(name, value):
    owner, _, member = name.rpartition(".")
    if owner == "array.SharedArray":
        numpy = importlib.import_module("numpy")
        return hasattr(numpy.ndarray, member)
    return owner in ("Holder", "Reclaimed")


PUBLIC = {name: value for name, value in public() if not is_described_elsewhere(name, value)}


def test_every_public_name_is_on_a_page():
    constants = {name for name in posixshm.__all__ if name.isupper()}
    missing = (PUBLIC.keys() | constants) - api_names()
    # A member that two classes share is on the page once.
    for page in PAGES:
        for owner, members in re.findall(
            r"^## ([\w.]+)(?:.(?!^## ))*?^As in [^:]+: (.*?)\.$",
            page.read_text(),
            re.MULTILINE | re.DOTALL,
        ):
            missing -= {f"{owner}.{name}" for name in re.findall(r"`(\w+)(?:\(\))?`", members)}
    assert not missing


@pytest.mark.once
def test_every_entry_has_a_text():
    for page in PAGES:
        for name, text in re.findall(
            r"^###? ([\w.]+)\n(.*?)(?=^#)", prose(page.read_text()), re.M | re.S
        ):
            described = re.sub(r"^`.*`$|^A class method\.$", "", text, flags=re.M)
            assert described.strip() or name not in api_names(), name


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_has_the_form_that_the_pages_need(name):
    """It begins with a sentence and names existing exceptions. The words are not tested."""
    text = inspect.getdoc(PUBLIC[name]) or ""
    first = text.partition("\n\n")[0]
    assert re.match(r"[A-Z`]", first) and first.endswith("."), f"{name}: {first!r}"
    assert "--\n" not in text, "the signature's mark is in the text"
    for raised in re.findall(r"\b[A-Z]\w*Error\b", text):
        found = any(hasattr(module, raised) for module in (builtins, posixshm, threading))
        assert found, f"{name} names {raised}, which does not exist"


@pytest.mark.once
@documents
def test_no_heading_of_a_page_has_the_anchor_of_another(page):
    found = anchors(page.read_text())
    assert sorted(set(found)) == sorted(found)


@pytest.mark.once
@reference
def test_pages_of_the_reference_are_ascii(page):
    assert page.read_text(encoding="utf-8").isascii()


# -- links --------------------------------------------------------------------------------------


@pytest.mark.once
@documents
def test_link_targets_exist(page):
    assert not dead_links(page)


@pytest.mark.once
@reference
def test_the_reference_links_only_to_installed_files(page):
    """Links to other files use their address, because the pages are part of the wheel and of the
    site."""
    for link in links(page.read_text()):
        if not re.match(r"[a-z]+:|#", link):
            target = (page.parent / link.partition("#")[0]).resolve()
            assert target.parent in (REFERENCE, REFERENCE / "docs"), link
            assert target.suffix == ".md", link


@pytest.mark.once
def test_the_index_lists_every_page():
    listed = links((REFERENCE / "README.md").read_text())
    assert {f"docs/{page.name}" for page in PAGES} <= set(listed)


# -- examples -----------------------------------------------------------------------------------


@pytest.mark.long
@reference
def test_examples_run(page, run_python, tmp_path):
    if examples(page):
        run_examples(page, run_python, tmp_path)


@pytest.mark.once
@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_every_block_has_a_language(page):
    """python: the example runs here. py: it needs other packages. Other blocks are only shown."""
    for language, code in blocks(page.read_text()):
        assert language, f"a block without a language: {code[:60]!r}"
        if language == "py":
            compile(code, str(page), "exec")


def test_the_names_of_methods_that_the_pages_mention_exist():
    classes = [value for value in PUBLIC.values() if isinstance(value, type)]
    for page in GUIDES:
        names = set(re.findall(r"`(?:SharedMemory)?\.([a-z_]+)\(\)`", page.read_text()))
        missing = {name for name in names if not any(hasattr(cls, name) for cls in classes)}
        assert not missing, page
