"""Cycles of SharedMemory: creating handles, names, sizes, closing."""

import gc
import os
import pickle
import warnings
from contextlib import suppress

from _leaks import cycle, misused, name, read, refused

import posixshm
from posixshm import SharedMemory

HUGE = 1 << 45  # bytes, more than any machine has
shm = SharedMemory.anonymous(4096)
closed = SharedMemory.anonymous(4096)
closed.close()
pipe, _ = os.pipe()
readonly = SharedMemory.from_fd(os.open(f"/proc/self/fd/{shm.fileno()}", os.O_RDONLY))
WRONG_NAMES = (5, "", "a/b", "x" * 256, "nul\0", "\udcff\ud800")


class Sub(SharedMemory):
    """A subclass, whose objects have a __dict__."""


def fail(_):
    raise KeyError


def loop_through(handle):
    """Put the object into a reference cycle, so that only the collector frees it."""
    ring = [handle]
    ring.append(ring)
    if isinstance(handle, Sub):
        handle.ring = ring


@cycle("SharedMemory.__new__")
def _():
    bare = SharedMemory.__new__(SharedMemory)
    refused(getattr, bare, "buf")
    bare.close()
    repr(Sub.__new__(Sub))
    refused(SharedMemory.__new__)
    refused(SharedMemory.__new__, int)


@cycle("SharedMemory", "SharedMemory.__init__")
def _():
    made = SharedMemory(name, create=True, size=100)
    SharedMemory(name)
    SharedMemory(name=name, track=False)
    view = made.buf
    made.__init__(name)  # again: releases its first object
    made.__init__(None, True, 100)
    made.unlink()
    view[0] = 1
    refused(made.__init__, name + "-absent")
    refused(SharedMemory, name, create=True, size=100)
    posixshm.shm_unlink(name)
    refused(SharedMemory, name)
    with suppress(FileNotFoundError):
        SharedMemory(create=True, size=10).unlink()
    for wrong in WRONG_NAMES:
        refused(SharedMemory, wrong)
        refused(SharedMemory, wrong, create=True, size=10)
    for wrong in ("", -1, 0, 1.5, 2**70, HUGE):
        refused(SharedMemory, name, create=True, size=wrong)
    refused(SharedMemory)
    misused(SharedMemory)


@cycle("SharedMemory.create")
def _():
    for kind in (SharedMemory, Sub):
        for options in (
            {},
            {"max_size": 1 << 20, "delete": True, "mode": 0o640},
            {"reserve": False, "populate": True, "uid": os.getuid(), "gid": os.getgid()},
            {"init": lambda buf: buf.__setitem__(0, 1), "exist_ok": True},
        ):
            made = kind.create(name, 5000, **options)
            loop_through(made)
            refused(kind.create, name, 5000)
            kind.create(name, 5000, exist_ok=True).unlink()
            del made


@cycle("SharedMemory.create")
def _():
    """With each argument for a name that exists."""
    stale = {"exist_ok": True, "stale": "replace"}
    for options in (stale, {"replace": True}, stale, {"exist_ok": True}):
        SharedMemory.create(name, 10, init=bytes, **options).close()
    with SharedMemory.create(name, 10, exist_ok=True, delete="last") as made:
        SharedMemory.create(name, 10, **stale).close()
        loop_through(SharedMemory.open(name, size_at_least=10))
        refused(SharedMemory.create, name, 10)
        refused(SharedMemory.create, name, 100, **stale)
        refused(SharedMemory.open, name, mode_at_most=0)
        refused(SharedMemory.open, name, size_at_least=11)
        made.resize(20)
        made.map()
        loop_through(SharedMemory.open(name))
    gc.collect()
    assert not posixshm.exists(name)
    for options in ({"stale": "new"}, {"stale": 5}, {"delete": "first"}, {**stale, "replace": True}):
        refused(SharedMemory.create, name, 10, **options)


@cycle("SharedMemory.create")
def create_refused():
    create = SharedMemory.create
    refused(create, name, 10, init=fail)
    refused(create, name, 10, init=5)
    refused(create, name, HUGE)
    refused(create, name, 10, max_size=5)
    refused(create, name, 10, max_size=1 << 62)
    refused(create, name, 10, mode=-1)
    refused(create, name, 10, uid="root")
    for wrong in WRONG_NAMES:
        refused(create, wrong, 10)
    for wrong in (None, "", -1, 0, 1.5, 2**70):
        refused(create, name, wrong)
    with create(name, 10, delete=True):
        refused(create, name, 20, exist_ok=True)
    misused(create)
    kept = []
    refused(create, name, 10, init=lambda buf: kept.append(buf) or fail(buf))
    bytes(kept[0])


