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
    """The options of SharedMemory.create that create() and save() pass on."""

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
    """The options of SharedMemory.open that load() passes on."""

    timeout: float | None
    owner: _Owner
    mode_at_most: int | None
    size_at_least: SupportsIndex


_ANONYMOUS_OPTIONS = ("max_size", "reserve", "populate", "huge_pages")
_INSTEAD_OF = {"init": "save() fills the new array itself"}


class _Object(np.ndarray[Any, np.dtype[np.uint8]]):
    """An array of all bytes of an object, and the base of every SharedArray in the object.

    A SharedArray finds its handle through its base, so it needs no attribute of its own, and numpy
    makes views of it as quickly as of its own arrays.
    """

    shm: SharedMemory
    __slots__ = ("shm",)


class SharedArray(_Base[Any, np.dtype[_ItemT]]):
    """A numpy.ndarray in shared memory, made by create(), open(), load() and save().

    A view of a SharedArray (a slice, a field, .T, .reshape() without a copy) is a SharedArray, too.
    A copy and the result of arithmetic or of a reduction are plain arrays in the memory of the
    process. A `with` statement closes the handle at its end; the array stays valid.

    A SharedArray and its views are pickled by reference: the pickle contains the name of the object
    and the place of the items in it, but no items. An array without a name can be sent only through
    multiprocessing. Unpickling attaches to the object and raises as for SharedMemory:
    FileNotFoundError; OSError with errno ESTALE (another object has the name now) or EREMOTE
    (another host). np.array(a) makes a copy that is pickled by value.
    """

    __slots__ = ()
    # Below that of numpy.ndarray, so that the result of an operation on several arrays is plain.
    __array_priority__ = -1.0

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        raise TypeError("a SharedArray is made by create(), open(), load() or save()")

    if TYPE_CHECKING:

        def __getitem__(self, key: Any, /) -> Any: ...
    else:
        __class_getitem__ = classmethod(GenericAlias)

    @property
    def shm(self) -> SharedMemory:
        """The handle of the object (a SharedMemory). All views of the array share it."""
        whole = _object(self)
        if whole is None:
            raise AttributeError("the array is a copy that is not in shared memory")
        return whole.shm

    @property
    def name(self) -> str | None:
        """The name of the object, or None if it does not have a name."""
        return self.shm.name

    def is_linked(self) -> bool:
        """Return whether the name refers to this object.

        False if the name was removed, another array was saved under it, or the object never had a
        name. Raises OSError if /dev/shm cannot be read.
        """
        return self.shm.is_linked()

    def unlink(self) -> None:
        """Remove the name. Every array in the object stays valid.

        Raises FileNotFoundError if the name was removed or refers to another object; ValueError if
        the object never had a name; PermissionError; OSError. See shm_unlink(3).
        """
        self.shm.unlink()

    def close(self) -> None:
        """Close the handle and its descriptor. This array and all others stay valid.

        The memory is unmapped when no array in it exists any more. May be called twice.
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

    # -- results: in shared memory or plain --

    def __array_wrap__(
        self, array: Any, context: Any = None, return_scalar: bool = False, /
    ) -> Any:
        result = _plain(array)
        # numpy 1 leaves it to this method to convert the result to a scalar.
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
        """Return the offset of the first item in the object, in bytes; None if it is outside."""
        whole = _object(self)
        if whole is None:
            return None
        offset = _address(self) - _address(whole)
        if self.size == 0:  # numpy may place it anywhere
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
    """Return the object that the array lies in.

    None for a copy that numpy gave this type, as np.array(a, subok=True) does.
    """
    base = array.base
    while isinstance(base, np.ndarray):
        if type(base) is _Object:
            return base
        base = base.base
    return None


def _plain(result: Any) -> Any:
    """Return a result of numpy, as a plain array unless it lies in shared memory."""
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
    """Return whether all items lie in the first `size` bytes."""
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


# The methods of numpy, written in C, whose result has the type of the array and may be a copy.
# Indexing and copy() are in csrc/core/view/array.c.
for _name in (
    "argmax argmin argpartition argsort astype byteswap choose compress cumprod"
    " cumsum diagonal dot flatten max min prod ravel repeat reshape round sum take trace"
).split():
    setattr(SharedArray, _name, _plainly(_name))


# -- creating and attaching --------------------------------------------------------------------


def _fill(header: _npy.Header, data: bytes, buffer: memoryview) -> NDArray[Any]:
    """Write the header of a new object. Return a plain array of its items."""
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
    """Return an array in the memory of a handle. offset and strides: bytes."""
    buffer = shm.buf
    whole = np.ndarray.__new__(_Object, buffer.nbytes, np.uint8, buffer)
    whole.shm = shm
    data = cast(memoryview, whole)  # a buffer
    return np.ndarray.__new__(SharedArray, shape, dtype, data, offset, strides, order)


@contextmanager
def _closed_on_error(shm: SharedMemory) -> Iterator[None]:
    """Close a handle at once, although the traceback of the exception still refers to it."""
    try:
        yield
    except BaseException:
        shm.close()
        raise


def _found(shm: SharedMemory) -> tuple[SharedArray[Any], _npy.Header]:
    """Return the array that an object contains, and its header."""
    with _closed_on_error(shm):
        try:
            header = _npy.read(shm.fileno())
            if header.end > shm.size:
                raise _npy.Refused("another process truncated it while it was read")
            return _on(shm, *header), header
        except _npy.Refused as error:
            text = f"shared memory {shm.name!r} does not contain an array: {error}"
            raise ValueError(text) from error


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
    """Create an array of zeros. It gets its name when it is complete.

    name: the name of the object; None: an anonymous object, which can be sent only through
        multiprocessing.
    shape: an int or an iterable of ints >= 0.
    dtype: any dtype of fixed size without Python objects.
    order: 'C' or 'F', the memory layout.
    init: a function that is called with the array (a plain numpy.ndarray) to fill it before the
        object has its name. If it raises, no object remains.
    exist_ok: if the name is taken, attach to that array; it must have the same shape, dtype and
        order.
    replace, delete and the other options: as for SharedMemory.create. An anonymous array takes
        max_size, reserve, populate and huge_pages.

    Returns a writable SharedArray. Its items begin at a multiple of 4096 bytes in the object (of 64
    bytes, if hundreds of fields need a header of more than 8192 bytes).

    Raises as SharedMemory.create does; FileExistsError also if exist_ok finds an array with another
    shape, dtype or order; ValueError for a bad shape, a dtype that a .npy header cannot describe,
    or if exist_ok finds an object that is not an array.
    """
    header, data = _npy.make(shape, dtype, order)

    def fill(buffer: memoryview) -> None:
        array = _fill(header, data, buffer)
        if init is not None:
            init(array)

    if name is None:
        if exist_ok or replace or delete:
            text = "exist_ok, replace and delete need a name; this array is anonymous (name=None)"
            raise ValueError(text)
        check_options("create() without a name", options, _ANONYMOUS_OPTIONS, {})
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
        _raise_unfit(name, f"The array exists with {there}, but the caller asked for {header}")
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
    """Attach to the array called name. No item is read or copied, and nothing is changed.

    mode: 'r' to read only: the array, and the pages of its memory, cannot be written; 'r+' to read
        and write.
    timeout: seconds to wait for the name to appear; None: no limit.
    owner, mode_at_most, size_at_least (bytes, with the header): as for SharedMemory.open.

    Returns a SharedArray. Files of the versions 1.0 to 3.0 of the .npy format are accepted, from
    any program.

    Raises FileNotFoundError, TimeoutError, PermissionError and OSError as SharedMemory.open does;
    ValueError for a bad name or mode, or if the object does not contain an array: other bytes, a
    damaged header, a dtype with Python objects, or fewer bytes than the header requires.
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
    """Attach to the array called name, to read only: open(name, 'r')."""
    return open(name, **options)


