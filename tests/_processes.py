"""Helpers for tests with several processes, in addition to conftest. Most of them run in children.

A child can import this module if it is started with `env=PATH`:

    start_python("from _processes import ready, stopped; ...", name, env=PATH)

Because tests start many children, functions import slow modules themselves.
"""

import contextlib
import ctypes
import errno
import functools
import gc
import os
import select
import sys

TESTS = os.path.dirname(os.path.abspath(__file__))
SHM = "/dev/shm"
PATH = {
    "PYTHONPATH": os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")])),
    # OpenBLAS starts threads when numpy is imported, and a process with threads cannot enter a
    # user namespace, as private_shm() does for an ordinary user.
    "OPENBLAS_NUM_THREADS": "1",
}
# For children that count memory: glibc caches freed memory for each thread, which counts as used,
# and newer versions cache more.
COUNTING = {**PATH, "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
SOMEBODY = 54321  # the second user and group id

_libc = ctypes.CDLL(None, use_errno=True)


def shm_names():
    """The sorted names in /dev/shm that belong to this test run.

    These are all names if no other program uses /dev/shm (POSIXSHM_TEST_OWN_SHM=1, or in a
    private_shm()), and otherwise the names with the prefix of conftest.
    """
    names = os.listdir(SHM)
    if os.environ.get("POSIXSHM_TEST_OWN_SHM") != "1":
        prefix = os.environ["POSIXSHM_TEST_PREFIX"]
        names = [name for name in names if name.removeprefix("sem.").startswith(prefix)]
    return sorted(names)


def rounds(few, many):
    """The number of repetitions: `many` in CI, which sets POSIXSHM_ROUNDS; otherwise `few`."""
    return many if "POSIXSHM_ROUNDS" in os.environ else few


# -- in the test: requirements ------------------------------------------------------------------


def cannot_be_tested(reason):
    """Fail in CI; otherwise skip the test with a message."""
    import pytest

    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(f"NOT TESTED: {reason}")


def open_terminal():
    """pty.openpty()."""
    import pty

    try:
        return pty.openpty()
    except OSError as error:
        cannot_be_tested(f"there are no pseudo-terminals here: {error}")


def needs_root():
    """For tests that become another user. Fails in CI."""
    if os.geteuid() != 0:
        cannot_be_tested("becoming a second user needs root")


@functools.cache
def can_mount():
    """Can a child mount its own /dev/shm?"""
    import subprocess

    code = "from _processes import private_shm; private_shm('size=1m')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **PATH}, capture_output=True, timeout=60
    )
    return done.returncode == 0


def needs_mounts():
    """For tests whose children mount their own /dev/shm. Fails in CI."""
    if not can_mount():
        cannot_be_tested("a mount namespace needs root or user namespaces")


@functools.cache
def kernel_has_acls():
    """Can files of a tmpfs have access control lists? Tests a memfd, which no mount affects."""
    fd = os.memfd_create("acl")
    try:
        os.setxattr(fd, "system.posix_acl_access", acl_bytes())
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    finally:
        os.close(fd)
    return True


def acl_bytes():
    """The extended attribute of a list for the owner, the owning group, others and a mask."""
    return b"\2\0\0\0" + b"".join(
        bytes([tag, 0, 6, 0, 255, 255, 255, 255]) for tag in (1, 4, 16, 32)
    )


def needs_acls():
    """For tests that set access control lists. Skips them only if no tmpfs can have lists."""
    import pytest

    if not kernel_has_acls():
        pytest.skip("NOT TESTED: the kernel was built without CONFIG_TMPFS_POSIX_ACL")


def needs_acl_programs():
    """For tests that compare with getfacl(1) and setfacl(1). Fails in CI."""
    import shutil

    if shutil.which("getfacl") is None or shutil.which("setfacl") is None:
        cannot_be_tested("getfacl and setfacl are not installed (package acl)")


def needs_plain_build(reason):
    """For tests that cannot run with a sanitizer."""
    import pytest

    if "lib" in (preload := os.environ.get("LD_PRELOAD", "")) and "san" in preload:
        pytest.skip(f"not under a sanitizer: {reason}")


