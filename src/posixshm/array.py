"""Named numpy arrays in shared memory, without a copy.

An object in /dev/shm contains a .npy file. np.load("/dev/shm/NAME", mmap_mode="r") reads it, and
load() reads the files that np.save() wrote there. The memory of an array exists as long as anything
refers to it, even after its name was removed and its handle was closed. Arrays are pickled by
reference.

create() makes an array of zeros, and save() a copy of another array. open() and load() attach to an
array. exists(), list() and unlink() take names.

The module needs numpy: pip install 'posixshm[numpy]'.
"""

from __future__ import annotations

import builtins
import errno
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import GenericAlias, TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Self,
    SupportsIndex,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
)

try:
    import numpy as np
except ModuleNotFoundError as _error:
    _text = "posixshm.array needs numpy: pip install 'posixshm[numpy]'"
    raise ImportError(_text, name=_error.name) from _error

from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _npy
from ._core import SharedMemory, _array_type, _create_in, _raise_unfit, listdir, shm_open
from ._support import imported
from ._write import check_options, named, undo, write

__all__ = ["SharedArray", "create", "exists", "list", "load", "open", "save", "unlink"]

_ItemT = TypeVar("_ItemT", bound=np.generic)
if TYPE_CHECKING:
    from ._core import _Delete, _Owner, _Stale

    _Base = np.ndarray
else:
    # Indexing it gives a plain array where numpy copies.
    _Base = _array_type(np.ndarray)


class _Options(TypedDict, total=False):
    """Options of SharedMemory.create, with their meaning and their defaults there."""

    mode: int
    uid: int | None
    gid: int | None
    acl: str | None
    max_size: SupportsIndex | None
    reserve: bool
    populate: bool
    huge_pages: bool


class _CreateOptions(_Options, total=False):
    owner: _Owner
    mode_at_most: int | None
    stale: _Stale
    track: bool


class _SaveOptions(_CreateOptions, total=False):
    exist_ok: bool
    delete: _Delete


class _AttachOptions(TypedDict, total=False):
    """Options of SharedMemory.open, with their meaning and their defaults there."""

    timeout: float | None
    owner: _Owner
    mode_at_most: int | None
    size_at_least: SupportsIndex


_ANONYMOUS_OPTIONS = ("max_size", "reserve", "populate", "huge_pages")
_INSTEAD_OF = {"init": "the array is what is saved"}


class _Object(np.ndarray[Any, np.dtype[np.uint8]]):
    """All bytes of an object: what the arrays in it lie in.

    Through their .base an array finds it, and no array needs an attribute: numpy makes their views
    as quickly as its own.
    """

    shm: SharedMemory
    __slots__ = ("shm",)


