"""The programs of the guide to C and C++, compiled and run as a reader does, and their
assumptions."""

import subprocess

import pytest
from _documents import REFERENCE, blocks
from _processes import PATH, build_c, can_mount, cannot_be_tested

import posixshm.array
from posixshm import Lock, RLock, Semaphore, SharedMemory

PAGE = REFERENCE / "docs/c-and-cpp.md"
# Each test has its own /dev/shm if possible, because the programs of the page use fixed names.
ALONE = """
import subprocess, sys
from _processes import private_shm
own_shm, folder = sys.argv[1:]
if own_shm == "True":
    private_shm()
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A folder with the compiled programs of the page."""
    folder = tmp_path_factory.mktemp("programs")
    for language, code in blocks(PAGE.read_text()):
        _, _, title = language.partition(' title="')
        if title:
            (folder / title.rstrip('"')).write_text(code)
    build_c(folder / "sensor.c", folder)
    command = [
        "c++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "count.cpp",
        "-o",
        "count",
        "-lrt",
    ]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        cannot_be_tested("there is no C++ compiler c++")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.once
def test_the_c_program_and_the_python_program_share_an_object(programs, run_python):
    code = """
reader = subprocess.Popen(
    [sys.executable, f"{folder}/sensor.py"], stdout=subprocess.PIPE, text=True)
assert reader.stdout.readline() == "waiting for the sensor\\n"
subprocess.run([f"{folder}/sensor"], check=True, timeout=60)
out, _ = reader.communicate(timeout=60)
assert reader.returncode == 0
print(out, end="")
"""
    out = run_python(ALONE + code, can_mount(), programs, env=PATH)
    assert out == "10 blocks, the last one is 10.0\n"


@pytest.mark.once
def test_the_cpp_program_counts_in_the_atomic(programs, run_python):
    code = """
from posixshm import Atomic, SharedMemory
with SharedMemory.create("sensor", 8192, delete=True) as shm:
    count = Atomic.at(shm, 256, "q")
    count.store(2**40)
    print(subprocess.run([f"{folder}/count"], check=True, timeout=60, capture_output=True, text=True).stdout)
    print(count.load())
"""
    out = run_python(ALONE + code, can_mount(), programs, env=PATH)
    assert out.split() == [str(2**40 + 1)] * 2


@pytest.mark.once
@pytest.mark.parametrize("acquired_before", [False, True])
def test_the_c_program_repairs_after_a_python_owner_died(programs, run_python, acquired_before):
    """The repair works whether or not a Python thread has received OwnerDiedError before."""
    code = f"""
import os
from posixshm import Atomic, Lock, OwnerDiedError, Semaphore, SharedMemory
with SharedMemory.create("sensor", 8192, delete=True) as shm:
    lock = Lock.at(shm, 0, create=True)
    Semaphore.at(shm, 128, create=True, value=0)
    if os.fork() == 0:
        lock.acquire()
        os._exit(0)
    os.wait()
    inconsistent = shm.view("I", 1, 48)
    if {acquired_before}:
        try:
            lock.acquire()
        except OwnerDiedError:
            pass
        else:
            raise AssertionError
    assert inconsistent[0] == {int(acquired_before)}
    subprocess.run([f"{{folder}}/sensor"], check=True, timeout=60)
    assert inconsistent[0] == 0
    assert lock.acquire(timeout=10) and not lock.recovered
    lock.release()
"""
    run_python(ALONE + code, can_mount(), programs, env=PATH)


def test_the_sizes_that_the_programs_use():
    assert Lock.nbytes == RLock.nbytes == Semaphore.nbytes == 128
    assert Lock.alignment == RLock.alignment == Semaphore.alignment == 64


def test_a_named_lock_starts_at_byte_0(name):
    lock = Lock(name, create=True, delete=True)
    assert lock.offset == 0 and SharedMemory.open(name).size == Lock.nbytes
    lock.close()


def test_the_first_item_of_an_array(name):
    with posixshm.array.save(name, [1.5, 2.5], delete=True) as array:
        data = bytes(array.shm.buf)
        first = 10 + int.from_bytes(data[8:10], "little")
        assert data[first : first + 16] == array.tobytes()
