"""The formats of items: those of struct, of the buffer protocol, of numpy and of DLPack.

The C extension calls parse(), through _view, for each format that a caller passes, and keeps what
it returns. numpy is imported only if a format needs it.
"""

from __future__ import annotations

import codecs
import sys

from ._support import imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Decode = Callable[[bytes], object]
    Encode = Callable[[Any], bytes]
    # text            what View.format returns
    # size            bytes of an item, at least 1
    # in_buffers      whether text is a format of the buffer protocol
    # code, bits      the type in DLPack; bits is 0 if DLPack does not have it
    # key             equal for items that can be copied as bytes
    # argument        what parse() takes for the same items
    # decode, encode  convert between an item's bytes and its value; None: memoryview does
    Format = tuple[str, int, bool, int, int, object, object, Decode | None, Encode | None]

_OTHER_ORDER = "<" if sys.byteorder == "big" else ">"
_PREFIXES = ("@", "=", "<", ">", "!", "|")
_ORDER = {"<": "little", ">": "big", "!": "big"}

# The number that each character of the struct module stands for: its kind in numpy, its native
# size and its standard size in bytes, 0 if it does not have one.
_POINTER = 8 if sys.maxsize > 2**32 else 4
_CODES = {
    "?": ("b", 1, 1), "b": ("i", 1, 1), "B": ("u", 1, 1), "h": ("i", 2, 2), "H": ("u", 2, 2),
    "i": ("i", 4, 4), "I": ("u", 4, 4), "l": ("i", _POINTER, 4), "L": ("u", _POINTER, 4),
    "q": ("i", 8, 8), "Q": ("u", 8, 8), "n": ("i", _POINTER, 0), "N": ("u", _POINTER, 0),
    "e": ("f", 2, 2), "f": ("f", 4, 4), "d": ("f", 8, 8),
}  # fmt: skip
_NATIVE = {
    ("b", 1): "?", ("i", 1): "b", ("i", 2): "h", ("i", 4): "i", ("i", 8): "lq"[_POINTER == 4],
    ("u", 1): "B", ("u", 2): "H", ("u", 4): "I", ("u", 8): "LQ"[_POINTER == 4],
    ("f", 2): "e", ("f", 4): "f", ("f", 8): "d", ("f", 16): "g",
    ("c", 8): "Zf", ("c", 16): "Zd", ("c", 32): "Zg",
}  # fmt: skip
_COMPLEX = {"F": 8, "Zf": 8, "D": 16, "Zd": 16, "G": 32, "Zg": 32}
_NAMES = {
    f"{name}{8 * size}": (kind, size)
    for name, kind, sizes in (
        ("int", "i", (1, 2, 4, 8)),
        ("uint", "u", (1, 2, 4, 8)),
        ("float", "f", (2, 4, 8)),
        ("complex", "c", (8, 16)),
    )
    for size in sizes
} | {"bool": ("b", 1)}
_READ_BY_MEMORYVIEW = "?bBhHiIlLqQnNfd" + "e" * (sys.version_info >= (3, 12))

# The codes of DLPack for the kinds of numpy.
_DLPACK = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
# Types that only DLPack has: the code, and the bytes of an item.
EXTENSIONS = {
    "bfloat16": (4, 2),
    "float8_e3m4": (7, 1),
    "float8_e4m3": (8, 1),
    "float8_e4m3b11fnuz": (9, 1),
    "float8_e4m3fn": (10, 1),
    "float8_e4m3fnuz": (11, 1),
    "float8_e5m2": (12, 1),
    "float8_e5m2fnuz": (13, 1),
    "float8_e8m0fnu": (14, 1),
}

known: dict[object, Format] = {}  # the extension finds text in it without calling parse()
_MOST_KNOWN = 500
_dtype: Any = None


