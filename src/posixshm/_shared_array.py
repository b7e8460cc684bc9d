"""The arrays of posixshm.array: subclasses of numpy.ndarray that find their handle."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ._core import SharedMemory, _array_type

__all__ = ["SharedArray", "attach", "on"]

_ItemT = TypeVar("_ItemT", bound=np.generic)
if TYPE_CHECKING:
    _Base = np.ndarray
else:
    # Indexing it gives a plain array where numpy copies.
    _Base = _array_type(np.ndarray)


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

    __module__ = "posixshm.array"  # which exports it

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        raise TypeError("a SharedArray is made by create(), open(), load() or save()")

    if TYPE_CHECKING:

        def __getitem__(self, key: Any, /) -> Any: ...
    else:
        __class_getitem__ = classmethod(GenericAlias)

        def copy(self, order="C"):
            """Return a plain numpy.ndarray with a copy of the items.

            order: as of numpy.ndarray.copy().
            """
            return np.ndarray.copy(np.ndarray.__array__(self), order)

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
        return attach, (self.shm, *place)

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
# Indexing is in csrc/core/view/array.c.
for _name in (
    "argmax argmin argpartition argsort astype byteswap choose compress cumprod"
    " cumsum diagonal dot flatten max min prod ravel repeat reshape round sum take trace"
).split():
    setattr(SharedArray, _name, _plainly(_name))


def on(
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


def attach(
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
    array = on(shm, dtype, extents, "C", start, steps)
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
