"""Read random bytes as items of numpy: text, times, bools and structures.

Arguments: SEED ROUNDS.  An operation may raise an exception; a crash ends the process by a signal.
"""

import io
import json
import pickle
import random
import sys
import unicodedata

import numpy as np

from posixshm import SharedMemory

# Bytes that are invalid code points, surrogates, the last code point, NaT, or invalid bools.
WORDS = [
    b"\xff" * 4,
    b"\0\0\x11\0",
    b"\0\xd8\0\0",
    b"\0\0\0\x80",
    b"\xff\xff\x10\0",
    bytes(4),
    b"a\0\0\0",
]
RECORD = np.dtype(
    {
        "names": ["text", "flag", "number", "bytes", "flags", "long"],
        "formats": ["U2", "?", ">f8", "S5", ("?", (2,)), "g"],
        "offsets": [1, 12, 16, 24, 30, 32],
        "itemsize": 64,
    }
)
FORMATS = ["U1", "U5", ">U3", "S7", "?", "M8[ns]", ">m8[D]", "g", RECORD]


def operations_on_text(text):
    for method in (
        "upper",
        "title",
        "casefold",
        "split",
        "isalpha",
        "isidentifier",
        "strip",
        "encode",
    ):
        yield getattr(text, method)
    yield from (
        lambda: hash(text), lambda: repr(text), lambda: text + text[::-1], lambda: {text: 1}[text],
        lambda: text < "a", lambda: json.dumps(text), lambda: unicodedata.normalize("NFKD", text),
        lambda: unicodedata.category(text[0]), lambda: text.replace(text[0], "ab"), lambda: float(text),
        lambda: pickle.loads(pickle.dumps(text)), lambda: sys.intern(str(text)), lambda: f"{text:>9}",
        lambda: io.StringIO().write(text), lambda: getattr(object, text), lambda: compile(text, "", "eval"),
    )  # fmt: skip


def operations_on_an_array(array):
    yield from (
        lambda: repr(array), array.tolist, lambda: np.sort(array), lambda: np.unique(array),
        lambda: array == array[::-1], lambda: array.astype(object), lambda: array.astype("U9"),
        lambda: array.astype("S9"), lambda: array.astype("f8"), lambda: array.astype("?"),
        lambda: np.char.upper(array), lambda: np.char.encode(array), lambda: np.char.find(array, "a"),
        lambda: array.sum(), lambda: np.count_nonzero(array), lambda: np.arange(8)[array],
        lambda: np.where(array, 1, 2), lambda: np.datetime_as_string(array), lambda: array.searchsorted(array[0]),
    )  # fmt: skip


def attempt(operation):
    """Return the result of operation(), or None for an exception, even if numpy left it set."""
    try:
        result = operation()
        len("")  # raises SystemError if an exception is already set
        return result
    except Exception:
        return None


def read(view):
    array = view.numpy()
    fields = [array[name] for name in array.dtype.names or ()]
    for part in [array, array[::-1], *fields]:
        for operation in operations_on_an_array(part):
            attempt(operation)
        for index in range(len(part)):
            item = attempt(lambda part=part, index=index: part[index].item())
            for operation in operations_on_text(item) if isinstance(item, str) else ():
                attempt(operation)


def main():
    numbers = random.Random(int(sys.argv[1]))
    with SharedMemory.anonymous(512) as shm, np.errstate(all="ignore"):
        views = [shm.view(format, 4, 4) for format in FORMATS]
        for _ in range(int(sys.argv[2])):
            for view in views:
                shm.buf[:] = b"".join(
                    numbers.choice([*WORDS, numbers.randbytes(4)]) for _ in range(128)
                )
                read(view)
    print("done")


if __name__ == "__main__":
    main()