@cycle("SharedMemory.open")
def _():
    with SharedMemory.create(name, 10, delete=True):
        for options in (
            {},
            {"readonly": True},
            {"timeout": 5},
            {"max_size": 1 << 20},
            {"owner": {0, "root"}},
            {"reserve": True},
            {"reserve": True, "readonly": True},
        ):
            loop_through(SharedMemory.open(name, **options))
            loop_through(Sub.open(name, **options))
        refused(SharedMemory.open, name, max_size=5)
        refused(SharedMemory.open, name, max_size=1 << 62)
    refused(SharedMemory.open, name)
    refused(SharedMemory.open, name, timeout=0)
    refused(SharedMemory.open, name, timeout=0.0001)
    refused(SharedMemory.open, name, timeout="")
    refused(SharedMemory.open, name, timeout=-1)
    for wrong in (None, "no such user", [], {1.5}, -1, range(3)):
        refused(SharedMemory.open, name, owner=wrong)
        refused(SharedMemory.create, name, 10, exist_ok=True, owner=wrong)
    for wrong in (*WRONG_NAMES, None):
        refused(SharedMemory.open, wrong)
    misused(SharedMemory.open)
    os.close(posixshm.shm_open(name, os.O_CREAT | os.O_RDWR))
    refused(SharedMemory.open, name)  # it is empty
    refused(SharedMemory.open, name, timeout=0.0001)
    posixshm.shm_unlink(name)


@cycle("SharedMemory.anonymous", "SharedMemory.unlinked")
def _():
    for make in (SharedMemory.anonymous, SharedMemory.unlinked, Sub.anonymous, Sub.unlinked):
        loop_through(make(5000))
        loop_through(make(5000, max_size=1 << 20, reserve=False, populate=True))
        for wrong in (None, "", -1, 0, 1.5, 2**70, HUGE):
            refused(make, wrong)
        refused(make, 10, max_size=5)
        refused(make, 10, max_size=1 << 62)
        misused(make)
    refused(SharedMemory.anonymous, 10, name=5)
    refused(SharedMemory.anonymous, 10, name="x" * 1000)
    refused(SharedMemory.unlinked, 10, mode=-1)
    # This machine may have no huge pages, or be set to use none.
    with suppress(OSError), warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        SharedMemory.anonymous(1 << 21, huge_pages=True)


@cycle("SharedMemory.from_fd")
def _():
    for options in ({}, {"readonly": True}, {"max_size": 1 << 20}):
        fd = os.dup(shm.fileno())
        try:
            made = SharedMemory.from_fd(fd, **options)
        except MemoryError:
            os.close(fd)
            raise
        loop_through(made)
    refused(SharedMemory.from_fd, pipe)
    refused(SharedMemory.from_fd, 12345)  # this descriptor is not open
    refused(SharedMemory.from_fd, shm.fileno(), max_size=5)
    refused(SharedMemory.from_fd, readonly.fileno(), readonly=False)
    for wrong in (None, "", -1, 2**70):
        refused(SharedMemory.from_fd, wrong)
    misused(SharedMemory.from_fd)


@cycle("SharedMemory.__repr__")
def _():
    repr(shm), repr(closed), repr(readonly)
    with SharedMemory.create(name, 10, delete=True) as named:
        repr(named)


@cycle("SharedMemory.__reduce__")
def _():
    for kind in (SharedMemory, Sub):
        with kind.create(name, 10, max_size=100) as made:
            made.__reduce__()
            pickled = pickle.dumps(made)
            with pickle.loads(pickled) as copy:
                assert copy.name == name
            made.unlink()
            refused(pickle.loads, pickled)
            with SharedMemory.create(name, 10, delete=True):
                refused(pickle.loads, pickled)  # the name refers to another object
    refused(pickle.dumps, shm)
    refused(pickle.dumps, closed)


@cycle("SharedMemory.__enter__", "SharedMemory.__exit__")
def _():
    with suppress(KeyError), SharedMemory.anonymous(10):
        fail(None)
    shm.__enter__()
    refused(closed.__enter__)
    closed.__exit__(None, None, None)
    closed.__exit__()
    misused(closed.__enter__)


@cycle("SharedMemory.close", "SharedMemory.close_fd", "SharedMemory.detach", "SharedMemory.fileno")
def _():
    made = SharedMemory.anonymous(10)
    view = made.buf
    made.fileno()
    made.close_fd()
    made.close_fd()
    refused(made.fileno)
    refused(made.detach)
    made.close()
    made.close()
    view[0] = 1
    made = SharedMemory.anonymous(10)
    os.close(made.detach())
    for method in ("close", "close_fd", "detach", "fileno"):
        misused(getattr(made, method))
    refused(closed.fileno)
    refused(closed.detach)


