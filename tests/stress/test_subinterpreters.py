"""Isolated sub-interpreters, each with its own GIL from Python 3.12 on.

They run in child processes, because a failure is likely to be a crash.

POSIXSHM_ROUNDS is the number of interpreters that are created and destroyed.
"""

import os
import sys
import sysconfig

import pytest
from _processes import COUNTING, SHM, needs_plain_build, rounds

ROUNDS = int(os.environ.get("POSIXSHM_ROUNDS", "20"))
BATCH = 200  # interpreters in one process, which keeps some MB of each

START = """
import gc, os, sys, threading
from _processes import unchanged
from children.interpreters import *
"""

USE = """
import gc, os, pickle, posixshm, sys
from posixshm import MemoryMap, SharedMemory, listdir, reclaim
if sys.version_info[:2] != (3, 12):
    # multiprocessing.shared_memory imports OpenSSL, which crashes in subinterpreters of 3.12.1.
    from posixshm import shared_memory
own = f"{name}-{me}"
with SharedMemory.create(own, 10_000, init=lambda buf: buf.__setitem__(0, 7), max_size=1 << 20) as shm:
    assert shm.created and shm.buf[0] == 7 and own in listdir()
    with SharedMemory.open(own, readonly=True, timeout=5) as second:
        assert bytes(second.buf) == bytes(shm.buf)
        try:
            second.buf[0] = 1
        except TypeError:
            pass
    with pickle.loads(pickle.dumps(shm)) as third:
        third.buf[1] = 8
    assert bytes(shm.buf[:2]) == bytes([7, 8])
    assert [each.state for each in reclaim(own)] == ["in use"]
    shm.resize(50_000)
    assert len(shm.buf) == 50_000 == shm.size
    view, mapping = memoryview(shm), shm.map(4096, readonly=True)
    shm.rename(own + "-renamed")
    shm.unlink()
    assert not shm.is_linked()
view[-1] = 1
assert len(mapping) == 50_000 - 4096
with SharedMemory.anonymous(100) as shm:
    assert shm.seals & posixshm.F_SEAL_SHRINK
with SharedMemory.unlinked(100) as shm:
    shm.link(own)
    shm.unlink()
for wrong in (lambda: SharedMemory.open(own), lambda: SharedMemory.create("", 1), lambda: SharedMemory.create(own, 0)):
    try:
        wrong()
    except (FileNotFoundError, ValueError):
        pass
    else:
        raise AssertionError
class Sub(SharedMemory):
    pass
with Sub.create(own, 10, delete=True) as shm:
    assert type(shm) is Sub
assert own not in listdir()
del view, mapping, shm, second, third
gc.collect()
"""

pytestmark = pytest.mark.new_interpreter


@pytest.fixture
def run(run_python, name):
    def run(code, timeout=60):
        run_python(START + f"USE = {USE!r}\n" + code, name, env=COUNTING, timeout=timeout)
        assert not [left for left in os.listdir(SHM) if left.startswith(name)]

    return run


def test_an_isolated_interpreter_imports_and_uses_it(run):
    run(
        """
run_in_new("me = 1" + USE)
assert "posixshm" not in sys.modules
me = 0
exec(USE)
run_in_new("me = 2" + USE)
exec(USE)
"""
    )


def test_a_mapping_of_an_interpreter_forbids_all_of_them_to_shrink_the_object(run):
    """The interpreters share one address space."""
    run(
        """
from posixshm import SharedMemory
with SharedMemory.create(name, 100_000, delete=True) as shm:
    interpreter = create()
    run(interpreter, f"from posixshm import SharedMemory; view = SharedMemory.open({name!r}).buf")
    try:
        shm.resize(10, shrink=True)
    except BufferError as error:
        assert "another mapping of the object" in str(error), error
    else:
        raise AssertionError("the object shrank")
    run(interpreter, "view[-1] = 1; del view")
    destroy(interpreter)
    assert shm.resize(10, shrink=True) == 10
"""
    )


def test_consecutive_interpreters_leave_nothing(run):
    run(
        """
run_in_new("me = 1" + USE)
with unchanged():
    for _ in range(5):
        run_in_new("me = 1" + USE)
"""
    )


def test_many_interpreters_at_once(run):
    run(
        f"TURNS = {rounds(5, 30)}"
        """
me = "main"
barrier, problems = threading.Barrier(7), []

def work(number):
    try:
        interpreter = create()
        barrier.wait(60)
        for turn in range(30):
            run(interpreter, f"name, me = {name!r}, {number}" + USE)
        barrier.wait(60)
        destroy(interpreter)
    except BaseException as error:
        problems.append(error)
        barrier.abort()

threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
for thread in threads:
    thread.start()
barrier.wait(60)
for turn in range(30):
    exec(USE)
barrier.wait(60)
for thread in threads:
    thread.join()
if problems:
    raise problems[0]
"""
    )


def test_interpreters_share_objects_but_not_types(run):
    run(
        """
import posixshm
shm = posixshm.SharedMemory.create(name, 100)
interpreters = [create() for _ in range(3)]
types = [id(posixshm.SharedMemory)]
for number, interpreter in enumerate(interpreters):
    run(interpreter, f'''
import posixshm
shm = posixshm.SharedMemory.open({name!r})
shm.buf[{number}] += 5
shm.buf[20 + 8 * {number} : 28 + 8 * {number}] = id(posixshm.SharedMemory).to_bytes(8, "little")
''')
    types.append(int.from_bytes(shm.buf[20 + 8 * number : 28 + 8 * number], "little"))
assert len(set(types)) == 4
assert bytes(shm.buf[:3]) == bytes([5, 5, 5])
shm.buf[0] = 9
for interpreter in interpreters:
    run(interpreter, "assert shm.buf[0] == 9 and bytes(shm.buf[1:3]) == bytes([5, 5])")
    destroy(interpreter)
assert [each.state for each in posixshm.reclaim(name)] == ["in use"]
shm.unlink()
"""
    )


