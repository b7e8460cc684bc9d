"""Pickled handles: by reference if they have a name, otherwise by descriptor with
multiprocessing."""

import concurrent.futures
import contextlib
import copy
import errno
import gc
import io
import multiprocessing as mp
import os
import pickle
import signal
import sys
import threading

import numpy as np
import pytest
from _processes import COUNTING, PATH, needs_mounts, shm_names

from posixshm import PAGESIZE, PROT_NONE, PROT_READ, PROT_WRITE, SharedMemory

SHM = "/dev/shm/"
DEADLINE = 60
FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
METHODS = ["fork", "forkserver", "spawn"]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 1000, delete=True) as handle:
        handle.buf[:3] = b"abc"
        yield handle


class Sub(SharedMemory):
    """A subclass whose objects have a __dict__."""


class Slotted(SharedMemory):
    __slots__ = ("extra",)


class Stateful(SharedMemory):
    def __getstate__(self):
        return {"told": self.secret + 1}

    def __setstate__(self, state):
        self.heard = state["told"]


# -- by reference -------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_named_handle_is_pickled_by_reference(shm, protocol):
    data = pickle.dumps(shm, protocol)
    assert len(data) < 500
    with pickle.loads(data) as other:
        assert type(other) is SharedMemory and other is not shm
        assert (other.name, other.size, other.readonly, other.created) == (
            shm.name,
            1000,
            False,
            False,
        )
        assert other.fileno() == shm.fileno()  # shared, and closed with the last of them
        assert other.stat().st_ino == shm.stat().st_ino
        other.buf[0] = ord("A")
    assert shm.buf[:3] == b"Abc"
    assert shm.is_linked()  # the copy does not delete the object


def test_readonly_and_max_size_are_pickled(shm):
    with SharedMemory.open(shm.name, readonly=True, max_size=64 * PAGESIZE) as reader:
        with pickle.loads(pickle.dumps(reader)) as other:
            assert other.readonly and other.buf.readonly
            assert other.max_size == 64 * PAGESIZE
            view = other.buf
            shm.resize(5000)
            assert other.size == 5000 and other.buf.obj is view.obj


@pytest.mark.parametrize("function", [copy.copy, copy.deepcopy])
def test_a_copy_is_another_handle(shm, function):
    with function(shm) as other:
        assert other.stat().st_ino == shm.stat().st_ino
        assert other.fileno() == shm.fileno()  # shared, and closed with the last of them
        other.buf[0] = 1
        assert shm.buf[0] == 1


def test_one_handle_pickled_twice_is_one_handle(shm):
    one, two, others = pickle.loads(pickle.dumps([shm, shm, {"key": shm}]))
    assert one is two is others["key"]
    one.close()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_the_state_of_a_subclass_is_pickled(name, protocol):
    with Sub.create(name, 10, delete=True) as shm:
        shm.notes = ["a", {"b": 1}]
        with pickle.loads(pickle.dumps(shm, protocol)) as other:
            assert type(other) is Sub
            assert other.__dict__ == {"notes": ["a", {"b": 1}]}
            assert other.notes is not shm.notes
    with Slotted.create(name, 10, delete=True) as shm:
        shm.extra = (1, 2)
        with pickle.loads(pickle.dumps(shm, protocol)) as other:
            assert type(other) is Slotted and other.extra == (1, 2)
    with Stateful.create(name, 10, delete=True) as shm:
        shm.secret = 41
        with pickle.loads(pickle.dumps(shm, protocol)) as other:
            assert other.__dict__ == {"heard": 42}


def test_a_cycle_through_the_state(name):
    with Sub.create(name, 10, delete=True) as shm:
        shm.list = [shm]
        other = pickle.loads(pickle.dumps(shm))
        assert other.list[0] is other
        other.close()
        del shm.list


def test_an_attached_handle_can_be_pickled(shm):
    with SharedMemory.open(shm.name) as attached, pickle.loads(pickle.dumps(attached)) as other:
        assert other.buf[:3] == b"abc"


