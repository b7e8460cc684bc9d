"""The public names: those of the modules, and what their classes do."""

import importlib
import os
import pkgutil
import symtable
from collections import namedtuple
from pathlib import Path

import posixshm

# All that lie in the package's folder, and no list that a new one would not be in.
PARTS = sorted(
    f"posixshm.{part.name}"
    for part in pkgutil.iter_modules(posixshm.__path__)
    if not part.name.startswith("_")
)
MODULES = ("posixshm", *PARTS)
# Python puts these into a class, and they do nothing of its own.
_PYTHONS = {"__annotate__", "__annotate_func__", "__dict__", "__weakref__"}
_EXPORTERS = {"MemoryMap", "SharedMemory", "View"}


def _does_something(name, member):
    """A method, a property or a slot, and nothing private."""
    if name in _PYTHONS or name.startswith("_") and not name.endswith("__"):
        return False
    return callable(member) or hasattr(member, "__get__")


def _members(cls):
    names = {name for name, member in vars(cls).items() if _does_something(name, member)}
    if hasattr(cls, "n_sequence_fields"):  # a record, as those of the os module are
        names -= vars(os.stat_result).keys()
    if hasattr(cls, "_fields"):  # a named tuple
        names -= vars(namedtuple("Any", "")).keys()
    if cls.__module__ == "posixshm" and cls.__name__ in _EXPORTERS:
        # Before PEP 688, of Python 3.12, there were no names for it.
        names |= {"__buffer__", "__release_buffer__"}
    return names


def public_names(*modules):
    """'SharedMemory.close', say, or 'aio.hold'. Not constants, of which there is nothing to call."""
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
    """The public names that a module's source gives to something, and does not import."""
    table = symtable.symtable(Path(module.__file__).read_text(), module.__file__, "exec")
    return {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_assigned()
        and not symbol.is_imported()
        and not symbol.get_name().startswith("_")
    }
