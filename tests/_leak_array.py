"""Cycles of posixshm.array."""

import copy
import os
import pickle
from contextlib import suppress

import numpy as np
from _leaks import cycle, misused, name, read, refused

import posixshm
from posixshm import SharedMemory, array
from posixshm.array import SharedArray

HUGE = 1 << 45  # bytes, more than any machine has
RECORD = np.dtype([("a", "<i2"), ("b", ">f8"), ("c", "S3", (2,))])
table = array.create(None, (6, 4), "<i8")
table[:] = np.arange(24).reshape(6, 4)
choices = array.create(None, 4, "i8")
records = array.create(None, 5, RECORD)
foreign = np.array(table, subok=True)  # numpy gives copies this type
WRONG_DTYPES = ("O", "nonsense", [("a", "O")], [], "V0")


def fail(_):
    raise KeyError


@cycle("array.create")
def _():
    for options in (
        {},
        {"dtype": RECORD, "order": "F", "delete": True},
        {"init": lambda items: items.fill(7), "exist_ok": True, "mode": 0o640},
    ):
        made = array.create(name, (3, 4), **options)
        ring = [made, made[1:]]
        ring.append(ring)
        refused(array.create, name, (3, 4))
        made.shm.unlink()
        array.create(None, (2, 2), options.get("dtype", "f4"))
    array.create(None, (0, 3))


@cycle("array.create")
def create_refused():
    for where in (name, None):
        for wrong in ("x", -1, (1, -1), 1.5, [1] * 100, HUGE, (1 << 40, 1 << 40)):
            refused(array.create, where, wrong)
        for wrong in WRONG_DTYPES:
            refused(array.create, where, 5, wrong)
        refused(array.create, where, 5, order="X")
        refused(array.create, where, 5, init=fail)
        refused(array.create, where, 5, nonsense=1)
    refused(array.create, None, 5, exist_ok=True)
    for wrong in (5, "", "a/b"):
        refused(array.create, wrong, 5)
    array.create(name, 5)
    refused(array.create, name, 6, exist_ok=True)
    posixshm.shm_unlink(name)
    SharedMemory.create(name, 5000)
    refused(array.create, name, 5, exist_ok=True)
    posixshm.shm_unlink(name)
    misused(array.create)


@cycle("array.open", "array.load")
def _():
    array.save(name, np.arange(12).reshape(3, 4))
    for found in (array.open(name), array.open(name, "r+", timeout=5), array.load(name, timeout=5)):
        ring = [found, found[1:]]
        ring.append(ring)
    refused(array.load(name).__setitem__, 0, 1)
    refused(array.open, name, "w")
    with SharedMemory.open(name) as shm:
        for damage in (b"\x93NOTNUMPY", b"\x93NUMPY\x09\x00", b"\x93NUMPY\x01\x00\xff\xff"):
            shm.buf[: len(damage)] = damage
            refused(array.load, name)
        shm.unlink()
    for wrong in (name, 5, "", "a/b"):
        refused(array.open, wrong)
        refused(array.load, wrong)
    refused(array.load, name, timeout=0.0001)
    misused(array.open)
    misused(array.load)


@cycle("array.save")
def _():
    for source in (np.arange(12.0).reshape(3, 4), np.zeros((3, 4), ">i2", "F"), [1, 2], 5, table):
        saved = array.save(name, source)
        refused(array.save, name, source)
        array.save(name, source, replace=True)
        assert not saved.is_linked()
        posixshm.shm_unlink(name)
    for options in ({}, {"replace": True}):
        refused(array.save, name, np.array([None]), **options)
        refused(array.save, name, np.ma.masked_array([1]), **options)
        refused(array.save, name, 5, mode=-1, **options)
        for wrong in (5, "", "a/b"):
            refused(array.save, wrong, 5, **options)
    array.save(None, np.arange(10)[::2])
    misused(array.save)


@cycle("array.SharedArray", "array.SharedArray.__new__")
def _():
    refused(SharedArray, 5)
    refused(SharedArray.__new__, SharedArray)


