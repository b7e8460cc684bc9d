"""Named arrays: numpy arrays in shared memory, without a copy.

What lies in /dev/shm is a .npy file, so np.load("/dev/shm/NAME", mmap_mode="r") reads it, and
load() reads what np.save wrote there. An array keeps its memory for as long as anything refers to
it, whatever becomes of the name and of the handle, and is pickled by reference.

create() makes one of zeros, save() a copy of another array; open() and load() attach to one.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self, SupportsIndex, TypedDict, Unpack, cast

try:
    import numpy as np
except ModuleNotFoundError as _error:
    _text = "posixshm.array needs numpy: pip install 'posixshm[numpy]'"
    raise ImportError(_text, name=_error.name) from _error

from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _npy
from ._core import MemoryMap, SharedMemory

__all__ = ["SharedArray", "create", "load", "open", "save"]


class _Options(TypedDict, total=False):
    """Options of SharedMemory.create, with their meaning and their defaults there."""

    mode: int
    uid: int | None
    gid: int | None
    reserve: bool
    populate: bool
    huge_pages: bool


class SharedArray(np.ndarray[Any, np.dtype[Any]]):
    """A numpy.ndarray in shared memory, made by create(), open(), load() and save().

    A view of one (a slice, a field, .T, .reshape() where it need not copy) is one too; a result of
    arithmetic, a reduction or a copy is a plain array in this process's own memory.

    Pickling sends the object's name and where in it the items lie, also of a view, and no item;
    unpickling attaches, and raises as it does for SharedMemory: FileNotFoundError; OSError (ESTALE:
    another object has the name now; EREMOTE: another host). An array without a name travels
    through multiprocessing only. np.array(a) is a copy that travels by value.
    """

    # What the items lie in; None in a copy to which numpy gave this type, as np.array(a,
    # subok=True) does.
    _shm: SharedMemory | None
    _mapping: MemoryMap | None

    __slots__ = ("_mapping", "_shm")
    # Below that of numpy.ndarray: what numpy makes of several arrays is plain.
    __array_priority__ = -1.0

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        raise TypeError("a SharedArray is made by create(), open(), load() or save()")

    def __array_finalize__(self, obj: object) -> None:
        self._shm = self._mapping = None
        if isinstance(obj, SharedArray) and obj._mapping is not None:
            base: Any = self.base
            while isinstance(base, np.ndarray):
                base = base.base
            if base is obj._mapping:
                self._shm, self._mapping = obj._shm, obj._mapping

    @property
    def shm(self) -> SharedMemory:
        """The handle of the object, which all views of this array share.

        Closing it leaves the array as it is. An array whose object has a name can still be pickled.
        """
        if self._shm is None:
            raise AttributeError("this array is a copy, and not in shared memory")
        return self._shm

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

    # -- what stays in shared memory, and what is plain --

    def __getitem__(self, key: Any, /) -> Any:
        return _plain(super().__getitem__(key))

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
        if self._mapping is None:
            return None
        offset = _address(self) - _address(np.frombuffer(memoryview(self._mapping), np.uint8))
        if self.size == 0:  # numpy puts it anywhere
            return min(max(offset, 0), self._mapping.nbytes)
        low = high = offset
        for extent, stride in zip(self.shape, self.strides, strict=True):
            reach = stride * (extent - 1)
            low, high = low + min(reach, 0), high + max(reach, 0)
        high += self.itemsize
        return offset if 0 <= low and high <= self._mapping.nbytes else None

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> Any:
        offset = self._offset()
        if offset is None:
            return self.view(np.ndarray).__reduce_ex__(protocol)
        place = (self.dtype, self.shape, self.strides, offset, self.flags.writeable)
        return _attach, (self.shm, *place)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)


_NUMPY_1 = np.lib.NumpyVersion(np.__version__) < "2.0.0"


def _plain(result: Any) -> Any:
    """What came out of numpy; a plain array where that is not in shared memory."""
    if isinstance(result, SharedArray) and result._mapping is None:
        return result.view(np.ndarray)
    return result


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _plainly(name: str) -> Callable[..., Any]:
    method = getattr(np.ndarray, name)

    def plainly(self: SharedArray, *args: Any, **keywords: Any) -> Any:
        return _plain(method(self, *args, **keywords))

    plainly.__name__, plainly.__doc__ = name, method.__doc__
    plainly.__qualname__ = f"{SharedArray.__qualname__}.{name}"
    return plainly


# numpy's methods, written in C, whose result has the type of the array and may be a copy.
for _name in (
    "argmax argmin argpartition argsort astype byteswap choose compress copy cumprod"
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
) -> SharedArray:
    """An array on a handle's memory. offset and strides: bytes."""
    buffer = shm.buf
    array = np.ndarray.__new__(SharedArray, shape, dtype, buffer, offset, strides, order)
    array._shm, array._mapping = shm, cast(MemoryMap, buffer.obj)
    return array