class SharedArray(_Base[Any, np.dtype[_ItemT]]):
    """A numpy.ndarray in shared memory, made by create(), open(), load() and save().

    A view of one (a slice, a field, .T, .reshape() where it need not copy) is one too; a result of
    arithmetic, a reduction or a copy is a plain array in this process's own memory.

    In a `with` statement the handle is closed at the end, and the array stays valid.

    Pickling sends the object's name and where in it the items lie, also of a view, and no item;
    unpickling attaches, and raises as it does for SharedMemory: FileNotFoundError; OSError (ESTALE:
    another object has the name now; EREMOTE: another host). An array without a name travels
    through multiprocessing only. np.array(a) is a copy that travels by value.
    """

    __slots__ = ()
    # Below that of numpy.ndarray: what numpy makes of several arrays is plain.
    __array_priority__ = -1.0

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        raise TypeError("a SharedArray is made by create(), open(), load() or save()")

    if TYPE_CHECKING:

        def __getitem__(self, key: Any, /) -> Any: ...
    else:
        __class_getitem__ = classmethod(GenericAlias)

    @property
    def shm(self) -> SharedMemory:
        """The handle of the object, which all views of this array share."""
        whole = _object(self)
        if whole is None:
            raise AttributeError("this array is a copy, and not in shared memory")
        return whole.shm

    @property
    def name(self) -> str | None:
        """The object's name; None where it has none."""
        return self.shm.name

    def is_linked(self) -> bool:
        """Whether the name leads to this very object.

        False once another array was saved under it, or it was unlinked; where there never was a
        name. Raises OSError where that cannot be seen.
        """
        return self.shm.is_linked()

    def unlink(self) -> None:
        """Remove the name; every array in the object stays valid.

        Raises FileNotFoundError if the name is gone or refers to another object; ValueError if the
        object never had a name; PermissionError, OSError.
        """
        self.shm.unlink()

    def close(self) -> None:
        """Close the handle, and with it the descriptor. This array and all others stay valid.

        The memory is unmapped when the last array in it is gone. May be called twice.
        """
        self.shm.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None:
        self.close()

    # -- what stays in shared memory, and what is plain --

    def __array_wrap__(
        self, array: Any, context: Any = None, return_scalar: bool = False, /
    ) -> Any:
        result = _plain(array)
        # numpy 1 leaves it to this method whether it is to be a scalar.
        if return_scalar or (_NUMPY_1 and result.ndim == 0 and type(result) is np.ndarray):
            return result[()]
        return result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _plain(super().__array_function__(func, types, args, kwargs))

    def __copy__(self) -> Any:
        return np.array(self)

    def __deepcopy__(self, memo: dict[int, Any] | None, /) -> Any:
        return np.array(self)

    # -- pickling --

    def _offset(self) -> int | None:
        """Bytes from the object's first one to this array's first item; None outside of it."""
        whole = _object(self)
        if whole is None:
            return None
        offset = _address(self) - _address(whole)
        if self.size == 0:  # numpy puts it anywhere
            return min(max(offset, 0), whole.nbytes)
        inside = _lies_within(whole.nbytes, self.dtype, self.shape, self.strides, offset)
        return offset if inside else None

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> Any:
        offset = self._offset()
        if offset is None:
            return self.view(np.ndarray).__reduce_ex__(protocol)
        place = (self.dtype, self.shape, self.strides, offset, self.flags.writeable)
        return _attach, (self.shm, *place)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)


_NUMPY_1 = np.lib.NumpyVersion(np.__version__) < "2.0.0"


def _object(array: NDArray[Any]) -> _Object | None:
    """What the array lies in; None for one to which numpy gave a copy and this type, as
    np.array(a, subok=True) does."""
    base = array.base
    while isinstance(base, np.ndarray):
        if type(base) is _Object:
            return base
        base = base.base
    return None


def _plain(result: Any) -> Any:
    """What came out of numpy; a plain array where that is not in shared memory."""
    if isinstance(result, SharedArray) and _object(result) is None:
        return result.view(np.ndarray)
    return result


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _lies_within(
    size: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
) -> bool:
    """Whether all items lie in `size` bytes."""
    low = high = offset
    if 0 not in shape:
        for extent, stride in zip(shape, strides, strict=True):
            reach = stride * (extent - 1)
            low, high = low + min(reach, 0), high + max(reach, 0)
        high += dtype.itemsize
    return 0 <= low and high <= size


def _plainly(name: str) -> Callable[..., Any]:
    method = getattr(np.ndarray, name)

    def plainly(self: SharedArray[Any], *args: Any, **keywords: Any) -> Any:
        return _plain(method(self, *args, **keywords))

    plainly.__name__, plainly.__doc__ = name, method.__doc__
    plainly.__qualname__ = f"{SharedArray.__qualname__}.{name}"
    return plainly


# numpy's methods, written in C, whose result has the type of the array and may be a copy. Those of
# indexing and copy() are in csrc/core/view/array.c.
for _name in (
    "argmax argmin argpartition argsort astype byteswap choose compress cumprod"
    " cumsum diagonal dot flatten max min prod ravel repeat reshape round sum take trace"
).split():
    setattr(SharedArray, _name, _plainly(_name))


# -- making and finding -----------------------------------------------------------------------


def _fill(header: _npy.Header, data: bytes, buffer: memoryview) -> NDArray[Any]:
    """Write the header of a new object. The array behind it, a plain one."""
    array: NDArray[Any] = np.ndarray(
        header.shape, header.dtype, buffer, header.offset, order=header.order
    )
    buffer[: header.offset] = data
    return array