def parse(value: object) -> Format:
    """Return the format that value means: a str, or anything that numpy.dtype() takes.

    Raises ValueError if there is no such format, TypeError for None and what numpy refuses.
    """
    # Not dict.get(), for the reason that imported() names.
    if isinstance(value, str):
        text = str.__str__(value)
        try:
            return known[text]
        except KeyError:
            return _remember(text, _from_text(text))
    dtype = _dtypes().make(value)
    key = dtype, dtype.names  # a program can change the names
    try:
        return known[key]
    except KeyError:
        found: Format = _dtypes().spell(dtype)
        return _remember(key, found)


def _dtypes() -> Any:
    """Import _dtype, once: an import statement takes longer than all of parse()."""
    global _dtype
    if _dtype is None:
        from . import _dtype as module

        _dtype = module
    return _dtype


def _remember(key: object, found: Format) -> Format:
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known[key] = found
    return found


def _format(
    text: str,
    size: int,
    *,
    dlpack: tuple[int, int] = (0, 0),
    key: object = None,
    argument: object = None,
    in_buffers: bool = True,
    codec: tuple[Decode, Encode] | None = None,
) -> Format:
    return (
        text, size, in_buffers, *dlpack, key or text, argument or text, *(codec or (None, None))
    )  # fmt: skip


# -- text ----------------------------------------------------------------------


def bad_format(text: str) -> ValueError:
    return ValueError(
        f"bad format {text!a}: it must be a format of the struct module, such as 'f' or '<hh', a "
        "dtype of numbers, bytes or text, such as '<f4' or 'float32', a type of DLPack, such as "
        "'bfloat16', or, once numpy is imported, an argument of numpy.dtype()"
    )


def _from_text(text: str) -> Format:
    try:
        return from_words(text)
    except ValueError:
        numpy = imported("numpy")
        if numpy is None:
            raise
        try:
            dtype = numpy.dtype(text)
        except (TypeError, ValueError, SyntaxError):
            dtype = None
        if dtype is None:
            raise
    found: Format = _dtypes().spell(dtype)
    return found


def from_words(text: str) -> Format:
    """Return the format that text names, using numpy only for numpy's times."""
    if text in EXTENSIONS:
        return extension(text)
    prefix, rest = (text[0], text[1:]) if text[:1] in _PREFIXES else ("", text)
    if rest[:2] in ("M8", "m8") and prefix not in ("@", "!"):
        time: Format = _dtypes().time(text)
        return time
    swapped = _ORDER.get(prefix, sys.byteorder) != sys.byteorder
    found = _number(*_NAMES[text]) if text in _NAMES else None
    if not found and prefix not in ("@", "!"):
        found = _from_numpy_word(rest, swapped)
    if not found and prefix != "|":
        found = _from_buffer_word(rest, swapped) or _from_struct_code(prefix, rest, swapped)
    return found or _struct(text)


def _from_numpy_word(word: str, swapped: bool) -> Format | None:
    """Parse a letter and a number, as in numpy.dtype.str."""
    letter, count = word[:1], _count(word[1:])
    if not count:
        return None
    if letter == "U":
        return _text(count, swapped)
    if letter in ("S", "V"):
        return _struct(f"{count}{'s' if letter == 'S' else 'x'}")
    return _number(letter, count, swapped)


def _from_buffer_word(word: str, swapped: bool) -> Format | None:
    """Parse PEP 3118's words for complex numbers, long double and text."""
    if word in _COMPLEX:
        return _number("c", _COMPLEX[word], swapped)
    if word == "g":
        return _number("f", 16, swapped)
    return _text(_count(word[:-1]), swapped) if word[-1:] == "w" else None


def _from_struct_code(prefix: str, code: str, swapped: bool) -> Format | None:
    if code not in _CODES:
        return None
    kind, native, standard = _CODES[code]
    if prefix in ("", "@"):
        return _number(kind, native, code=code)
    return _number(kind, standard, swapped)


def _count(digits: str) -> int:
    """Return the number that digits spell, or 0."""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0


# -- formats and the values of their items -------------------------------------