def test_a_handle_that_was_named_later_can_be_pickled(name, names):
    other_name = names()
    with SharedMemory.unlinked(10) as shm:
        with pytest.raises(TypeError):
            pickle.dumps(shm)
        shm.link(name)
        pickle.loads(pickle.dumps(shm)).close()
        shm.rename(other_name)
        with pickle.loads(pickle.dumps(shm)) as other:
            assert other.name == other_name
        shm.unlink()


def test_the_pure_python_pickler_too(shm):
    file = io.BytesIO()
    pickle._Pickler(file).dump(shm)
    file.seek(0)
    with pickle._Unpickler(file).load() as other:
        assert other.buf[:3] == b"abc"


# -- errors -------------------------------------------------------------------------------------


def refused(data, error, number, name):
    before = shm_names(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(error) as caught:
        pickle.loads(data)
    assert caught.value.errno == number
    assert caught.value.filename == name
    assert (shm_names(), len(os.listdir("/proc/self/fd"))) == before
    return str(caught.value)


def test_unpickling_after_the_object_was_removed(name):
    with SharedMemory.create(name, 10, delete=True) as shm:
        data = pickle.dumps(shm)
    refused(data, FileNotFoundError, errno.ENOENT, name)


def test_unpickling_after_the_object_was_created_again(name):
    with SharedMemory.create(name, 10, delete=True) as shm:
        data = pickle.dumps(shm)
    with SharedMemory.create(name, 10, delete=True):
        assert "another object" in refused(data, OSError, errno.ESTALE, name)


def test_unpickling_after_the_object_was_replaced(name):
    with SharedMemory.create(name, 10) as shm, SharedMemory.unlinked(10) as other:
        data = pickle.dumps(shm)
        other.link(name, replace=True)
        refused(data, OSError, errno.ESTALE, name)
        other.unlink()


def test_unpickling_after_the_object_was_renamed(name, names):
    with SharedMemory.create(name, 10) as shm:
        data = pickle.dumps(shm)
        shm.rename(names())
        refused(data, FileNotFoundError, errno.ENOENT, name)
        shm.unlink()


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().strip()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_host_or_another_boot_of_this_host(shm, protocol):
    data = pickle.dumps(shm, protocol)
    assert data.count(boot_id()) == 1
    other = data.replace(boot_id(), b"01234567-89ab-cdef-0123-456789abcdef")
    message = refused(other, OSError, errno.EREMOTE, shm.name)
    assert "host" in message


def test_the_host_is_checked_first(name):
    """The error names the host even if the name does not exist here."""
    with SharedMemory.create(name, 10, delete=True) as shm:
        data = pickle.dumps(shm)
    other = data.replace(boot_id(), b"01234567-89ab-cdef-0123-456789abcdef")
    refused(other, OSError, errno.EREMOTE, name)


def test_unpickling_if_another_file_has_the_name(name):
    with SharedMemory.create(name, 10, delete=True) as shm:
        data = pickle.dumps(shm)
    for make, remove, number in [
        (os.mkfifo, os.unlink, errno.EINVAL),
        (os.mkdir, os.rmdir, errno.EISDIR),
        (lambda path: os.symlink("/etc/passwd", path), os.unlink, errno.ELOOP),
    ]:
        make(SHM + name)
        try:
            refused(data, OSError, number, name)
        finally:
            remove(SHM + name)


def test_unpickling_after_the_object_outgrew_max_size(name):
    with SharedMemory.create(name, 10, max_size=PAGESIZE, delete=True) as shm:
        data = pickle.dumps(shm)
        os.truncate(SHM + name, 2 * PAGESIZE)
        with pytest.raises(ValueError, match=f"max_size must be at least .*{name}.* {2 * PAGESIZE} bytes, not {PAGESIZE}"):
            pickle.loads(data)
        with SharedMemory.create(None, 2 * PAGESIZE) as other:
            other.rename(name, replace=True)
            refused(data, OSError, errno.ESTALE, name)
            other.unlink()


def test_the_error_without_proc_names_the_missing_file(run_python, name):
    needs_mounts()
    code = """
import pickle, sys
from _processes import mount_tmpfs, private_shm, unmount
from posixshm import SharedMemory
private_shm()
shm = SharedMemory.create(sys.argv[1], 10)
mount_tmpfs("/proc", "size=1m")
try:
    pickle.dumps(shm)
except FileNotFoundError as error:
    assert error.filename == "/proc/sys/kernel/random/boot_id", error
    assert "pickle" in str(error) and "/proc mounted" in str(error), error
else:
    raise AssertionError
unmount("/proc")
pickle.dumps(shm)
mount_tmpfs("/proc", "size=1m")  # it was read before and does not change
pickle.loads(pickle.dumps(shm)).close()
"""
    run_python(code, name, env=PATH)


def test_unpickling_while_the_object_is_empty(name):
    with SharedMemory.create(name, 10, delete=True) as shm:
        data = pickle.dumps(shm)
        os.truncate(SHM + name, 0)
        refused(data, OSError, errno.ENODATA, name)
        os.truncate(SHM + name, 20)
        with pickle.loads(data) as other:
            assert other.size == 20


NAMELESS = {
    "anonymous": lambda: SharedMemory.anonymous(1000),
    "unlinked": lambda: SharedMemory.unlinked(1000),
    "subclass": lambda: Sub.anonymous(1000),
    "with room": lambda: SharedMemory.anonymous(1000, max_size=64 * PAGESIZE),
    "from_fd": lambda: SharedMemory.from_fd(memory_file(1000)),
}


def memory_file(size):
    fd = os.memfd_create("posixshm-test")
    os.posix_fallocate(fd, 0, size)
    return fd


@pytest.mark.parametrize("make", NAMELESS.values(), ids=NAMELESS)
def test_a_handle_without_a_name_needs_multiprocessing(make):
    with make() as shm:
        for protocol in PROTOCOLS:
            with pytest.raises(TypeError, match="multiprocessing"):
                pickle.dumps(shm, protocol)
        for function in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="multiprocessing"):
                function(shm)
        assert not shm.closed


