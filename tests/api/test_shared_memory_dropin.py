"""posixshm.shared_memory: a drop-in for multiprocessing.shared_memory, the standard library's.

"There" means: in the standard library. Tests of both together use one process for each.
"""

import contextlib
import copy
import mmap
import os
import pickle
import random
import struct
import time
import types
from multiprocessing import resource_tracker
from multiprocessing import shared_memory as stdlib
from pathlib import Path

import pytest
from _processes import PATH, SOMEBODY, needs_mounts, needs_root

import posixshm
from posixshm import shared_memory
from posixshm.shared_memory import ShareableList, SharedMemory

SHM = Path("/dev/shm")

# Attach with the standard library without its tracking, by the recipe that programs use there.
ATTACH_THERE = """
from multiprocessing import resource_tracker, shared_memory
def attach(kind, name):
    handle = kind(name=name)
    resource_tracker.unregister("/" + name, "shared_memory")
    return handle
"""


@pytest.fixture
def shm(name):
    """A new object of 100 bytes."""
    shm = SharedMemory(name, create=True, size=100)
    yield shm
    shm.close()
    if shm.is_linked():
        shm.unlink()


@pytest.fixture
def make_list(names):
    """make_list(items): a new list, unlinked at the end."""
    made = []

    def make(items):
        made.append(ShareableList(items, name=names()))
        return made[-1]

    yield make
    for each in made:
        each.shm.close()
        if each.shm.is_linked():
            each.shm.unlink()


def tracker_runs():
    return resource_tracker._resource_tracker._fd is not None


# -- a program that changes one line ------------------------------------------------------------

PROGRAM = """
import multiprocessing, pickle, sys
{line}

def work(name, items, part):
    shm = shared_memory.SharedMemory(name=name)
    shm.buf[part * 10:part * 10 + 10] = bytes([part]) * 10
    items[part] = f"part {{part}}"
    items.shm.close()
    shm.close()

class Loud(shared_memory.SharedMemory):
    def __del__(self):
        super().__del__()
        print("gone")

context = multiprocessing.get_context("fork")
items = shared_memory.ShareableList([" " * 8] * 4 + [1, 2.5, True, None, b"end"])
shm = Loud(sys.argv[1], create=True, size=40)
jobs = [context.Process(target=work, args=(shm.name, items, part)) for part in range(4)]
for job in jobs:
    job.start()
for job in jobs:
    job.join()
print(len(shm.buf), shm.size, shm.name == sys.argv[1], bytes(shm.buf).hex())
print(list(items), items.format, items.count(True), items.index(2.5), len(items))
again = pickle.loads(pickle.dumps(shm))
print(again.name == shm.name, again.buf[39], type(again), again._name == "/" + sys.argv[1])
for wrong in ["'x', True, 0", "'x', True, -1", "create=True", "None", "'x', size=-1"]:
    try:
        eval("shared_memory.SharedMemory(" + wrong + ")")
    except ValueError:
        print("ValueError", wrong)
for wrong in [dict(name=shm.name, create=True, size=1), dict(name="not there")]:
    try:
        shared_memory.SharedMemory(**wrong)
    except OSError as error:
        print(type(error).__name__)
again.close()
again.close()
print(again.buf, again.size, again.name == shm.name)
shm.close()
shm.unlink()
items.shm.close()
items.shm.unlink()
try:
    shm.unlink()
except FileNotFoundError as error:
    print(type(error).__name__)
del again, shm
print("end")
"""


def test_a_program_does_the_same_with_either_import(run_python, names):
    there = run_python(
        PROGRAM.format(line="from multiprocessing import shared_memory"), names(), check=False
    )
    here = run_python(
        PROGRAM.format(line="from posixshm import shared_memory"), names(), check=False
    )
    assert here[0] == there[0] == 0
    assert here[1] == there[1]
    assert here[1].startswith("40 40 True 00") and here[1].endswith("gone\ngone\nend\n")
    assert here[2] == ""


def test_it_has_the_names_of_the_module_it_replaces():
    assert shared_memory.__all__ == ["SharedMemory", "ShareableList"] == stdlib.__all__
    for private in ["_O_CREX", "_SHM_NAME_PREFIX", "_SHM_SAFE_NAME_LENGTH", "_USE_POSIX"]:
        assert getattr(shared_memory, private) == getattr(stdlib, private)
    fresh, other = shared_memory._make_filename(), stdlib._make_filename()
    assert fresh.startswith("/psm_") and len(fresh) == len(other)
    assert fresh != shared_memory._make_filename()
    for attribute in ["_flags", "_mode", "_prepend_leading_slash"]:
        assert getattr(SharedMemory, attribute) == getattr(stdlib.SharedMemory, attribute)
    assert issubclass(SharedMemory, posixshm.SharedMemory)


# -- SharedMemory -------------------------------------------------------------------------------


def test_close_sets_buf_to_none_and_keeps_the_other_attributes(shm, name):
    view = shm.buf
    view[0] = 7
    shm.close()
    assert shm.buf is None
    assert (shm.name, shm._name, shm.size) == (name, "/" + name, 100)
    assert repr(shm) == f"SharedMemory('{name}', size=100)"
    assert view[0] == 7  # there, close() would fail


def test_the_finalizer_of_the_class_it_replaces_closes(shm):
    SharedMemory.__del__(shm)
    assert shm.closed


def test_attaching_uses_the_size_of_the_object(shm, name):
    with SharedMemory(name, size=10**6) as other:
        assert other.size == 100


def test_names_are_generated_until_one_is_free(shm, names, monkeypatch):
    free = names()
    offered = iter(["/" + shm.name, "/" + free])
    monkeypatch.setattr(shared_memory, "_make_filename", lambda: next(offered))
    with SharedMemory(create=True, size=1) as other:
        other.unlink()
        assert other.name == free


