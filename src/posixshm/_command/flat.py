"""Reading a flatbuffers table that may be damaged: https://flatbuffers.dev/internals/"""

from __future__ import annotations

import struct
from typing import Any


class Damaged(Exception):
    """The bytes are not a complete table."""


class Table:
    """A table that begins at `place` of `data`."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place
        self._fields = place - self._read("<i", place)
        self._fields_size = self._read("<H", self._fields)

    @classmethod
    def root(cls, data: bytes) -> Table:
        if len(data) < 4:
            raise Damaged
        return cls(data, int.from_bytes(data[:4], "little"))

    def _read(self, form: str, place: int) -> int:
        return int(self._unpack(form, place)[0])

    def _unpack(self, form: str, place: int) -> tuple[Any, ...]:
        if not 0 <= place <= len(self._data) - struct.calcsize(form):
            raise Damaged
        return struct.unpack_from(form, self._data, place)

    def _field(self, number: int) -> int:
        """Return the offset of a field; 0 if the table does not have the field."""
        entry = 4 + 2 * number
        if entry + 2 > self._fields_size:
            return 0
        offset = self._read("<H", self._fields + entry)
        return self._place + offset if offset else 0

    def _target(self, number: int) -> int:
        place = self._field(number)
        return place + self._read("<I", place) if place else 0

    def number(self, number: int, form: str) -> int:
        place = self._field(number)
        return self._read(form, place) if place else 0

    def table(self, number: int) -> Table:
        place = self._target(number)
        if not place:
            raise Damaged
        return Table(self._data, place)

    def count(self, number: int) -> int:
        """Return the number of items of a vector."""
        place = self._target(number)
        return self._read("<I", place) if place else 0

    def structs(self, number: int, form: str) -> list[tuple[Any, ...]]:
        """Return the items of a vector of structures."""
        place, size = self._target(number), struct.calcsize(form)
        count = self._read("<I", place) if place else 0
        if count > len(self._data) // size:
            raise Damaged
        return [self._unpack(form, place + 4 + i * size) for i in range(count)]
