"""Tables of pyarrow, pandas and polars in shared memory.

An object in /dev/shm contains an Arrow IPC file, which is also a Feather file (version 2), from
byte 0 on: every program that reads these can open /dev/shm/NAME. The format is that of a file, not
of a stream: a stream that was truncated between two messages reads as a shorter table, without an
error. See https://arrow.apache.org/docs/format/Columnar.html

The module needs pyarrow when a function is called: pip install 'posixshm[arrow]'.
"""

# pyarrow may be missing, and does not have types.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

from ._core import SharedMemory
from ._support import imported
from ._write import check_options, publish
from ._write import write as _pwrite

if TYPE_CHECKING:
    import pyarrow

    from ._core import _Owner

__all__ = ["read", "write"]

_OPTIONS = ("mode", "uid", "gid", "acl", "max_size", "reserve", "populate", "huge_pages")
_EXISTING = ("exist_ok", "stale", "owner", "mode_at_most")
_INSTEAD_OF = {
    "delete": "posixshm.shm_unlink(name) removes the name",
    "track": "posixshm.shm_unlink(name) removes the name",
}
_LITTLE = 1 << 20  # bytes of a table
_PIECE = 1 << 16  # bytes; less is collected until there is more
_SAFE = (14, 0, 1)  # older ones unpickle, and so run, what an extension type of a file says


