import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from types import EllipsisType, TracebackType
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    NoReturn,
    Self,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    final,
    overload,
)

from numpy.typing import DTypeLike, NDArray
from typing_extensions import Buffer, CapsuleType, disjoint_base

_T = TypeVar("_T")
_Order: TypeAlias = Literal["seq_cst", "acq_rel", "acquire", "release", "relaxed"]
_Owner: TypeAlias = (
    SupportsIndex
    | str
    | AbstractSet[SupportsIndex | str]
    | list[SupportsIndex | str]
    | tuple[SupportsIndex | str, ...]
)
_Delete: TypeAlias = bool | Literal["last"]
_Stale: TypeAlias = Literal["attach", "replace", "error"]
_Shape: TypeAlias = SupportsIndex | Iterable[SupportsIndex]
_Format: TypeAlias = Literal["i", "I", "q", "Q"]

F_SEAL_EXEC: Final[int]
"""The execute permission of the object cannot change (Linux 6.3)."""
F_SEAL_FUTURE_WRITE: Final[int]
"""The object cannot be mapped for writing or written to again; existing mappings can still be
written through."""
F_SEAL_GROW: Final[int]
"""The object cannot become larger."""
F_SEAL_SEAL: Final[int]
"""No further seal can be added."""
F_SEAL_SHRINK: Final[int]
"""The object cannot become smaller."""
F_SEAL_WRITE: Final[int]
"""The bytes cannot change. It cannot be added while a writable mapping exists."""
MADV_COLD: Final[int]
"""The pages are not needed soon; the kernel reclaims them first (Linux 5.4)."""
MADV_COLLAPSE: Final[int]
"""Replace the pages by huge pages now (Linux 6.1)."""
MADV_DODUMP: Final[int]
"""Include the pages in a core dump: undoes `MADV_DONTDUMP`."""
MADV_DOFORK: Final[int]
"""A forked child inherits the mapping, which is the default."""
MADV_DONTDUMP: Final[int]
"""Leave the pages out of a core dump."""
MADV_DONTNEED: Final[int]
"""This process does not need the pages soon; the object keeps its bytes."""
MADV_HUGEPAGE: Final[int]
"""Use huge pages if possible."""
MADV_NOHUGEPAGE: Final[int]
"""Do not use huge pages."""
MADV_NORMAL: Final[int]
"""The default."""
MADV_PAGEOUT: Final[int]
"""Write the pages to swap now (Linux 5.4)."""
MADV_POPULATE_READ: Final[int]
"""Map the pages for reading now (Linux 5.14)."""
MADV_POPULATE_WRITE: Final[int]
"""Map the pages for writing now (Linux 5.14)."""
MADV_RANDOM: Final[int]
"""Expect accesses in random order."""
MADV_SEQUENTIAL: Final[int]
"""Expect accesses in sequential order."""
MADV_WILLNEED: Final[int]
"""Expect an access soon: read the pages ahead."""
MS_ASYNC: Final[int]
"""Start to write the pages and return."""
MS_INVALIDATE: Final[int]
"""Let other mappings of the file see the written bytes."""
MS_SYNC: Final[int]
"""Write the pages and wait until they are on the disk."""
NAME_MAX: Final[int]
"""The largest number of bytes in a name, without the slash: 255."""
PAGESIZE: Final[int]
"""The size of a page in bytes. Offsets of mappings are multiples of it."""
PROT_NONE: Final[int]
"""The pages cannot be accessed."""
PROT_READ: Final[int]
"""The pages can be read."""
PROT_WRITE: Final[int]
"""The pages can be written."""
SEM_VALUE_MAX: Final[int]
"""The largest value of a semaphore."""