def _number(kind: str, size: int, swapped: bool = False, code: str = "") -> Format | None:
    """Return the format of a number, or None if it does not have one.

    kind is that of numpy, code the character for it if there is more than one.
    """
    swapped = swapped and size > 1
    code = code or _NATIVE.get((kind, size), "")
    if not code or (swapped and "g" in code):
        return None
    if swapped:
        code = _OTHER_ORDER + {"l": "q", "L": "Q"}.get(code, code)
    has_dlpack = not swapped and "g" not in code
    codec = None
    if "g" in code:
        codec = _refuse(code)
    elif kind == "c":
        codec = _complex_codec(code)
    elif code not in _READ_BY_MEMORYVIEW:
        codec = _struct_codec(code)
    return _format(
        code,
        size,
        dlpack=(_DLPACK[kind], 8 * size) if has_dlpack else (0, 0),
        key=(kind, size, swapped),
        codec=codec,
    )


def extension(name: str) -> Format:
    code, size = EXTENSIONS[name]
    return _format(name, size, dlpack=(code, 8 * size), in_buffers=False, codec=_refuse(name))


def opaque(text: str, size: int, **more: Any) -> Format:
    """Return a format whose items only numpy reads."""
    return _format(text, size, codec=_refuse(text), **more)


def _struct(text: str) -> Format:
    """Return a format that only the struct module reads."""
    import struct

    try:
        size = struct.calcsize(text)
    except (struct.error, UnicodeError, OverflowError):
        raise bad_format(text) from None
    if size == 0:
        raise ValueError(f"bad format {text!r}: an item must have at least one byte")
    return _format(text, size, codec=_struct_codec(text))


def _text(characters: int, swapped: bool) -> Format | None:
    """Return the format of numpy's dtype 'U', text with four bytes a character."""
    if not 0 < characters < 2**29:
        return None
    text = f"{_OTHER_ORDER if swapped else ''}{characters}w"
    little = swapped == (sys.byteorder == "big")
    decoder = codecs.utf_32_le_decode if little else codecs.utf_32_be_decode
    encoder = codecs.utf_32_le_encode if little else codecs.utf_32_be_encode

    def decode(data: bytes) -> str:
        return decoder(data, "surrogatepass", True)[0].rstrip("\0")

    def encode(value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"an item of format {text!r} must be a str, not {_type_name(value)}")
        if len(value) > characters:
            raise _bad_value(text, value)
        return encoder(value, "surrogatepass")[0].ljust(4 * characters, b"\0")

    return _format(text, 4 * characters, codec=(decode, encode))


def _type_name(value: object) -> str:
    return type(value).__name__


def _bad_value(text: str, value: object) -> ValueError:
    return ValueError(f"an item of format {text!r} cannot be {value!r}")


def _struct_codec(text: str) -> tuple[Decode, Encode]:
    """Convert a single value as it is, and several as a tuple."""
    import struct

    packer = struct.Struct(text)
    unpack, pack = packer.unpack, packer.pack
    single = len(unpack(bytes(packer.size))) == 1

    def decode(data: bytes) -> object:
        return unpack(data)[0]

    def encode(value: Any) -> bytes:
        try:
            return pack(*value) if isinstance(value, tuple) else pack(value)
        except (struct.error, OverflowError):
            raise _bad_value(text, value) from None

    return decode if single else unpack, encode


def _complex_codec(text: str) -> tuple[Decode, Encode]:
    import struct

    # With a byte order, struct raises OverflowError instead of packing an infinity.
    order = text[0] if text[0] in "<>" else "="
    packer = struct.Struct(order + 2 * text[-1])
    unpack, pack = packer.unpack, packer.pack

    def decode(data: bytes) -> complex:
        return complex(*unpack(data))

    def encode(value: Any) -> bytes:
        if isinstance(value, str):
            raise TypeError(f"an item of format {text!r} must be a number, not a str")
        number = complex(value)
        try:
            return pack(number.real, number.imag)
        except OverflowError:
            raise _bad_value(text, value) from None

    return decode, encode


def _refuse(text: str) -> tuple[Decode, Encode]:
    def refuse(_: object) -> Any:
        raise NotImplementedError(
            f"Python has no type for an item of format {text!r}: use .numpy()"
        )

    return refuse, refuse
