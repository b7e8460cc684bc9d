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
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypedDict, Unpack, cast

try:
    import numpy as np
except ModuleNotFoundError as _error:
    _text = "posixshm.array needs numpy: pip install 'posixshm[numpy]'"
    raise ImportError(_text, name=_error.name) from _error

from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _npy
from ._core import SharedMemory, _create_in, listdir, shm_open
from ._shared_array import SharedArray, on
from ._support import explain_taken, imported
from ._write import check_options, publish, undo, write

__all__ = ["SharedArray", "create", "exists", "list", "load", "open", "save", "unlink"]

if TYPE_CHECKING:
    from ._core import _Delete, _Owner, _Stale


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


# -- creating and attaching --------------------------------------------------------------------


def _fill(header: _npy.Header, data: bytes, buffer: memoryview) -> NDArray[Any]:
    """Write the header of a new object. Return a plain array of its items."""
    array: NDArray[Any] = np.ndarray(
        header.shape, header.dtype, buffer, header.offset, order=header.order
    )
    buffer[: header.offset] = data
    return array


def _found(shm: SharedMemory) -> tuple[SharedArray[Any], _npy.Header]:
    """Return the array that an object contains, and its header."""
    try:
        header = _npy.read(shm.fileno(), shm.size)
        return on(shm, *header), header
    except BaseException as error:
        # At once, although the traceback still refers to the handle.
        shm.close()
        if not isinstance(error, _npy.Refused):
            raise
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
        try:
            fill(shm.buf)
            return on(shm, *header)
        except BaseException:
            shm.close()
            raise
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
            return on(shm, *header)
    except BaseException:
        if shm.created:
            undo(shm)
        raise
    array, there = _found(shm)
    if there[:3] != header[:3]:
        shm.close()
        del array
        what = f"The array exists with {there}, but the caller asked for {header}"
        explained = explain_taken(name.removeprefix("/"), "exist_ok", what)
        raise FileExistsError(errno.EEXIST, explained, name)
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

    def fill(fd: int) -> None:
        end = write(fd, data, 0)
        for piece in _pieces(source.T if fortran else source):
            end = write(fd, piece, end)

    if name is None or options.keys() <= _Options.__annotations__.keys():
        try:
            return publish(name, header.end, fill, replace, options, lambda shm: on(shm, *header))
        except OSError as error:
            if name is None or error.errno not in (_NO_TMPFILE if replace else _NO_UNLINKED):
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
            _npy.read(fd, os.fstat(fd).st_size)
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