@pytest.mark.parametrize("end", ["close", "detach"])
def test_a_closed_handle_with_a_name_can_be_pickled(name, end):
    with Sub.create(name, 100) as owner:
        reader = Sub.open(name, readonly=True)
        reader.told = 5
        if end == "close":
            reader.close()
        else:
            os.close(reader.detach())
        for dumps in (pickle.dumps, mp.reduction.ForkingPickler.dumps):
            with pickle.loads(dumps(reader)) as other:
                assert type(other) is Sub and other.told == 5 and other.readonly
                owner.buf[0] += 1
                assert other.buf[0] == owner.buf[0]
        with copy.copy(reader) as other:
            assert not other.closed and reader.closed
        owner.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(reader))


def test_closed_handles_without_a_name_are_not_pickled():
    for shm in [SharedMemory.anonymous(10), SharedMemory.__new__(SharedMemory)]:
        shm.close()
        with pytest.raises(ValueError, match="closed.* after put"):
            pickle.dumps(shm)
        with pytest.raises(ValueError, match="closed"):
            mp.reduction.ForkingPickler.dumps(shm)


def test_a_handle_without_descriptor_is_pickled_by_reference_only():
    with SharedMemory.create(None, 10, delete=True) as shm:
        shm.close_fd()
        pickle.loads(pickle.dumps(shm)).close()
    with SharedMemory.anonymous(10) as shm:
        shm.close_fd()
        with pytest.raises((ValueError, TypeError)):
            mp.reduction.ForkingPickler.dumps(shm)


def test_creating_a_handle_imports_nothing(run_python):
    run_python(
        """
        import sys
        import posixshm
        before = set(sys.modules)
        anonymous = posixshm.SharedMemory.anonymous(100)
        unlinked = posixshm.SharedMemory.unlinked(100)
        received = posixshm.SharedMemory.from_fd(unlinked.detach())
        assert set(sys.modules) == before, set(sys.modules) - before
        import pickle
        try:
            pickle.dumps(anonymous)
        except TypeError:
            pass
        else:
            raise AssertionError
        assert "multiprocessing" not in sys.modules
        from multiprocessing.reduction import ForkingPickler
        for shm in (anonymous, received):
            with pickle.loads(ForkingPickler.dumps([shm, shm]))[1] as other:
                other.buf[0] = 5
            assert shm.buf[0] == 5
        """
    )