def build_c(source, folder, *flags):
    """Build tests/unit/`source` in `folder` and return the path of the program, or of the library with
    the flags -shared and -fPIC. Fails in CI if that is not possible."""
    import shutil
    import subprocess

    source = os.path.join(TESTS, "unit", source)
    program = folder / os.path.basename(source).removesuffix(".c")
    compiler = os.environ.get("CC", "cc").split()
    command = [*compiler, "-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", *flags]
    command += [source, "-lrt", "-lpthread", "-o", program]
    if shutil.which(compiler[0]) is None:
        cannot_be_tested(f"there is no C compiler {compiler[0]}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return program


def build_faults(folder):
    """Build the library of tests/unit/faults.h in `folder`; return the environment that preloads
    it."""
    import subprocess

    library = folder / "faults.so"
    done = subprocess.run(
        ["bash", f"{TESTS}/unit/run", "--faults-so", str(library)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    # The library of a sanitizer must remain the first.
    preload = os.pathsep.join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
    return {**PATH, "LD_PRELOAD": preload}


# -- in a child that was started with that environment ------------------------------------------


class Faults:
    """The functions of tests/unit/faults.h, for the calls of the extension module."""

    FAIL, KILL_BEFORE, KILL_AFTER, STOP_BEFORE, STOP_AFTER = range(5)
    FAIL_ON, HOOK_BEFORE, HOOK_AFTER = range(5, 8)
    # Calls that are made for each process or mapping of the machine.
    MANY = {"close", "fdopen", "getline", "open", "openat", "readdir", "realloc"}

    def __init__(self):
        import posixshm._core

        self._library = ctypes.CDLL(None)
        self._library.pshm_fault_log.restype = ctypes.c_char_p
        assert self._library.pshm_fault_from(posixshm._core.__file__.encode()) == 0

    def count_allocations(self):
        """From now on, each allocation of Python for the extension module is a call "allocate"."""
        assert self._library.pshm_fault_allocations() == 0

    def arm(self, call, nth, action=FAIL, number=0):
        call = call.encode() if call else None
        self._library.pshm_fault_arm(call, nth, action, number)

    def disarm(self):
        """Return the number of matching calls."""
        return self._library.pshm_fault_disarm()

    def log(self):
        """Return the names of those calls."""
        return self._library.pshm_fault_log().decode().split()

    def send(self, signal):
        """Make the hook send a signal."""
        self._library.pshm_fault_hook(self._library["raise"], ctypes.c_void_p(int(signal)))

    def call(self, function):
        """Make the hook call a function without arguments."""
        self._hook = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: function())
        self._library.pshm_fault_hook(self._hook, None)


# -- in a child: another user, other mounts -----------------------------------------------------

_alone_in_shm = False  # do only this process and its children use this /dev/shm?


def _check(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become(user):
    """Change to another user, without supplementary groups.

    A child must import its modules before it calls this, because the other user may not be able to
    read the interpreter's folder. This imports what other modules import later.
    """
    import locale  # noqa: F401, with shutil by argparse
    import pathlib  # noqa: F401
    import shutil  # noqa: F401
    import subprocess  # noqa: F401

    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # Otherwise a process cannot read its own /proc after a change of the user.
    PR_SET_DUMPABLE = 4
    _check(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))


def mount_tmpfs(where, options):
    """Mount a new tmpfs. The caller needs its own mount namespace."""
    _check(_libc.mount(b"none", where.encode(), b"tmpfs", 0, options.encode()))


def mount_over(source, target):
    """Mount the file `source` over `target`. The caller needs its own mount namespace."""
    MS_BIND = 0x1000
    _check(_libc.mount(str(source).encode(), target.encode(), None, MS_BIND, None))


def mount_ramfs(where):
    """Mount a file system without access control lists. The caller needs its own mount
    namespace."""
    _check(_libc.mount(b"none", where.encode(), b"ramfs", 0, b"mode=1777"))


def unmount(where):
    _check(_libc.umount2(where.encode(), 0))


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


def private_shm(options="size=64m"):
    """Enter a new mount namespace with a new /dev/shm, which ends with the process."""
    CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
    MS_REC, MS_PRIVATE = 0x4000, 1 << 18
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _check(_libc.unshare(CLONE_NEWNS))
    else:
        _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWUSER))
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {user} 1")
        _write("/proc/self/gid_map", f"0 {group} 1")
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    mount_tmpfs(SHM, f"mode=1777,{options}")
    global _alone_in_shm
    _alone_in_shm = True
    os.environ["POSIXSHM_TEST_OWN_SHM"] = "1"


