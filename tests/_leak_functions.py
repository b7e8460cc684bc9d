"""Cycles of the functions, of what they return and raise."""

import os
import pickle

import numpy as np
from _leaks import cycle, misused, name, read, refused

import posixshm
from posixshm import OwnerDiedError, Reclaimed, SharedMemory

shm = SharedMemory.anonymous(4096)


class Exporter:
    """What has an array, and says of it what it is told to."""

    def __init__(self, array, device=(1, 0), export=None):
        self.array, self.device, self.export = array, device, export

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **keywords):
        if self.export is not None:
            return self.export(**keywords)
        return self.array.__dlpack__(**keywords)


@cycle("listdir")
def _():
    with SharedMemory.create(name, 10, delete=True):
        assert name in posixshm.listdir()
    misused(posixshm.listdir)


@cycle("reclaim", times=20)  # looks at all processes
def _():
    with SharedMemory.create(name, 10) as shm:
        assert [found.action for found in posixshm.reclaim(name)] == ["in use"]
        shm.close_fd()
        shm.close()
        assert posixshm.reclaim(name, older_than=1000) == []
        assert [found.action for found in posixshm.reclaim(name, dry_run=True)] == ["removable"]
        assert [found.action for found in posixshm.reclaim(name)] == ["removed"]
    misused(posixshm.reclaim)
    refused(posixshm.reclaim, 5)
    refused(posixshm.reclaim, name, older_than="")
    refused(posixshm.reclaim, name, older_than=-1)
    refused(posixshm.reclaim, "a/b")


@cycle("Reclaimed", "Reclaimed.name", "Reclaimed.size", "Reclaimed.age", "Reclaimed.action")
def _():
    record = Reclaimed((name + "x", 2**40, 1.5, "removed".upper()))
    read(record, "name", "size", "age", "action")
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


@cycle("from_dlpack")
def _():
    for array in (np.arange(12.0).reshape(3, 4), np.zeros((0, 3), "i2"), np.array(7)):
        assert posixshm.from_dlpack(array).tolist() == array.tolist()
    array = np.arange(5)
    posixshm.from_dlpack(array, name)
    refused(posixshm.from_dlpack, array, name)
    posixshm.from_dlpack(Exporter(array), name, replace=True)
    posixshm.from_dlpack(shm.view("i", 5)[::2])
    posixshm.shm_unlink(name)


@cycle("from_dlpack")
def being_refused():
    array = np.arange(5)
    refused(posixshm.from_dlpack, 5)
    refused(posixshm.from_dlpack, array, "a/b")
    refused(posixshm.from_dlpack, array, 5)
    refused(posixshm.from_dlpack, array, nonsense=True)
    refused(posixshm.from_dlpack, array, max_size=1)
    refused(posixshm.from_dlpack, np.zeros(1, "datetime64[s]"))
    posixshm.from_dlpack(Exporter(array, device=(2, 0)))  # asks for a copy on the CPU
    refused(posixshm.from_dlpack, Exporter(array, device=None))
    refused(posixshm.from_dlpack, Exporter(array, export=lambda **_: 5))
    used = array.__dlpack__()
    np.from_dlpack(Exporter(array, export=lambda **_: used))
    refused(posixshm.from_dlpack, Exporter(array, export=lambda **_: used))
    refused(posixshm.from_dlpack, array, max_size=1 << 62)
    misused(posixshm.from_dlpack)