def _pyarrow() -> Any:
    """Import pyarrow when it is needed, so that this module can be imported without it."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        text = "posixshm.arrow needs pyarrow: pip install 'posixshm[arrow]'"
        raise ImportError(text, name=error.name) from error
    return pyarrow


def _safe_pyarrow() -> Any:
    pa = _pyarrow()
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", pa.__version__)
    if found is None or tuple(map(int, found.groups())) < _SAFE:
        raise ImportError(
            f"posixshm.arrow.read needs pyarrow 14.0.1 or later, not {pa.__version__}: older ones "
            "run code that a file contains (CVE-2023-47248); pip install -U 'posixshm[arrow]'",
            name="pyarrow",
        )
    return pa


def write(name: str, table: Any, *, replace: bool = False, **options: Any) -> None:
    """Copy a table into a new object, which gets its name when the copy is complete.

    name: the name of the object.
    table: a pyarrow Table or RecordBatch, or anything that pyarrow.table() accepts, such as a
        DataFrame of polars or pandas.
    replace: if the name is taken, give it to the new object in one step. A process that has read
        the old table keeps it.
    options: mode, uid, gid, acl, max_size, reserve, populate, huge_pages, exist_ok, stale, owner
        and mode_at_most, as for SharedMemory.create. With exist_ok=True, an object that exists
        already is not changed.

    The columns of a large table are copied once, directly into the object. The chunks of the table
    are kept; the chunks of a dictionary column get one common dictionary.

    Raises FileExistsError; OSError as SharedMemory.create does, with errno ENOSPC if /dev/shm is
    full; TypeError or ValueError if table is not a table or cannot be written in the Arrow format.
    """
    check_options("write()", options, _OPTIONS + _EXISTING, _INSTEAD_OF)
    pa = _pyarrow()
    polars = imported("polars")
    if polars is not None and isinstance(table, polars.DataFrame):
        # For Python objects polars would pass their addresses, as bytes.
        objects = [name for name, kind in table.schema.items() if kind == polars.Object]
        if objects:
            text = f"columns {objects} contain Python objects, which other processes cannot use"
            raise TypeError(text)
    if not isinstance(table, pa.Table):
        table = pa.table(table)
    little = table.get_total_buffer_size() < _LITTLE
    # A small table is copied twice, which is faster than measuring it first.
    sink = pa.BufferOutputStream() if little else pa.MockOutputStream()
    _write(sink, table)
    data = sink.getvalue() if little else None
    size = sink.size() if data is None else data.size
    if not options.keys().isdisjoint(_EXISTING):

        def fill(buffer: memoryview) -> None:
            if data is None:
                _write(pa.FixedSizeBufferWriter(pa.py_buffer(buffer)), table)
            else:
                buffer[: data.size] = memoryview(data).cast("B")

        SharedMemory.create(name, size, init=fill, replace=replace, **options).close()
        return

    def write_to(fd: int) -> None:
        if data is None:
            file = _File(fd)
            _write(pa.PythonFile(file, mode="w"), table)
            file.flush()
        else:
            _pwrite(fd, memoryview(data), 0)

    publish(name, size, write_to, replace, options, SharedMemory.close)


def _write(sink: Any, table: pyarrow.Table) -> None:
    pa = _pyarrow()
    options = pa.ipc.IpcWriteOptions(unify_dictionaries=True)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)


class _File:
    """A file for pyarrow that writes to an object through its descriptor.

    Writing through a mapping would cost a page fault and a cleared page for each page.
    """

    closed = False

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end = 0
        self._collected = bytearray()

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._collected += view[:_PIECE] if view.nbytes < _PIECE else b""
        if view.nbytes >= _PIECE or len(self._collected) >= _PIECE:
            self.flush()
        if view.nbytes >= _PIECE:
            self._end = _pwrite(self._fd, view, self._end)
        return view.nbytes

    def tell(self) -> int:
        return self._end + len(self._collected)

    def flush(self) -> None:
        self._end = _pwrite(self._fd, bytes(self._collected), self._end)
        self._collected.clear()

    def close(self) -> None:
        self.flush()


def read(
    name: str,
    *,
    timeout: float | None = 0,
    owner: _Owner = "any",
    mode_at_most: int | None = None,
    size_at_least: int = 0,
    validate: bool = True,
) -> pyarrow.Table:
    """Return the table in the object called `name`, a pyarrow.Table, without a copy.

    Its columns are the bytes of the object. They are read-only, keep the memory mapped as long as a
    column exists, and are aligned to 8 bytes. Only compressed columns and columns in the other byte
    order are copied.

    timeout: seconds to wait for the name to appear; None: no limit.
    owner, mode_at_most, size_at_least (bytes): as for SharedMemory.open.
    validate: check the offsets and indices in all columns, and that text is UTF-8, so that a
        damaged table raises ValueError here instead of crashing the process later. This reads the
        columns of text, lists and dictionaries, but not those of numbers. validate=False is for
        tables from a trusted writer. Even after a check, a process that may write to the object can
        change it.

    Code that a table contains is not run; an extension type that the program has registered with
    pyarrow receives its metadata. A compressed table needs memory for the uncompressed columns.

    Raises FileNotFoundError, TimeoutError and PermissionError as SharedMemory.open does; ValueError
    if the object is not an Arrow IPC file, or a truncated or damaged one; MemoryError if there is
    not enough memory for the uncompressed columns; ImportError for pyarrow before 14.0.1, which
    runs code that a file contains (CVE-2023-47248).
    """
    pa = _safe_pyarrow()
    with SharedMemory.open(
        name,
        readonly=True,
        timeout=timeout,
        owner=owner,
        mode_at_most=mode_at_most,
        size_at_least=size_at_least,
    ) as shm:
        buffer = pa.py_buffer(shm.buf)
    try:
        file = pa.ipc.open_file(buffer)
        _check_blocks(memoryview(buffer), pa)
        table = file.read_all()
        table.validate(full=validate)
    except Exception as error:
        if not _is_pyarrows(error, pa):
            raise
        raise ValueError(f"{name!r} is not a valid Arrow IPC file: {error}") from error
    return table


def _is_pyarrows(error: Exception, pa: Any) -> bool:
    """Return whether pyarrow itself raised the exception, which may be of many classes.

    An exception of a signal handler or an extension type has a frame of its own. A MemoryError is
    not about the file.
    """
    if isinstance(error, (MemoryError, pa.ArrowCancelled)):
        return False
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    names = {} if place is None else place.tb_frame.f_globals
    module = names["__name__"] if "__name__" in names else ""  # noqa: SIM401, as in imported()
    return module in (__name__, "pyarrow") or module.startswith("pyarrow.")


# A file's footer, a table of flatbuffers, lists the blocks of dictionaries (its third field) and of
# batches (its fourth): vectors of structs of 24 bytes, which are all little-endian.
# https://github.com/apache/arrow/blob/main/format/File.fbs
_BLOCK = struct.Struct("<qi4xq")  # offset, length of the metadata, length of the body
_BLOCKS = (2, 3)


def _check_blocks(file: memoryview, pa: Any) -> None:
    """Raise an error if blocks overlap. pyarrow has verified the footer.

    A small file that names one block many times would need many times its size in memory.
    """
    length = int.from_bytes(file[-10:-6], "little")
    footer = file[len(file) - 10 - length : len(file) - 10]

    def number(kind: str, place: int) -> int:
        (found,) = struct.unpack_from(kind, footer, place)
        return int(found)

    blocks_at = []
    table = number("<I", 0)
    fields = table - number("<i", table)
    for field in _BLOCKS:
        entry = 4 + 2 * field
        place = number("<H", fields + entry) if entry < number("<H", fields) else 0
        if place:
            vector = table + place + number("<I", table + place)
            blocks = footer[vector + 4 :][: number("<I", vector) * _BLOCK.size]
            blocks_at += [(start, start + a + b) for start, a, b in _BLOCK.iter_unpack(blocks)]
    blocks_at.sort()
    for (_, end), (start, _) in zip(blocks_at, blocks_at[1:], strict=False):
        if start < end:
            raise pa.ArrowInvalid(f"two of its {len(blocks_at)} blocks overlap at byte {start}")