@contextmanager
def _closed_on_error(shm: SharedMemory) -> Iterator[None]:
    """Not only when the exception goes, whose traceback holds the handle."""
    try:
        yield
    except BaseException:
        shm.close()
        raise


def _found(shm: SharedMemory) -> tuple[SharedArray, _npy.Header]:
    """The array that an object holds."""
    with _closed_on_error(shm):
        try:
            header = _npy.read(shm.fileno())
            return _on(shm, *header), header
        except (ValueError, TypeError, MemoryError) as error:  # numpy's, of a shape it cannot have
            raise ValueError(f"shared memory {shm.name!r} holds no array: {error}") from error


def create(
    name: str | None,
    shape: SupportsIndex | Iterable[SupportsIndex],
    dtype: DTypeLike = float,
    *,
    order: Literal["C", "F"] = "C",
    init: Callable[[NDArray[Any]], object] | None = None,
    exist_ok: bool = False,
    delete: bool = False,
    **options: Unpack[_Options],
) -> SharedArray:
    """Make an array of zeros. It gets its name when it is complete.

    name: of the object; None: an anonymous one, for the processes of multiprocessing. shape: an
    int, or any number of them, from 0. dtype: without Python objects. order: 'C' or 'F', how the
    items lie. init: called with the array, a plain one, to fill it before anyone else can see it;
    if it raises, there is no object. exist_ok: attach to an array of that name, if it has this
    shape, dtype and order. delete and options: as for SharedMemory.create; an anonymous array has
    reserve, populate and huge_pages.

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
        if exist_ok or delete:
            raise ValueError("an anonymous array (name=None) takes no exist_ok and no delete")
        shm = SharedMemory.anonymous(header.end, **options)  # type: ignore[misc]
        with _closed_on_error(shm):
            fill(shm.buf)
            return _on(shm, *header)
    shm = SharedMemory.create(
        name, header.end, init=fill, exist_ok=exist_ok, delete=delete, **options
    )
    if shm.created:
        return _on(shm, *header)
    array, there = _found(shm)
    if there[:3] != header[:3]:
        shm.close()
        text = f"The array exists, but has {there} where {header} are asked for"
        raise FileExistsError(errno.EEXIST, text, name)
    return array


def open(name: str, mode: Literal["r", "r+"] = "r", *, timeout: float | None = 0) -> SharedArray:
    """Attach to the array called name: no item is read or copied, and nothing is changed.

    mode: 'r' for reading only, in the pages too; 'r+' to write as well. timeout: seconds to wait
    for the name to appear; None: for ever. Reads versions 1.0 to 3.0 of the format, whoever
    wrote the file.

    Raises FileNotFoundError, TimeoutError, PermissionError, OSError as SharedMemory.open;
    ValueError for a bad name or mode, or for what is no array: another file, a damaged header, one
    with Python objects, fewer bytes than the header says.
    """
    if mode not in ("r", "r+"):
        raise ValueError(f"mode must be 'r' or 'r+', not {mode!r}")
    return _found(SharedMemory.open(name, readonly=mode == "r", timeout=timeout))[0]


def load(name: str, *, timeout: float | None = 0) -> SharedArray:
    """Attach to the array called name for reading only: open(name, 'r')."""
    return open(name, timeout=timeout)


def save(
    name: str, array: ArrayLike, *, replace: bool = False, **options: Unpack[_Options]
) -> SharedArray:
    """Copy an array into a new object, and give it its name when all is there.

    array: whatever np.asarray takes, without Python objects and without a mask; its dtype, byte
    order and Fortran order stay. replace: take over the name of another object, in one step:
    whoever opens it gets either the old array or this one, and who has the old one keeps it,
    whole. options: as for SharedMemory.create.

    Returns the new array, a writable SharedArray. Raises as SharedMemory.create and .link do,
    FileExistsError for one; ValueError for a dtype that a .npy header cannot say; TypeError for a
    masked array.
    """
    masked = sys.modules.get("numpy.ma")  # numpy itself imports it when it is used
    if masked is not None and isinstance(array, masked.MaskedArray):
        raise TypeError("a masked array has no .npy form; save its .data and its .mask")
    source = np.asarray(array)
    fortran = source.flags.f_contiguous and not source.flags.c_contiguous
    header, data = _npy.make(source.shape, source.dtype, "F" if fortran else "C")

    def fill(buffer: memoryview) -> None:
        np.copyto(_fill(header, data, buffer), source, casting="no")

    if replace:
        shm = SharedMemory.unlinked(header.end, **options)
        with _closed_on_error(shm):
            fill(shm.buf)
            shm.link(name, replace=True)
    else:
        shm = SharedMemory.create(name, header.end, init=fill, **options)
    return _on(shm, *header)


def _attach(
    shm: SharedMemory,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    writeable: bool,
) -> SharedArray:
    """What a pickle of an array says."""
    try:
        array = _on(shm, dtype, shape, "C", offset, strides)
    except (TypeError, ValueError) as error:
        raise ValueError(f"shared memory {shm.name!r} became too small: {error}") from error
    if not writeable:
        array.flags.writeable = False
    return array
