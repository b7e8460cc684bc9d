"""A replacement for multiprocessing.shared_memory: only the import changes.

    from posixshm import shared_memory

Processes that use this module and processes that use the standard library can share objects and
lists. The differences are:

- The resource tracker only removes names that the process created, unless track=False; the end of
  a process that attached does not remove the name.
- close() works while views are in use, and the views stay valid.
- The memory is reserved when an object is created: if /dev/shm is full, the constructor raises
  OSError, and a later access is not a bus error. A program that creates objects much larger than
  what it uses can set `shared_memory.SharedMemory.reserve = False`.
- An object gets its name after it has its size, and a list after it has its items.
- unlink() removes the name only if the name still refers to this object.
- Unpickling a handle or a list raises OSError if another object has the name by then.
"""

from __future__ import annotations

import errno
import operator
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from types import GenericAlias, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, SupportsIndex, TypeVar, cast, overload

from . import _core
from ._write import undo

__all__ = ["SharedMemory", "ShareableList"]

if TYPE_CHECKING:
    import mmap

_T = TypeVar("_T", bound=int | float | bool | str | bytes | None)
_V = TypeVar("_V")

# Private names of the standard library's module that programs and subclasses use. Its name
# `resource_tracker` is in __getattr__.
_USE_POSIX = True
_posixshmem = SimpleNamespace(shm_open=_core.shm_open, shm_unlink=_core.shm_unlink)
_O_CREX = os.O_CREAT | os.O_EXCL
_SHM_NAME_PREFIX = "/psm_"
_SHM_SAFE_NAME_LENGTH = 14


def _make_filename() -> str:
    """Return a random name with a slash, short enough for every system."""
    digits = _SHM_SAFE_NAME_LENGTH - len(_SHM_NAME_PREFIX)
    return _SHM_NAME_PREFIX + os.urandom(digits // 2).hex()


def __getattr__(name: str) -> object:
    if name == "resource_tracker":
        # The module with which this library registers names, so that a program can replace it.
        from multiprocessing import resource_tracker

        return resource_tracker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)


class _Private(Generic[_V]):
    """A private attribute of the standard library's class that programs read and assign.

    The class has the value `default`. A handle has the value that `read` returns, or the value that
    a program has assigned since the constructor was called.
    """

    def __init__(self, read: Callable[[SharedMemory], _V], default: _V) -> None:
        self._read = read
        self._default = default

    def __set_name__(self, owner: object, name: str) -> None:
        self._name = name

    def __get__(self, shm: SharedMemory | None, owner: object = None) -> _V:
        if shm is None:
            return self._default
        given = shm._given
        if given is not None and self._name in given:
            return cast(_V, given[self._name])
        return self._read(shm)

    def __set__(self, shm: SharedMemory, value: _V) -> None:
        shm._given = {**(shm._given or {}), self._name: value}

    def __delete__(self, shm: SharedMemory) -> None:
        self.__set__(shm, self._default)


def _descriptor(shm: SharedMemory) -> int:
    """Return the descriptor, which the handle still owns; -1 if the handle is closed."""
    try:
        return shm.fileno()
    except ValueError:
        return -1


def _second_map(shm: SharedMemory) -> mmap.mmap | None:
    """Return an mmap.mmap of the object, made at the first use, with a descriptor of its own.

    None if the handle is closed.
    """
    import mmap

    fd = _descriptor(shm)
    if fd < 0:
        return None
    made = mmap.mmap(fd, 0, access=mmap.ACCESS_READ if shm.readonly else mmap.ACCESS_WRITE)
    shm._mmap = made  # for the next use: it has a position, and a program may close it
    return made


