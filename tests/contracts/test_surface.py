"""The public interface: names, docstrings, signatures and types, and the cost of the import."""

import collections.abc
import fcntl
import importlib.metadata
import inspect
import mmap
import os
import pathlib
import pickle
import pydoc
import re
import sys
import types

import numpy as np
import pytest
from _primitives import KINDS
from _processes import PATH
from _surface import PARTS, own_names

import posixshm
from posixshm import MemoryMap, Reclaimed, SharedMemory, View

PACKAGE = pathlib.Path(posixshm.__file__).parent
CLASSES = [SharedMemory, MemoryMap, Reclaimed, View, *KINDS]
FUNCTIONS = [
    posixshm.shm_open,
    posixshm.shm_unlink,
    posixshm.listdir,
    posixshm.reclaim,
    posixshm.exists,
]


# -- names --------------------------------------------------------------------------------------


def test_all_is_all():
    public = {
        name
        for name, value in vars(posixshm).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | posixshm._LATER.keys() | {"__version__"} == set(posixshm.__all__)
    assert len(posixshm.__all__) == len(set(posixshm.__all__))


@pytest.mark.parametrize("name", PARTS)
def test_all_of_a_submodule_is_complete(name):
    module = importlib.import_module(name)
    classes = {
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == name and not key.startswith("_")
    }
    assert own_names(module) | classes == set(module.__all__)
    assert len(module.__all__) == len(set(module.__all__))


def test_the_version_is_the_installed_one():
    assert posixshm.__version__ == importlib.metadata.version("posixshm")


def test_there_is_no_dependency():
    required = importlib.metadata.requires("posixshm") or []
    assert all("extra ==" in requirement for requirement in required)


@pytest.mark.parametrize("cls", CLASSES)
def test_classes_have_the_public_module(cls):
    assert cls.__module__ == "posixshm"
    assert cls.__qualname__ == cls.__name__
    assert getattr(posixshm, cls.__name__) is cls
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_constants_have_the_values_of_the_system():
    compared = 0
    for name in posixshm.__all__:
        value = getattr(posixshm, name)
        if not name.isupper():
            continue
        assert type(value) is int
        for module in (mmap, fcntl):
            if hasattr(module, name):
                assert value == getattr(module, name)
                compared += 1
    assert compared >= 15
    assert posixshm.PAGESIZE == mmap.PAGESIZE == os.sysconf("SC_PAGE_SIZE")
    assert posixshm.NAME_MAX == os.pathconf("/dev/shm", "PC_NAME_MAX") == 255


@pytest.mark.new_interpreter
def test_submodules_are_imported_when_they_are_used(run_python):
    assert {name.partition(".")[2] for name in PARTS} <= set(dir(posixshm))
    run_python(
        """
        import sys, posixshm
        for name in sys.argv[1:]:
            assert f"posixshm.{name}" not in sys.modules, name
            assert name in dir(posixshm)
            assert getattr(posixshm, name) is sys.modules[f"posixshm.{name}"]
            assert vars(posixshm)[name] is getattr(posixshm, name)
        """,
        "arrow", "shared_memory", "aio", "array",
    )  # fmt: skip
    with pytest.raises(AttributeError, match="'posixshm' has no attribute 'nonsense'"):
        _ = posixshm.nonsense


@pytest.mark.new_interpreter
def test_a_submodule_whose_library_is_missing_is_not_an_attribute(run_python):
    run_python(
        """
        import inspect, sys
        sys.modules["numpy"] = None
        import posixshm
        try:
            posixshm.array
        except AttributeError as error:
            assert "pip install 'posixshm[numpy]'" in str(error), error
        else:
            raise AssertionError
        assert not hasattr(posixshm, "array") and hasattr(posixshm, "arrow")
        assert dict(inspect.getmembers(posixshm))["SharedMemory"] is posixshm.SharedMemory
        try:
            from posixshm import array
        except ImportError as error:
            assert error.name == "numpy", error
        else:
            raise AssertionError
        """
    )


# -- texts --------------------------------------------------------------------------------------


def test_help_can_be_read():
    for thing in (posixshm, *CLASSES, *FUNCTIONS):
        assert len(pydoc.render_doc(thing)) > 100


def test_help_of_the_package_opens_with_an_overview():
    """It mentions each submodule and each class with which a program begins."""
    overview = pydoc.render_doc(posixshm, renderer=pydoc.plaintext).partition("PACKAGE CONTENTS")[0]
    for name in (
        *PARTS,
        "posixshm docs",
        *(value for value in posixshm.__all__ if value[0] != "_"),
    ):
        short = name.removeprefix("posixshm.")
        assert short in overview or re.match("(F_SEAL|MADV|MS|PROT)_", short), name


# -- signatures ---------------------------------------------------------------------------------


def signed():
    """(name, object) of all public functions and classes, and of the methods of the latter."""
    for module in map(importlib.import_module, ("posixshm", *PARTS)):
        for name in module.__all__:
            value = getattr(module, name)
            is_error = isinstance(value, type) and issubclass(value, BaseException)
            if not callable(value) or is_error:  # OSError does not have a signature, either
                continue
            yield name, value
            if value.__module__ == "posixshm" and isinstance(value, type):
                for member in vars(value):
                    if not member.startswith("_") and callable(getattr(value, member)):
                        yield f"{name}.{member}", getattr(value, member)


def test_everything_has_a_signature():
    found = dict(signed())
    assert len(found) > 100
    for name, value in found.items():
        assert str(inspect.signature(value)).startswith("("), name


def test_defaults_in_signatures_are_true(name):
    """A call that passes all defaults has the same result."""

    def defaults(function):
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    with SharedMemory.create(name, 10, **{**defaults(SharedMemory.create), "delete": True}) as shm:
        assert (shm.mode, shm.size, shm.max_size) == (0o600, 10, None)
        for constructor in (SharedMemory.anonymous, SharedMemory.unlinked):
            with constructor(10, **defaults(constructor)) as other:
                assert other.size == 10
        with SharedMemory.open(name, **defaults(SharedMemory.open)) as other:
            assert not other.readonly
        with SharedMemory.from_fd(os.dup(shm.fileno()), **defaults(SharedMemory.from_fd)) as other:
            assert other.size == 10
        with SharedMemory(**{**defaults(SharedMemory), "name": name}) as other:
            assert other.size == 10
        for method in ("map", "sync", "lock_pages", "unlock_pages", "populate", "chown", "getfacl"):
            getattr(shm, method)(**defaults(getattr(shm, method)))
        assert len(MemoryMap(shm.fileno(), **defaults(MemoryMap))) == 10
        fd = posixshm.shm_open(name, os.O_RDWR, **defaults(posixshm.shm_open))
        os.close(fd)


# -- types --------------------------------------------------------------------------------------


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()


def test_handles_and_mappings_are_buffers():
    """PEP 688, from Python 3.12 on."""
    with SharedMemory.anonymous(10) as shm:
        for thing in (shm, shm.map(), shm.buf):
            assert memoryview(thing).nbytes == 10
            if sys.version_info >= (3, 12):
                assert isinstance(thing, collections.abc.Buffer)


def test_the_results_of_reclaim_are_records():
    record = Reclaimed(("name", 5, 1.5, "free", True, None, 0))
    assert isinstance(record, tuple)
    assert "name='name'" in repr(record) and "state='free'" in repr(record)
    name, size, age, *_ = record
    assert (name, size, age, record.removed) == ("name", 5, 1.5, True)
    with pytest.raises(AttributeError):
        record.name = "other"
    assert pickle.loads(pickle.dumps(record)) == record


# -- importing ----------------------------------------------------------------------------------


@pytest.mark.new_interpreter
def test_import_loads_no_slow_module(run_python):
    """Every process pays for the import, so it must not import typing, multiprocessing, numpy and
    others."""
    out = run_python(
        """
        import sys
        before = set(sys.modules)
        import posixshm
        for module in sorted(set(sys.modules) - before):
            print(module)
        """,
        options=["-I", "-W", "error"],
    )
    package = {"posixshm", "posixshm._core", "posixshm._support"}
    math = {"math", "math.integer", "_math_integer"}  # math imports the last two from 3.15 on
    assert package <= set(out.split()) <= package | {"__future__"} | math


@pytest.mark.new_interpreter
def test_import_changes_no_state_of_the_process(run_python):
    run_python(
        """
        import gc, os, signal, threading
        from _processes import shm_names
        def state():
            gc.collect()
            with open("/proc/self/maps") as maps:
                shared = [line for line in maps if "/dev/shm" in line or "memfd" in line]
            children = open("/proc/thread-self/children").read()
            return (sorted(os.listdir("/proc/self/fd")), os.listdir("/proc/self/task"), children,
                    shared, shm_names(), threading.active_count(),
                    [signal.getsignal(number) for number in signal.valid_signals()], os.getcwd())
        before = state()
        import posixshm
        assert state() == before, (before, state())
        """,
        options=["-W", "error", "-W", "ignore::ResourceWarning"],
        env=PATH,
    )


@pytest.mark.new_interpreter
def test_import_again(run_python):
    """A second copy of the module works with handles of the first copy."""
    run_python(
        """
        import gc, sys
        import posixshm
        shm = posixshm.SharedMemory.anonymous(100)
        view = shm.buf
        first = posixshm
        for module in [module for module in sys.modules if module.startswith("posixshm")]:
            del sys.modules[module]
        import posixshm
        assert posixshm is not first
        with posixshm.SharedMemory.anonymous(10) as other:
            other.buf[0] = 1
        del first, posixshm, other
        gc.collect()
        view[0] = 2
        shm.close()
        shm.__init__(create=True, size=10)
        shm.unlink()
        """,
        options=["-X", "dev"],
    )


@pytest.mark.new_interpreter
def test_the_gil_stays_off(run_python):
    """In a free-threaded build, importing the package does not turn the GIL on."""
    out = run_python(
        """
        import sys
        def gil():
            return getattr(sys, "_is_gil_enabled", lambda: True)()
        before = gil()
        import posixshm
        import posixshm.shared_memory
        print(before == gil())
        """,
        options=["-W", "error"],
    )
    assert out == "True\n"


def test_submodules_are_loaded_at_first_use():
    assert importlib.import_module("posixshm.shared_memory").SharedMemory is not SharedMemory
    assert issubclass(importlib.import_module("posixshm.shared_memory").SharedMemory, SharedMemory)


@pytest.mark.new_interpreter
def test_without_pyarrow_the_import_error_names_the_extra(run_python):
    """The error is raised at the first use. For a missing numpy see test_array."""
    run_python(
        """
        import sys
        sys.modules["pyarrow"] = None
        import posixshm.arrow
        for use in (lambda: posixshm.arrow.read("x"), lambda: posixshm.arrow.write("x", None)):
            try:
                use()
            except ImportError as error:
                assert "pip install 'posixshm[arrow]'" in str(error), error
                assert error.name == "pyarrow", error
            else:
                raise AssertionError
        """
    )


def test_sizes_are_small():
    """A handle does not have a __dict__."""
    with SharedMemory.anonymous(10) as shm:
        assert not hasattr(shm, "__dict__")
        assert not hasattr(shm.map(), "__dict__")
        assert sys.getsizeof(shm) < 1024
        assert np.frombuffer(shm, "u1").nbytes == 10