def test_a_pickler_of_another_package(run_python):
    """torch.multiprocessing does this. multiprocessing need not know the class of the handle."""
    run_python(
        """
        import posixshm, io, multiprocessing.reduction, pickle
        class Sub(posixshm.SharedMemory):
            pass
        shm = Sub.anonymous(100)
        shm.extra = [shm]
        shm.buf[0] = 9
        stream = io.BytesIO()
        multiprocessing.reduction.ForkingPickler(stream).dump([shm, shm])
        one, other = pickle.loads(stream.getvalue())
        assert one is other and type(one) is Sub and one.buf[0] == 9
        assert one.extra[0] is one
        """
    )


@pytest.mark.parametrize("function", ["dump", "ForkingPickler.dumps"])
def test_multiprocessing_is_imported_after_the_handle_was_made(run_python, function):
    """The first pickler is made before the reducer of descriptors exists."""
    run_python(
        f"""
        import posixshm, io, pickle, sys
        shm = posixshm.SharedMemory.anonymous(100)
        shm.buf[0] = 9
        assert "multiprocessing" not in sys.modules
        from multiprocessing import reduction
        stream = io.BytesIO()
        if {function!r} == "dump":
            reduction.dump([shm, shm], stream)
            data = stream.getvalue()
        else:
            data = reduction.ForkingPickler.dumps([shm, shm])
        one, other = pickle.loads(data)
        assert one is other and one.buf[0] == 9
        """
    )


def test_a_forged_pickle_is_an_error_or_the_object(shm):
    """A forged pickle is an error or this object; never a crash or an incomplete object."""
    attach, arguments, *_ = shm.__reduce__()
    attach(*arguments).close()
    garbage = [None, -1, 0, 2**63, 2**64, 2**100, "", "a/b", "\0", b"x", 1.5, [], object]
    garbage += [SharedMemory, int, type, Sub, "no-such-name", "x" * 10_000, "\ud800"]
    for index in range(len(arguments)):
        for value in garbage:
            forged = list(arguments)
            forged[index] = value
            with contextlib.suppress(TypeError, ValueError, OverflowError, OSError, AttributeError):
                handle = attach(*forged)
                assert isinstance(handle, SharedMemory)
                assert handle.name == shm.name and handle.size == shm.size
                handle.close()
    for count in range(len(arguments)):
        with pytest.raises(TypeError):
            attach(*arguments[:count])
    with pytest.raises(TypeError):
        attach(*arguments, None)


# -- sharing within the process -----------------------------------------------------------------


def maps_of(shm):
    """The permissions of each mapping of the object in this process."""
    inode = shm.stat().st_ino
    with open("/proc/self/maps") as maps:
        fields = [line.split() for line in maps]
    return sorted(each[1] for each in fields if each[4] == str(inode))


def test_unpickling_takes_no_descriptor_and_no_mapping(shm):
    descriptors = len(os.listdir("/proc/self/fd"))
    assert maps_of(shm) == ["rw-s"]
    data = pickle.dumps(shm)
    handles = [pickle.loads(data) for _ in range(1000)]
    handles += [pickle.loads(pickle.dumps(each)) for each in handles]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert maps_of(shm) == ["rw-s"]
    handles[500].buf[5] = 55
    assert shm.buf[5] == handles[-1].buf[5] == 55
    for each in handles:
        each.close()
    assert shm.buf[5] == 55 and shm.stat().st_size == 1000


def test_each_unpickled_handle_outlives_the_others(name):
    handles = [SharedMemory.create(name, 10)]
    for _ in range(3):
        handles.append(pickle.loads(pickle.dumps(handles[-1])))
    while len(handles) > 1:
        handles.pop(0).close()
        handles[0].buf[0] += 1
        assert handles[0].fileno() >= 0 and not handles[0].closed
    os.close(handles[0].detach())
    with pickle.loads(pickle.dumps(handles[0])) as last:
        assert last.buf[0] == 3
        last.unlink()


