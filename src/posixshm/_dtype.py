"""numpy's dtypes as formats of items, and numpy's arrays of the memory of a View."""

# ml_dtypes is imported only for the formats that numpy does not have.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from ._format import EXTENSIONS, bad_format, extension, from_words, opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy import dtype as DType
    from numpy.typing import NDArray

    from ._core import View
    from ._format import Format


def make(value: Any) -> DType[Any]:
    """Return numpy.dtype(value).

    Raises TypeError for None, which numpy takes for float64, and if numpy is not installed.
    """
    if value is None:
        raise TypeError("format must be a str or a dtype, not None")
    try:
        import numpy
    except ImportError:
        raise TypeError(
            f"format must be a str if numpy is not installed, not {type(value).__name__}"
        ) from None
    dtype: DType[Any] = numpy.dtype(value)
    return dtype


def _bad(dtype: DType[Any], rule: str) -> ValueError:
    return ValueError(f"bad format {dtype!r}: {rule}")


def spell(dtype: DType[Any]) -> Format:
    """Return the format of a dtype's items.

    Raises ValueError if neither the buffer protocol nor DLPack can describe them.
    """
    if dtype.hasobject:
        raise _bad(dtype, "objects cannot be shared, only bytes can")
    if dtype.subdtype is not None:
        raise _bad(dtype, "it has a shape; pass the shape as the argument shape")
    if dtype.itemsize == 0:
        raise _bad(dtype, "an item must have at least one byte")
    if dtype.names:
        return opaque(_spell_part(dtype), dtype.itemsize, argument=dtype)
    if dtype.name in EXTENSIONS:
        if dtype.itemsize > 1 and not dtype.isnative:
            raise _bad(dtype, "DLPack cannot describe its byte order")
        return extension(dtype.name)
    if dtype.kind == "V" and dtype.isbuiltin == 2:
        # A type of another library, such as ml_dtypes.int4: its str contains the size only.
        raise _bad(dtype, "neither the buffer protocol nor DLPack can describe it")
    return from_words(dtype.str)


def time(text: str) -> Format:
    """Return the format of one of numpy's times, which the buffer protocol cannot describe."""
    import numpy

    try:
        text = numpy.dtype(text).str
    except TypeError:
        raise bad_format(text) from None
    return opaque(text, 8, in_buffers=False)


# numpy spells a structure for a reader that aligns the items again, and without the bytes after
# the last field of a structure in a structure.


def _spell_part(dtype: DType[Any]) -> str:
    """Return the format of PEP 3118, with the byte order first and without alignment."""
    import numpy

    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return f"({','.join(map(str, shape))}){_spell_part(base)}"
    if dtype.names:
        return _spell_structure(dtype)
    if dtype.itemsize == 0:  # numpy does not make an array of it
        return "^0" + {"S": "s", "U": "w"}.get(dtype.kind, "x")
    array: Any = numpy.empty(0, dtype)
    text = memoryview(array).format
    return text if text[0] in "<>=!" else "^" + text


def _spell_structure(dtype: DType[Any]) -> str:
    words, end = ["T{"], 0
    fields: Any = dtype.fields
    for name in dtype.names or ():
        part, offset = fields[name][:2]
        if ":" in name or "\0" in name or name.encode(errors="replace").decode() != name:
            raise _bad(dtype, "the name of a field must be text without colons and null characters")
        if offset < end:
            raise _bad(
                dtype, "the buffer protocol cannot describe fields that overlap or are out of order"
            )
        words += [f"{offset - end}x" * (offset > end), _spell_part(part), f":{name}:"]
        end = offset + part.itemsize
    return "".join([*words, f"{dtype.itemsize - end}x" * (dtype.itemsize > end), "}"])


# -- arrays --------------------------------------------------------------------


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
    array = view.numpy()
    result = array if dtype is None else array.astype(dtype, copy=False)
    if result is not array and copy is False:
        raise ValueError(
            f"dtype {dtype!r} needs a copy of items of format {view.format!r}, and copy is False"
        )
    return array.copy() if copy and result is array else result