def _on(
    shm: SharedMemory,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: Literal["C", "F"],
    offset: int,
    strides: tuple[int, ...] | None = None,
) -> SharedArray[Any]:
    """An array on a handle's memory. offset and strides: bytes."""
    buffer = shm.buf
    whole = np.ndarray.__new__(_Object, buffer.nbytes, np.uint8, buffer)
    whole.shm = shm
    data = cast(memoryview, whole)  # a buffer
    return np.ndarray.__new__(SharedArray, shape, dtype, data, offset, strides, order)


@contextmanager
def _closed_on_error(shm: SharedMemory) -> Iterator[None]:
    """Not only when the exception goes, whose traceback holds the handle."""
    try:
        yield
    except BaseException:
        shm.close()
        raise


def _found(shm: SharedMemory) -> tuple[SharedArray[Any], _npy.Header]:
    """The array that an object holds."""
    with _closed_on_error(shm):
        try:
            header = _npy.read(shm.fileno())
            if header.end > shm.size:
                raise _npy.Refused("another process truncated it meanwhile")
            return _on(shm, *header), header
        except _npy.Refused as error:
            raise ValueError(f"shared memory {shm.name!r} holds no array: {error}") from error


def create(
    name: str | None,
    shape: SupportsIndex | Iterable[SupportsIndex],
    dtype: DTypeLike = float,
    *,
    order: Literal["C", "F"] = "C",
    init: Callable[[NDArray[Any]], object] | None = None,
    exist_ok: bool = False,
    replace: bool = False,
    delete: _Delete = False,
    **options: Unpack[_CreateOptions],
) -> SharedArray[Any]:
    """Make an array of zeros. It gets its name when it is complete.

    name: of the object; None: an anonymous one, for the processes of multiprocessing. shape: an
    int, or any number of them, from 0. dtype: without Python objects. order: 'C' or 'F', how the
    items lie. init: called with the array, a plain one, to fill it before anyone else can see it;
    if it raises, there is no object. exist_ok: attach to an array of that name, if it has this
    shape, dtype and order. replace, delete and options, among them stale: as for
    SharedMemory.create; an anonymous array has reserve, populate and huge_pages.

    Returns a writable SharedArray; its items begin at a multiple of 4096 bytes (of 64, where
    hundreds of fields make a header of more than 8192). Raises as SharedMemory.create does:
    FileExistsError, also where exist_ok finds another array; ValueError for a bad shape, a dtype
    that a .npy header cannot say, or where exist_ok finds no array.
    """
    header, data = _npy.make(shape, dtype, order)

    def fill(buffer: memoryview) -> None:
        array = _fill(header, data, buffer)
        if init is not None:
            init(array)

    if name is None:
        if exist_ok or replace or delete:
            text = "an anonymous array (name=None) takes no exist_ok, no replace and no delete"
            raise ValueError(text)
        shm = SharedMemory.anonymous(header.end, **options)  # type: ignore[misc]
        with _closed_on_error(shm):
            fill(shm.buf)
            return _on(shm, *header)
    shm = SharedMemory.__new__(SharedMemory)
    try:
        _create_in(
            shm,
            name,
            header.end,
            init=fill,
            exist_ok=exist_ok,
            replace=replace,
            delete=delete,
            **options,
        )
        if shm.created:
            return _on(shm, *header)
    except BaseException:
        if shm.created:
            undo(shm)
        raise
    array, there = _found(shm)
    if there[:3] != header[:3]:
        shm.close()
        del array
        _raise_unfit(name, f"The array exists, but has {there} where {header} are asked for")
    return array


def open(
    name: str,
    mode: Literal["r", "r+"] = "r",
    *,
    timeout: float | None = 0,
    owner: _Owner = "any",
    mode_at_most: int | None = None,
    size_at_least: SupportsIndex = 0,
) -> SharedArray[Any]:
    """Attach to the array called name: no item is read or copied, and nothing is changed.

    mode: 'r' for reading only, in the pages too; 'r+' to write as well. timeout: seconds to wait
    for the name to appear; None: for ever. owner, mode_at_most, size_at_least (bytes, with the
    header): as for SharedMemory.open. Reads versions 1.0 to 3.0 of the format, whichever program
    wrote the file.

    Raises FileNotFoundError, TimeoutError, PermissionError, OSError as SharedMemory.open;
    ValueError for a bad name or mode, or for what is no array: another file, a damaged header, one
    with Python objects, fewer bytes than the header says.
    """
    if mode not in ("r", "r+"):
        raise ValueError(f"mode must be 'r' or 'r+', not {mode!r}")
    shm = SharedMemory.open(
        name,
        readonly=mode == "r",
        timeout=timeout,
        owner=owner,
        mode_at_most=mode_at_most,
        size_at_least=size_at_least,
    )
    return _found(shm)[0]