@pytest.mark.parametrize(
    "arguments",
    [
        dict(create=True),
        dict(create=True, size=0),
        dict(create=True, size=-1),
        dict(),
        dict(create=False, size=10),
        dict(name="x", size=-1),
    ],
    ids=str,
)
def test_wrong_arguments_are_value_errors(arguments):
    with pytest.raises(ValueError):
        stdlib.SharedMemory(**arguments)
    with pytest.raises(ValueError):
        SharedMemory(**arguments)


def test_a_name_with_a_nul_is_a_value_error(name):
    # There, before 3.13, the name ended at the NUL.
    for create in False, True:
        with pytest.raises(ValueError):
            SharedMemory(name + "\0a", create=create, size=1)
    assert not (SHM / name).exists()


def test_the_name_of_a_semaphore_is_refused_for_a_new_segment(name):
    """listdir() and reclaim() skip such names. Attaching to an existing object is allowed."""
    semaphore = "sem." + name

    class Either(SharedMemory):
        _flags = os.O_CREAT | os.O_RDWR

    for make in (
        lambda: SharedMemory(semaphore, create=True, size=10),
        lambda: SharedMemory(semaphore, create=True, size=10, track=False),
        lambda: Either(semaphore, size=10),
        lambda: ShareableList([1], name=semaphore),
    ):
        with pytest.raises(ValueError, match="'sem[.]'"):
            make()
        assert not os.path.exists(f"/dev/shm/{semaphore}")
    with open(f"/dev/shm/{semaphore}", "wb") as file:
        file.write(bytes(10))
    try:
        for attach in (SharedMemory, Either):
            shm = attach(semaphore)
            assert shm.size == 10
            shm.close()
    finally:
        os.unlink(f"/dev/shm/{semaphore}")


def test_an_empty_object_raises_value_error_as_there(name):
    path = SHM / name
    path.touch()
    try:
        for kind in stdlib.SharedMemory, SharedMemory:
            with pytest.raises(ValueError, match="empty"):
                kind(name)
        assert path.stat().st_size == 0
    finally:
        path.unlink()


def test_flags_of_a_subclass_select_attach_or_create(name):
    class OptionalAttach(SharedMemory):
        _flags = os.O_CREAT | os.O_RDWR

    with pytest.raises(FileNotFoundError):
        OptionalAttach(name)  # without a size it cannot create
    with OptionalAttach(name, size=10) as first, OptionalAttach(name, size=99) as second:
        first.unlink()
        assert (first.created, first.size) == (True, 10)
        assert (second.created, second.size) == (False, 10)


def test_o_creat_does_not_attach_to_the_object_of_another_user(name):
    """The kernel refuses that, too (fs.protected_regular). Without O_CREAT, attaching is
    allowed."""
    needs_root()

    class OptionalAttach(SharedMemory):
        _flags = os.O_CREAT | os.O_RDWR

    with posixshm.SharedMemory.create(name, 100, mode=0o666, uid=SOMEBODY, delete=True):
        with pytest.raises(PermissionError, match=f"uid {SOMEBODY}") as caught:
            OptionalAttach(name, size=10)
        assert caught.value.filename == name
        with SharedMemory(name) as shm:
            assert shm.uid == SOMEBODY


def test_mode_of_a_subclass_ignores_the_umask(name):
    class Wide(SharedMemory):
        _mode = 0o640

    umask = os.umask(0o077)
    try:
        with Wide(name, create=True, size=10) as shm:
            shm.unlink()
            assert shm.mode == 0o640
    finally:
        os.umask(umask)


def test_mode_of_a_subclass_is_set_before_the_name(name):
    class Private(SharedMemory):
        _mode = 0o400

        def chmod(self, mode):
            raise AssertionError("the object was accessible before chmod()")

    with Private(name, create=True, size=10) as shm:
        shm.unlink()
        shm.buf[0] = 1
        assert shm.mode == 0o400


def test_an_invalid_mode_leaves_no_object(name):
    class Wrong(SharedMemory):
        _mode = -1

    with pytest.raises((ValueError, OSError)):
        Wrong(name, create=True, size=10)
    assert not (SHM / name).exists()


def test_names_may_be_without_the_slash(name):
    class Bare(SharedMemory):
        _prepend_leading_slash = False

    with Bare(name, create=True, size=10) as shm:
        shm.unlink()
        assert shm.name == shm._name == name


def test_unlink_removes_only_the_object_of_the_handle(shm, names):
    with SharedMemory(names(), create=True, size=10) as other:
        shm._name = other._name
        with pytest.raises(ValueError, match="changed"):
            shm.unlink()
        shm._name = "/" + shm.name
        shm.unlink()
        assert other.is_linked()
        other.unlink()


def test_unlink_leaves_an_object_that_took_the_name(shm, name):
    os.unlink(SHM / name)
    with SharedMemory(name, create=True, size=10) as other:
        with pytest.raises(FileNotFoundError):
            shm.unlink()
        assert other.is_linked()
        other.unlink()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_a_reference(shm, protocol):
    class_and_bytes = pickle.dumps(shm, protocol)
    with pickle.loads(class_and_bytes) as again:
        assert type(again) is SharedMemory
        again.buf[3] = 9
        assert shm.buf[3] == 9
    name = shm.name
    shm.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(class_and_bytes)
    with SharedMemory(name, create=True, size=100) as other:
        with pytest.raises(OSError, match=name):
            pickle.loads(class_and_bytes)
        other.unlink()


def test_a_copy_is_as_untracked_as_the_original(name):
    resource_tracker._resource_tracker._stop()  # that of the tests before
    with SharedMemory(name, create=True, size=10, track=False) as shm, copy.copy(shm) as again:
        assert again._track is False
        again.unlink()
    assert not tracker_runs()


