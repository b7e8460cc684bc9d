"""The bytes of a ShareableList.

The memory layout is that of the standard library, so both modules can read each other's lists.
Numbers are in the byte order of the machine. The parts follow each other without padding:

    int64            n, the number of items
    int64[n + 1]     the offset of each slot from the first slot, and the end of the last slot
    bytes            the slots: 8 bytes, or for a text the next multiple of 8 above the number of
                     its characters; the size of a slot never changes
    char[n][8]       the format of each slot, for the struct module, padded with NULs:
                     "q" an int, "d" a float, "xxxxxxx?" a bool, "xxxxxx?x" None, "24s" a text
    int8[n]          the conversion of that value to the item: 0 none; 1 str in UTF-8 and 2 bytes,
                     both without trailing NULs; 3 None

bytes that end in NULs have a format with their exact length and the code 0, which the standard
library reads completely. A str that ends in NULs has a format with its exact length and a leading
0 ("03s"): this module reads it completely, the standard library without its trailing NULs.

A list does not have a lock: a reader may get a mixture of an old and a new item.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, cast

_PLAIN, _STR, _BYTES, _NONE = range(4)
_FORMATS = {int: "q", float: "d", bool: "xxxxxxx?", type(None): "xxxxxx?x"}
_WORD = 8
_ROOM_MAX = 9_999_999  # the largest size that a format of 8 characters can express


def _encode(value: object) -> tuple[str | None, int, bytes]:
    """Return format, code and bytes of an item; the format of a text is None: its whole slot."""
    if isinstance(value, str):
        data = value.encode()
        return f"0{len(data)}s" if data.endswith(b"\0") else None, _STR, data
    if isinstance(value, bytes):
        return (f"{len(value)}s", _PLAIN, value) if value.endswith(b"\0") else (None, _BYTES, value)
    if type(value) not in _FORMATS:
        raise TypeError(
            "the items of a ShareableList are int, float, bool, str, bytes and None, "
            f"not {type(value).__name__}"
        )
    scalar = _FORMATS[type(value)]
    return scalar, _NONE if value is None else _PLAIN, struct.pack(scalar, value)


def _stored_format(kind: str) -> bytes:
    if len(kind) > _WORD:
        raise ValueError(f"a str that ends in NULs has at most 999999 bytes, not {kind[1:-1]}")
    return kind.encode().ljust(_WORD, b"\0")


def image(values: Iterable[Any]) -> bytes:
    """Return the bytes of a whole list."""
    slots, formats, codes = [], [], []
    for value in values:
        kind, code, data = _encode(value)
        if isinstance(value, str | bytes):
            # By the number of characters, as in the standard library, but at least by the number of
            # bytes: the standard library loses the end of a text with many non-ASCII characters.
            room = _WORD * max(len(value) // _WORD + 1, -(-len(data) // _WORD))
            if room > _ROOM_MAX:
                raise ValueError(
                    f"an item of {len(data)} bytes is too long: at most {_ROOM_MAX // 8 * 8 - 1}"
                )
            kind = kind or f"{room}s"
            data = data.ljust(room, b"\0")
        slots.append(data)
        formats.append(_stored_format(cast(str, kind)))
        codes.append(code)
    starts = accumulate(map(len, slots), initial=0)
    head = struct.pack(f"{len(slots) + 2}q", len(slots), *starts)
    return b"".join([head, *slots, *formats, bytes(codes)])


class Layout:
    """The offsets of the parts of a list. The constructor checks the first and last words.

    The description of an item is checked each time that the item is used. A table of all checked
    items would be as long as the object, which may have any size without having memory.
    """

    def __init__(self, buf: memoryview, name: str | None) -> None:
        def demand(is_so: bool, what: str) -> None:
            if not is_so:
                raise ValueError(f"{name!r} does not contain a ShareableList: {what}")

        size = len(buf)
        demand(size >= 2 * _WORD, f"{size} bytes are too few")
        (count,) = struct.unpack_from("q", buf)
        demand(0 <= count <= (size - 2 * _WORD) // _WORD, f"it cannot have {count} items")
        (first,) = struct.unpack_from("q", buf, _WORD)
        (end,) = struct.unpack_from("q", buf, (count + 1) * _WORD)
        slots = (count + 2) * _WORD
        demand(first == 0 and end >= count * _WORD, "its slots do not follow one another")
        demand(end <= size - slots - count * (_WORD + 1), "its items reach past its end")
        # A process that writes the count last has not finished, or the object is not a list.
        demand(count > 0 or size == 2 * _WORD, "it has 0 items, but memory for more")
        self._name = name
        self.count: int = count
        self._slots = slots
        self.formats = slots + end
        self.codes = self.formats + count * _WORD
        self.size = self.codes + count

    def _damaged(self, index: int, what: str) -> ValueError:
        return ValueError(f"item {index} of the list {self._name!r} is damaged: {what}")

    def _slot(self, buf: memoryview, index: int) -> tuple[int, int]:
        """Return the offset of the slot of an item, and its length, in bytes."""
        start, end = struct.unpack_from("2q", buf, (index + 1) * _WORD)
        if not (0 <= start and _WORD <= end - start <= _ROOM_MAX):
            raise self._damaged(index, f"its slot goes from {start} to {end}")
        if self._slots + end > self.formats:
            raise self._damaged(index, "its slot reaches past the last slot")
        return self._slots + start, end - start

    def _format_at(self, buf: memoryview, index: int, room: int) -> str:
        start = self.formats + index * _WORD
        stored = bytes(buf[start : start + _WORD]).rstrip(b"\0")
        kind = stored.decode("latin-1")
        if kind not in _FORMATS.values():
            digits = stored[:-1]
            if not (stored.endswith(b"s") and digits.isdigit()):
                raise self._damaged(index, f"its format is {kind!r}")
            if int(digits) > room:
                raise self._damaged(index, f"the format {kind!r} is larger than its slot")
        return kind

    def format_of(self, buf: memoryview, index: int) -> str:
        """Return the format of an item, for the struct module."""
        return self._format_at(buf, index, self._slot(buf, index)[1])

    def read(self, buf: memoryview, index: int) -> Any:
        """Return an item."""
        start, room = self._slot(buf, index)
        kind = self._format_at(buf, index, room)
        item: Any
        (stored,) = struct.unpack_from(kind, buf, start)
        code = buf[self.codes + index]
        if isinstance(stored, bytes):
            exact = code == _PLAIN or (code == _STR and kind.startswith("0"))
            item = stored if exact else stored.rstrip(b"\0")
            if code == _STR:
                try:
                    item = item.decode()
                except UnicodeDecodeError as error:
                    raise self._damaged(index, "it is not UTF-8") from error
            elif code not in (_BYTES, _PLAIN):
                raise self._damaged(index, f"{kind!r} with code {code}")
        elif code == _PLAIN:
            item = stored
        elif code == _NONE:
            item = None
        else:
            raise self._damaged(index, f"{kind!r} with code {code}")
        return item

    def write(self, buf: memoryview, index: int, value: object) -> None:
        """Replace an item. Raises ValueError, and changes nothing, if a text is too long."""
        kind, code, data = _encode(value)
        start, room = self._slot(buf, index)
        if len(data) > room:
            raise ValueError(
                f"a text of {len(data)} bytes exceeds available storage: item {index} has "
                f"room for {room}"
            )
        stored_format = _stored_format(kind or f"{room}s")
        if isinstance(value, str | bytes):
            data = data.ljust(room, b"\0")
        buf[start : start + len(data)] = data
        stored = self.formats + index * _WORD
        buf[stored : stored + _WORD] = stored_format
        buf[self.codes + index] = code