def test_a_reader_never_gets_a_writable_map(shm):
    reader = SharedMemory.open(shm.name, readonly=True)
    for _ in range(2):
        copies = [pickle.loads(pickle.dumps(each)) for each in (shm, reader, shm, reader)]
        assert [each.readonly for each in copies] == [False, True, False, True]
        for each in copies:
            with memoryview(each) as view:
                assert view.readonly == each.readonly
        assert maps_of(shm) == ["r--s", "rw-s"]
        with pytest.raises(PermissionError):
            copies[1].protect(PROT_READ | PROT_WRITE)
    for each in (*copies, reader):
        each.close()


def test_protection_belongs_to_one_handle(shm):
    first, second = (pickle.loads(pickle.dumps(shm)) for _ in range(2))
    first.protect(PROT_READ)
    assert first.readonly and not second.readonly and not shm.readonly
    second.buf[0] = 1
    assert first.buf[0] == 1
    view = shm.buf
    shm.protect(PROT_READ)
    view[0] = 2  # the view keeps its permissions
    assert first.buf[0] == second.buf[0] == shm.buf[0] == 2
    # A protected mapping is not shared.
    with pickle.loads(pickle.dumps(first)) as third:
        third.buf[0] = 3
    second.protect(PROT_READ)
    kept = second.buf
    with pytest.raises(BufferError):
        second.protect(PROT_NONE)
    kept.release()
    for each in (first, second):
        each.close()


def test_unpickling_after_another_process_changed_the_size(shm, start_python):
    data = pickle.dumps(shm)
    child = start_python(
        """
        import sys
        from posixshm import SharedMemory
        with SharedMemory.open(sys.argv[1]) as shm:
            shm.resize(50_000)
            shm.buf[-1] = 7
        """,
        shm.name,
    )
    child.finish()
    with pickle.loads(data) as grown, pickle.loads(data) as again:
        assert grown.size == again.size == 50_000 and grown.buf[-1] == 7
        assert shm.size == 1000
        assert maps_of(shm) == ["rw-s", "rw-s"]


def test_a_shared_map_forbids_to_shrink(shm):
    shm.resize(3 * PAGESIZE)
    with pickle.loads(pickle.dumps(shm)) as other:
        with pytest.raises(BufferError):
            shm.resize(PAGESIZE, shrink=True)
        assert other.buf[-1] == 0
        other.resize(4 * PAGESIZE)
        assert shm.size == 3 * PAGESIZE
        shm.refresh()
        assert shm.size == 4 * PAGESIZE
    shm.resize(PAGESIZE, shrink=True)


def test_unpickling_a_removed_name_fails_although_the_object_is_mapped(name):
    with SharedMemory.create(name, 10) as shm:
        data = pickle.dumps(shm)
        shm.unlink()
        with pytest.raises(FileNotFoundError):
            pickle.loads(data)
        with SharedMemory.create(name, 10, delete=True):
            with pytest.raises(OSError) as info:
                pickle.loads(data)
            assert info.value.errno == errno.ESTALE


def test_unpickling_after_all_descriptors_were_closed(run_python, name):
    """A daemon does this. The number then belongs to another file."""
    run_python(
        """
        import os, pickle, sys
        from posixshm import SharedMemory
        shm = SharedMemory.create(sys.argv[1], 10)
        data = pickle.dumps(shm)
        number = shm.fileno()
        os.closerange(3, 64)
        while os.open("/dev/null", os.O_RDWR) < number:
            pass
        other = pickle.loads(data)
        assert os.fstat(other.fileno()).st_size == 10
        other.unlink()
        os._exit(0)
        """,
        name,
    )


def test_a_forked_child_shares_the_inherited_mapping(shm):
    data = pickle.dumps(shm)
    pid = os.fork()
    if pid == 0:
        try:
            other = pickle.loads(data)
            other.buf[0] = 66
            shm.close()
            other.buf[1] = 67
            assert maps_of(other) == ["rw-s"]
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert shm.buf[:2] == bytes([66, 67])


def test_threads_that_pickle_unpickle_and_close(shm, run_threads):
    reader = SharedMemory.open(shm.name, readonly=True)

    def work():
        for number in range(300):
            source = reader if number % 3 == 0 else shm
            one = pickle.loads(pickle.dumps(source))
            other = pickle.loads(pickle.dumps(one))
            one.close()
            assert other.buf[0] == 97 and other.readonly == source.readonly
            if number % 5 == 0:
                other.protect(PROT_READ)

    run_threads(*[work] * 8)
    reader.close()
    assert maps_of(shm) == ["rw-s"]


