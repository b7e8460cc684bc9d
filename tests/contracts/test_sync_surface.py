"""The types of the primitives, and the order of the arguments of their constructors."""

import inspect
import pickle

import pytest
from _primitives import KINDS, name_of

from posixshm import Atomic, OwnerDiedError

MAKERS = {kind.__name__: kind for kind in KINDS if kind is not Atomic}
kinds = pytest.mark.parametrize("kind", KINDS, ids=name_of)


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