@cycle("SharedMemory.link", "SharedMemory.unlink", "SharedMemory.is_linked")
def _():
    made, other = SharedMemory.unlinked(10), SharedMemory.unlinked(10)
    made.link(name)
    assert made.is_linked() and not other.is_linked()
    refused(made.link, name)
    refused(other.link, name)
    other.link(name, replace=True)
    assert not made.is_linked()
    refused(made.unlink)
    other.unlink()
    refused(other.unlink)
    for wrong in (*WRONG_NAMES, None):
        refused(SharedMemory.unlinked(10).link, wrong)
    for handle in (shm, closed):
        refused(handle.link, name)
        refused(handle.unlink)
    closed.is_linked()
    for method in (made.link, made.unlink, made.is_linked):
        misused(method)


@cycle("SharedMemory.rename")
def _():
    with SharedMemory.create(name, 10) as made, SharedMemory.create(name + "-2", 10):
        refused(made.rename, name + "-2")
        made.rename(name + "-2", replace=True)
        for wrong in (*WRONG_NAMES, None):
            refused(made.rename, wrong)
        misused(made.rename)
        made.unlink()
        refused(made.rename, name)
    refused(shm.rename, name)
    refused(closed.rename, name)


@cycle("SharedMemory.resize", "SharedMemory.refresh")
def _():
    for most in (None, 1 << 20):
        made = SharedMemory.unlinked(100, max_size=most)
        view = made.buf
        os.ftruncate(made.fileno(), 5000)
        assert made.refresh() == 5000
        made.resize(50_000)
        assert made.resize(10) == 50_000
        refused(made.resize, HUGE)
        view[0] = 1
        del view
        gc.collect()
        made.resize(10, shrink=True)
        for wrong in (None, "", -1, 0, 1.5, 2**70):
            refused(made.resize, wrong)
        misused(made.resize)
        misused(made.refresh)
    refused(closed.resize, 10)
    refused(closed.refresh)
    refused(readonly.resize, 10_000)


@cycle("SharedMemory.stat", "SharedMemory.chmod", "SharedMemory.chown")
def _():
    made = SharedMemory.unlinked(10)
    made.stat()
    made.chmod(0o640)
    made.chown(os.getuid(), os.getgid())
    for wrong in ("", -5, 2**70):
        refused(made.chmod, wrong)
        refused(made.chown, wrong)
        refused(made.chown, 0, wrong)
    for method in ("stat", "chmod", "chown"):
        misused(getattr(made, method))
    refused(closed.stat)
    refused(closed.chmod, 0o600)
    refused(closed.chown)


@cycle("SharedMemory.getfacl", "SharedMemory.setfacl")
def _():
    made = SharedMemory.unlinked(10, acl=f"u:{os.getuid()}:rw")
    for text in (f"g:{os.getgid()}:r,m::r", "", None):
        made.setfacl(text)
        made.getfacl()
        made.getfacl(numeric=True)
    for wrong in (5, "user", "d:u:1:r", "u:no-such-user:r", "u:1:r,u:1:r"):
        refused(made.setfacl, wrong)
        refused(SharedMemory.unlinked, 10, acl=wrong)
    for method in ("getfacl", "setfacl"):
        misused(getattr(made, method))
    refused(closed.getfacl)
    refused(closed.setfacl, None)


@cycle("SharedMemory.seals", "SharedMemory.add_seals")
def _():
    made = SharedMemory.anonymous(10)
    made.add_seals(posixshm.F_SEAL_GROW)
    read(made, "seals")
    for wrong in (None, "", 1 << 30, 2**70):
        refused(made.add_seals, wrong)
    misused(made.add_seals)
    refused(closed.add_seals, 0)
    refused(getattr, closed, "seals")
    unnamed = SharedMemory.unlinked(10)
    refused(unnamed.add_seals, posixshm.F_SEAL_GROW)


FACTS = "name path size readonly closed created max_size holds_use_lock".split()
ASKED = "mode uid gid".split()


@cycle("SharedMemory.__fspath__")
def _():
    with SharedMemory.create(name, 10, delete=True) as made:
        assert os.fspath(made) == made.path
    refused(os.fspath, shm)


@cycle(*(f"SharedMemory.{attribute}" for attribute in FACTS + ASKED))
def _():
    with SharedMemory.create(name, 10, max_size=1 << 20, delete=True) as made:
        read(made, *FACTS, *ASKED)
    read(closed, *FACTS)
    for attribute in ASKED:
        refused(getattr, closed, attribute)