def shm_open(name: str, flags: int, mode: int = 0o600) -> int: ...
def shm_unlink(name: str) -> None: ...
def sem_unlink(name: str) -> None: ...
def exists(name: str) -> bool: ...
def listdir() -> list[str]: ...
def reclaim(
    prefix: str | None = None,
    *,
    older_than: float | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> list[Reclaimed]: ...
def _reclaim_files(names: Sequence[str], older_than: float, force: bool, /) -> list[Reclaimed]: ...
def _inspect(
    names: Sequence[str], /
) -> list[tuple[str, str, bool, bytes | None, int, int, int, int, int, int, int, int, float]]: ...
def _attach(
    cls: type[SharedMemory], name: str, device: int, inode: int, /, *options: int
) -> SharedMemory: ...
def _leave(handle: SharedMemory, /) -> None: ...
def _check_room(fd: int, size: int, name: str | None, /) -> None: ...
def _raise_unfit(name: str, what: str, /) -> NoReturn: ...
def _set_support(module: object, /) -> None: ...
def _guard_enter(map: MemoryMap, /) -> CapsuleType: ...
def _guard_leave(guard: CapsuleType, /) -> tuple[int, int] | None: ...
def _array_type(ndarray: type[NDArray[Any]], /) -> type[NDArray[Any]]: ...
def _create(
    handle: SharedMemory,
    name: str,
    size: SupportsIndex,
    mode: int,
    track: bool,
    reserve: bool,
    /,
) -> None: ...
def _create_in(
    handle: SharedMemory, name: str | None, size: SupportsIndex, /, **options: Any
) -> None: ...

@final
class Reclaimed(tuple[str, int, float, str, bool, OSError | None, int]):
    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def age(self) -> float: ...
    @property
    def state(self) -> Literal["free", "in use", "unknown"]: ...
    @property
    def removed(self) -> bool: ...
    @property
    def error(self) -> OSError | None: ...
    @property
    def uninspected(self) -> int: ...

    n_fields: Final = 7
    n_sequence_fields: Final = 7
    n_unnamed_fields: Final = 0
    if sys.version_info >= (3, 13):
        __match_args__: Final = (
            "name",
            "size",
            "age",
            "state",
            "removed",
            "error",
            "uninspected",
        )

@final
class MemoryMap:
    def __new__(
        cls,
        fd: Any,
        length: SupportsIndex | None = None,
        offset: SupportsIndex = 0,
        *,
        readonly: bool = False,
        device: bool = False,
    ) -> Self: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def readonly(self) -> bool: ...
    @property
    def prot(self) -> int: ...
    @property
    def resident(self) -> int: ...
    def protect(self, prot: int, /) -> None: ...
    def advise(self, advice: int, offset: int = 0, length: int | None = None) -> None: ...
    def sync(self, offset: int = 0, length: int | None = None, flags: int = MS_SYNC) -> None: ...
    def lock_pages(self, offset: int = 0, length: int | None = None) -> None: ...
    def unlock_pages(self, offset: int = 0, length: int | None = None) -> None: ...
    def populate(self, offset: int = 0, length: int | None = None) -> None: ...
    def view(
        self,
        format: str | Any = "B",
        shape: _Shape | None = None,
        offset: SupportsIndex = 0,
        strides: Iterable[SupportsIndex] | None = None,
        readonly: bool = False,
    ) -> View: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> memoryview: ...
    @overload
    def __setitem__(self, key: SupportsIndex, value: SupportsIndex, /) -> None: ...
    @overload
    def __setitem__(self, key: slice, value: Buffer, /) -> None: ...
    def __iter__(self) -> Iterator[int]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...

_Key: TypeAlias = SupportsIndex | slice | EllipsisType
_Index: TypeAlias = _Key | tuple[_Key, ...]

@final
class View:
    @property
    def format(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def itemsize(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def readonly(self) -> bool: ...
    @property
    def address(self) -> int: ...
    @property
    def obj(self) -> MemoryMap: ...
    def cast(self, format: str | Any, shape: _Shape | None = None) -> View: ...
    def numpy(self) -> NDArray[Any]: ...
    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]: ...
    def tolist(self) -> Any: ...
    def tobytes(self) -> bytes: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __getitem__(self, key: _Index, /) -> Any: ...
    def __setitem__(self, key: _Index, value: Any, /) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def __copy__(self) -> View: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@disjoint_base
class SharedMemory:
    def __init__(
        self,
        name: str | None = None,
        create: bool = False,
        size: SupportsIndex = 0,
        *,
        track: bool = False,
    ) -> None: ...
    @classmethod
    def create(
        cls,
        name: str | None,
        size: SupportsIndex,
        *,
        mode: int = 0o600,
        uid: int | None = None,
        gid: int | None = None,
        acl: str | None = None,
        max_size: SupportsIndex | None = None,
        reserve: bool = True,
        populate: bool = False,
        huge_pages: bool = False,
        init: Callable[[memoryview], object] | None = None,
        exist_ok: bool = False,
        delete: _Delete = False,
        track: bool = False,
        owner: _Owner = "self",
        mode_at_most: int | None = None,
        stale: _Stale = "attach",
        replace: bool = False,
    ) -> Self: ...
    @classmethod
    def open(
        cls,
        name: str,
        *,
        readonly: bool = False,
        timeout: float | None = 0,
        max_size: SupportsIndex | None = None,
        reserve: bool = False,
        owner: _Owner = "any",
        mode_at_most: int | None = None,
        size_at_least: SupportsIndex = 0,
    ) -> Self: ...
    @classmethod
    def anonymous(
        cls,
        size: SupportsIndex,
        *,
        name: str = "posixshm",
        max_size: SupportsIndex | None = None,
        reserve: bool = True,
        populate: bool = False,
        huge_pages: bool = False,
    ) -> Self: ...
    @classmethod
    def unlinked(
        cls,
        size: SupportsIndex,
        *,
        mode: int = 0o600,
        uid: int | None = None,
        gid: int | None = None,
        acl: str | None = None,
        max_size: SupportsIndex | None = None,
        reserve: bool = True,
        populate: bool = False,
        huge_pages: bool = False,
    ) -> Self: ...
    @classmethod
    def from_fd(
        cls,
        fd: int,
        *,
        readonly: bool | None = None,
        max_size: SupportsIndex | None = None,
        require_seals: int = 0,
    ) -> Self: ...
    @property
    def buf(self) -> memoryview: ...
    @property
    def name(self) -> str | None: ...
    @property
    def path(self) -> str | None: ...
    def __fspath__(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def max_size(self) -> int | None: ...
    @property
    def holds_use_lock(self) -> bool: ...
    @property
    def readonly(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def created(self) -> bool: ...
    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def seals(self) -> int: ...
    @property
    def resident(self) -> int: ...
    def link(self, name: str, replace: bool = False) -> None: ...
    def rename(self, name: str, replace: bool = False) -> None: ...
    def unlink(self) -> None: ...
    def is_linked(self) -> bool: ...
    def close(self) -> None: ...
    def close_fd(self) -> None: ...
    def detach(self) -> int: ...
    def fileno(self) -> int: ...
    def map(
        self,
        offset: SupportsIndex = 0,
        length: SupportsIndex | None = None,
        *,
        readonly: bool | None = None,
    ) -> MemoryMap: ...
    def resize(self, size: SupportsIndex, *, shrink: bool = False) -> int: ...
    def refresh(self) -> int: ...
    def protect(self, prot: int, /) -> None: ...
    def advise(self, advice: int, offset: int = 0, length: int | None = None) -> None: ...
    def sync(self, offset: int = 0, length: int | None = None, flags: int = MS_SYNC) -> None: ...
    def lock_pages(self, offset: int = 0, length: int | None = None) -> None: ...
    def unlock_pages(self, offset: int = 0, length: int | None = None) -> None: ...
    def populate(self, offset: int = 0, length: int | None = None) -> None: ...
    def view(
        self,
        format: str | Any = "B",
        shape: _Shape | None = None,
        offset: SupportsIndex = 0,
        strides: Iterable[SupportsIndex] | None = None,
        readonly: bool = False,
    ) -> View: ...
    def stat(self) -> os.stat_result: ...
    def chmod(self, mode: int, /) -> None: ...
    def chown(self, uid: int = -1, gid: int = -1) -> None: ...
    def getfacl(self, *, numeric: bool = False) -> str: ...
    def setfacl(self, text: str | None, /) -> None: ...
    def add_seals(self, seals: int, /) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...

class OwnerDiedError(OSError): ...

@final
class Lock:
    nbytes: ClassVar[int]
    alignment: ClassVar[int]
    def __new__(
        cls,
        name: str | None = None,
        *,
        create: bool = False,
        exist_ok: bool = False,
        mode: int = 0o600,
        owner: _Owner = "self",
        delete: _Delete = False,
        track: bool = False,
        mode_at_most: int | None = None,
        acl: str | None = None,
        stale: _Stale = "attach",
        replace: bool = False,
        on_owner_died: Callable[[Lock], object] | None = None,
    ) -> Self: ...
    @classmethod
    def at(
        cls,
        shm: SharedMemory | MemoryMap,
        offset: SupportsIndex = 0,
        *,
        create: bool = False,
        exist_ok: bool = False,
        on_owner_died: Callable[[Lock], object] | None = None,
    ) -> Self: ...
    def acquire(
        self, blocking: bool = True, timeout: float | None = -1, *, recover: bool = False
    ) -> bool: ...
    def release(self) -> None: ...
    def locked(self) -> bool: ...
    @property
    def recovered(self) -> bool: ...
    def __enter__(self) -> Literal[True]: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def offset(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def shm(self) -> SharedMemory | MemoryMap: ...
    @property
    def uid(self) -> int: ...
    def stat(self) -> os.stat_result: ...
    def close(self) -> None: ...
    def unlink(self) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class RLock:
    nbytes: ClassVar[int]
    alignment: ClassVar[int]
    def __new__(
        cls,
        name: str | None = None,
        *,
        create: bool = False,
        exist_ok: bool = False,
        mode: int = 0o600,
        owner: _Owner = "self",
        delete: _Delete = False,
        track: bool = False,
        mode_at_most: int | None = None,
        acl: str | None = None,
        stale: _Stale = "attach",
        replace: bool = False,
        on_owner_died: Callable[[RLock], object] | None = None,
    ) -> Self: ...
    @classmethod
    def at(
        cls,
        shm: SharedMemory | MemoryMap,
        offset: SupportsIndex = 0,
        *,
        create: bool = False,
        exist_ok: bool = False,
        on_owner_died: Callable[[RLock], object] | None = None,
    ) -> Self: ...
    def acquire(
        self, blocking: bool = True, timeout: float | None = -1, *, recover: bool = False
    ) -> bool: ...
    def release(self) -> None: ...
    def locked(self) -> bool: ...
    @property
    def recovered(self) -> bool: ...
    def __enter__(self) -> Literal[True]: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def offset(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def shm(self) -> SharedMemory | MemoryMap | None: ...
    @property
    def uid(self) -> int: ...
    def stat(self) -> os.stat_result: ...
    def close(self) -> None: ...
    def unlink(self) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Semaphore:
    nbytes: ClassVar[int]
    alignment: ClassVar[int]
    def __new__(
        cls,
        name: str | None = None,
        value: int = 1,
        *,
        create: bool = False,
        exist_ok: bool = False,
        mode: int = 0o600,
        owner: _Owner = "self",
        delete: _Delete = False,
        track: bool = False,
        mode_at_most: int | None = None,
        acl: str | None = None,
        stale: _Stale = "attach",
        replace: bool = False,
    ) -> Self: ...
    @classmethod
    def at(
        cls,
        shm: SharedMemory | MemoryMap,
        offset: SupportsIndex = 0,
        *,
        value: int = 1,
        create: bool = False,
        exist_ok: bool = False,
    ) -> Self: ...
    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool: ...
    def release(self, n: int = 1) -> None: ...
    @property
    def value(self) -> int: ...
    def __enter__(self) -> Literal[True]: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def offset(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def shm(self) -> SharedMemory | MemoryMap: ...
    @property
    def uid(self) -> int: ...
    def stat(self) -> os.stat_result: ...
    def close(self) -> None: ...
    def unlink(self) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Condition:
    nbytes: ClassVar[int]
    alignment: ClassVar[int]
    def __new__(
        cls,
        name: str | None = None,
        lock: Lock | RLock | None = None,
        *,
        create: bool = False,
        exist_ok: bool = False,
        mode: int = 0o600,
        owner: _Owner = "self",
        delete: _Delete = False,
        track: bool = False,
        mode_at_most: int | None = None,
        acl: str | None = None,
        stale: _Stale = "attach",
        replace: bool = False,
        on_owner_died: Callable[[RLock], object] | None = None,
    ) -> Self: ...
    @classmethod
    def at(
        cls,
        shm: SharedMemory | MemoryMap,
        offset: SupportsIndex = 0,
        *,
        lock: Lock | RLock | None = None,
        create: bool = False,
        exist_ok: bool = False,
        on_owner_died: Callable[[RLock], object] | None = None,
    ) -> Self: ...
    def acquire(
        self, blocking: bool = True, timeout: float | None = -1, *, recover: bool = False
    ) -> bool: ...
    def release(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T: ...
    def notify(self, n: int = 1) -> None: ...
    def notify_all(self) -> None: ...
    @property
    def lock(self) -> Lock | RLock: ...
    @property
    def recovered(self) -> bool: ...
    def __enter__(self) -> Literal[True]: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def offset(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def shm(self) -> SharedMemory | MemoryMap: ...
    @property
    def uid(self) -> int: ...
    def stat(self) -> os.stat_result: ...
    def close(self) -> None: ...
    def unlink(self) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Event:
    nbytes: ClassVar[int]
    alignment: ClassVar[int]
    def __new__(
        cls,
        name: str | None = None,
        *,
        create: bool = False,
        exist_ok: bool = False,
        mode: int = 0o600,
        owner: _Owner = "self",
        delete: _Delete = False,
        track: bool = False,
        mode_at_most: int | None = None,
        acl: str | None = None,
        stale: _Stale = "attach",
        replace: bool = False,
    ) -> Self: ...
    @classmethod
    def at(
        cls,
        shm: SharedMemory | MemoryMap,
        offset: SupportsIndex = 0,
        *,
        create: bool = False,
        exist_ok: bool = False,
    ) -> Self: ...
    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    @property
    def name(self) -> str | None: ...
    @property
    def offset(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def shm(self) -> SharedMemory | MemoryMap: ...
    @property
    def uid(self) -> int: ...
    def stat(self) -> os.stat_result: ...
    def close(self) -> None: ...
    def unlink(self) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Barrier:
    nbytes: ClassVar[int]
    alignment: ClassVar[int]
    def __new__(
        cls,
        name: str | None = None,
        parties: int | None = None,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        create: bool = False,
        exist_ok: bool = False,
        mode: int = 0o600,
        owner: _Owner = "self",
        delete: _Delete = False,
        track: bool = False,
        mode_at_most: int | None = None,
        acl: str | None = None,
        stale: _Stale = "attach",
        replace: bool = False,
    ) -> Self: ...
    @classmethod
    def at(
        cls,
        shm: SharedMemory | MemoryMap,
        offset: SupportsIndex = 0,
        *,
        parties: int | None = None,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        create: bool = False,
        exist_ok: bool = False,
    ) -> Self: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def abort(self) -> None: ...
    def reset(self) -> None: ...
    @property
    def parties(self) -> int: ...
    @property
    def n_waiting(self) -> int: ...
    @property
    def broken(self) -> bool: ...
    @property
    def name(self) -> str | None: ...
    @property
    def offset(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def shm(self) -> SharedMemory | MemoryMap: ...
    @property
    def uid(self) -> int: ...
    def stat(self) -> os.stat_result: ...
    def close(self) -> None: ...
    def unlink(self) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class RWLock:
    nbytes: ClassVar[int]
    alignment: ClassVar[int]
    def __new__(
        cls,
        name: str | None = None,
        *,
        create: bool = False,
        exist_ok: bool = False,
        mode: int = 0o600,
        owner: _Owner = "self",
        delete: _Delete = False,
        track: bool = False,
        mode_at_most: int | None = None,
        acl: str | None = None,
        stale: _Stale = "attach",
        replace: bool = False,
        on_owner_died: Callable[[RWLock], object] | None = None,
    ) -> Self: ...
    @classmethod
    def at(
        cls,
        shm: SharedMemory | MemoryMap,
        offset: SupportsIndex = 0,
        *,
        create: bool = False,
        exist_ok: bool = False,
        on_owner_died: Callable[[RWLock], object] | None = None,
    ) -> Self: ...
    def acquire_read(self, blocking: bool = True, timeout: float | None = -1) -> bool: ...
    def acquire_write(
        self, blocking: bool = True, timeout: float | None = -1, *, recover: bool = False
    ) -> bool: ...
    def release(self) -> None: ...
    def read(self, timeout: float | None = -1) -> AbstractContextManager[RWLock]: ...
    def write(self, timeout: float | None = -1) -> AbstractContextManager[RWLock]: ...
    @property
    def recovered(self) -> bool: ...
    @property
    def name(self) -> str | None: ...
    @property
    def offset(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def shm(self) -> SharedMemory | MemoryMap: ...
    @property
    def uid(self) -> int: ...
    def stat(self) -> os.stat_result: ...
    def close(self) -> None: ...
    def unlink(self) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Atomic:
    nbytes: ClassVar[int]
    alignment: ClassVar[int]
    @classmethod
    def at(
        cls, shm: SharedMemory | MemoryMap, offset: SupportsIndex = 0, format: _Format = "q"
    ) -> Self: ...
    def load(self, order: Literal["seq_cst", "acquire", "relaxed"] = "seq_cst") -> int: ...
    def store(
        self, value: int, order: Literal["seq_cst", "release", "relaxed"] = "seq_cst"
    ) -> None: ...
    def exchange(self, value: int, order: _Order = "seq_cst") -> int: ...
    def compare_exchange(
        self,
        expected: int,
        desired: int,
        order: _Order = "seq_cst",
        failure: Literal["seq_cst", "acquire", "relaxed"] | None = None,
    ) -> tuple[bool, int]: ...
    def fetch_add(self, value: int, order: _Order = "seq_cst") -> int: ...
    def fetch_sub(self, value: int, order: _Order = "seq_cst") -> int: ...
    def fetch_and(self, value: int, order: _Order = "seq_cst") -> int: ...
    def fetch_or(self, value: int, order: _Order = "seq_cst") -> int: ...
    def fetch_xor(self, value: int, order: _Order = "seq_cst") -> int: ...
    def wait(self, expected: int, timeout: float | None = None) -> bool: ...
    def notify(self, n: int | None = None) -> int: ...
    @property
    def format(self) -> _Format: ...
    @property
    def offset(self) -> int: ...
    @property
    def shm(self) -> SharedMemory | MemoryMap: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
