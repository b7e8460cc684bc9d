"""The methods of View that the C extension leaves to Python."""

# numpy and ml_dtypes are imported only for the views that need them.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from ._core import SharedMemory, View
from ._format import EXTENSIONS, known, parse
from ._support import imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from ._format import Decode

__all__ = ["key_of", "known", "parse", "reduce", "to_array", "to_list", "to_numpy"]


def key_of(value: Any) -> object:
    """Return the key of the format of a buffer's items, or None if parse() does not have it."""
    dtype, numpy = getattr(value, "dtype", None), imported("numpy")
    try:
        if isinstance(value, View):
            return parse(value.format)[5]
        if numpy is not None and isinstance(dtype, numpy.dtype):
            return parse(dtype)[5]
        with memoryview(value) as buffer:
            return parse(buffer.format)[5]
    except ValueError:
        return None


def to_list(view: View, decode: Decode) -> object:
    """Return the items as nested lists, if memoryview does not read them."""
    return _nested(view.tobytes(), view.shape, decode)


def _nested(data: bytes, shape: tuple[int, ...], decode: Decode) -> object:
    if not shape:
        return decode(data)
    step = len(data) // (shape[0] or 1)
    parts = [data[n * step : (n + 1) * step] for n in range(shape[0])]
    if len(shape) == 1:
        return list(map(decode, parts))
    return [_nested(part, shape[1:], decode) for part in parts]


def to_numpy(view: View) -> NDArray[Any]:
    """Return the array of a view whose format the buffer protocol does not have."""
    import numpy

    dtype = numpy.dtype(_extension_type(view.format))
    unsigned = {1: "B", 2: "H", 8: "Q"}[view.itemsize]
    plain = view.obj.view(unsigned, view.shape, view.offset, view.strides, view.readonly)
    return numpy.asarray(plain).view(dtype)


def _extension_type(name: str) -> Any:
    if name not in EXTENSIONS:
        return name
    import ml_dtypes

    try:
        return getattr(ml_dtypes, name)
    except AttributeError:
        raise ImportError(
            f"this version of ml_dtypes does not have {name}; a newer one may"
        ) from None


def to_array(view: View, dtype: Any, copy: bool | None) -> NDArray[Any]:
    """Return what View.__array__() returns."""
    array, copy = view.numpy(), None if copy is None else bool(copy)
    result = array if dtype is None else array.astype(dtype, copy=False)
    if result is not array and copy is False:
        raise ValueError(
            f"dtype {dtype!r} needs a copy of items of format {view.format!r}, and copy is False"
        )
    return array.copy() if copy and result is array else result


def reduce(view: View, shm: SharedMemory, argument: object) -> tuple[Any, ...]:
    """Return what View.__reduce__() returns."""
    place = (view.shape, view.offset, view.strides, view.readonly)
    return SharedMemory.view, (shm, argument, *place)
