"""The header of a named array, which makes an object in /dev/shm a valid .npy file.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import operator
import os
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal, NamedTuple, SupportsIndex

import numpy as np
from numpy.lib import format

# The items begin at a multiple of this number of bytes, the smallest page size, so that a file does
# not depend on the machine. Larger pages would need headers longer than numpy reads (see below).
_ALIGNMENT = 4096
# The longest header that numpy reads, bytes.
_LONGEST = 10_000
# The number of headers to cache: an array that is replaced often has the same header each time.
_REMEMBERED = 64
_VERSIONS = {(1, 0): "latin1", (2, 0): "latin1", (3, 0): "utf8"}


class Header(NamedTuple):
    """The content of a header. offset: the place of the first item, in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    offset: int

    @property
    def end(self) -> int:
        """The offset of the end of the last item, in bytes."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"shape {self.shape}, dtype {self.dtype}, order {self.order!r}"


def make(
    shape: SupportsIndex | Iterable[SupportsIndex], dtype: Any, order: Literal["C", "F"]
) -> tuple[Header, bytes]:
    """Return a header and its bytes. Raises ValueError if a header cannot describe the array."""
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    extents = shape if isinstance(shape, Iterable) else (shape,)
    wanted = tuple(operator.index(extent) for extent in extents)
    if any(extent < 0 for extent in wanted):
        raise ValueError(f"shape must not contain a negative number: {wanted}")
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise ValueError(f"dtype {kind} contains Python objects, which other processes cannot use")
    if kind.subdtype is not None:  # as numpy does: the array gets its dimensions
        kind, inner = kind.subdtype
        wanted += inner
    if kind.itemsize == 0:
        raise ValueError(f"dtype {kind} has an item size of 0 bytes; add a length, as in 'S8'")
    # A structured dtype is not cached, because a program may rename its fields.
    written = _written if kind.names is None else _written.__wrapped__
    return written(kind, wanted, order)


@lru_cache(_REMEMBERED)
def _written(
    kind: np.dtype[Any], wanted: tuple[int, ...], order: Literal["C", "F"]
) -> tuple[Header, bytes]:
    try:
        descr = format.dtype_to_descr(kind)
    except ValueError as error:
        raise ValueError(f"a .npy header cannot describe dtype {kind}: {error}") from None
    # In ASCII, including the names of fields, so that the oldest version of the format suffices.
    text = f"{{'descr': {ascii(descr)}, 'fortran_order': {order == 'F'}, 'shape': {wanted}, }}"
    data = _pad(text.encode("ascii"), kind)
    header = _parse(data)
    if (header.dtype, header.shape) != (kind, wanted):
        raise ValueError(f"a .npy header cannot describe dtype {kind}: it reads {header.dtype}")
    return header, data


def _pad(text: bytes, kind: np.dtype[Any]) -> bytes:
    """Return the text after the magic string, padded with spaces up to the first item."""
    start = len(format.magic(1, 0)) + 2
    for alignment in (_ALIGNMENT, format.ARRAY_ALIGN):
        length = -(start + len(text) + 1) % alignment + len(text) + 1
        if length <= _LONGEST:
            length_field = length.to_bytes(2, "little")
            return format.magic(1, 0) + length_field + text.ljust(length - 1) + b"\n"
    most = f"numpy reads at most {_LONGEST}"
    raise ValueError(f"dtype with {len(kind.names or ())} fields needs {len(text)} bytes; {most}")


def read(fd: int, size: int) -> Header:
    """Read the header of an object of `size` bytes, and check it against the size.

    Reads through the descriptor: a mapping would cause a bus error if another process truncated the
    object. Raises Refused if the object is not an array that numpy can represent; OSError.
    """
    header = _parse(os.pread(fd, 12 + _LONGEST, 0))
    end = header.end
    if end > size:
        raise Refused(f"{header} ends at byte {end}, but the object has {size} bytes")
    if len(header.shape) > _DIMENSIONS:
        raise Refused(f"it has {len(header.shape)} dimensions, more than numpy's {_DIMENSIONS}")
    # numpy multiplies all extents except 0.
    if math.prod(extent or 1 for extent in header.shape) * header.dtype.itemsize > sys.maxsize:
        raise Refused(f"its shape {header.shape} is larger than the address space")
    return header


def is_array(fd: int) -> bool:
    """Return whether an object begins like an array."""
    return os.pread(fd, len(format.MAGIC_PREFIX), 0) == format.MAGIC_PREFIX


def _parse(data: bytes) -> Header:
    """Parse a header. data: the beginning of an object, with the whole header if it may be read.

    Takes time and memory in proportion to the header, whatever the header contains.
    """
    if not data.startswith(format.MAGIC_PREFIX):
        raise Refused(f"it begins with {data[:6]!r} instead of {format.MAGIC_PREFIX!r}")
    version = (*data[6:8],)
    if version not in _VERSIONS:
        raise Refused(f"it has version {version} of the format, not one of {sorted(_VERSIONS)}")
    start = 10 if version == (1, 0) else 12
    length = int.from_bytes(data[8:start], "little")
    if length > _LONGEST:
        raise Refused(f"its header has {length} bytes, more than {_LONGEST}")
    if len(data) < start + length:
        raise Refused(f"its header is truncated: it has {len(data)} of {start + length} bytes")
    said = (version[0], version[1]), data[start : start + length]
    header = _said(*said)
    return header if header.dtype.names is None else _said.__wrapped__(*said)


@lru_cache(_REMEMBERED)
def _said(version: tuple[int, int], said: bytes) -> Header:
    try:
        text = said.decode(_VERSIONS[version])
    except UnicodeDecodeError as error:
        raise _damaged(error) from None
    entries = _Text(text).entries()
    kind = _dtype(entries["descr"])
    fortran = entries["fortran_order"]
    if type(fortran) is not bool:
        raise _damaged(f"fortran_order is {fortran!r}")
    shape = _shape(entries["shape"])
    if kind.hasobject:
        raise Refused(f"its dtype {kind} contains Python objects")
    if kind.subdtype is not None:
        kind, inner = kind.subdtype
        shape += inner
    if kind.itemsize == 0:  # any number of them would fit, and take long to iterate over
        raise Refused(f"its dtype {kind} has an item size of 0 bytes")
    start = len(format.MAGIC_PREFIX) + 2 + (2 if version == (1, 0) else 4)
    return Header(kind, shape, "F" if fortran else "C", start + len(said))


# -- the text of a header ---------------------------------------------------------------------
#
# The text is a dict of the literals that any version of numpy writes: str, int, bool, tuples and
# lists. This module does not use the parser of numpy: if ast.literal_eval fails, that parser looks
# for a header of Python 2, which takes a minute for 9 KB, and np.dtype() interprets a str in many
# ways.

_TOKEN = re.compile(
    r"""[ \t\r\n]* (?:
      (?P<mark> [][(){},:] )
    | (?P<number> -? (?: 0 | [1-9][0-9]{0,19} ) (?![0-9]) ) L?
    | (?P<word> (?: True | False ) \b )
    | u? '(?P<single> [^'\\\n]* (?: \\. [^'\\\n]* )* )'
    | u? "(?P<double> [^"\\\n]* (?: \\. [^"\\\n]* )* )"
    | (?P<end> \Z )
    )""",
    re.VERBOSE,
)
_HEX = "[0-9A-Fa-f]"
_ESCAPE = re.compile(rf"\\(?:x({_HEX}{{2}})|u({_HEX}{{4}})|U({_HEX}{{8}})|(.))")
_ESCAPED = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
_CLOSING = {"(": ")", "[": "]"}
_KEYS = {"descr", "fortran_order", "shape"}
_DEPTH = 32  # nested brackets; a dtype needs two for each level, and numpy does not limit them
_DIMENSIONS = getattr(np, "MAXDIMS", 64)  # numpy 2 has no name for it
# The values of dtype.str for the types of numpy itself.
_SIMPLE = re.compile(r"[<>|=]?(?:[?biufcSUVO][0-9]{0,10}|[mM]8(?:\[[0-9]{0,10}[A-Za-z]{1,7}\])?)")
_MOST = 2**31 - 1  # the largest item of numpy, bytes


class Refused(ValueError):
    """The bytes are not a .npy header, or not one that this module reads."""


def _damaged(why: object) -> Refused:
    return Refused(f"its header is damaged: {why}")


class _Text:
    """A parser for a text of literals, which reads it once from start to end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0
        self._advance()

    def _advance(self) -> None:
        start = self._end
        found = _TOKEN.match(self._text, start)
        if found is None or found.lastgroup is None:
            raise _damaged(f"unexpected {self._text[start : start + 20]!r} at character {start}")
        self._end, self._kind, self._token = found.end(), found.lastgroup, found[found.lastgroup]

    def _mark(self, mark: str) -> bool:
        """Skip this mark if it is the next token. Return whether it was."""
        if self._kind != "mark" or self._token != mark:
            return False
        self._advance()
        return True

    def _demand(self, is_so: bool, what: str) -> None:
        if not is_so:
            raise _damaged(f"{what} is missing before character {self._end}")

    def entries(self) -> dict[str, Any]:
        """Return the dict of a header, which must be the whole text."""
        entries: dict[str, Any] = {}
        self._demand(self._mark("{"), "'{'")
        while not self._mark("}"):
            key = self._literal(0)
            if not isinstance(key, str) or key not in _KEYS - entries.keys():
                raise _damaged(f"{key!r} is not one of its keys {sorted(_KEYS)}, or occurs twice")
            self._demand(self._mark(":"), "':'")
            entries[key] = self._literal(0)
            if not self._mark(","):
                self._demand(self._mark("}"), "'}'")
                break
        self._demand(self._kind == "end", "its end")
        if missing := _KEYS - entries.keys():
            raise _damaged(f"the key {' and the key '.join(sorted(missing))} is missing")
        return entries

    def _literal(self, depth: int) -> Any:
        kind, token = self._kind, self._token
        if kind == "mark":
            self._demand(token in _CLOSING, "a value")
            if depth == _DEPTH:
                raise _damaged(f"it nests more than {_DEPTH} brackets")
            return self._sequence(depth + 1)
        self._advance()
        if kind == "number":
            return int(token)
        if kind == "word":
            return token == "True"
        if kind == "end":
            raise _damaged("it is truncated")
        return _ESCAPE.sub(_unescaped, token)

    def _sequence(self, depth: int) -> Any:
        opening = self._token
        closing = _CLOSING[opening]
        self._advance()
        items: list[Any] = []
        comma = True
        while not self._mark(closing):
            self._demand(comma, "',' or " + repr(closing))
            items.append(self._literal(depth))
            comma = self._mark(",")
        if opening == "[":
            return items
        return items[0] if len(items) == 1 and not comma else tuple(items)


def _unescaped(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    code = int(digits, 16) if digits else -1
    if code > sys.maxunicode or (digits is None and found[4] not in _ESCAPED):
        raise _damaged(f"{found[0]!r} is not an escape that numpy writes")
    return chr(code) if digits else _ESCAPED[found[4]]


def _shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(isinstance(extent, int) for extent in shape):
        raise _damaged("a shape is not a tuple of integers")
    if any(extent < 0 for extent in shape):
        raise Refused(f"its shape {shape} contains a negative number")
    return tuple(map(int, shape))


def _dtype(descr: Any) -> np.dtype[Any]:
    """Return the dtype that a str, a (dtype, shape) tuple, or a list of fields describes."""
    if isinstance(descr, str):
        if not _SIMPLE.fullmatch(descr):
            raise _damaged(f"{descr!r} is not a dtype that numpy writes")
        return _numpys(descr)
    if isinstance(descr, tuple):
        if len(descr) != 2:
            raise _damaged(f"a dtype has {len(descr)} parts instead of 2, a dtype and a shape")
        return _subarray(*descr)
    if isinstance(descr, list):
        return _structure(descr)
    raise _damaged(f"{descr!r} is not a dtype")


def _subarray(descr: Any, shape: Any) -> np.dtype[Any]:
    kind, extents = _dtype(descr), _shape(shape)
    if math.prod(extents) * kind.itemsize > _MOST:
        raise _damaged(f"an item has more than {_MOST} bytes")
    return _numpys((kind, extents))


def _structure(fields: list[Any]) -> np.dtype[Any]:
    names, titles, kinds, offsets = [], [], [], []
    end = 0
    for field in fields:
        if not isinstance(field, tuple) or not 2 <= len(field) <= 3:
            raise _damaged("a field is not a tuple of its name, dtype and shape")
        title, name = None, field[0]
        if isinstance(name, tuple) and len(name) == 2:
            title, name = name
        if not isinstance(name, str) or not isinstance(title, str | None):
            raise _damaged(f"{field[0]!r} is not the name of a field")
        kind = _dtype(field[1]) if len(field) == 2 else _subarray(*field[1:])
        # Padding between fields is a field without a name.
        if name != "" or kind.type is not np.void or kind.names is not None:
            names.append(name)
            titles.append(title)
            kinds.append(kind)
            offsets.append(end)
        end += kind.itemsize
        if end > _MOST:
            raise _damaged(f"an item has more than {_MOST} bytes")
    return _numpys(
        {"names": names, "formats": kinds, "titles": titles, "offsets": offsets, "itemsize": end}
    )


def _numpys(descr: Any) -> np.dtype[Any]:
    try:
        kind: np.dtype[Any] = np.dtype(descr)
    except (TypeError, ValueError, OverflowError) as error:
        # An exception of a signal handler has a frame of its own.
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:
            raise
        raise _damaged(error) from None
    return kind