def load(name: str, **options: Unpack[_AttachOptions]) -> SharedArray[Any]:
    """Attach to the array called name for reading only: open(name, 'r')."""
    return open(name, **options)


def save(
    name: str | None, array: ArrayLike, *, replace: bool = False, **options: Unpack[_SaveOptions]
) -> SharedArray[Any]:
    """Copy an array into a new object, and give it its name when all is there.

    name: as for create(). array: whatever np.asarray takes, without Python objects and without a
    mask; its dtype, byte order and Fortran order stay. replace: take over the name of another
    object, in one step: processes that open the name get either the old array or this one, and
    processes that have the old one keep it. options: as for create(); with exist_ok=True an array
    that is there already is not written to: see .shm.created.

    Returns the new array, a writable SharedArray. Raises as SharedMemory.create and .link do,
    FileExistsError for one; ValueError for a dtype that a .npy header cannot say, or for
    replace=True without a name; TypeError for a masked array.
    """
    if name is None and replace:
        raise ValueError("replace=True takes the name of the object to replace")
    accepted = _ANONYMOUS_OPTIONS if name is None else _SAVE_OPTIONS
    check_options("save()" if name else "save() without a name", options, accepted, _INSTEAD_OF)
    masked = imported("numpy.ma")  # numpy itself imports it when it is used
    if masked is not None and isinstance(array, masked.MaskedArray):
        raise TypeError("a masked array has no .npy form; save its .data and its .mask")
    # A view of its own keeps its shape and dtype if another thread assigns to those of the array.
    source = np.asarray(array).view()
    fortran = source.flags.f_contiguous and not source.flags.c_contiguous
    header, data = _npy.make(source.shape, source.dtype, "F" if fortran else "C")
    if name is None:
        shm = SharedMemory.anonymous(header.end, **options)  # type: ignore[misc]
        return _written(shm, header, data, source)
    if options.keys() <= _Options.__annotations__.keys():
        try:
            with named(name):
                shm = SharedMemory.unlinked(header.end, **options)  # type: ignore[misc]
            return _written(shm, header, data, source, name, replace)
        except OSError as error:
            if error.errno not in (_NO_TMPFILE if replace else _NO_UNLINKED):
                raise
    # create() has all options, and can make an object through a temporary name.
    kind: DTypeLike = header.dtype
    return create(
        name,
        header.shape,
        kind,
        order=header.order,
        init=lambda new: np.copyto(new, source),
        replace=replace,
        **options,
    )


_SAVE_OPTIONS = _SaveOptions.__annotations__.keys()
_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR}
# Or if there is no /proc to link through.
_NO_UNLINKED = _NO_TMPFILE | {errno.ENOENT, errno.EACCES, errno.EPERM}


def _written(
    shm: SharedMemory,
    header: _npy.Header,
    data: bytes,
    source: NDArray[Any],
    name: str | None = None,
    replace: bool = False,
) -> SharedArray[Any]:
    """The array, after its header and its items are in the object, and that has its name.

    By the descriptor: through the mapping, each page would cost a fault, and be cleared before.
    """
    try:
        with named(name):
            fd = shm.fileno()
            write(fd, data, 0)
            end = header.offset
            for piece in _pieces(source.T if header.order == "F" else source):
                end = write(fd, piece, end)
            if name is not None:
                shm.link(name, replace)
        return _on(shm, *header)
    except BaseException:
        if replace:  # the name may have been another object's, which is gone
            shm.close()
        else:
            undo(shm)
        raise


_PIECE = 1 << 20  # bytes