class SharedMemory(_core.SharedMemory):
    """Create a shared memory object, or attach to one by its name.

    name: the name of the object. None: a random name; only with create=True.
    create: create an object, which must not exist yet.
    size: bytes, for create=True. When attaching, the object keeps its size.
    track: with create=True, register the name with the resource tracker of multiprocessing, which
        removes it if the program ends without unlink().

    The class attribute `reserve` is True unless a program or a subclass sets it: the memory is
    reserved when the object is created, so that a full /dev/shm raises OSError. False: memory is
    allocated at the first write, as in the standard library, and a write to a full /dev/shm is a
    bus error.

    Raises FileExistsError if the name is taken; FileNotFoundError if no object has the name;
    ValueError for a size that is not positive, a bad name, or an object of size 0; OSError with
    errno ENOSPC if there is not enough memory. See shm_open(3).
    """

    reserve: ClassVar[bool] = True
    """Whether the memory is reserved when an object is created."""

    # A subclass may set these. With O_CREAT and without O_EXCL the constructor attaches to an
    # object of this user or of root, and creates one if no object has the name. The umask does not
    # change the mode.
    _flags = os.O_RDWR
    _mode = 0o600
    _prepend_leading_slash = True
    _track = True
    # The values that a program assigned to private attributes.
    _given: dict[str, Any] | None = None

    def __init__(
        self,
        name: str | None = None,
        create: bool = False,
        size: int = 0,
        *,
        track: bool = True,
    ) -> None:
        if not size >= 0:
            raise ValueError(f"size must not be negative, not {size!r}")
        if create:
            if size == 0:
                raise ValueError("create=True needs a size of at least 1 byte")
            self._flags = _O_CREX | os.O_RDWR
        # Subclasses that add `track` for old Pythons set self._track before this call.
        self._track = self._track and track
        self._given = None

        had_one = self.created  # __init__ may be called again
        try:
            if name is None:
                if not self._flags & os.O_EXCL:
                    raise ValueError("name can be None only with create=True")
                _with_fresh_name(lambda fresh: self._create(fresh, size))
            elif self._flags & os.O_EXCL:
                self._create(name, size)
            elif self._flags & os.O_CREAT:
                self._attach_or_create(name, size)
            else:
                self._attach(name)
        except BaseException:
            if self.created and not had_one:
                undo(self)
            raise

    def _create(self, name: str, size: int) -> None:
        _core._create(self, name, size, self._mode, self._track, self.reserve)

    def _attach(self, name: str) -> None:
        try:
            super().__init__(name, track=self._track)
        except OSError as error:
            # The standard library raises ValueError, which programs that poll expect.
            if error.errno != errno.ENODATA:
                raise
            raise ValueError(f"the object {name!r} is empty: its size is 0") from error

    def _attach_or_create(self, name: str, size: int) -> None:
        while True:
            try:
                self._attach(name)
                return self._demand_owner()
            except FileNotFoundError:
                if size == 0:
                    raise
            try:
                return self._create(name, size)
            except FileExistsError:
                continue

    def _demand_owner(self) -> None:
        """Reject another user's object, as the kernel does with O_CREAT (fs.protected_regular)."""
        uid, accepted = self.uid, (os.geteuid(), 0)
        if uid not in accepted:
            self.close()
            raise PermissionError(
                errno.EACCES,
                f"The object belongs to the user with uid {uid}, and O_CREAT accepts only objects "
                f"of uid {accepted[0]} or 0; attach without O_CREAT",
                self.name,
            )

    def __del__(self) -> None:
        # Not needed here, but the methods of subclasses call it.
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, size={self.size})"

    @property
    def buf(self) -> memoryview | None:  # type: ignore[override]
        """A memoryview of the whole object; None if the handle is closed."""
        if self._given is not None and "_buf" in self._given:
            return cast("memoryview | None", self._given["_buf"])
        try:
            return super().buf
        except ValueError:
            return None

    @property
    def size(self) -> int:
        """The size in bytes, also after close()."""
        given = self._given
        return given["_size"] if given is not None and "_size" in given else super().size

    _fd = _Private(_descriptor, -1)
    _mmap = _Private(_second_map, None)
    _buf = _Private(lambda shm: shm.buf, None)
    _size = _Private(lambda shm: shm.size, 0)
    _name: _Private[str | None] = _Private(lambda shm: shm._own_name(), None)

    def _own_name(self) -> str | None:
        name = self.name
        return "/" + name if name is not None and self._prepend_leading_slash else name

    def close(self) -> None:
        """Close the handle, as SharedMemory.close() does. May be called twice.

        Values that the program assigned to _buf and _mmap are dropped, but stay valid. If the
        program assigned another descriptor to _fd, that descriptor is closed, and the program then
        owns the descriptor of the handle.
        """
        given, self._given = self._given, None
        if given is not None:
            self._given = {key: given[key] for key in ("_name", "_size") if key in given}
            if "_fd" in given and given["_fd"] != self._fd:
                with suppress(ValueError, OSError):
                    self.detach()
                with suppress(OSError, TypeError):
                    os.close(given["_fd"])
        super().close()

    def __getstate__(self) -> object:
        state = super().__getstate__()
        if self._given is None:
            return state
        # Assigned values are valid in this process only.
        own, *slots = state if isinstance(state, tuple) else (state,)
        own = {key: value for key, value in own.items() if key != "_given"}
        return (own, *slots) if slots else own

    def unlink(self) -> None:
        """Remove the name; processes that have attached keep the memory. Works after close(), too.

        Does nothing if the handle does not have a name, as after a constructor that failed. Raises
        FileNotFoundError if the name was removed or refers to another object; ValueError if the
        program has assigned another name to the handle (but does nothing if that is None). See
        shm_unlink(3).
        """
        if self.name is None:
            return
        if self._name is None:
            return
        if self._name != self._own_name():
            raise ValueError(
                f"the program changed the name of the handle to {self._name!r}, but unlink() only "
                f"removes the name of its object, {self.name!r}"
            )
        super().unlink()


