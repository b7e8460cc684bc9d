"""The header of a named array: what makes an object of /dev/shm a valid .npy file.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from functools import lru_cache
from io import BytesIO
from typing import Any, Literal, NamedTuple, SupportsIndex

import numpy as np
from numpy.lib import format

# Items begin at a multiple of this many bytes: a page where pages are smallest, so that the same
# file suits every machine; numpy reads headers up to the limit below, so larger pages have none.
_ALIGNMENT = 4096
# Bytes; numpy's limit, under which ast.literal_eval is safe with what a stranger wrote.
_LONGEST = 10_000
# Headers that were written and read last: an array that is replaced again and again has the same.
_REMEMBERED = 64
_VERSIONS = {(1, 0): "latin1", (2, 0): "latin1", (3, 0): "utf8"}


class Header(NamedTuple):
    """What a header says. offset: bytes, where the first item lies."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    offset: int

    @property
    def end(self) -> int:
        """Bytes from the beginning of the object to the end of its last item."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"shape {self.shape}, dtype {self.dtype}, order {self.order!r}"


def make(
    shape: SupportsIndex | Iterable[SupportsIndex], dtype: Any, order: Literal["C", "F"]
) -> tuple[Header, bytes]:
    """The header of a new array, and its bytes. Raises ValueError for what it cannot say."""
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    extents = shape if isinstance(shape, Iterable) else (shape,)
    wanted = tuple(operator.index(extent) for extent in extents)
    if any(extent < 0 for extent in wanted):
        raise ValueError(f"no extent of a shape may be negative: {wanted}")
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise ValueError(f"dtype {kind} holds Python objects, which live in one process only")
    if kind.subdtype is not None:  # as numpy does: the array gets its dimensions
        kind, inner = kind.subdtype
        wanted += inner
    if kind.itemsize == 0:
        raise ValueError(f"dtype {kind} has items of no bytes")
    # An array of structures has a dtype of its own: whoever has it may rename its fields.
    written = _written if kind.names is None else _written.__wrapped__
    return written(kind, wanted, order)


@lru_cache(_REMEMBERED)
def _written(
    kind: np.dtype[Any], wanted: tuple[int, ...], order: Literal["C", "F"]
) -> tuple[Header, bytes]:
    try:
        descr = format.dtype_to_descr(kind)
    except ValueError as error:
        raise ValueError(f"dtype {kind} cannot be said in a .npy header: {error}") from None
    # In ASCII, also a field's name, so that the oldest version of the format will do.
    text = f"{{'descr': {ascii(descr)}, 'fortran_order': {order == 'F'}, 'shape': {wanted}, }}"
    data = _pad(text.encode("ascii"), kind)
    header = _parse(data)
    if (header.dtype, header.shape) != (kind, wanted):
        raise ValueError(f"dtype {kind} cannot be said in a .npy header: it reads {header.dtype}")
    return header, data


def _pad(text: bytes, kind: np.dtype[Any]) -> bytes:
    """Text with the magic string before it, and spaces up to where the items begin."""
    start = len(format.magic(1, 0)) + 2
    for alignment in (_ALIGNMENT, format.ARRAY_ALIGN):
        length = -(start + len(text) + 1) % alignment + len(text) + 1
        if length <= _LONGEST:
            length_field = length.to_bytes(2, "little")
            return format.magic(1, 0) + length_field + text.ljust(length - 1) + b"\n"
    most = f"numpy reads no header of more than {_LONGEST}"
    raise ValueError(f"dtype with {len(kind.names or ())} fields needs {len(text)} bytes; {most}")


def read(fd: int) -> Header:
    """What the object's header says, checked against its size.

    Through the descriptor: a mapping would be a bus error where another process makes the object
    smaller meanwhile. Raises ValueError for what is no array, or a damaged one; OSError.
    """
    header = _parse(os.pread(fd, 12 + _LONGEST, 0))
    size = os.fstat(fd).st_size
    if header.end > size:
        raise ValueError(f"{header} ends at byte {header.end}, and the object has {size}")
    return header


def _parse(data: bytes) -> Header:
    """What a header says. data: the beginning of an object, with all of its header if that may
    be read at all. Runs nothing of what a stranger wrote: numpy takes literals only."""
    if not data.startswith(format.MAGIC_PREFIX):
        raise ValueError(f"it begins with {data[:6]!r}, and not with {format.MAGIC_PREFIX!r}")
    version = (*data[6:8],)
    if version not in _VERSIONS:
        raise ValueError(f"version {version} of the format is none of {sorted(_VERSIONS)}")
    start = 10 if version == (1, 0) else 12
    length = int.from_bytes(data[8:start], "little")
    if length > _LONGEST:
        raise ValueError(f"its header has {length} bytes, more than {_LONGEST}")
    if len(data) < start + length:
        raise ValueError(f"its header is cut: {len(data)} of {start + length} bytes are there")
    said = (version[0], version[1]), data[start : start + length]
    header = _said(*said)
    return header if header.dtype.names is None else _said.__wrapped__(*said)


@lru_cache(_REMEMBERED)
def _said(version: tuple[int, int], said: bytes) -> Header:
    try:
        text = said.decode(_VERSIONS[version])
        # What the second version cannot encode is escaped: it stands inside of a str literal.
        encoded = text.encode("latin1", "backslashreplace")
        stream = BytesIO(len(encoded).to_bytes(4, "little") + encoded)
        extents, fortran, kind = format.read_array_header_2_0(stream)
    except Exception as error:  # whatever a parser may raise: of tokens, of depth, of names
        raise ValueError(f"its header is damaged: {error}") from error
    if kind.hasobject:
        raise ValueError(f"its dtype {kind} holds Python objects")
    shape = tuple(int(extent) for extent in extents)
    if any(extent < 0 for extent in shape):
        raise ValueError(f"its shape {shape} is negative")
    if kind.subdtype is not None:
        kind, inner = kind.subdtype
        shape += inner
    if kind.itemsize == 0:  # any number of them would do, and take as long to go through
        raise ValueError(f"its dtype {kind} has items of no bytes")
    start = len(format.MAGIC_PREFIX) + 2 + (2 if version == (1, 0) else 4)
    return Header(kind, shape, "F" if fortran else "C", start + len(said))
