"""Names, docstrings and signatures of the primitives, which the stub repeats."""

import inspect
import pickle
import pydoc

import pytest
from _primitives import KINDS, name_of
from test_surface import defined, stub_classes

import posixshm
from posixshm import Atomic, Lock, OwnerDiedError, sem_unlink

MEMBERS = {
    f"{kind.__name__}.{name}": getattr(kind, name, member)
    for kind in KINDS
    for name, member in vars(kind).items()
    if not name.startswith("_") and name not in ("nbytes", "alignment")
}
METHODS = {name: member for name, member in MEMBERS.items() if callable(member)}
MAKERS = {kind.__name__: kind for kind in KINDS if kind is not Atomic}
kinds = pytest.mark.parametrize("kind", KINDS, ids=name_of)


@kinds
def test_primitives_have_the_public_module(kind):
    assert kind.__module__ == "posixshm" and getattr(posixshm, kind.__name__) is kind
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert len(pydoc.render_doc(kind)) > 100


def test_the_error_is_a_distinct_oserror():
    assert issubclass(OwnerDiedError, OSError) and OwnerDiedError.__module__ == "posixshm"
    error = pickle.loads(pickle.dumps(OwnerDiedError(130, "text")))
    assert type(error) is OwnerDiedError and error.errno == 130


def parameters(function):
    kinds = {
        inspect.Parameter.POSITIONAL_ONLY: "positional only",
        inspect.Parameter.POSITIONAL_OR_KEYWORD: "either",
        inspect.Parameter.KEYWORD_ONLY: "keyword only",
    }
    return [
        (p.name, kinds[p.kind], p.default is not p.empty)
        for p in inspect.signature(function).parameters.values()
        if p.name not in ("self", "type")
    ]


def written(node):
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(positional) - len(node.args.defaults)) + node.args.defaults
    found = [
        (a.arg, "positional only" if a in node.args.posonlyargs else "either", d is not None)
        for a, d in zip(positional, defaults, strict=True)
    ]
    found += [
        (a.arg, "keyword only", d is not None)
        for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    ]
    return [entry for entry in found if entry[0] not in ("self", "cls")]


@kinds
def test_the_stub_has_every_public_attribute(kind):
    there = {name for name in vars(kind) if not name.startswith("_")}
    stub = {name for name in defined(stub_classes()[kind.__name__].body) if name[0] != "_"}
    assert there == stub


@pytest.mark.parametrize("name", [*METHODS, *MAKERS])
def test_the_stub_has_every_parameter(name):
    """The stub has its kind, its position and whether it has a default."""
    kind, _, method = name.partition(".")
    body = stub_classes()[kind].body
    (node,) = [node for node in body if getattr(node, "name", None) == (method or "__new__")]
    assert parameters(METHODS.get(name) or MAKERS[name]) == written(node)


@kinds
def test_the_types_cannot_be_changed(kind):
    for change in (
        lambda: setattr(kind, "at", None),
        lambda: setattr(kind, "nbytes", 1),
        lambda: delattr(kind, "at"),
        lambda: setattr(kind, "new", 1),
    ):
        with pytest.raises(TypeError, match="immutable"):
            change()
    assert kind.nbytes % kind.alignment == 0


def test_the_constructors_agree_on_the_order_of_arguments():
    """The name, then the arguments of threading's class in its order; all others by keyword."""
    positional = {
        kind: [entry[0] for entry in parameters(MAKERS[kind]) if entry[1] != "keyword only"]
        for kind in MAKERS
    }
    assert positional == {kind: ["name"] for kind in MAKERS} | {
        "Semaphore": ["name", "value"],
        "Condition": ["name", "lock"],
        "Barrier": ["name", "parties", "action", "timeout"],
    }
    for kind in KINDS:
        by_place = [e[0] for e in parameters(kind.at) if e[1] != "keyword only"]
        assert by_place == ["shm", "offset", "format"][: 3 if kind is Atomic else 2]


@pytest.mark.parametrize("kind", MAKERS)
def test_create_is_keyword_only(kind, name):
    places = 4 if kind == "Barrier" else 2 if kind in ("Semaphore", "Condition") else 1
    with pytest.raises(TypeError, match=rf"^{kind}\(\) takes at most {places} positional"):
        MAKERS[kind](name, *[None] * (places - 1), True)


def test_all_primitives_are_tested():
    assert len(KINDS) == 8 and Lock in KINDS
    assert parameters(sem_unlink)[0][0] == "name"
