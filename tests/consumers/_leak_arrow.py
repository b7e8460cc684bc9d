"""Cycles of posixshm.arrow."""

import pyarrow as pa
from _leaks import cycle, misused, name, refused, unwatched

import posixshm
from posixshm import SharedMemory, arrow

# One thread each, which starts before the first count.
pa.set_cpu_count(1)
pa.set_io_thread_count(1)
TEXTS = pa.array(["a", "b", None] * 10)
table = pa.table({"n": range(30), "text": TEXTS, "kind": TEXTS.dictionary_encode()})
# Cython leaks a reference to the class of its generators for each generator.
unwatched.append(type(table.itercolumns()))


class Failing:
    """An object with a stream that fails."""

    def __arrow_c_stream__(self, requested_schema=None):
        raise KeyError


@cycle("arrow.write")
def _():
    for what in (table, table.to_batches()[0], {"n": [1, 2, 3]}):
        arrow.write(name, what)
        refused(arrow.write, name, what)
        arrow.write(name, what, replace=True, mode=0o640)
        posixshm.shm_unlink(name)
    for wrong in (5, [object()], Failing(), {"n": [1], "m": [1, 2]}):
        refused(arrow.write, name, wrong)
    for wrong in (5, "", "a/b"):
        refused(arrow.write, wrong, table)
    refused(arrow.write, name, table, mode=-1)
    refused(arrow.write, name, table, nonsense=True)
    misused(arrow.write)


@cycle("arrow.read")
def _():
    arrow.write(name, table)
    for options in ({}, {"timeout": 5}, {"validate": False}):
        found = arrow.read(name, **options)
        assert found.equals(table)
        ring = [found, found["n"].chunk(0)]
        ring.append(ring)
    with SharedMemory.open(name) as shm:
        shm.buf[-20:] = bytes(20)
        refused(arrow.read, name)
        shm.buf[:] = bytes(shm.size)
        refused(arrow.read, name)
        shm.unlink()
    for wrong in (name, 5, "", "a/b"):
        refused(arrow.read, wrong)
    refused(arrow.read, name, timeout=0.0001)
    misused(arrow.read)