def save(
    name: str | None, array: ArrayLike, *, replace: bool = False, **options: Unpack[_SaveOptions]
) -> SharedArray[Any]:
    """Copy an array into a new object, which gets its name when the copy is complete.

    name: as for create().
    array: anything that np.asarray accepts, except dtypes with Python objects and masked arrays.
        Its dtype, byte order and Fortran order are kept.
    replace: if the name is taken, give it to the new object in one step. A process that opens the
        name gets either the old array or the new one, and a process that has the old array keeps
        it.
    options: as for create(). With exist_ok=True, an array that exists already is returned
        unchanged, and .shm.created is False.

    Returns a writable SharedArray. Raises as SharedMemory.create and SharedMemory.link do, such as
    FileExistsError; ValueError for a dtype that a .npy header cannot describe, or for replace=True
    without a name; TypeError for a masked array.
    """
    if name is None and replace:
        raise ValueError("replace=True needs the name of the object to replace")
    accepted = _ANONYMOUS_OPTIONS if name is None else _SAVE_OPTIONS
    check_options("save()" if name else "save() without a name", options, accepted, _INSTEAD_OF)
    masked = imported("numpy.ma")  # numpy imports it when a program uses it
    if masked is not None and isinstance(array, masked.MaskedArray):
        raise TypeError("a .npy file cannot contain a masked array; save its .data and its .mask")
    # A new view keeps its shape and dtype even if another thread assigns to those of the array.
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
    # create() accepts all options, and can make an object through a temporary name.
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
# These mean that /proc, which link() needs, is not mounted.
_NO_UNLINKED = _NO_TMPFILE | {errno.ENOENT, errno.EACCES, errno.EPERM}