def test_protect_while_another_thread_unpickles(shm, run_threads):
    """The new handle does not share a mapping that protect() changes."""
    rounds = 10_000 if FREE_THREADED else 500
    barrier = threading.Barrier(2, timeout=DEADLINE)
    protected, rights = None, set()

    def protect():
        for _ in range(rounds):
            barrier.wait()
            protected.protect(PROT_READ)
            barrier.wait()

    def unpickle():
        nonlocal protected
        for _ in range(rounds):
            protected = SharedMemory.open(shm.name)
            data = pickle.dumps(protected)
            barrier.wait()
            other = pickle.loads(data)
            barrier.wait()
            rights.add((protected.readonly, other.readonly))
            other.close()
            protected.close()

    run_threads(protect, unpickle)
    assert rights == {(True, False)}


# -- through multiprocessing --------------------------------------------------------------------

TRAVELLERS = {
    "named": lambda: SharedMemory.create(None, 1000, delete=True),
    "named subclass": lambda: Sub.create(None, 1000, delete=True),
    **NAMELESS,
}


def look(shm):
    """In the other process: return the properties of the handle, and change its last bytes."""
    view = np.ndarray(shm.size, "u1", buffer=shm)
    view[-1] = 77
    seen = (type(shm).__name__, shm.name, shm.size, shm.max_size, shm.readonly, bytes(view[:3]))
    state = getattr(shm, "__dict__", {})
    shm.close()
    view[-2] = 78
    return (*seen, state)


def expected(shm):
    kind = type(shm).__name__
    state = getattr(shm, "__dict__", {})
    return (kind, shm.name, 1000, shm.max_size, False, b"abc", state)


@pytest.fixture
def travellers():
    """A handle of each kind; at the end each must show that another process has used it."""
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(make()) for make in TRAVELLERS.values()]
        for shm in handles:
            shm.buf[:3] = b"abc"
            if isinstance(shm, Sub):
                shm.notes = ["of a subclass"]
        yield handles
        for kind, shm in zip(TRAVELLERS, handles, strict=True):
            assert not shm.closed
            assert (kind, bytes(shm.buf[-2:])) == (kind, bytes([78, 77]))


# With spawn the arguments of the process are pickled, and nothing is inherited.
@pytest.fixture(
    params=["spawn", *(pytest.param(method, marks=pytest.mark.long) for method in METHODS[:2])]
)
def context(request, monkeypatch):
    """A start method, whose processes print their stacks when they are aborted."""
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    return mp.get_context(request.param)


@contextlib.contextmanager
def running(process):
    """Run a process, which must end before the deadline."""
    process.start()
    try:
        yield process
        process.join(DEADLINE)
        if process.is_alive():
            os.kill(process.pid, signal.SIGABRT)
            pytest.fail(f"a process hung for {DEADLINE} seconds; see its stacks")
        assert process.exitcode == 0
    finally:
        if process.is_alive():
            process.join(5)
            process.kill()
        process.join()
        process.close()


def receive(connection):
    assert connection.poll(DEADLINE), "no message arrived"
    return connection.recv()


def _process(connection, *handles):
    connection.send([look(shm) for shm in handles])
    connection.close()


@pytest.mark.long
def test_as_arguments_of_a_process(context, travellers):
    ours, theirs = context.Pipe()
    with ours, theirs, running(context.Process(target=_process, args=(theirs, *travellers))):
        assert receive(ours) == [expected(shm) for shm in travellers]


def _queue(inbox, outbox):
    while (shm := inbox.get(timeout=DEADLINE)) is not None:
        outbox.put(look(shm))


@pytest.mark.long
def test_through_a_queue(context, travellers):
    inbox, outbox = context.Queue(), context.Queue()
    with running(context.Process(target=_queue, args=(inbox, outbox))):
        for shm in [*travellers, None]:
            inbox.put(shm)
        for shm in travellers:
            assert outbox.get(timeout=DEADLINE) == expected(shm)
    for queue in (inbox, outbox):
        queue.close()
        queue.join_thread()