@cycle("array.SharedArray.__class_getitem__")
def _():
    for view in (table[1:], table[:, ::-1], table.T, records["a"], table.view("u8")):
        assert type(view) is SharedArray
        ring = [view]
        ring.append(ring)
    table[1, 2], table[[1, 2]], table[table > 5], records[1], table[...]
    refused(table.__getitem__, 100)
    refused(records.__getitem__, "nonsense")
    np.ndarray(5).view(SharedArray)
    SharedArray[np.float32]


@cycle("array.SharedArray.shm", "array.SharedArray.name")
def _():
    read(table, "shm", "name")
    for attribute in ("shm", "name"):
        with suppress(AttributeError):
            getattr(foreign, attribute)
            raise AssertionError


CLOSE = ("close", "unlink", "__enter__", "__exit__")


@cycle(*(f"array.SharedArray.{method}" for method in CLOSE))
def _():
    with array.save(name, np.arange(5)) as saved:
        part = saved[1:]
        ring = [saved, part]
        ring.append(ring)
    part.close()
    part.unlink()
    refused(saved.unlink)
    refused(table.unlink)
    part[0] = 1


@cycle("array.exists", "array.list", "array.unlink")
def _():
    saved = array.save(name, 5)
    assert array.exists(name) and name in array.list()
    saved.shm.buf[10] = 0
    assert not array.exists(name)
    array.unlink(name)
    assert not array.exists(name) and name not in array.list()
    SharedMemory.create(name, 10)
    assert not array.exists(name)
    refused(array.unlink, name)
    posixshm.shm_unlink(name)
    for wrong in (name, 5, "", "a/b"):
        refused(array.unlink, wrong)
    refused(array.exists, "a/b")


@cycle("array.SharedArray.is_linked")
def _():
    saved = array.save(name, 5)
    assert saved.is_linked()
    saved.shm.unlink()
    assert not saved.is_linked() and not table.is_linked()
    misused(table.is_linked)


@cycle("array.SharedArray.__array_wrap__", "array.SharedArray.__array_function__")
def _():
    table + 1, table * table, np.sin(table), table @ table.T, np.add.reduce(table)
    np.add(table, 0, out=table)
    np.concatenate([table, table]), np.stack([table, foreign]), np.where(table > 5, table, 0)
    np.linalg.norm(table), np.median(table), np.broadcast_to(table[0], (3, 4))
    refused(np.add, table, "nonsense")
    refused(np.concatenate, [table, table[0]])
    refused(lambda: table + table[:, 1:])


@cycle("array.SharedArray.__copy__", "array.SharedArray.__deepcopy__")
def _():
    copy.copy(table[1:]), copy.deepcopy(records), copy.deepcopy([table, table])
    misused(table.__copy__)


@cycle("array.SharedArray.__reduce__", "array.SharedArray.__reduce_ex__")
def _():
    saved = array.save(name, table)
    for view in (saved, saved[::2, ::-1], saved.T, saved[5:5], array.load(name)):
        for protocol in (2, 5):
            travelled = pickle.loads(pickle.dumps(view, protocol))
            ring = [travelled]
            ring.append(ring)
    saved.__reduce__()
    pickle.loads(pickle.dumps(foreign))
    pickled = pickle.dumps(saved)
    os.ftruncate(saved.shm.fileno(), 10)
    refused(pickle.loads, pickled)
    saved.shm.unlink()
    refused(pickle.loads, pickled)
    saved.shm.close()
    pickle.dumps(saved)
    refused(pickle.dumps, table)


# Arguments for the methods of numpy that need some.
ARGUMENTS = {
    "argpartition": (2,),
    "astype": ("f4",),
    "choose": ([np.arange(4), np.arange(4)],),
    "compress": ([True, False, True],),
    "dot": (np.ones(4),),
    "repeat": (2,),
    "reshape": (4, 6),
    "take": ([1, 2],),
}
METHODS = [
    method
    for method in vars(SharedArray)
    if not method.startswith("_") and method not in ("shm", "name", "is_linked", *CLOSE)
]


@cycle(*(f"array.SharedArray.{method}" for method in METHODS))
def _():
    for method in METHODS:
        function = getattr(choices if method == "choose" else table, method)
        result = function(*ARGUMENTS.get(method, ()))
        ring = [result]
        ring.append(ring)
        refused(function, nonsense=True)
