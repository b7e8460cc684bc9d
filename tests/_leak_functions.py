"""Cycles of the functions, their results and their exceptions."""

import os
import pickle

from _leaks import cycle, misused, name, read, refused

import posixshm
from posixshm import OwnerDiedError, Reclaimed, SharedMemory

shm = SharedMemory.anonymous(4096)


@cycle("listdir")
def _():
    with SharedMemory.create(name, 10, delete=True):
        assert name in posixshm.listdir()
    misused(posixshm.listdir)


@cycle("exists")
def _():
    with SharedMemory.create(name, 10, delete=True):
        assert posixshm.exists(name)
    assert not posixshm.exists(name)
    misused(posixshm.exists)
    for wrong in (5, "", "a/b"):
        refused(posixshm.exists, wrong)


@cycle("reclaim", times=20)  # inspects all processes
def _():
    with SharedMemory.create(name, 10) as shm:
        assert [found.state for found in posixshm.reclaim(name)] == ["in use"]
        shm.close_fd()
        shm.close()
        assert posixshm.reclaim(name, older_than=1000) == []
        assert [found.state for found in posixshm.reclaim(name, dry_run=True)] == ["free"]
        assert [found.removed for found in posixshm.reclaim(name)] == [True]
    misused(posixshm.reclaim)
    refused(posixshm.reclaim, 5)
    refused(posixshm.reclaim, name, older_than="")
    refused(posixshm.reclaim, name, older_than=-1)
    refused(posixshm.reclaim, "a/b")


@cycle(
    "Reclaimed",
    "Reclaimed.name",
    "Reclaimed.size",
    "Reclaimed.age",
    "Reclaimed.state",
    "Reclaimed.removed",
    "Reclaimed.error",
    "Reclaimed.uninspected",
)
def _():
    record = Reclaimed((name + "x", 2**40, 1.5, "free".upper(), True, None, 2**40))
    read(record, "name", "size", "age", "state", "removed", "error", "uninspected")
    assert pickle.loads(pickle.dumps(record)) == record
    repr(record)
    refused(Reclaimed)
    refused(Reclaimed, (1, 2))


@cycle("OwnerDiedError")
def _():
    error = OwnerDiedError(130, "the text", name)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@cycle("shm_open", "shm_unlink")
def _():
    os.close(posixshm.shm_open(name, os.O_CREAT | os.O_RDWR, 0o600))
    refused(posixshm.shm_open, name, os.O_CREAT | os.O_EXCL)
    posixshm.shm_unlink(name)
    refused(posixshm.shm_unlink, name)
    refused(posixshm.shm_open, name, os.O_RDWR)
    for wrong in (5, None, "", "a/b", "x" * 256, "nul\0"):
        refused(posixshm.shm_open, wrong, 0)
        refused(posixshm.shm_unlink, wrong)
    refused(posixshm.shm_open, name, "flags")
    refused(posixshm.shm_open, name, 0, 2**70)
    misused(posixshm.shm_open)
    misused(posixshm.shm_unlink)


@cycle("sem_unlink")
def _():
    posixshm.Semaphore(name, create=True)
    posixshm.sem_unlink(name)
    refused(posixshm.sem_unlink, name)
    for wrong in (5, None, "", "a/b", "x" * 256, "nul\0"):
        refused(posixshm.sem_unlink, wrong)
    misused(posixshm.sem_unlink)


@cycle(
    "holders",
    "Holders",
    "Holders.__init__",
    "Holder",
    "Holder.pid",
    "Holder.uid",
    "Holder.command",
    "Holder.how",
    times=5,
)
def _():
    with SharedMemory.create(name, 10, delete=True):
        (found,) = posixshm.holders(name)
        read(found, "pid", "uid", "command", "how")
        assert pickle.loads(pickle.dumps(found)) == found
    misused(posixshm.holders)
    refused(posixshm.holders, name)
    refused(posixshm.holders, "a/b")
    assert posixshm.Holders([found], 3).uninspected == 3
    # Functions that the command calls.
    with SharedMemory.create(name, 10):
        assert len(posixshm._core._inspect([name, name + "x"])) == 1
    assert posixshm._core._reclaim_files([name], 1000.0, False) == []
    assert len(posixshm._core._reclaim_files([name], 0, True)) == 1
    for wrong in ([5], ["a/b"], 5, [name, "x" * 256]):
        refused(posixshm._core._inspect, wrong)
        refused(posixshm._core._reclaim_files, wrong, 0, False)
    refused(posixshm._core._reclaim_files, [name], "", False)
    misused(posixshm._core._inspect)
    misused(posixshm._core._reclaim_files)