def test_an_interpreter_removes_its_objects_when_it_ends(run):
    run(
        """
import posixshm
mine = posixshm.SharedMemory.create(name, 100, delete=True)
with unchanged():
    interpreter = create()
    run(interpreter, f'''
from posixshm import SharedMemory
shm = SharedMemory.create({name!r} + "-theirs", 100, delete=True)
view, attached, again = shm.buf, SharedMemory.open({name!r}), SharedMemory.anonymous(100)
kept = SharedMemory.create({name!r} + "-kept", 100)
cycle = [shm, view]
cycle.append(cycle)
''')
    assert {each for each in posixshm.listdir() if each.startswith(name)} == {
        name, f"{name}-theirs", f"{name}-kept"}
    destroy(interpreter)
    posixshm.shm_unlink(f"{name}-kept")
assert mine.is_linked()
"""
    )


def test_another_interpreter_can_use_the_name_later(run):
    run(
        """
import posixshm
interpreter = create()
run(interpreter, f'''
from posixshm import SharedMemory
shm = SharedMemory.create({name!r}, 100, delete=True)
view = shm.buf
''')
# Some versions of Python warn about interpreters that exist at exit, so destroy it now. The main
# interpreter keeps its handle until it ends.
destroy(interpreter)
shm = posixshm.SharedMemory.create(name, 100, delete=True)
view = shm.buf
"""
    )


# -- memory -------------------------------------------------------------------------------------

WITH_HEADER = """
from _primitives import WITH_HEADER, Atomic, at, use
with SharedMemory.anonymous(65536) as shm:
    for number, kind in enumerate(WITH_HEADER):
        use(at(kind, shm, 4096 * number, create=True))
    use(Atomic.at(shm, 40960))
    view = shm.view("i", (3, 4), 49152)
    view[1] = view[2]
    assert view.tolist() == [[0] * 4] * 3 and memoryview(view).shape == (3, 4)
"""
DROP = """
ours = [each for each in sys.modules if each.partition(".")[0] in ("posixshm", "_primitives")]
assert "posixshm._core" in ours
for each in ours:
    del sys.modules[each]
for each in [each for each in globals() if each not in ("gc", "me", "name", "sys", "__builtins__")]:
    del globals()[each]
gc.collect()
"""
# CPython itself leaks some blocks (3.11) or some MB (3.12, 3.13) for each interpreter, depending on
# the imported modules, because their names are not freed. So the test compares interpreters with
# and without the library.
GROWTH = f"""
from _leaks import Holdings

def modules_of(code):
    reading, writing = os.pipe()
    run_in_new(code, f"os.write({{writing}}, ' '.join(sys.modules).encode())")
    os.close(writing)
    with open(reading) as names:
        return [each for each in names.read().split() if each != "__main__"]

def growth(code, rounds):
    \"""Measured in two parts: CPython enlarges its table of names in one of them.\"""
    for _ in range(5):
        run_in_new(code)
    parts = []
    for _ in range(2):
        before = Holdings.now()
        for _ in range(rounds // 2):
            run_in_new(code)
        after = Holdings.now()
        parts.append([now - then for now, then in zip(after, before, strict=True)])
    return Holdings(*(min(two) / (rounds // 2) for two in zip(*parts, strict=True)))

def compare(code, other, rounds, **most):
    \"""`code` may grow only a little more than `other`; most: the additional growth of each kind.\"""
    grown, usual = growth(code, rounds), growth(other, 20)
    for kind in ("descriptors", "shared", "names"):
        assert getattr(grown, kind) == 0, grown
    for kind, more in most.items():
        # The other code may have freed memory of earlier rounds, so its growth counts as 0 if
        # negative.
        assert getattr(grown, kind) < max(0, getattr(usual, kind)) + more, (kind, grown, usual)

ONCE = "me = 1" + USE + {WITH_HEADER!r}
AGAIN = "\\n".join([ONCE + {DROP!r}] * 3)
STANDARD = [each for each in modules_of(ONCE) if each.partition(".")[0] not in ("posixshm", "_primitives")]
EMPTY = "import " + ", ".join(STANDARD)
"""


# A block for each name of the module, which is not freed; 3.11 shares them.
NAMES = 5 if sys.version_info < (3, 12) else 250
# Bytes. CPython does not return all memory of an interpreter to the system. A free-threaded build
# returns nothing and does not count blocks, so only this limit can find a leak there.
KEPT = 1 << (22 if sysconfig.get_config_var("Py_GIL_DISABLED") else 20)


def batches():
    return [min(BATCH, ROUNDS - begun) for begun in range(0, ROUNDS, BATCH)]


@pytest.mark.long
@pytest.mark.timeout(sum(120 + count for count in batches()))
def test_the_library_adds_no_memory_to_an_interpreter(run):
    needs_plain_build("it keeps freed memory for a while")
    for count in batches():
        limits = f"blocks={NAMES}, malloc=1024, resident={KEPT}"
        run(f"{GROWTH}\ncompare(ONCE, EMPTY, {count}, {limits})", timeout=100 + count)


@pytest.mark.long
@pytest.mark.timeout(sum(120 + count for count in batches()))
def test_importing_the_library_again_adds_no_memory(run):
    """All memory is freed when the interpreter ends."""
    needs_plain_build("it keeps freed memory for a while")
    for count in batches():
        limits = f"blocks=5, malloc=1024, resident={KEPT}"
        run(f"{GROWTH}\ncompare(AGAIN, ONCE, {count}, {limits})", timeout=100 + count)
