"""Checks of the mount: whether it exists, its free space and its features."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator

from posixshm._command.cgroup import memory_limit
from posixshm._command.checks import Check, mount_of, option, read
from posixshm._command.objects import MOUNT
from posixshm._command.text import size_text

_F_SETSIG = 10  # of fcntl(2); the module has no name for it before Python 3.12
_SCARCE = 10  # percent of the room or the inodes
_DOCKER = 64 << 20  # bytes: what Docker and Kubernetes give a container


def there() -> Iterator[Check]:
    meaning = "shm_open(3) keeps objects in this directory, a tmpfs that is never written to disk."
    try:
        status = os.stat(MOUNT)
    except OSError as error:
        advice = f"mkdir -p {MOUNT} && mount -t tmpfs -o mode=1777 tmpfs {MOUNT}"
        yield Check(MOUNT, error.strerror or "", "problem", meaning, f"As root: {advice}")
        return
    mount = mount_of(MOUNT)
    kind = "a directory of another file system" if mount is None else mount.kind
    value = f"{kind}, mode {stat.S_IMODE(status.st_mode):04o}"
    if not stat.S_ISDIR(status.st_mode):
        yield Check(MOUNT, "not a directory", "problem", meaning, "Remove it and mount a tmpfs.")
    elif mount is None or mount.kind not in ("tmpfs", "ramfs"):
        advice = f"As root: mount -t tmpfs -o mode=1777 tmpfs {MOUNT}"
        yield Check(MOUNT, value, "problem", "Objects lie on a disk, and are slow.", advice)
    elif option(mount, "ro") is not None or not os.access(MOUNT, os.W_OK | os.X_OK):
        advice = "Mount it with rw and mode=1777, or run as a user that may write there."
        yield Check(MOUNT, value, "problem", "This user cannot create objects.", advice)
    else:
        yield Check(MOUNT, value, "ok", meaning)


def room() -> Iterator[Check]:
    with contextlib.suppress(OSError):
        mount = os.statvfs(MOUNT)
        yield _size(mount.f_blocks * mount.f_frsize, mount.f_bavail * mount.f_frsize)
        yield _inodes(mount.f_files, mount.f_favail)


def _size(size: int, free: int) -> Check:
    meaning = "If it is full, creating an object raises OSError (ENOSPC)."
    if size == 0:
        return Check("size", "no limit", "note", "Objects can fill the memory of the machine.")
    value = f"{size_text(size)}, {size_text(free)} free"
    if 100 * free < _SCARCE * size:
        advice = "'posixshm df' shows which users take it; 'posixshm reclaim' makes room."
        return Check("size", value, "problem", meaning, advice)
    if size <= _DOCKER:
        advice = "Docker: --shm-size=2g. Kubernetes: an emptyDir with medium: Memory at /dev/shm."
        text = "This is what a container gets by default."
        return Check("size", value, "problem", f"{text} {meaning}", advice)
    return Check("size", value, "ok", meaning)


def _inodes(count: int, free: int) -> Check:
    meaning = "Each object takes one; if all are used, creating an object raises OSError (ENOSPC)."
    if count == 0:
        return Check("inodes", "no limit", "ok", meaning)
    value = f"{count:,}, {free:,} free"
    if 100 * free < _SCARCE * count:
        advice = f"Remove names with 'posixshm reclaim', or mount -o remount,nr_inodes=N {MOUNT}."
        return Check("inodes", value, "problem", meaning, advice)
    return Check("inodes", value, "ok", meaning)


def container() -> Iterator[Check]:
    inside = _container()
    limit = memory_limit()
    value = inside or "not detected"
    meaning = "Shared memory counts against the memory limit of the process that touches it first."
    if limit is None:
        yield Check("container", f"{value}, no memory limit", "ok", meaning)
        return
    left = max(limit.limit - limit.used, 0)
    value += f", memory limit {size_text(limit.limit)}, {size_text(left)} left"
    try:
        mount = os.statvfs(MOUNT)
        free = mount.f_bavail * mount.f_frsize if mount.f_blocks else None
    except OSError:
        free = 0
    if free is None or free > left:
        advice = f"Make {MOUNT} smaller than the limit, so that creating an object fails instead."
        text = "The limit is reached before the mount is full: the kernel then kills a process. "
        yield Check("container", value, "note", text + meaning, advice)
    else:
        yield Check("container", value, "ok", meaning)


def _container() -> str | None:
    if os.path.exists("/run/.containerenv"):
        return "Podman"
    if os.path.exists("/.dockerenv"):
        return "Docker"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "Kubernetes"
    name = (read("/run/systemd/container") or "").strip()
    return name or None


@contextlib.contextmanager
def _scratch() -> Iterator[int]:
    """Return a descriptor of a new unlinked file on the mount. Raises OSError."""
    fd = os.open(MOUNT, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def abilities() -> Iterator[Check]:
    meaning = "A new object gets its name in one step, when it is complete."
    try:
        with _scratch() as fd:
            yield Check("O_TMPFILE", "yes", "ok", meaning)
            yield _acl(fd)
            yield _reserve(fd)
            yield _lease(fd)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            text = "A temporary name is used instead, which a killed process leaves behind."
            advice = "'posixshm reclaim' removes it."
            yield Check("O_TMPFILE", "no", "note", text, advice)
        else:
            yield Check("O_TMPFILE", error.strerror or "", "problem", meaning, "See above.")


def _acl(fd: int) -> Check:
    meaning = "acl= and setfacl() give access to single users and groups."
    try:
        os.getxattr(fd, "system.posix_acl_access")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            advice = "The kernel needs CONFIG_TMPFS_POSIX_ACL. Without it use groups: chmod, chown."
            return Check("access control lists", "no", "note", meaning, advice)
    return Check("access control lists", "yes", "ok", meaning)


def _reserve(fd: int) -> Check:
    meaning = "Memory is reserved when an object is created, so that writing to it cannot fail."
    # os.posix_fallocate() writes to the file instead if the file system cannot do it.
    libc = ctypes.CDLL(None, use_errno=True)
    length = ctypes.c_int64(1)
    if getattr(libc, "fallocate64", libc.fallocate)(fd, 0, ctypes.c_int64(0), length) == 0:
        return Check("reserving memory", "yes", "ok", meaning)
    if ctypes.get_errno() == errno.EOPNOTSUPP:
        text = "Memory cannot be reserved: a write to an object in a full mount is a bus error."
        return Check("reserving memory", "no", "problem", text, f"Mount a tmpfs at {MOUNT}.")
    value = os.strerror(ctypes.get_errno())
    return Check("reserving memory", value, "problem", meaning, "Make room in the mount.")


def _lease(fd: int) -> Check:
    meaning = "A write lease proves to 'posixshm reclaim' that no process uses an object."
    try:
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        text = "Without it the state of objects is unknown. It takes Linux 5.3."
        advice = "'posixshm reclaim --force' removes objects that no process is seen to use."
        return Check("write leases", "no", "note", text, advice)
    return Check("write leases", "yes", "ok", meaning)


CHECKS = [there, room, container, abilities]
