"""`posixshm load` and `dump`. Both name their result when it is complete, and keep holes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

import posixshm
from posixshm._command.errors import about, cleaning_up
from posixshm._command.objects import path_of
from posixshm._command.progress import Advance, progress
from posixshm._command.text import is_terminal

CHUNK = 1 << 20
_TAKEN = "File exists (see --replace)"


def load(args: argparse.Namespace) -> int:
    # Gigabytes are not read for a bad or taken name; link() has the last word.
    if os.path.lexists(path_of(args.name)) and not args.replace:
        raise FileExistsError(errno.EEXIST, _TAKEN, args.name)
    with contextlib.ExitStack() as stack:
        source, label = 0, "standard input"
        if args.file != "-":
            source, label = stack.enter_context(open(args.file, "rb", 0)).fileno(), args.file
        with about(label):
            status = os.fstat(source)
            if _is_endless(source, status):
                raise OSError(
                    errno.EINVAL,
                    "The device has no end (head -c SIZE copies a part of it)",
                )
        expected = status.st_size if stat.S_ISREG(status.st_mode) else 0
        sparse = not args.reserve and _has_holes(source, expected)
        with about(args.name):
            shm = stack.enter_context(
                posixshm.SharedMemory.unlinked(max(expected, 1), mode=args.mode, reserve=not sparse)
            )
        advance = stack.enter_context(progress(args.name, expected or None))
        target = shm.fileno()
        if sparse:
            length = _copy_sparse(source, label, target, args.name, expected, advance)
        else:
            length = _copy(source, label, target, args.name, -1, advance)
        with about(args.name):
            if length == 0:
                raise OSError(errno.ENODATA, "Nothing to load, it is empty", label)
            if length < expected:  # the file became shorter meanwhile
                shm.resize(length, shrink=True)
            try:
                shm.link(args.name, replace=args.replace)
            except FileExistsError:
                raise FileExistsError(errno.EEXIST, _TAKEN, args.name) from None
    return 0


def _is_endless(source: int, status: os.stat_result) -> bool:
    """Return whether a file is a character device, except a terminal and /dev/null."""
    device = status.st_rdev
    return (
        stat.S_ISCHR(status.st_mode) and device != os.stat(os.devnull).st_rdev
    ) and not is_terminal(source)


def dump(args: argparse.Namespace) -> int:
    if args.file == "-" and is_terminal(1):
        raise ValueError(
            "standard output is a terminal, but an object is binary: use a FILE or a pipe"
        )
    # Through the descriptor, not the mapping: there a truncation by another
    # process is a short read, here it would be SIGBUS.
    with posixshm.SharedMemory.open(args.name, readonly=True) as shm, cleaning_up():
        source, size = shm.fileno(), os.fstat(shm.fileno()).st_size
        with (
            _target(args.file, shm) as (target, label, whole),
            progress(args.name, size) as advance,
        ):
            if whole:
                length = _copy_sparse(source, args.name, target, label, size, advance)
            else:
                length = _copy(source, args.name, target, label, size, advance)
            if length < size:
                text = f"Truncated by another process: got {length} of {size} bytes"
                raise OSError(errno.EIO, text, args.name)
    return 0


@contextlib.contextmanager
def _target(file: str, shm: posixshm.SharedMemory) -> Iterator[tuple[int, str, bool]]:
    """Return a descriptor to write to, its name, and whether it is a new regular file."""
    if file == "-":
        yield 1, "standard output", False
        return
    path = os.path.realpath(file)  # a link to a file stays one
    try:
        status = os.stat(path)
    except FileNotFoundError:
        status = None
    if status is not None and os.path.samestat(status, os.fstat(shm.fileno())):
        raise OSError(errno.EINVAL, "It is the object itself", file)
    if status is not None and not stat.S_ISREG(status.st_mode):
        with about(file):
            target = os.open(path, os.O_WRONLY)  # a device or a pipe; of a directory an error
        try:
            yield target, file, False
        finally:
            os.close(target)
        return
    beside = os.path.join(os.path.dirname(path), f".posixshm-{secrets.token_hex(8)}~")
    try:
        # A new file is as private as the object.
        target = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, shm.mode & 0o777)
    except OSError as error:
        error.filename = file
        raise
    try:
        try:
            yield target, file, True
        finally:
            os.close(target)
        os.rename(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError) and error.filename == beside:
            error.filename, error.filename2 = file, None
        raise


def _copy(
    source: int, source_label: str, target: int, label: str, most: int, advance: Advance
) -> int:
    """Copy up to the end of source, or `most` bytes. Return the number of bytes."""
    done = 0
    while True:
        with about(source_label):
            chunk = os.read(source, CHUNK if most < 0 else min(CHUNK, most - done))
        if not chunk:
            return done
        rest = memoryview(chunk)
        with about(label):
            while rest:
                rest = rest[os.write(target, rest) :]
        done += len(chunk)
        advance(len(chunk))


def _has_holes(fd: int, size: int) -> bool:
    if size == 0:
        return False
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) < size
    except OSError:  # its file system does not tell
        return False
    finally:
        os.lseek(fd, 0, os.SEEK_SET)


def _copy_sparse(
    source: int, source_label: str, target: int, label: str, size: int, advance: Advance
) -> int:
    """Copy what is not a hole to the same places; returns where the data end, or size.

    The target is empty, or all holes.
    """
    with about(label):
        if os.fstat(target).st_size != size:
            os.ftruncate(target, size)
    place = 0
    while place < size:
        with about(source_label):
            start, end = _next_data(source, place, size)
        advance(start - place)
        place = start
        while place < end:
            with about(source_label):
                chunk = os.pread(source, min(CHUNK, end - place), place)
            if not chunk:  # truncated meanwhile
                return place
            rest = memoryview(chunk)
            with about(label):
                while rest:
                    written = os.pwrite(target, rest, place)
                    rest, place = rest[written:], place + written
            advance(len(chunk))
    with about(source_label):
        return min(size, os.fstat(source).st_size)


def _next_data(fd: int, place: int, size: int) -> tuple[int, int]:
    """Return where the next range of data begins and ends."""
    try:
        start = os.lseek(fd, place, os.SEEK_DATA)
        return min(start, size), min(os.lseek(fd, start, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole is left
            return size, size
        if error.errno == errno.EINVAL:  # its file system does not tell
            return place, size
        raise