def _with_fresh_name(create: Callable[[str], None]) -> None:
    while True:
        try:
            return create(_make_filename())
        except FileExistsError:
            continue


# The memory layout of a list is that of the standard library, so both modules can read each other's
# lists. Numbers are in the byte order of the machine. The parts follow each other without padding:
#
#     int64            n, the number of items
#     int64[n + 1]     the offset of each slot from the first slot, and the end of the last slot
#     bytes            the slots: 8 bytes, or for a text the next multiple of 8 above the number of
#                      its characters; the size of a slot never changes
#     char[n][8]       the format of each slot, for the struct module, padded with NULs:
#                      "q" an int, "d" a float, "xxxxxxx?" a bool, "xxxxxx?x" None, "24s" a text
#     int8[n]          the conversion of that value to the item: 0 none; 1 str in UTF-8 and 2 bytes,
#                      both without trailing NULs; 3 None
#
# bytes that end in NULs have a format with their exact length and the code 0, which the standard
# library reads completely. A str that ends in NULs has a format with its exact length and a leading
# 0 ("03s"): this module reads it completely, the standard library without its trailing NULs.
#
# A list does not have a lock: a reader may get a mixture of an old and a new item.

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


def _image(values: Iterable[Any]) -> bytes:
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


class ShareableList(Generic[_T]):
    """A list of fixed length in shared memory: int (64 bits), float, bool, str, bytes, None.

    sequence: the items of a new list.
    name: the name of the new list (None: a random name); without a sequence, the name of the list
        to attach to.

    The attribute shm is the SharedMemory, which has close() and unlink(). An item can be replaced
    by an item of another type, or by a text that is not longer than its slot. A list does not have
    a lock: processes that read and write at the same time need one.

    Raises TypeError for an item of another type; struct.error for an int of more than 64 bits;
    ValueError for a text of more than 9,999,991 bytes. The name is then not created. Attaching
    raises ValueError if the object does not contain a list, and reading or replacing an item raises
    ValueError if the description of that item is damaged. Attaching takes the same time for a list
    of any length.
    """

    shm: SharedMemory
    """The handle of the object that contains the list."""

    @overload
    def __init__(
        self: ShareableList[Any], sequence: None = None, *, name: str | None = None
    ) -> None: ...
    @overload
    def __init__(self, sequence: Iterable[_T], *, name: str | None = None) -> None: ...

    def __init__(self, sequence: Iterable[_T] | None = None, *, name: str | None = None) -> None:
        if sequence is None and name is not None:
            self._attach_to(SharedMemory(name))
            return
        image = _image(() if sequence is None else sequence)

        def fill(buf: memoryview) -> None:
            buf[:] = image

        def create(name: str) -> None:
            try:
                _core._create_in(shm, name, len(image), init=fill, track=True)
            except FileExistsError as error:
                found = (error.strerror or "").partition(": ")[0]  # not which processes use it
                error.strerror = (
                    f"{found}: ShareableList(name=name) attaches to a list, and "
                    "ShareableList(sequence) chooses a random name"
                )
                raise

        shm = SharedMemory.__new__(SharedMemory)
        try:
            if name is None:
                _with_fresh_name(create)
            else:
                create(name)
            self._attach_to(shm)
        except BaseException:
            if shm.created:
                undo(shm)
            raise

    def _attach_to(self, shm: SharedMemory) -> None:
        """Use `shm` for this list, after checking its first and last words.

        The description of an item is checked each time that the item is used. A table of all
        checked items would be as long as the object, which may have any size without having memory.
        """
        buf = shm.buf
        if buf is None:
            raise ValueError(f"{shm!r} is closed")

        def demand(is_so: bool, what: str) -> None:
            if not is_so:
                raise ValueError(f"{shm.name!r} does not contain a ShareableList: {what}")

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
        self.shm = shm
        self._list_len: int = count
        self._slots = slots
        self._formats = slots + end
        self._codes = self._formats + count * _WORD

    def _buffer(self) -> memoryview:
        buf = self.shm.buf
        if buf is None:
            raise ValueError(f"the list {self.shm.name!r} is closed")
        if len(buf) < self._codes + self._list_len:
            raise ValueError(f"the object {self.shm.name!r} has become smaller than its list")
        return buf

    def _position(self, position: SupportsIndex, message: str) -> int:
        """Return the position counted from the start. Raises IndexError."""
        index = operator.index(position)
        if index < 0:
            index += self._list_len
        if not 0 <= index < self._list_len:
            raise IndexError(message)
        return index

    def _damaged(self, index: int, what: str) -> ValueError:
        return ValueError(f"item {index} of the list {self.shm.name!r} is damaged: {what}")

    def _slot(self, buf: memoryview, index: int) -> tuple[int, int]:
        """Return the offset of the slot of an item, and its length, in bytes."""
        start, end = struct.unpack_from("2q", buf, (index + 1) * _WORD)
        if not (0 <= start and _WORD <= end - start <= _ROOM_MAX):
            raise self._damaged(index, f"its slot goes from {start} to {end}")
        if self._slots + end > self._formats:
            raise self._damaged(index, "its slot reaches past the last slot")
        return self._slots + start, end - start

    def _format_at(self, buf: memoryview, index: int, room: int) -> str:
        start = self._formats + index * _WORD
        stored = bytes(buf[start : start + _WORD]).rstrip(b"\0")
        kind = stored.decode("latin-1")
        if kind not in _FORMATS.values():
            digits = stored[:-1]
            if not (stored.endswith(b"s") and digits.isdigit()):
                raise self._damaged(index, f"its format is {kind!r}")
            if int(digits) > room:
                raise self._damaged(index, f"the format {kind!r} is larger than its slot")
        return kind

    def _get_packing_format(self, position: SupportsIndex) -> str:
        """Return the format of the item at `position`, for the struct module."""
        index = self._position(position, "list index out of range")
        buf = self._buffer()
        return self._format_at(buf, index, self._slot(buf, index)[1])

    def __getitem__(self, position: SupportsIndex) -> _T:
        index = self._position(position, "list index out of range")
        buf = self._buffer()
        start, room = self._slot(buf, index)
        kind = self._format_at(buf, index, room)
        (stored,) = struct.unpack_from(kind, buf, start)
        code = buf[self._codes + index]
        item: Any
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
        result: _T = item
        return result

    def __setitem__(self, position: SupportsIndex, value: _T) -> None:
        """Replace an item. Raises ValueError, and changes nothing, if a text is too long."""
        index = self._position(position, "list assignment index out of range")
        kind, code, data = _encode(value)
        buf = self._buffer()
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
        stored = self._formats + index * _WORD
        buf[stored : stored + _WORD] = stored_format
        buf[self._codes + index] = code

    def __len__(self) -> int:
        return self._list_len

    def __iter__(self) -> Iterator[_T]:
        for index in range(self._list_len):
            yield self[index]

    def __repr__(self) -> str:
        # Not list(self), which allocates memory for len(self) items before it reads the first one.
        items = [item for item in self]
        return f"{type(self).__name__}({items}, name={self.shm.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self.shm)

    @property
    def format(self) -> str:
        """The formats of all items, for the struct module."""
        self._buffer()  # raises ValueError if the list is closed
        return "".join(map(self._get_packing_format, range(self._list_len)))

    def count(self, value: object) -> int:
        """Return the number of items that are equal to `value`."""
        return sum(item == value for item in self)

    def index(self, value: object) -> int:
        """Return the position of the first item equal to `value`. Raises ValueError."""
        for index, item in enumerate(self):
            if item == value:
                return index
        raise ValueError(f"{value!r} is not in the list")

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)


def _unpickled(cls: type[ShareableList[Any]], shm: SharedMemory) -> ShareableList[Any]:
    """Unpickle a list."""
    self = cls.__new__(cls)
    self._attach_to(shm)
    return self
