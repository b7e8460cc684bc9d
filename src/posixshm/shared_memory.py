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
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import GenericAlias, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, SupportsIndex, TypeVar, cast, overload

from . import _core, _list_layout
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
        _core._create_in(self, name, size, mode=self._mode, track=self._track, reserve=self.reserve)

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
        image = _list_layout.image(() if sequence is None else sequence)

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
        buf = shm.buf
        if buf is None:
            raise ValueError(f"{shm!r} is closed")
        self._layout = _list_layout.Layout(buf, shm.name)
        self.shm = shm

    def _buffer(self) -> memoryview:
        buf = self.shm.buf
        if buf is None:
            raise ValueError(f"the list {self.shm.name!r} is closed")
        if len(buf) < self._layout.size:
            raise ValueError(f"the object {self.shm.name!r} has become smaller than its list")
        return buf

    def _position(self, position: SupportsIndex, message: str) -> int:
        """Return the position counted from the start. Raises IndexError."""
        index = operator.index(position)
        if index < 0:
            index += self._layout.count
        if not 0 <= index < self._layout.count:
            raise IndexError(message)
        return index

    def _get_packing_format(self, position: SupportsIndex) -> str:
        """Return the format of the item at `position`, for the struct module."""
        index = self._position(position, "list index out of range")
        return self._layout.format_of(self._buffer(), index)

    def __getitem__(self, position: SupportsIndex) -> _T:
        index = self._position(position, "list index out of range")
        item: _T = self._layout.read(self._buffer(), index)
        return item

    def __setitem__(self, position: SupportsIndex, value: _T) -> None:
        """Replace an item. Raises ValueError, and changes nothing, if a text is too long."""
        index = self._position(position, "list assignment index out of range")
        self._layout.write(self._buffer(), index, value)

    def __len__(self) -> int:
        return self._layout.count

    def __iter__(self) -> Iterator[_T]:
        for index in range(self._layout.count):
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
        return "".join(map(self._get_packing_format, range(self._layout.count)))

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
