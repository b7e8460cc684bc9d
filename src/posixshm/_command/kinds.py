"""The kind of an object, from its first bytes: .npy file, Arrow file, primitive, or bytes.

Any process that may write to the object can change these bytes. So they are checked against the
size of the object, and an object that they do not describe counts as plain bytes.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from posixshm._command.flat import Damaged, Table

# Reads so many bytes of the object at an offset; fewer at its end.
Reader = Callable[[int, int], bytes]


class Kind(NamedTuple):
    """label: for a person. content: for --json, with its 'type'."""

    label: str
    content: dict[str, Any]


PLAIN = Kind("plain", {"type": "plain"})


def kind_of(name: str, head: bytes, size: int, read: Reader) -> Kind:
    """Return the kind of an object of `size` bytes that begins with `head`."""
    if name.startswith("sem."):
        return _semaphore(head)
    if head.startswith(_NPY):
        return _array(head, size) or PLAIN
    if head.startswith(_ARROW + b"\0\0"):
        return _table(size, read) or PLAIN
    return _primitive(head, size) or PLAIN


# -- POSIX semaphores -------------------------------------------------------------------------


def semaphore_value(head: bytes) -> int:
    """Return the value of a sem_t."""
    (word,) = struct.unpack_from("=I", head)
    # A C library for 32 bits keeps a flag in the lowest bit.
    value: int = word & 0x7FFFFFFF if sys.maxsize > 2**32 else word >> 1
    return value


def _semaphore(head: bytes) -> Kind:
    if len(head) < 16:
        return PLAIN
    value = semaphore_value(head)
    return Kind(f"semaphore {value}", {"type": "semaphore", "value": value})


# -- arrays -----------------------------------------------------------------------------------

_NPY = b"\x93NUMPY"
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_HEADER = re.compile(
    r"\{'descr': (?P<descr>'[^'\\\n]{1,40}'|\[.{1,9000}\]), "
    r"'fortran_order': (?P<order>True|False), "
    r"'shape': \((?P<shape>(?:[0-9]{1,19}L?, ?)*(?:[0-9]{1,19}L?)?)\), ?\}[ \n]*",
    re.DOTALL,
)
_SIMPLE = re.compile(r"([<>|=]?)([?biufcSUVmM])([0-9]{0,9})(\[[0-9]{0,9}[A-Za-z]{1,7}\])?")
_DIMENSIONS = 64


def _array(head: bytes, size: int) -> Kind | None:
    if len(head) < 12 or head[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        return None
    start = 10 if head[6] == 1 else 12
    offset = start + int.from_bytes(head[8:start], "little")
    if offset > min(size, start + 10_000):
        return None
    text = head[start:offset].decode("latin1")
    found = _HEADER.match(text)
    if found is None:
        # The names of many fields are longer than what was read.
        fields = text.startswith("{'descr': [") and len(head) < offset
        return Kind(".npy structured", {"type": "npy", "dtype": None}) if fields else None
    shape = tuple(int(extent.rstrip("L")) for extent in re.findall(r"\d+", found["shape"]))
    if len(shape) > _DIMENSIONS:
        return None
    descr = found["descr"].strip("'")
    label, itemsize = _dtype(descr)
    if label is None or offset + math.prod(shape) * itemsize > size:
        return None
    text = f"({shape[0]},)" if len(shape) == 1 else f"({', '.join(map(str, shape))})"
    order = "F" if found["order"] == "True" else "C"
    content = {"type": "npy", "dtype": descr, "shape": list(shape), "order": order}
    return Kind(f".npy {label} {text}", content)


def _dtype(descr: str) -> tuple[str | None, int]:
    """Return the name of a dtype and its item size in bytes; None for other texts."""
    if descr.startswith("["):
        return "structured", 1
    found = _SIMPLE.fullmatch(descr)
    if found is None:
        return None, 0
    order, kind, digits, unit = found.groups()
    length = int(digits or 1)
    if kind == "U":
        length *= 4
    native = "<" if sys.byteorder == "little" else ">"
    if kind in _KINDS and order in ("|", "=", "", native):
        return "bool" if kind == "b" else f"{_KINDS[kind]}{8 * length}", length
    if kind == "?":
        return "bool", 1
    return descr.lstrip("|=" + native) + ("" if unit is None or unit in descr else unit), length


# -- tables -----------------------------------------------------------------------------------

_ARROW = b"ARROW1"
_FOOTER = 1024  # bytes of the footer that are read: more than that take only very many columns
_MESSAGE = 256  # ... and of the metadata of a batch
_BATCHES = 8  # that are asked how many rows they have


def _table(size: int, read: Reader) -> Kind | None:
    tail = read(max(size - 10, 0), 10)
    if len(tail) != 10 or tail[4:] != _ARROW:
        return None
    length = int.from_bytes(tail[:4], "little")
    start = size - 10 - length
    if start < 8 or length < 8:
        return None
    content: dict[str, Any] = {"type": "arrow", "columns": None, "rows": None}
    footer = read(start, min(length, _FOOTER))
    try:
        # https://github.com/apache/arrow/blob/main/format/File.fbs, the table Footer.
        root = Table.root(footer)
        content["columns"] = root.table(1).count(1)
        batches = root.structs(3, "<qi4xq")
        if len(batches) <= _BATCHES:
            content["rows"] = sum(_rows(place, size, read) for place, _, _ in batches)
    except Damaged:
        if len(footer) == length:
            return None
    label = "Arrow"
    if content["columns"] is not None:
        label += f" {content['columns']:,} column{'s' * (content['columns'] != 1)}"
    if content["rows"] is not None:
        label += f", {content['rows']:,} row{'s' * (content['rows'] != 1)}"
    return Kind(label, content)


def _rows(place: int, size: int, read: Reader) -> int:
    """Return the number of rows of a batch: the table RecordBatch of Message.fbs."""
    if not 8 <= place < size:
        raise Damaged
    data = read(place, _MESSAGE)
    start = 8 if data[:4] == b"\xff\xff\xff\xff" else 4
    rows = Table.root(data[start:]).table(2).number(0, "<q")
    if not 0 <= rows < 1 << 60:
        raise Damaged
    return rows


# -- primitives -------------------------------------------------------------------------------

# struct pshm_header of csrc/posix/sync/primitive.h, without its guard.
_PRIMITIVE = struct.Struct("=IBBBBHHI")
_MAGIC = 0x4D485350
_VERSION = 1
_PRIMITIVES = ("", "Semaphore", "Lock", "RLock", "Condition", "Event", "Barrier", "RWLock")


class Tag(NamedTuple):
    """The header of a primitive. library: 1 is glibc, 2 is musl. space: the PID namespace."""

    type: str
    library: int
    space: int


def tag_of(head: bytes, size: int) -> Tag | None:
    """Return the header of the primitive with which the object begins, or None."""
    if size < 128 or len(head) < 128:
        return None
    magic, version, kind, _, library, _, _, space = _PRIMITIVE.unpack_from(head, 64)
    if magic != _MAGIC or version != _VERSION or not 0 < kind < len(_PRIMITIVES):
        return None
    return Tag(_PRIMITIVES[kind], library, space)


def _primitive(head: bytes, size: int) -> Kind | None:
    tag = tag_of(head, size)
    if tag is None:
        return None
    content: dict[str, Any] = {"type": tag.type}
    label = tag.type
    if tag.type == "Semaphore":
        content["value"] = semaphore_value(head)
        label += f" {content['value']}"
    elif tag.type == "Event":
        content["set"] = bool(struct.unpack_from("=I", head)[0] & 1)
        label += " set" if content["set"] else " not set"
    elif tag.type == "Barrier":
        (content["parties"],) = struct.unpack_from("=I", head, 8)
        label += f" of {content['parties']}"
    return Kind(label, content)