def _put_and_close(queue, name):
    with SharedMemory.create(name, 100) as shm:
        shm.buf[0] = 7
        queue.put(shm)


def test_a_handle_that_is_closed_before_the_queue_has_pickled_it(context, name):
    queue = context.Queue()
    with running(context.Process(target=_put_and_close, args=(queue, name))):
        with queue.get(timeout=DEADLINE) as shm:
            assert shm.buf[0] == 7 and not shm.created
            shm.unlink()
    queue.close()
    queue.join_thread()


def test_errors_of_pickling_are_raised_in_the_caller(context):
    """Except for Queue, whose put() returns before its thread pickles."""
    shm = SharedMemory.anonymous(10)
    shm.close()
    ours, theirs = context.Pipe()
    queue = context.SimpleQueue()
    with ours, theirs:
        for send in (ours.send, queue.put):
            with pytest.raises(ValueError, match="closed"):
                send(shm)
    queue.close()
    with context.Pool(1) as pool:
        with pytest.raises(ValueError, match="closed"):
            pool.apply_async(look, (shm,)).get(DEADLINE)
        pool.close()
        pool.join()
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        with pytest.raises(ValueError, match="closed"):
            executor.submit(look, shm).result(DEADLINE)


def _make(connection):
    """Create objects in this process, and wait until the other process has received them."""
    for make in TRAVELLERS.values():
        shm = make()
        shm.buf[:3] = b"abc"
        connection.send(shm)
        assert receive(connection) == "arrived"
        shm.close()
    connection.close()


def test_back_from_a_process(context):
    ours, theirs = context.Pipe()
    handles = []
    with ours, theirs, running(context.Process(target=_make, args=(theirs,))):
        for _ in TRAVELLERS:
            handles.append(receive(ours))
            ours.send("arrived")
    # Their creator has ended.
    for shm in handles:
        assert shm.buf[:3] == b"abc" and not shm.created
        shm.buf[0] = 1
        shm.close()


def _echo(connection):
    while (shm := receive(connection)) is not None:
        shm.buf[0] += 1
        connection.send(shm)
        assert receive(connection) == "arrived"
        shm.close()
    connection.close()


@pytest.mark.long
def test_there_and_back_again(context):
    """A received handle can be sent again."""
    ours, theirs = context.Pipe()
    with ours, theirs, running(context.Process(target=_echo, args=(theirs,))):
        shm = SharedMemory.anonymous(10)
        for _ in range(5):
            ours.send(shm)
            other = receive(ours)
            ours.send("arrived")
            shm.close()
            shm = other
        ours.send(None)
    assert shm.buf[0] == 5
    shm.close()


def can_become_writable(shm):
    """Can a read-only handle become writable?"""
    for function in (
        lambda: shm.map(readonly=False),
        lambda: shm.protect(PROT_READ | PROT_WRITE),
        lambda: shm.map().protect(PROT_READ | PROT_WRITE),
    ):
        with contextlib.suppress(PermissionError):
            function()
            return True
    return not shm.map().readonly


def _readonly(connection):
    shm = receive(connection)
    try:
        shm.buf[0] = 1
    except TypeError:
        connection.send((shm.readonly, shm.buf.readonly, bytes(shm.buf[:3]), can_become_writable(shm)))
    else:
        connection.send("wrote")
    connection.close()


@pytest.mark.long
@pytest.mark.parametrize("way", ["named", "descriptor", "handle"])
def test_read_only_stays_read_only(context, name, way):
    with SharedMemory.create(name, 10, delete=True) as shm:
        shm.buf[:3] = b"abc"
        if way == "named":
            reader = SharedMemory.open(name, readonly=True)
        elif way == "handle":
            reader = SharedMemory.from_fd(os.dup(shm.fileno()), readonly=True)
        else:
            reader = SharedMemory.from_fd(os.open(SHM + name, os.O_RDONLY))
        ours, theirs = context.Pipe()
        with ours, theirs, reader, running(context.Process(target=_readonly, args=(theirs,))):
            ours.send(reader)
            assert receive(ours) == (True, True, b"abc", False)