def _pieces(source: NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of the items in C order; copies, one after the other, if they lie otherwise."""
    if source.size == 0:
        return
    if source.flags.c_contiguous:
        yield memoryview(cast(Any, source.reshape(-1).view(np.uint8)))
        return
    flags: Any = ["readonly", "contig"]
    many = max(_PIECE // source.itemsize, 1)
    with np.nditer(
        source, ["external_loop", "buffered"], [flags], order="C", buffersize=many
    ) as pieces:
        for piece in cast(Iterator[Any], pieces):
            yield memoryview(piece.view(np.uint8))


def exists(name: str) -> bool:
    """Whether the object called name holds an array, which load() would attach to.

    Raises ValueError for a bad name; PermissionError, OSError if the object cannot be read.
    """
    try:
        with _descriptor(name) as fd:
            _npy.read(fd)
    except (FileNotFoundError, _npy.Refused):
        return False
    return True


def list() -> builtins.list[str]:
    """The names of all arrays, of those objects that this process may read. A moment's picture.

    Raises OSError if the directory cannot be read.
    """
    return [name for name in listdir() if _holds_array(name)]


def _holds_array(name: str) -> bool:
    try:
        with _descriptor(name) as fd:
            return _npy.is_array(fd)
    except (OSError, ValueError):  # gone, another user's, a name that is not UTF-8
        return False


def unlink(name: str) -> None:
    """Remove the name of an array; every process that has the array keeps it.

    Raises FileNotFoundError, PermissionError, OSError; ValueError for a bad name, or if the object
    is not an array: posixshm.shm_unlink() removes the name of any object.
    """
    with SharedMemory.open(name, readonly=True) as shm:
        if not _npy.is_array(shm.fileno()):
            raise ValueError(
                f"shared memory {name!r} holds no array; posixshm.shm_unlink() removes any name"
            )
        shm.unlink()


@contextmanager
def _descriptor(name: str) -> Iterator[int]:
    fd = shm_open(name, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _attach(
    shm: SharedMemory,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    writeable: bool,
) -> SharedArray[Any]:
    """What a pickle of an array says. Nothing that it says leads out of the object."""
    if not isinstance(shm, SharedMemory) or not isinstance(dtype, np.dtype):
        raise TypeError(
            f"an array's pickle has a SharedMemory and a dtype, not {type(shm).__name__} and "
            f"{type(dtype).__name__}"
        )
    _check_dtype(dtype)
    extents, steps = (tuple(map(operator.index, numbers)) for numbers in (shape, strides))
    start = operator.index(offset)
    if len(extents) != len(steps) or any(extent < 0 for extent in extents):
        raise ValueError(f"no array has shape {extents} and strides {steps}")
    if not _lies_within(shm.size, dtype, extents, steps, start):
        raise ValueError(
            f"shared memory {shm.name!r} became too small: {shm.size} bytes do not hold items of "
            f"shape {extents}, strides {steps} and dtype {dtype} from byte {start} on"
        )
    array = _on(shm, dtype, extents, "C", start, steps)
    if not writeable:
        array.flags.writeable = False
    return array


def _check_dtype(dtype: np.dtype[Any]) -> None:
    """A pickle of a dtype may say anything of flags, sizes and offsets."""
    if dtype.hasobject or dtype.kind == "O":
        raise ValueError(f"dtype {dtype.str} holds Python objects, which live in one process only")
    if dtype.itemsize < 0:
        raise ValueError(f"dtype {dtype.str} has items of {dtype.itemsize} bytes")
    fields: Mapping[str, Any] = dtype.fields or {}
    if not fields.keys() >= set(dtype.names or ()):
        raise ValueError(f"dtype {dtype.str} has a name without a field: {dtype.names}")
    parts = [(kind, offset) for kind, offset, *_ in fields.values()]
    if dtype.subdtype is not None:
        kind, shape = dtype.subdtype
        size = kind.itemsize
        for extent in shape:
            size *= operator.index(extent)
        parts.append((kind, dtype.itemsize - size))
    for kind, offset in parts:
        if not 0 <= offset <= dtype.itemsize - kind.itemsize:
            raise ValueError(f"a part of dtype {dtype.str} lies outside of it")
        _check_dtype(kind)