def _written(
    shm: SharedMemory,
    header: _npy.Header,
    data: bytes,
    source: NDArray[Any],
    name: str | None = None,
    replace: bool = False,
) -> SharedArray[Any]:
    """Write the header and the items into the object, give it its name, and return the array.

    Writes through the descriptor: writing through the mapping would cost a page fault and a cleared
    page for each page.
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
        if replace:  # the old object may have lost its name already
            shm.close()
        else:
            undo(shm)
        raise


_PIECE = 1 << 20  # bytes


def _pieces(source: NDArray[Any]) -> Iterator[memoryview]:
    """Yield the bytes of the items in C order, as copies of parts unless contiguous."""
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
    """Return whether an object called name exists that load() could attach to.

    Raises ValueError for a bad name; PermissionError or OSError if the object cannot be read.
    """
    try:
        with _descriptor(name) as fd:
            _npy.read(fd)
    except (FileNotFoundError, _npy.Refused):
        return False
    return True


def list() -> builtins.list[str]:
    """Return the names of all arrays among the objects that this process may read.

    Raises OSError if /dev/shm cannot be read.
    """
    return [name for name in listdir() if _holds_array(name)]


def _holds_array(name: str) -> bool:
    try:
        with _descriptor(name) as fd:
            return _npy.is_array(fd)
    except (OSError, ValueError):  # removed, of another user, or with a name that is not UTF-8
        return False


def unlink(name: str) -> None:
    """Remove the name of an array. Every process that has the array keeps it.

    Raises FileNotFoundError; PermissionError; OSError; ValueError for a bad name, or if the object
    is not an array: posixshm.shm_unlink() removes the name of any object. See shm_unlink(3).
    """
    with SharedMemory.open(name, readonly=True) as shm:
        if not _npy.is_array(shm.fileno()):
            raise ValueError(
                f"shared memory {name!r} is not an array; posixshm.shm_unlink() removes any name"
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
    """Unpickle an array, which lies inside the object whatever the pickle contains."""
    if not isinstance(shm, SharedMemory) or not isinstance(dtype, np.dtype):
        raise TypeError(
            f"the pickle of an array has a SharedMemory and a dtype, not {type(shm).__name__} and "
            f"{type(dtype).__name__}"
        )
    _check_dtype(dtype)
    extents, steps = (tuple(map(operator.index, numbers)) for numbers in (shape, strides))
    start = operator.index(offset)
    if len(extents) != len(steps) or any(extent < 0 for extent in extents):
        raise ValueError(f"an array cannot have shape {extents} and strides {steps}")
    if not _lies_within(shm.size, dtype, extents, steps, start):
        raise ValueError(
            f"shared memory {shm.name!r} is too small: its {shm.size} bytes do not contain shape "
            f"{extents}, strides {steps} and dtype {dtype} from byte {start} on"
        )
    array = _on(shm, dtype, extents, "C", start, steps)
    if not writeable:
        array.flags.writeable = False
    return array


def _check_dtype(dtype: np.dtype[Any]) -> None:
    """Check a dtype from a pickle, which may contain any flags, sizes and offsets."""
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