def _open_gone(connection):
    try:
        connection.recv()
    except FileNotFoundError as error:
        connection.send(error.errno)
    connection.close()


def test_an_object_that_is_removed_before_it_arrives(context, name):
    ours, theirs = context.Pipe()
    with ours, theirs, running(context.Process(target=_open_gone, args=(theirs,))):
        with SharedMemory.create(name, 10, delete=True) as shm:
            data = mp.reduction.ForkingPickler.dumps(shm)
        ours.send_bytes(data)
        assert receive(ours) == errno.ENOENT


def test_pickle_still_refuses_an_anonymous_handle_after_multiprocessing(context):
    """multiprocessing can pickle an anonymous handle; pickle cannot."""
    with SharedMemory.anonymous(10) as shm:
        ours, theirs = context.Pipe()
        with ours, theirs, running(context.Process(target=_process, args=(theirs, shm))):
            receive(ours)
        with pytest.raises(TypeError, match="multiprocessing"):
            pickle.dumps(shm)


def test_a_spawned_program_leaves_nothing(run_python, tmp_path, name):
    """A typical script with a main guard prints nothing to standard error."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import multiprocessing as mp
import sys
from posixshm import SharedMemory

def work(shm, named):
    shm.buf[0] = 1
    named.buf[0] = 2

if __name__ == "__main__":
    mp.set_start_method(sys.argv[1])
    shm = SharedMemory.anonymous(100)
    named = SharedMemory.create(sys.argv[2], 100, delete=True)
    process = mp.Process(target=work, args=(shm, named))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (shm.buf[0], named.buf[0]) == (1, 2)
"""
    )
    for method in METHODS:
        run_python(
            f"import runpy, sys; sys.argv = [{str(script)!r}, {method!r}, {name!r}]; "
            f"runpy.run_path({str(script)!r}, run_name='__main__')",
            options=["-W", "error", "-W", "ignore::DeprecationWarning"],
        )
        assert not os.path.exists(SHM + name)


def test_a_pickle_needs_only_the_public_module():
    """The pickle names the public module, so that other versions can load it."""
    with SharedMemory.create(None, 10, delete=True) as shm:
        assert b"posixshm" in pickle.dumps(shm)
        assert pickle.loads(pickle.dumps(SharedMemory)) is SharedMemory
    assert sys.modules["posixshm"].SharedMemory is SharedMemory


@pytest.mark.long
def test_pickling_ten_thousand_handles_needs_no_memory(run_python, name):
    code = """
        import gc, os, pickle, sys
        from multiprocessing.reduction import ForkingPickler
        import posixshm
        from posixshm import Lock, SharedMemory
        name = sys.argv[1]
        shm = SharedMemory.create(name, 10_000)
        lock = Lock(name + "-lock", create=True)
        class Sub(SharedMemory):
            pass
        other = Sub.open(name, readonly=True)
        other.extra = [other]
        anonymous = SharedMemory.anonymous(10)

        def work(rounds):
            for number in range(rounds):
                for each in (shm, lock, other):
                    one = pickle.loads(pickle.dumps(each))
                    two = pickle.loads(pickle.dumps(one))
                    if number % 2:
                        one.close()
                try:
                    pickle.dumps(anonymous)
                except TypeError:
                    pass
            del one, two
            gc.collect()
            with open("/proc/self/statm") as statm:
                resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
            with open("/proc/self/maps") as maps:
                count = len(maps.readlines())
            return resident, len(os.listdir("/proc/self/fd")), count

        work(5000)  # a free-threaded Python collects less often at first
        before = work(5000)
        after = work(5000)
        assert after[0] - before[0] < 300_000, (before, after)
        assert after[1] == before[1] and abs(after[2] - before[2]) < 5, (before, after)
        lock.unlink()
        shm.unlink()
    """
    run_python(code, name, env=COUNTING, timeout=120)


def test_a_pickle_that_is_never_sent_keeps_no_descriptor():
    """The pickler of multiprocessing pickles the handle, which is then not sent."""
    before = len(os.listdir("/proc/self/fd"))
    with SharedMemory.create(None, 10, delete=True) as shm:
        for _ in range(10):
            mp.reduction.ForkingPickler.dumps(shm)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
