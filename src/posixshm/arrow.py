"""Tables in shared memory: pyarrow's, and with them those of pandas and polars.

A table is an object that holds an Arrow IPC file, which also is a Feather file (version 2), from
byte 0 on: /dev/shm/NAME can be opened by every program that reads these. Of the two IPC formats it
is the file, and not the stream, because a stream that was cut between two of its messages reads as
a shorter table, and nothing tells. See https://arrow.apache.org/docs/format/Columnar.html

It needs pyarrow: pip install 'posixshm[arrow]'.
"""

# pyarrow may not be there, and brings no types.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ._core import SharedMemory

if TYPE_CHECKING:
    import pyarrow

__all__ = ["read", "write"]


def _pyarrow() -> Any:
    """Not before it is used, so that this module can be imported without it."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        text = "posixshm.arrow needs pyarrow: pip install 'posixshm[arrow]'"
        raise ImportError(text, name=error.name) from error
    return pyarrow


def write(name: str, table: Any, *, replace: bool = False, **options: Any) -> None:
    """Put a copy of `table` into a new object called `name`, which appears once it is whole.

    table: a pyarrow Table or RecordBatch, or what pyarrow.table() takes: the frames of polars and
    pandas are among that. replace: an object that has the name loses it in the same step; who has
    read that one keeps it. options: mode, uid, gid, reserve, populate and huge_pages, as for
    SharedMemory.unlinked.

    The columns are written once, into the object itself. The chunks of the table are kept; those
    of a column of dictionaries get one dictionary.

    Raises FileExistsError; what SharedMemory.unlinked raises, OSError (ENOSPC) if there is no room;
    TypeError or ValueError for what is no table, or cannot be written in the format.
    """
    pa = _pyarrow()
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(table, polars.DataFrame):
        # Of objects polars hands over the addresses, as bytes.
        objects = [name for name, kind in table.schema.items() if kind == polars.Object]
        if objects:
            text = f"columns {objects} hold Python objects, which live in one process only"
            raise TypeError(text)
    if not isinstance(table, pa.Table):
        table = pa.table(table)
    measure = pa.MockOutputStream()
    _write(measure, table)
    with SharedMemory.unlinked(measure.size(), **options) as shm:
        with pa.FixedSizeBufferWriter(pa.py_buffer(shm.buf)) as sink:
            _write(sink, table)
        shm.link(name, replace)


def _write(sink: Any, table: pyarrow.Table) -> None:
    pa = _pyarrow()
    options = pa.ipc.IpcWriteOptions(unify_dictionaries=True)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)


def read(name: str, *, timeout: float | None = 0, validate: bool = True) -> pyarrow.Table:
    """The table in the object called `name`, without a copy: its columns are the object's bytes.

    They are read-only, keep the memory as long as anything uses them, and lie at multiples of 8
    bytes. Only what was written compressed, or in the other byte order, is copied.

    timeout: seconds to wait for the name to appear; None: for ever. validate: look at all that
    one value says of where another one is (offsets, indices) and at the text: a damaged table is
    an error here, and no crash later. That reads the columns of text, lists and dictionaries, and
    takes no time for numbers. Without it, read what you wrote yourself. Who may write to the object
    can still change it afterwards.

    Raises ValueError for what is no Arrow IPC file, or one that was cut or damaged; what
    SharedMemory.open raises: FileNotFoundError, TimeoutError, PermissionError.
    """
    pa = _pyarrow()
    with SharedMemory.open(name, readonly=True, timeout=timeout) as shm:
        buffer = pa.py_buffer(shm.buf)
    try:
        table = pa.ipc.open_file(buffer).read_all()
        table.validate(full=validate)
    except Exception as error:  # of many classes; an OSError without an errno is one of them
        raise ValueError(f"{name!r} does not hold a sound Arrow IPC file: {error}") from error
    return table