# -- the tracker --------------------------------------------------------------------------------


def test_an_attaching_process_removes_nothing_when_it_ends(shm, run_python):
    run_python(
        """
        import sys
        from posixshm import shared_memory
        kept = shared_memory.SharedMemory(sys.argv[1])
        shared_memory.SharedMemory(sys.argv[1], track=True).close()
        """,
        shm.name,
    )
    assert shm.is_linked()


def test_attaching_starts_no_tracker(name):
    resource_tracker._resource_tracker._stop()  # that of the tests before
    with SharedMemory(name, create=True, size=10, track=False) as shm:
        with SharedMemory(name) as other:
            assert not tracker_runs()
            other.unlink()
        assert not tracker_runs()
        assert not shm.is_linked()


@pytest.mark.parametrize(
    "make", ["SharedMemory({!r}, create=True, size=9)", "ShareableList([1], name={!r})"]
)
def test_the_tracker_removes_the_object_of_a_killed_creator(start_python, name, make):
    child = start_python(
        f"""
        from posixshm.shared_memory import *
        made = {make.format(name)}
        print("made")
        input()
        """
    )
    child.hear("made")
    assert (SHM / name).exists()
    child.process.kill()
    # Its standard error stays open until the tracker has ended.
    status, _, errors = child.finish(check=False)
    assert status == -9
    assert "1 leaked shared_memory objects" in errors
    assert not (SHM / name).exists()


def test_a_frozen_program_starts_no_tracker(run_python, name):
    """There sys.executable is the program, so starting the tracker would start the program
    again."""
    code = """
        import sys
        from multiprocessing import resource_tracker
        from posixshm.shared_memory import SharedMemory
        sys.frozen = True
        shm = SharedMemory(sys.argv[1], create=True, size=100)
        shm.close()
        shm.unlink()
        assert resource_tracker._resource_tracker._pid is None
        resource_tracker.ensure_running()  # as multiprocessing does before it spawns a process
        SharedMemory(sys.argv[1], create=True, size=100).unlink()
    """
    run_python(code, name)


def test_without_track_a_killed_creator_leaves_its_object(start_python, name):
    child = start_python(
        f"""
        from posixshm import shared_memory
        made = shared_memory.SharedMemory({name!r}, create=True, size=9, track=False)
        print("made")
        input()
        """
    )
    child.hear("made")
    child.kill()
    with SharedMemory(name) as shm:
        shm.unlink()


