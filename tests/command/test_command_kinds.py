"""The kind of content that `posixshm ls` and `stat` show for an object."""

import importlib.util
import json
import os
import signal
import struct
import threading

import numpy as np
import pytest
from _command import MOUNT, good, run, wait_for
from _processes import PATH

import posixshm
from posixshm import Barrier, Condition, Event, Lock, RLock, RWLock, Semaphore, SharedMemory, array


def entry(name):
    (found,) = json.loads(good("ls", "--json", name))
    return found


def kind(name):
    return entry(name)["kind"]


# -- kinds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda name: Lock(name, create=True), "Lock"),
        (lambda name: RLock(name, create=True), "RLock"),
        (lambda name: Condition(name, create=True), "Condition"),
        (lambda name: Event(name, create=True), "Event not set"),
        (lambda name: Barrier(name, parties=3, create=True), "Barrier of 3"),
        (lambda name: RWLock(name, create=True), "RWLock"),
    ],
    ids=["Lock", "RLock", "Condition", "Event", "Barrier", "RWLock"],
)
def test_a_primitive_is_named(make, expected, name):
    made = make(name)
    try:
        assert kind(name) == expected
        assert entry(name)["content"]["type"] == type(made).__name__
    finally:
        made.unlink()


def test_a_semaphore_with_its_value(name):
    semaphore = Semaphore(name, 3, create=True)
    try:
        for pattern in (name, f"sem.{name}", f"*{name}"):
            assert entry(pattern)["name"] == f"sem.{name}"
            assert kind(pattern) == "semaphore 3"
        semaphore.acquire()
        assert entry(name)["content"] == {"type": "semaphore", "value": 2}
        assert "\nvalue      2\n" in run("stat", f"sem.{name}").stdout
    finally:
        semaphore.unlink()


def test_an_event_that_is_set(name):
    event = Event(name, create=True)
    try:
        event.set()
        assert kind(name) == "Event set"
    finally:
        event.unlink()


DTYPES = {
    "f8": "float64",
    "<i2": "int16",
    "u1": "uint8",
    "?": "bool",
    "c16": "complex128",
    ">f4": ">f4",
    "U5": "U5",
    "M8[ns]": "M8[ns]",
}


@pytest.mark.parametrize(("dtype", "expected"), DTYPES.items(), ids=DTYPES)
def test_an_array_by_its_dtype_and_shape(dtype, expected, name):
    made = array.create(name, (10, 3), dtype)
    try:
        assert kind(name) == f".npy {expected} (10, 3)"
        content = entry(name)["content"]
        assert content == {
            "type": "npy",
            "dtype": np.dtype(dtype).str,
            "shape": [10, 3],
            "order": "C",
        }
    finally:
        made.unlink()


@pytest.mark.parametrize(
    ("shape", "expected"), [((), "()"), (7, "(7,)"), ((2, 3, 4), "(2, 3, 4)"), ((0, 5), "(0, 5)")]
)
def test_an_array_of_any_shape(shape, expected, make):
    name = make()
    with open(MOUNT / name, "wb") as file:
        np.save(file, np.zeros(shape, order="F"))
    assert kind(name) == f".npy float64 {expected}"


def test_an_array_of_structures(name):
    made = array.create(name, 4, [("x", "f4"), ("y", "i8")])
    try:
        assert kind(name) == ".npy structured (4,)"
    finally:
        made.unlink()
    made = array.create(name, 4, [(f"a-long-name-of-field-{i}", "f4") for i in range(60)])
    try:
        assert kind(name) == ".npy structured"
    finally:
        made.unlink()


@pytest.mark.long
@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_a_table_by_its_columns_and_rows(rows, make, run_python):
    if importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed")
    name = make()
    code = """
        import sys, pyarrow as pa
        rows = int(sys.argv[2])
        table = pa.table({"a": range(rows), "b": [1.5] * rows, "c": ["text"] * rows})
        with pa.ipc.new_file(sys.argv[1], table.schema) as writer:
            for batch in table.to_batches(max_chunksize=400):
                writer.write_batch(batch)
    """
    run_python(code, MOUNT / name, rows)
    assert entry(name)["content"] == {"type": "arrow", "columns": 3, "rows": rows}
    assert kind(name) == f"Arrow 3 columns, {rows:,} row{'s' * (rows != 1)}"


# -- hostile bytes ------------------------------------------------------------------------------


def npy(text, version=b"\1\0", length=None):
    data = text.encode()
    return b"\x93NUMPY" + version + struct.pack("<H", length or len(data)) + data


GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n"
TAG = struct.pack("=IBBBBHHI", 0x4D485350, 1, 2, 0, 1, 40, 32, 0)
HOSTILE = {
    "empty": b"",
    "one byte": b"\x93",
    "npy cut": b"\x93NUMPY\1\0",
    "npy version": npy(GOOD, b"\7\0") + bytes(24),
    "npy length": npy(GOOD, length=60000) + bytes(24),
    "npy items missing": npy(GOOD) + bytes(23),
    "npy huge": npy(GOOD.replace("(3,)", f"({'9' * 18}, {'9' * 18}, {'9' * 18})")) + bytes(24),
    "npy many dimensions": npy(GOOD.replace("(3,)", f"({'0, ' * 65})")) + bytes(24),
    "npy digits": npy(GOOD.replace("(3,)", f"({'9' * 200},)")) + bytes(24),
    "npy objects": npy(GOOD.replace("<f8", "|O")) + bytes(24),
    "npy code": npy("{'descr': __import__('os').system('false'), }") + bytes(100),
    "npy escape": npy(GOOD.replace("<f8", "\x1b[2J")) + bytes(24),
    "arrow head": b"ARROW1\0\0" + bytes(100),
    "arrow footer": b"ARROW1\0\0" + bytes(100) + b"\xff\xff\xff\x7fARROW1",
    "arrow zeros": b"ARROW1\0\0" + bytes(100) + b"\x40\0\0\0ARROW1",
    "arrow ones": b"ARROW1\0\0" + b"\xff" * 100 + b"\x40\0\0\0ARROW1",
    "arrow loop": b"ARROW1\0\0" + b"\4\0\0\0" * 25 + b"\x40\0\0\0ARROW1",
    "tag cut": bytes(64) + TAG,
    "tag kind": bytes(64) + TAG[:5] + b"\x63" + TAG[6:] + bytes(48),
    "tag version": bytes(64) + TAG[:4] + b"\x09" + TAG[5:] + bytes(48),
}


@pytest.mark.long
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_header_is_shown_as_plain_bytes(content, make):
    name = make(content)
    assert kind(name) == "plain"
    assert "plain" in run("stat", name).stdout


def test_random_bytes_after_each_magic_number(make, names):
    import random

    stem, random = names(), random.Random(7)
    heads = (b"\x93NUMPY\1\0", b"ARROW1\0\0", bytes(64) + TAG)
    for i in range(150):
        tail = struct.pack("<I", random.randrange(400)) + b"ARROW1"
        make(heads[i % 3] + random.randbytes(400) + tail, f"{stem}-{i:03}")
    found = json.loads(good("ls", "--json", stem))
    assert len(found) == 150


def test_reading_a_kind_does_not_change_the_access_time(make):
    name = make(npy(GOOD) + bytes(24))
    os.utime(MOUNT / name, (1, 1))  # an access would update the access time
    before = os.stat(MOUNT / name)
    assert kind(name) == ".npy float64 (3,)"
    run("stat", name)
    after = os.stat(MOUNT / name)
    assert (before.st_atime_ns, before.st_ctime_ns) == (after.st_atime_ns, after.st_ctime_ns)


def test_a_fifo_and_a_link_are_not_read(names, make):
    stem = names()
    target = make(b"content", f"{stem}-target")
    os.mkfifo(MOUNT / f"{stem}-fifo")
    os.symlink(target, MOUNT / f"{stem}-link")
    try:
        assert [each["name"] for each in json.loads(good("ls", "--json", stem))] == [target]
    finally:
        os.unlink(MOUNT / f"{stem}-fifo")
        os.unlink(MOUNT / f"{stem}-link")


# -- held locks ---------------------------------------------------------------------------------

HOLD = """
    import sys, posixshm
    from _processes import ready
    lock = getattr(posixshm, sys.argv[2])(sys.argv[1])
    {acquire}
    ready()
"""


@pytest.mark.parametrize(
    ("cls", "acquire", "role"),
    [
        (Lock, "lock.acquire()", "owner"),
        (RLock, "lock.acquire()", "owner"),
        (RWLock, "lock.write().__enter__()", "writer"),
        (RWLock, "lock.read().__enter__()", "reader"),
    ],
)
@pytest.mark.new_interpreter
def test_stat_names_a_stopped_process_that_holds_the_lock(cls, acquire, role, name, start_python):
    lock = cls(name, create=True)
    try:
        assert json.loads(run("stat", "--json", name).stdout)["content"]["held_by"] == []
        child = start_python(HOLD.format(acquire=acquire), name, cls.__name__, env=PATH)
        child.hear("ready")
        child.signal(signal.SIGSTOP)
        wait_for(lambda: state_of(child.pid) == "T", "it has stopped")
        (owner,) = json.loads(run("stat", "--json", name).stdout)["content"]["held_by"]
        text = run("stat", name).stdout
        assert (owner["role"], owner["pid"], owner["state"]) == (role, child.pid, "stopped")
        assert "from _processes import ready" in owner["command"]
        assert f"pid {child.pid} (" in text and ", stopped\n" in text
        child.signal(signal.SIGCONT)
        child.kill()
    finally:
        lock.unlink()


def state_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_stat_names_the_thread_of_a_process(name):
    lock = Lock(name, create=True)
    held, done = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        held.wait()
        (owner,) = json.loads(run("stat", "--json", name).stdout)["content"]["held_by"]
        assert (owner["pid"], owner["thread"]) == (os.getpid(), thread.native_id)
    finally:
        done.set()
        thread.join()
        lock.unlink()


def test_stat_reports_an_owner_that_died(name, start_python):
    lock = Lock(name, create=True)
    try:
        child = start_python(HOLD.format(acquire="lock.acquire()"), name, "Lock", env=PATH)
        child.hear("ready")
        child.kill()
        with pytest.raises(posixshm.OwnerDiedError):
            lock.acquire()
        assert json.loads(run("stat", "--json", name).stdout)["content"]["inconsistent"] is True
        assert "OwnerDiedError" in run("stat", name).stdout
    finally:
        lock.unlink()


def test_a_lock_in_the_middle_of_an_object_is_not_searched(name):
    with SharedMemory.create(name, 4096, delete=True) as shm:
        Lock.at(shm, 1024, create=True)
        assert kind(name) == "plain"