def private_processes():
    """Continue as the only process of a process namespace and of its /proc, except its parent.

    The caller needs its own mount namespace.
    """
    CLONE_NEWPID = 0x20000000
    _check(_libc.unshare(CLONE_NEWPID))
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(1 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    _check(_libc.mount(b"proc", b"/proc", b"proc", 0, None))


# -- barriers between the test and its children -------------------------------------------------


def ready():
    """Write "ready", and wait for go()."""
    print("ready", flush=True)
    assert sys.stdin.readline() == "go\n"


def stopped():
    """Has the test written another line to this process?"""
    return bool(select.select([0], [], [], 0)[0])


def go(*children):
    """In the test: when all children are ready, start them."""
    for child in children:
        child.hear("ready")
    for child in children:
        child.say("go")


# -- in a child: resources and errors -----------------------------------------------------------


def free_bytes():
    """The free bytes in /dev/shm; exact if no other process uses it."""
    room = os.statvfs(SHM)
    return room.f_bfree * room.f_frsize


class Holdings:
    """The names in /dev/shm, and the descriptors and mappings of shared memory of this process."""

    def __init__(self):
        # Remains usable if another file system is mounted over /proc.
        self.proc = os.open("/proc/self", os.O_DIRECTORY)
        self.descriptors = os.open("fd", os.O_DIRECTORY, dir_fd=self.proc)

    def close(self):
        os.close(self.descriptors)
        os.close(self.proc)

    def now(self):
        found = {f"name {name}" for name in shm_names()}
        for fd in os.listdir(self.descriptors):
            with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing
                found.add(f"fd {fd} -> {self._target(fd)}")
        with open(os.open("maps", os.O_RDONLY, dir_fd=self.proc)) as maps:
            for line in maps:
                if f" {SHM}/" in line or " /memfd:" in line:
                    # Without the name, which may have changed
                    found.add(f"mapping {' '.join(line.split()[:5])}")
        return found

    def _target(self, fd):
        target = os.readlink(fd, dir_fd=self.descriptors)
        return f"{SHM} {os.fstat(int(fd)).st_ino}" if target.startswith(SHM) else target


@contextlib.contextmanager
def unchanged(holdings=None):
    """A block that must not leave or remove a name, descriptor or mapping.

    In a private_shm() it must not leave memory, either.
    """
    ours = holdings is None
    holdings = holdings or Holdings()
    before = holdings.now()
    bytes_before = free_bytes()
    yield
    gc.collect()
    after = holdings.now()
    if ours:
        holdings.close()
    assert after == before, f"left: {sorted(after - before)}, gone: {sorted(before - after)}"
    if _alone_in_shm:
        assert free_bytes() == bytes_before


@contextlib.contextmanager
def raises(*numbers):
    """A block that must raise an OSError with one of these errnos, which is appended to the
    list."""
    caught = []
    try:
        yield caught
    except OSError as error:
        names = [errno.errorcode[number] for number in numbers]
        assert error.errno in numbers, f"{error!r} instead of {names}"
        caught.append(error.with_traceback(None))
    else:
        raise AssertionError(f"no {[errno.errorcode[number] for number in numbers]}")


class _Buffer(ctypes.Structure):
    # Py_buffer; the tests read the address only.
    _fields_ = [("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("rest", ctypes.c_byte * 256)]


def address_of(exporter):
    """The address of the buffer of an exporter, which may be read-only."""
    view = _Buffer()
    get, release = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
    get.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
    release.argtypes = [ctypes.POINTER(_Buffer)]
    release.restype = None
    get(exporter, ctypes.byref(view), 0)
    address = view.buf
    release(ctypes.byref(view))
    return address