@pytest.mark.parametrize(
    "method", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("creator", ["parent", "child"])
def test_any_process_that_shares_the_tracker_may_unlink(
    run_python, name, tmp_path, method, creator
):
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import multiprocessing
from multiprocessing import resource_tracker
from posixshm.shared_memory import SharedMemory

def create():
    SharedMemory({name!r}, create=True, size=10).close()

def unlink():
    with SharedMemory({name!r}) as shm:
        shm.unlink()

if __name__ == "__main__":
    resource_tracker.ensure_running()
    make = multiprocessing.get_context({method!r}).Process
    job = make(target=unlink if {creator!r} == "parent" else create)
    if {creator!r} == "parent":
        create()
    job.start()
    job.join()
    assert job.exitcode == 0
    if {creator!r} == "child":
        unlink()
"""
    )
    # A warning of the tracker fails the test.
    run_python("", options=[program])  # a script, because spawn imports it again
    assert not (SHM / name).exists()


def test_unlinking_the_object_of_an_unrelated_process(shm, run_python):
    run_python(
        """
        import sys
        from multiprocessing import resource_tracker
        from posixshm.shared_memory import SharedMemory
        resource_tracker.ensure_running()
        with SharedMemory(sys.argv[1]) as shm:
            shm.unlink()
        """,
        shm.name,
    )
    assert not shm.is_linked()


@pytest.mark.parametrize("bad", ["a:b", "a\nb", "\N{GREEK SMALL LETTER MU}"])
def test_a_name_that_the_tracker_cannot_store(names, bad):
    name = names() + bad
    with pytest.raises(ValueError, match="track=False"):
        SharedMemory(name, create=True, size=10)
    with pytest.raises(ValueError, match="track=False"):
        ShareableList([1], name=name)
    assert not (SHM / name).exists()
    resource_tracker.ensure_running()
    with SharedMemory(name, create=True, size=10, track=False), SharedMemory(name) as other:
        assert other.name == name
        other.unlink()


def test_a_rename_is_registered_with_the_tracker(start_python, names):
    old, new = names(), names()
    child = start_python(
        f"""
        from posixshm.shared_memory import SharedMemory
        shm = SharedMemory({old!r}, create=True, size=9)
        SharedMemory({old!r}).close()
        shm.rename({new!r})
        print(shm.name, flush=True)
        input()
        """
    )
    child.hear(new)
    with SharedMemory(old, create=True, size=10, track=False) as other:
        child.process.kill()
        assert "1 leaked shared_memory objects" in child.finish(check=False)[2]
        assert not (SHM / new).exists()
        other.unlink()


def test_an_attaching_process_may_rename(run_python, names):
    run_python(
        f"""
        from posixshm.shared_memory import SharedMemory
        with SharedMemory({names()!r}, create=True, size=9) as shm, SharedMemory(shm.name) as other:
            other.rename({names()!r})
            other.unlink()
        """
    )


def test_a_rename_to_a_name_that_the_tracker_cannot_store(shm, name):
    with pytest.raises(ValueError, match="track=False"):
        shm.rename(name + ":")
    assert shm.name == name and shm.is_linked()


def test_no_object_is_left_if_the_tracker_cannot_be_started(name, monkeypatch):
    def register(name, kind):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(resource_tracker, "register", register)
    for make in [
        lambda: SharedMemory(name, create=True, size=10),
        lambda: ShareableList([1], name=name),
    ]:
        with pytest.raises(OSError, match="Too many"):
            make()
        assert not (SHM / name).exists()


# `known` has the names that are registered with the tracker; after_registering() runs after each.
RECORD_TRACKED = """
import os, sys
from multiprocessing import resource_tracker
import posixshm
from posixshm.shared_memory import SharedMemory
name = sys.argv[1]
known = set()
after_registering = lambda: None

def register(name, kind, real=resource_tracker.register):
    real(name, kind)
    known.add(name)
    after_registering()

def unregister(name, kind, real=resource_tracker.unregister):
    real(name, kind)
    known.discard(name)

resource_tracker.register, resource_tracker.unregister = register, unregister
"""


@pytest.mark.parametrize("end", ["shm.close()", "del shm", "shm.unlink(); shm.close()"])
def test_the_tracker_forgets_objects_that_the_handle_deletes(run_python, name, end):
    code = f"""{RECORD_TRACKED}
shm = posixshm.SharedMemory.create(name, 10, delete=True, track=True)
assert known == {{"/" + name}}
{end}
assert known == set() and not os.path.exists(f"/dev/shm/{{name}}")
shm = posixshm.SharedMemory.create(name, 10, delete=True, track=True)
shm.rename(name + "-renamed")
assert known == {{f"/{{name}}-renamed"}}
{end}
assert known == set()
kept = posixshm.SharedMemory.create(name, 10, delete=True, track=True)
"""
    run_python(code, name)
    assert not (SHM / name).exists()


def test_the_tracker_forgets_an_object_whose_creation_failed(run_python, name):
    code = f"""{RECORD_TRACKED}
def after_registering():
    global after_registering
    after_registering = lambda: None
    raise KeyboardInterrupt
try:
    SharedMemory(name, create=True, size=10)
except KeyboardInterrupt:
    pass
else:
    raise AssertionError
assert known == set() and not os.path.exists(f"/dev/shm/{{name}}")
"""
    run_python(code, name)


def test_a_rename_to_the_same_name_remains_tracked(run_python, name):
    code = f"""{RECORD_TRACKED}
with SharedMemory(name, create=True, size=10) as shm:
    shm.rename(name, replace=True)
    assert known == {{"/" + name}} and shm.is_linked()
    shm.unlink()
assert known == set()
"""
    run_python(code, name)


def test_a_failed_unlink_keeps_the_registration_of_the_other_object(run_python, name):
    code = f"""{RECORD_TRACKED}
first = SharedMemory(name, create=True, size=10)
os.unlink(f"/dev/shm/{{name}}")
second = SharedMemory(name, create=True, size=10)
try:
    first.unlink()
except FileNotFoundError:
    pass
assert known == {{"/" + name}} and second.is_linked()
second.unlink()
assert known == set()
"""
    run_python(code, name)


def test_a_rename_succeeds_if_the_tracker_cannot_be_notified(names, monkeypatch):
    def register(name, kind):
        raise OSError(24, "Too many open files")

    old, new = names(), names()
    with SharedMemory(old, create=True, size=10) as shm:
        with monkeypatch.context() as patch:
            patch.setattr(resource_tracker, "register", register)
            shm.rename(new)
        assert shm.name == new and shm.is_linked() and not (SHM / old).exists()
        shm.unlink()


# -- a size that is not reserved ----------------------------------------------------------------


def test_a_program_can_choose_sparse_segments(run_python):
    needs_mounts()
    run_python(
        """
        import errno
        from _processes import free_bytes, private_shm, raises, unchanged
        from posixshm import shared_memory
        private_shm("size=16m")
        class Sparse(shared_memory.SharedMemory):
            reserve = False
        with unchanged():
            before = free_bytes()
            shm = Sparse(create=True, size=1 << 30, track=False)
            shm.buf[0] = shm.buf[-1] = 1
            assert before - free_bytes() < 1 << 20
            shm.close()
            shm.unlink()
            with raises(errno.ENOSPC):
                shared_memory.SharedMemory(create=True, size=1 << 30, track=False)
            shared_memory.SharedMemory.reserve = False  # for all of the program
            with shared_memory.SharedMemory("x", True, 1 << 30, track=False) as shm:
                assert shm.size == 1 << 30
                shm.unlink()
        """,
        env=PATH,
    )


# -- private names there, which programs use ----------------------------------------------------

BACKPORT = """
from posixshm import shared_memory as _mpshm

class SharedMemory(_mpshm.SharedMemory):
    # The `track` of Python 3.13 for older ones, as many programs have it.
    def __init__(self, name=None, create=False, size=0, *, track=True):
        self._track = track
        if track:
            return super().__init__(name=name, create=create, size=size)
        register = _mpshm.resource_tracker.register
        _mpshm.resource_tracker.register = lambda *args, **keywords: None
        try:
            super().__init__(name=name, create=create, size=size)
        finally:
            _mpshm.resource_tracker.register = register

    def unlink(self):
        if _mpshm._USE_POSIX and self._name:
            _mpshm._posixshmem.shm_unlink(self._name)
            if self._track:
                _mpshm.resource_tracker.unregister(self._name, "shared_memory")
"""


def test_the_backport_of_track_works(name, run_python):
    """The tracker would warn about a missing or superfluous registration."""
    code = (
        BACKPORT
        + """
import os, sys
for track in (True, False):
    shm = SharedMemory(sys.argv[1], create=True, size=10, track=track)
    other = SharedMemory(sys.argv[1], track=False)
    assert shm._track is track and other._track is False and shm._name == "/" + sys.argv[1]
    other.buf[0] = 7
    assert shm.buf[0] == 7
    shm.unlink()
    assert not os.path.exists("/dev/shm/" + sys.argv[1])
    shm.close()
    other.close()
"""
    )
    status, out, errors = run_python(code, name, check=False)
    assert (status, out, errors) == (0, "", "")


def test_private_names_of_the_standard_library(shm, name):
    assert shared_memory.resource_tracker is resource_tracker
    fd = shared_memory._posixshmem.shm_open("/" + name, os.O_RDWR, mode=0o600)
    try:
        assert os.path.sameopenfile(fd, shm._fd)
    finally:
        os.close(fd)
    assert os.fstat(shm._fd).st_size == 100
    os.ftruncate(shm._fd, 200)  # the recipe to grow a segment
    assert os.fstat(shm.fileno()).st_size == 200
    shm.close()
    assert shm._fd == -1
    shared_memory._posixshmem.shm_unlink("/" + name)
    assert not (SHM / name).exists()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = shared_memory.nonsense


def test_private_attributes_have_the_defaults_of_the_standard_library():
    bare, there = SharedMemory.__new__(SharedMemory), stdlib.SharedMemory.__new__(stdlib.SharedMemory)
    for attribute in ("_name", "_fd", "_mmap", "_buf"):
        assert getattr(bare, attribute) == getattr(there, attribute)
        assert getattr(SharedMemory, attribute) == getattr(stdlib.SharedMemory, attribute)
    there._buf = there._mmap = None


def test_a_program_that_drops_the_buffer_before_close(shm, name):
    """With the standard library, close() raises while the buffer is in use, so programs do this."""
    view = shm.buf
    shm._buf = None
    shm._mmap = None
    assert shm.buf is shm._buf is shm._mmap is None
    assert shm.size == shm._size == 100
    view[0] = 7
    shm.close()
    shm.close()
    assert view[0] == 7 and shm._fd == -1
    assert SharedMemory(name).buf[0] == 7
    shm._name = None
    shm.unlink()  # does nothing, as there
    assert (SHM / name).exists()
    shm._name = "/" + name
    shm.unlink()


def test_the_private_map_is_an_mmap(shm, name):
    assert shm._buf == shm.buf and shm._buf.nbytes == shm._size == shm.size
    assert isinstance(shm._mmap, mmap.mmap) and shm._mmap is shm._mmap
    assert shm._mmap.size() == len(shm._mmap) == 100
    shm._mmap.write(b"abc")
    shm._mmap.write(b"def")
    assert bytes(shm.buf[:6]) == b"abcdef"
    shm._buf[0] = 0
    assert shm._mmap[:2] == b"\0b"
    view = memoryview(shm._mmap)
    again = pickle.loads(pickle.dumps(shm))
    assert again.buf[1] == ord("b") and again._mmap is not shm._mmap
    again.close()
    shm.close()
    assert shm._mmap is shm._buf is None
    assert bytes(view[1:3]) == b"bc"
    with SharedMemory.open(name, readonly=True) as reader:
        assert reader._mmap[1:3] == b"bc"
        with pytest.raises(TypeError):
            reader._mmap[0] = 1


def test_private_attributes_return_assigned_values(shm):
    """The recipe to grow a segment: a new map, buffer and size for the same descriptor."""
    os.ftruncate(shm._fd, 8192)
    shm._mmap = larger = mmap.mmap(shm._fd, 8192)
    shm._buf = memoryview(larger)
    shm._size = 8192
    assert (shm._mmap, shm.size, len(shm.buf)) == (larger, 8192, 8192)
    shm.buf[8191] = 5
    del shm._buf
    assert shm.buf is None
    shm.close()
    assert larger[8191] == 5 and shm.size == 8192
    larger.close()


def test_a_descriptor_that_a_program_takes_remains_open(shm):
    fd = shm._fd
    shm._fd = -1
    shm.close()
    assert shm._fd == -1
    assert os.fstat(fd).st_size == 100
    os.close(fd)


def test_a_descriptor_that_a_program_gives_is_closed(shm):
    own, given = shm._fd, os.dup(shm._fd)
    shm._fd = given
    assert shm._fd == given and shm.fileno() == own
    shm.close()
    with pytest.raises(OSError):
        os.fstat(given)
    os.close(own)


def test_attributes_that_are_set_before_the_constructor(name):
    class Early(SharedMemory):
        def __init__(self, name, **options):
            self._name = "/something-else"
            self._fd, self._mmap, self._buf, self._size = -1, None, None, 5
            self._track = False
            super().__init__(name, **options)

    shm = Early(name, create=True, size=10)
    assert (shm.name, shm._name, shm._track) == (name, "/" + name, False)
    assert (shm.size, len(shm.buf)) == (10, 10) and shm._mmap is not None and shm._fd > 2
    shm.unlink()


def test_unlink_after_a_constructor_that_failed_does_nothing(name, shm):
    class Kept(SharedMemory):
        def __init__(self, *args, **options):
            kept.append(self)
            super().__init__(*args, **options)

    kept = []
    for arguments in [(name, True, 10), ("a/b",), (name, True, -1), (f"{name}-missing",), ()]:
        with pytest.raises((OSError, ValueError)):
            Kept(*arguments)
        kept[-1].unlink()
        kept[-1].close()
    bare = SharedMemory.__new__(SharedMemory)
    bare.unlink()
    bare._name = "/" + name
    bare.unlink()
    assert shm.is_linked()


# -- ShareableList ------------------------------------------------------------------------------

ITEMS = [
    "howdy", b"HoWdY", -273.154, 100, None, True, False, 42, "", b"", "seven c", "eight ch",
    "encod\N{LATIN SMALL LETTER E WITH ACUTE}s", -(2**63), 2**63 - 1, -1e300, b"x" * 100,
]  # fmt: skip


def test_items_are_stored_and_read(make_list):
    items = make_list(ITEMS)
    assert list(items) == ITEMS and len(items) == len(ITEMS)
    assert [type(item) for item in items] == [type(item) for item in ITEMS]
    assert items[-1] == ITEMS[-1]
    assert items.count(100) == 1 and items.index(100) == 3
    assert repr(items) == f"ShareableList({ITEMS!r}, name={items.shm.name!r})"
    with pytest.raises(ValueError):
        items.index("not there")


def test_positions_out_of_range(make_list):
    items = make_list([1, 2])
    for position in 2, -3, 10**30:
        with pytest.raises(IndexError):
            items[position]
        with pytest.raises(IndexError):
            items[position] = 1
        with pytest.raises(IndexError):
            items._get_packing_format(position)
    for position in "0", 0.0, slice(1), None:
        with pytest.raises(TypeError):
            items[position]


def test_an_empty_list(make_list):
    for items in make_list([]), make_list(()), make_list(iter([])):
        assert list(items) == [] and items.format == "" and items.count(1) == 0
        assert list(ShareableList(name=items.shm.name)) == []


def test_a_list_without_a_name_gets_one():
    items = ShareableList(iter("abc"))
    items.shm.unlink()
    assert items.shm.name.startswith("psm_") and list(items) == ["a", "b", "c"]


def test_a_name_alone_attaches(make_list):
    items = make_list([1, 2])
    other = ShareableList(name=items.shm.name)
    other[0] = 5
    assert items[0] == 5
    with pytest.raises(FileExistsError):
        ShareableList([1], name=items.shm.name)
    with pytest.raises(FileNotFoundError):
        ShareableList(name=items.shm.name + "-not-there")


def test_an_item_may_change_its_type(make_list):
    items = make_list(["long enough for a slot", 1])
    for value in [3, "short", None, b"bytes", 2.5, True, "as long as the slot is s"]:
        items[0] = value
        assert items[0] == value and type(items[0]) is type(value)
        assert items[1] == 1
    assert items.format == "24sq"
    items[1] = "8 bytes."
    assert items.format == "24s8s"


@pytest.mark.long
@pytest.mark.parametrize("value", ["nine char", b"nine byte", 2**63, [1], object(), "\ud800"])
def test_an_item_that_does_not_fit_changes_nothing(make_list, value):
    items = make_list([1, "2", 3])
    before = bytes(items.shm.buf)
    with pytest.raises((ValueError, TypeError, struct.error)):
        items[1] = value
    assert bytes(items.shm.buf) == before


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (2**63, struct.error),
        ([1], TypeError),
        (1j, TypeError),
        (b"x" * 9_999_992, ValueError),
        ("\ud800", ValueError),
    ],
    ids=lambda value: str(value)[:12],
)
def test_an_item_that_no_list_can_store_leaves_no_object(name, value, error):
    with pytest.raises(error):
        ShareableList([1, value], name=name)
    assert not (SHM / name).exists()


def test_the_longest_text(make_list):
    longest = b"x" * 9_999_991
    assert make_list([longest])[0] == longest


def test_a_text_keeps_its_end_in_utf8(make_list):
    # There, the slot has as many bytes as the text has characters, and the rest is cut off.
    texts = ["\N{EURO SIGN}" * count for count in range(1, 40)]
    assert list(make_list(texts)) == texts


NULS = ["a\0", b"\0b\0\0", b"\0", "\0", b"\0" * 8, "1234567\0", b"x" * 15 + b"\0", "\0" * 24, "é\0"]


def test_trailing_nuls_are_kept(make_list):
    items = make_list(NULS)
    assert list(items) == list(ShareableList(name=items.shm.name)) == NULS
    items = make_list([b"x" * 30] * len(NULS))
    for index, item in enumerate(NULS):
        items[index] = item
        assert items[index] == item and items[index - 1] == (
            NULS[index - 1] if index else b"x" * 30
        )
        items[index] = "no more"
        assert items[index] == "no more"
        items[index] = item
    assert list(items) == NULS
    too_long = "x" * 1_000_000 + "\0"
    with pytest.raises(ValueError, match="ends in NULs has at most"):
        make_list([too_long])


def test_the_standard_library_reads_bytes_that_end_in_nuls(make_list, run_python):
    items = make_list(NULS)
    said = run_python(
        ATTACH_THERE
        + """
import sys
items = attach(shared_memory.ShareableList, sys.argv[1])
print(ascii(list(items)))
items.shm.close()
""",
        items.shm.name,
    )
    there = [item.rstrip("\0") if type(item) is str else item for item in NULS]
    assert said == f"{ascii(there)}\n"


def test_a_closed_list_raises_value_error(make_list):
    items = make_list([1])
    items.shm.close()
    for use in [
        lambda: items[0],
        lambda: items.__setitem__(0, 1),
        lambda: list(items),
        lambda: items.format,
    ]:
        with pytest.raises(ValueError, match="closed"):
            use()
    assert len(items) == 1


def test_subscribing_the_class_is_an_alias():
    assert isinstance(ShareableList[int], types.GenericAlias)


def test_a_subclass_is_pickled_as_one(make_list):
    items = make_list([1])
    again = pickle.loads(pickle.dumps(MyList(name=items.shm.name)))
    assert type(again) is MyList and list(again) == [1]


class MyList(ShareableList):
    pass


@pytest.mark.long
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_list_is_a_reference(make_list, protocol):
    items = make_list(range(500))
    pickled = pickle.dumps(items, protocol)
    assert len(pickled) < 1000
    pickle.loads(pickled)[7] = "seven"
    assert items[7] == "seven"
    name = items.shm.name
    items.shm.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickled)
    other = ShareableList([1], name=name)
    try:
        with pytest.raises(OSError):
            pickle.loads(pickled)
    finally:
        other.shm.unlink()


def test_a_list_has_all_items_before_its_name(start_python, name):
    child = start_python(
        f"""
        from _processes import stopped
        from posixshm.shared_memory import ShareableList
        print("ready", flush=True)
        while not stopped():
            items = ShareableList(range(300), name={name!r})
            items.shm.close()
            items.shm.unlink()
        """,
        env=PATH,
    )
    child.hear("ready")
    seen = 0
    deadline = time.monotonic() + 60
    while seen < 100:
        assert time.monotonic() < deadline
        try:
            items = ShareableList(name=name)
        except FileNotFoundError:
            continue
        assert list(items) == list(range(300))
        items.shm.close()
        seen += 1
    child.say("stop")
    child.finish()


# -- together with the standard library ---------------------------------------------------------


def any_item(chance):
    text = "".join(chr(chance.randrange(128)) for _ in range(chance.randrange(20))).rstrip("\0")
    numbers = [0, 1, -1, 2**31, -(2**63), 2**63 - 1, chance.getrandbits(63), chance.random() / 3]
    return chance.choice(
        [*numbers, -0.0, float("-inf"), True, False, None] + [text, text.encode()] * 6
    )


def test_the_bytes_are_those_of_the_standard_library():
    chance = random.Random(2)
    refused = 0
    for _ in range(300):
        items = [any_item(chance) for _ in range(chance.randrange(8))]
        there, here = stdlib.ShareableList(items), ShareableList(items)
        try:
            assert bytes(here.shm.buf) == bytes(there.shm.buf)
            for _ in range(3 if items else 0):
                index, value = chance.randrange(-len(items), len(items)), any_item(chance)
                for each in there, here:
                    try:
                        each[index] = value
                    except ValueError:
                        refused += 1
                assert list(here) == list(there) and here.format == there.format
                assert [type(item) for item in here] == [type(item) for item in there]
                assert bytes(here.shm.buf) == bytes(there.shm.buf)
        finally:
            for each in there, here:
                each.shm.close()
                each.shm.unlink()
    assert refused > 10 and refused % 2 == 0


def test_a_list_made_here_is_used_there(make_list, run_python):
    items = make_list(ITEMS)
    said = run_python(
        ATTACH_THERE
        + """
import sys
items = attach(shared_memory.ShareableList, sys.argv[1])
print(ascii(list(items)), items.format)
items[0], items[1], items[3], items[4], items[16] = b"there", 7, "text", 1.5, "y" * 104
items.shm.close()
""",
        items.shm.name,
    )
    assert said == f"{ascii(ITEMS)} {make_list(ITEMS).format}\n"
    assert [items[index] for index in (0, 1, 3, 4, 16)] == [b"there", 7, "text", 1.5, "y" * 104]


def test_a_list_made_there_is_used_here(start_python, name):
    child = start_python(
        """
        import sys
        from multiprocessing import shared_memory
        items = shared_memory.ShareableList(eval(sys.argv[2]), name=sys.argv[1])
        print("made")
        input()
        print(ascii(list(items)), items.format)
        items.shm.close()
        items.shm.unlink()
        """,
        name,
        ascii(ITEMS),
    )
    child.hear("made")
    items = ShareableList(name=name)
    assert list(items) == ITEMS
    items[0], items[1], items[3], items[4], items[16] = b"here", 7, "text", 1.5, "y" * 104
    child.say("go on")
    assert child.hear() == f"{ascii(list(items))} {items.format}"
    assert items[0] == b"here"
    child.finish()


def test_an_object_made_here_is_used_there(shm, run_python):
    shm.buf[:5] = b"howdy"
    said = run_python(
        ATTACH_THERE
        + """
import sys
shm = attach(shared_memory.SharedMemory, sys.argv[1])
print(shm.size, bytes(shm.buf[:5]))
shm.buf[:5] = b"there"
shm.close()
""",
        shm.name,
    )
    assert said == "100 b'howdy'\n"
    assert shm.buf[:5] == b"there"


def test_an_object_made_there_is_used_here(start_python, name):
    child = start_python(
        """
        import sys
        from multiprocessing import shared_memory
        shm = shared_memory.SharedMemory(sys.argv[1], create=True, size=100)
        print("made")
        input()
        print(bytes(shm.buf[:5]))
        shm.close()
        shm.unlink()
        """,
        name,
    )
    child.hear("made")
    with SharedMemory(name) as shm:
        assert shm.size == 100
        shm.buf[:5] = b"howdy"
    child.say("go on")
    child.hear("b'howdy'")
    child.finish()


# -- damaged lists ------------------------------------------------------------------------------


def image(count, starts, slots, formats, codes):
    """The bytes of a list with these parts."""
    head = struct.pack(f"{1 + len(starts)}q", count, *starts)
    return head + slots + b"".join(f.ljust(8, b"\0") for f in formats) + bytes(codes)


GOOD = (2, [0, 8, 24], b"\1" + bytes(7) + b"text" + bytes(12), [b"q", b"16s"], [0, 1])


def damaged(**changes):
    parts = dict(zip(["count", "starts", "slots", "formats", "codes"], GOOD, strict=True))
    return image(**{**parts, **changes})


def open_image(content, name):
    path = SHM / name
    path.write_bytes(content)
    try:
        return ShareableList(name=name)
    finally:
        path.unlink()


def test_the_layout_of_a_list(make_list, name):
    assert image(*GOOD) == bytes(make_list([1, "textlong"]).shm.buf).replace(b"long", bytes(4))
    assert list(open_image(image(*GOOD), name)) == [1, "text"]


@pytest.mark.parametrize(
    "content",
    [
        b"\0",
        bytes(15),
        bytes(4096),
        b"\xff" * 4096,
        b"\1" + bytes(200),
        image(*GOOD)[:-1],
        damaged(count=-1),
        damaged(count=2**62),
        damaged(count=2**63 - 1),
        damaged(count=3),
        damaged(starts=[8, 16, 24]),
        damaged(starts=[0, 24, 8]),
        damaged(starts=[0, 8, 8]),
        damaged(starts=[0, 8, 25]),
        damaged(starts=[0, 8, 2**62]),
        damaged(starts=[0, 8, -(2**63)]),
        damaged(starts=[0, -(2**63), 2**63 - 1]),
    ],
    ids=lambda content: str(len(content)),
)
def test_attaching_to_a_damaged_list(content, name):
    with pytest.raises(ValueError, match=f"{name}' does not contain a ShareableList"):
        open_image(content, name)


@pytest.mark.parametrize(
    "parts",
    [
        dict(formats=[b"q", b"17s"]),
        dict(formats=[b"q", b"9999999s"]),
        dict(formats=[b"q", b"99999999"]),
        dict(formats=[b"q", b"-1s"]),
        dict(formats=[b"q", b" 1s"]),
        dict(formats=[b"q", b"s"]),
        dict(formats=[b"q", b""]),
        dict(formats=[b"q", b"P"]),
        dict(formats=[b"q", b"n16s"]),
        dict(formats=[b"q", b"\xff\xfe"]),
        dict(formats=[b"q", b"\xb2s"]),
        dict(formats=[b"q", b"017s"]),
        dict(codes=[0, 3]),
        dict(codes=[0, 4]),
        dict(codes=[0, 255]),
        dict(formats=[b"q", b"q"], codes=[0, 1]),
        dict(formats=[b"q", b"xxxxxx?x"], codes=[0, 2]),
        dict(slots=bytes(8) + b"\xff" * 16),
    ],
    ids=str,
)
def test_reading_a_damaged_item(parts, name):
    items = open_image(damaged(**parts), name)
    assert items[0] in (0, 1)
    with pytest.raises(ValueError, match=f"item 1 of the list '{name}' is damaged"):
        items[1]
    with pytest.raises(ValueError):
        list(items)
    items[1] = "repaired"
    assert items[1] == "repaired"


def test_a_damaged_list_never_crashes(name):
    chance = random.Random(1)
    whole = image(*GOOD)
    opened = 0
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            content[chance.randrange(len(content))] = chance.choice([0, 1, 2, 0x73, 0x7F, 0xFF])
        try:
            items = open_image(content, name)
        except ValueError:
            continue
        opened += 1
        for index in range(len(items)):
            with contextlib.suppress(ValueError):
                items[index]
            with contextlib.suppress(ValueError):
                items[index] = index
                assert items[index] == index
    assert opened > 100


@pytest.mark.long
@pytest.mark.parametrize(
    "starts",
    [[0, -8, 16], [0, 2**60, 16], [0, 12, 16], [0, -(2**63), 16], [0, 16, 16], [-8, 16, 16]],
)
def test_a_moved_slot_is_an_error_for_its_items_only(make_list, starts):
    """The list is in use: each item is checked when it is read or written."""
    items = make_list([1, 2])
    before = bytes(items.shm.buf)
    struct.pack_into("3q", items.shm.buf, 8, *starts)
    moved = bytes(items.shm.buf)
    wrong = 0
    for index in range(2):
        try:
            items[index]
        except ValueError as error:
            assert f"item {index} of the list" in str(error)
            wrong += 1
            with pytest.raises(ValueError):
                items[index] = 5
    assert wrong and bytes(items.shm.buf) == moved
    items.shm.buf[:] = before
    assert list(items) == [1, 2]


def test_a_slot_longer_than_any_text_is_an_error(name):
    items = open_image(damaged(starts=[0, 8, 10**7 + 8], slots=bytes(10**7 + 8)), name)
    with pytest.raises(ValueError, match="item 1 of the list"):
        items[1]


def test_a_sparse_list_costs_neither_memory_nor_time(name, run_python):
    """An object of 2 GiB of zeros with a few words that claim items in all of it."""
    size = 2 << 30
    most = size // 25
    for count, end in [
        (size // 8 - 2, 0),
        (most - 1, most * 8),
        (most - 1, most * 8 - 64),
        (5, 2**40),
    ]:
        with open(SHM / name, "wb") as file:
            file.truncate(size)
            file.write(struct.pack("q", count))
            file.seek((count + 1) * 8)
            file.write(struct.pack("q", end))
        run_python(
            """
            import resource, sys, time
            from posixshm.shared_memory import ShareableList
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            start = time.process_time()
            try:
                items = ShareableList(name=sys.argv[1])
            except ValueError:
                pass
            else:
                # Not by list(): without a GIL that touches the memory of as many items as len() says.
                for use in (lambda: items[0], lambda: items[-1], lambda: [each for each in items],
                            lambda: items.format, lambda: items.count(1), lambda: repr(items)):
                    try:
                        use()
                    except ValueError:
                        continue
                    raise AssertionError
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
            assert time.process_time() - start < 2  # a walk over all items takes minutes
            """,
            name,
        )
        (SHM / name).unlink()


def test_an_object_that_became_smaller_than_its_list(make_list):
    items = make_list(range(1000))
    items.shm.resize(100, shrink=True)
    with pytest.raises(ValueError, match="smaller"):
        items[0]


def test_the_error_for_an_existing_name_suggests_valid_arguments(name):
    with SharedMemory(name, create=True, size=10, track=False) as shm:
        for call in (
            lambda: SharedMemory(name, create=True, size=10, track=False),
            lambda: ShareableList([1], name=name),
        ):
            with pytest.raises(FileExistsError, match="attaches to") as caught:
                call()
            assert "exist_ok" not in str(caught.value)
            assert caught.value.filename == name
        shm.unlink()
