"""numpy's dtypes as formats of items."""

from __future__ import annotations

from ._format import EXTENSIONS, bad_format, extension, from_words, opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy import dtype as DType

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
