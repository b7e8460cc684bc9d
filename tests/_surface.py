"""The public names of the modules, and the members of their classes."""

import importlib
import os
import pkgutil
import symtable
from collections import namedtuple
from pathlib import Path

import posixshm

# Every module in the package's folder, so that a new module is included.
PARTS = sorted(
    f"posixshm.{part.name}"
    for part in pkgutil.iter_modules(posixshm.__path__)
    if not part.name.startswith("_")
)
MODULES = ("posixshm", *PARTS)
# Python adds these to every class; they have no behaviour of their own.
_PYTHONS = {"__annotate__", "__annotate_func__", "__dict__", "__weakref__"}
_EXPORTERS = {"MemoryMap", "SharedMemory", "View"}


def _does_something(name, member):
    """Is it a public method, property or slot?"""
    if name in _PYTHONS or name.startswith("_") and not name.endswith("__"):
        return False
    return callable(member) or hasattr(member, "__get__")


def _members(cls):
    names = {name for name, member in vars(cls).items() if _does_something(name, member)}
    if hasattr(cls, "n_sequence_fields"):  # a struct sequence, as in the os module
        names -= vars(os.stat_result).keys()
    if hasattr(cls, "_fields"):  # a named tuple
        names -= vars(namedtuple("Any", "")).keys()
    if cls.__module__ == "posixshm" and cls.__name__ in _EXPORTERS:
        # Before Python 3.12 (PEP 688) these methods have no names.
        names |= {"__buffer__", "__release_buffer__"}
    return names


def public_names(*modules):
    """Names such as 'SharedMemory.close' or 'aio.hold'. Not constants, which cannot be called."""
    names = set()
    for module in map(importlib.import_module, modules):
        prefix = module.__name__.partition(".")[2]
        for name in module.__all__:
            value = getattr(module, name)
            if not isinstance(value, int | str):
                name = f"{prefix}.{name}".lstrip(".")
                names.add(name)
                if isinstance(value, type):
                    names.update(f"{name}.{member}" for member in _members(value))
    return names


def own_names(module):
    """The public names that a module's source defines rather than imports."""
    table = symtable.symtable(Path(module.__file__).read_text(), module.__file__, "exec")
    return {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_assigned()
        and not symbol.is_imported()
        and not symbol.get_name().startswith("_")
    }
