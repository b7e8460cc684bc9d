"""The scenes of test_faults: each operation, and what must hold after it failed or its process
died.

A child imports this and calls one of the players at the end.
"""

import contextlib
import errno
import gc
import json
import os
import pickle
import signal
import warnings

from _processes import SHM, Faults, Holdings, mount_tmpfs, private_processes, private_shm

import posixshm
from posixshm import Event, MemoryMap, Semaphore, SharedMemory

# huge_pages=True warns on a mount without huge pages.
warnings.simplefilter("ignore", RuntimeWarning)

PAGE = posixshm.PAGESIZE
# The calls that take the name lock. If they fail, the operation continues without the lock.
NAME_LOCK = {"open", "flock"}
SIZE = 3 * PAGE + 10
OLD, NEW = bytes([1]) * SIZE, bytes([2]) * SIZE


def names(prefix):
    return sorted(name for name in os.listdir(SHM) if name.startswith(prefix))


def fill_new(buf):
    buf[:] = NEW


def fill_old(buf):
    buf[:] = OLD


def assert_whole(name, *contents, mode=0o640):
    """The object has one of these contents, and its mode."""
    with open(f"{SHM}/{name}", "rb") as file:
        data, status = file.read(), os.fstat(file.fileno())
    assert data in contents, (name, len(data), data[:1])
    assert status.st_mode & 0o7777 == mode, (name, oct(status.st_mode))


class Scene:
    """One operation on the object `name`; the names of all other objects begin with this name."""

    forked = True  # a child that is forked after before() can call act()
    one_process = False  # inspects all processes of the machine
    without_proc = False  # the operation works without /proc
    # Calls whose failure need not be reported: they release a resource, or the operation has
    # another way to find out what it needs.
    forgiven = {"access", "close", "munmap", "fstatfs", "fstatvfs"}
    # Calls that are repeated if a signal interrupts them.
    interruptible = {"open", "shm_open", "fallocate", "ftruncate", "madvise", "close"}

    def __init__(self, name):
        self.name = name

    def before(self):
        """Create what the operation needs."""

    def act(self):
        raise NotImplementedError

    def succeeded(self):
        """Check the state after a success."""

    def failed(self):
        """Check the state after a failure; the player compares descriptors, mappings and names."""

    def died(self):
        """Check the state after another process died in act()."""
        self.failed()

    def reported(self, number):
        """Did act() return that a step failed with this errno?"""
        return False

    def end(self):
        """Remove the names that are left, and close everything."""
        self.release()

    def release(self):
        for what in vars(self).values():
            if isinstance(what, SharedMemory):
                what.close()
        name = self.name
        vars(self).clear()
        self.name = name


# -- creating -----------------------------------------------------------------------------------


class Create(Scene):
    without_proc = True
    content, mode = NEW, 0o640
    keywords = {"mode": 0o640, "init": fill_new}

    def act(self):
        self.shm = SharedMemory.create(self.name, SIZE, **self.keywords)

    def succeeded(self):
        assert self.shm.size == SIZE and self.shm.created and self.shm.is_linked()
        assert names(self.name) == [self.name]
        assert_whole(self.name, self.content, mode=self.mode)
        self.shm.unlink()

    def failed(self):
        assert names(self.name) == []

    def died(self):
        if self.name in names(self.name):
            assert_whole(self.name, self.content, mode=self.mode)


class CreatePlain(Create):
    content = bytes(SIZE)
    keywords = {"mode": 0o640}


class CreateOwned(CreatePlain):
    def act(self):
        owner = {"uid": os.geteuid(), "gid": os.getegid()}
        self.shm = SharedMemory.create(self.name, SIZE, **self.keywords, **owner)


class CreateWithList(Create):
    """With an access control list, whose mask is in the mode."""

    mode = 0o660

    def act(self):
        acl = f"u:{os.geteuid()}:rw,g::r"
        self.shm = SharedMemory.create(self.name, SIZE, acl=acl, mode=0o600, init=fill_new)

    def succeeded(self):
        assert f"user:{os.geteuid()}:rw-\n" in self.shm.getfacl(numeric=True)
        super().succeeded()


class CreatePopulated(CreatePlain):
    keywords = {"mode": 0o640, "populate": True, "huge_pages": True}


class CreateUnreserved(CreatePlain):
    keywords = {"mode": 0o640, "reserve": False, "max_size": 10 * SIZE}


class CreateOrOpen(Create):
    keywords = {"mode": 0o640, "init": fill_new, "exist_ok": True}


class CreateDelete(Create):
    keywords = {"mode": 0o640, "init": fill_new, "delete": True}

    def succeeded(self):
        assert_whole(self.name, NEW)
        self.shm.close()
        assert names(self.name) == []


class Construct(CreatePlain):
    mode = 0o600

    def act(self):
        self.shm = SharedMemory(self.name, create=True, size=SIZE)


class CreateSemaphore(Create):
    """A named primitive. Its object is created with its contents and not opened again."""

    def file(self):
        return f"sem.{self.name}"

    def act(self):
        self.made = Semaphore(self.name, value=3, create=True, mode=0o400)

    def succeeded(self):
        assert self.made.value == 3 and os.listdir(SHM) == [self.file()]
        self.made.unlink()
        self.made.close()

    def failed(self):
        assert os.listdir(SHM) == []

    def whole(self):
        return Semaphore(self.name).value == 3

    def died(self):
        if self.file() in (found := os.listdir(SHM)):
            assert self.whole() and found == [self.file()]
        for name in found:  # reclaim() skips the files of semaphores
            assert name == self.file() or name.startswith(f"{self.file()}~")
            os.unlink(f"{SHM}/{name}")

    def release(self):
        self.made = None
        super().release()


class CreateEvent(CreateSemaphore):
    def file(self):
        return self.name

    def act(self):
        self.made = Event(self.name, create=True, mode=0o400)

    def succeeded(self):
        assert not self.made.is_set() and os.listdir(SHM) == [self.name]
        self.made.unlink()
        self.made.close()

    def whole(self):
        return not Event(self.name).is_set()


class CreateNameless(Scene):
    without_proc = True

    def act(self):
        self.shm = SharedMemory.create(None, SIZE, mode=0o640, init=fill_new)

    def succeeded(self):
        assert_whole(self.shm.name, NEW)
        self.shm.unlink()

    def died(self):
        for name in names("psm_"):
            if "~" not in name:
                assert_whole(name, NEW)
            assert [each.removed for each in posixshm.reclaim(name)] == [True]


class Anonymous(Scene):
    without_proc = True

    def act(self):
        self.shm = SharedMemory.anonymous(SIZE, max_size=10 * SIZE)

    def succeeded(self):
        assert self.shm.size == SIZE and names(self.name) == []

    def failed(self):
        assert names(self.name) == []


class Unnamed(Anonymous):
    def act(self):
        self.shm = SharedMemory.unlinked(SIZE, mode=0o620, uid=os.geteuid(), populate=True)


class Link(Scene):
    def before(self):
        self.shm = SharedMemory.unlinked(SIZE, mode=0o640)
        self.shm.buf[:] = NEW

    def act(self):
        self.shm.link(self.name)

    def succeeded(self):
        assert_whole(self.name, NEW)
        assert self.shm.name == self.name and self.shm.is_linked()
        self.shm.unlink()

    def failed(self):
        assert names(self.name) == []
        assert self.shm.name is None and not self.shm.is_linked()
        assert bytes(self.shm.buf) == NEW

    def died(self):
        if names(self.name):
            assert_whole(self.name, NEW)


# -- with an existing object --------------------------------------------------------------------


class Existing(Scene):
    """An operation that does not change the existing object."""

    same = {"st_ino", "st_mtime_ns", "st_ctime_ns", "st_nlink", "st_uid", "st_size", "st_mode"}

    def before(self):
        self.first = SharedMemory.create(self.name, SIZE, mode=0o640, init=fill_old)
        self.status = os.stat(f"{SHM}/{self.name}")

    def unchanged(self):
        assert names(self.name) == [self.name]
        assert_whole(self.name, OLD)
        status = os.stat(f"{SHM}/{self.name}")
        for field in self.same:
            assert getattr(status, field) == getattr(self.status, field), field
        assert self.first.is_linked() and not self.first.closed
        assert self.first.name == self.name and bytes(self.first.buf) == OLD

    def failed(self):
        self.unchanged()

    def succeeded(self):
        self.unchanged()

    def end(self):
        # The operation may have removed the object.
        if "first" in vars(self) and self.first.is_linked():
            self.first.unlink()
        super().end()


class Open(Existing):
    without_proc = True
    forgiven = Existing.forgiven | {"fcntl"}  # the mark of delete="last"

    def act(self):
        self.shm = SharedMemory.open(self.name)

    def succeeded(self):
        assert not self.shm.created and bytes(self.shm.buf) == OLD
        self.unchanged()


class OpenReadonly(Open):
    def act(self):
        self.shm = SharedMemory.open(self.name, readonly=True, max_size=10 * SIZE, timeout=5)


class OpenByConstructor(Open):
    def act(self):
        self.shm = SharedMemory(self.name)


class OpenOrCreate(Open):
    def act(self):
        self.shm = SharedMemory.create(self.name, SIZE, init=fill_new, exist_ok=True)


class Unpickle(Open):
    without_proc = False

    def before(self):
        super().before()
        # Pickle a handle that is closed afterwards: unpickling would share an open one.
        with SharedMemory.open(self.name) as other:
            self.pickled = pickle.dumps(other)

    def act(self):
        self.shm = pickle.loads(self.pickled)


class FromFd(Open):

    def before(self):
        super().before()
        self.fd = os.open(f"{SHM}/{self.name}", os.O_RDWR)

    def act(self):
        self.shm = SharedMemory.from_fd(self.fd)

    def failed(self):
        os.fstat(self.fd)  # the caller still owns it
        super().failed()

    def release(self):
        if "shm" not in vars(self):
            os.close(self.fd)
        super().release()


class RawOpen(Existing):
    def act(self):
        self.fd = posixshm.shm_open(self.name, os.O_RDWR)

    def succeeded(self):
        os.close(self.fd)


class RawUnlink(Existing):
    forgiven = Existing.forgiven | NAME_LOCK

    def act(self):
        posixshm.shm_unlink(self.name)

    def succeeded(self):
        assert names(self.name) == [] and bytes(self.first.buf) == OLD

    def died(self):
        if names(self.name):
            self.unchanged()


class Unlink(RawUnlink):
    without_proc = True

    def act(self):
        self.first.unlink()

    def died(self):
        for name in names(self.name):
            assert_whole(name, OLD)


class Rename(Existing):
    without_proc = True
    forgiven = Existing.forgiven | NAME_LOCK
    same = Existing.same - {"st_ctime_ns"}
    replace = False

    def before(self):
        super().before()
        self.new = f"{self.name}-new"

    def act(self):
        self.first.rename(self.new, self.replace)

    def succeeded(self):
        assert names(self.name) == [self.new]
        assert_whole(self.new, OLD)
        assert self.first.name == self.new and self.first.is_linked()

    def died(self):
        assert {self.name, self.new} & set(names(self.name)), "the object has lost its name"
        for name in names(self.name):
            assert_whole(name, OLD)


class RenameReplace(Rename):
    replace = True

    def before(self):
        super().before()
        self.other = SharedMemory.create(self.new, SIZE, mode=0o640, init=fill_new)

    def unchanged(self):
        assert names(self.name) == [self.name, self.new]
        assert_whole(self.name, OLD)
        assert_whole(self.new, NEW)
        assert self.first.name == self.name and self.first.is_linked()
        assert self.other.is_linked()

    def succeeded(self):
        super().succeeded()
        assert not self.other.is_linked() and bytes(self.other.buf) == NEW

    def died(self):
        assert_whole(self.new, OLD, NEW)
        for name in names(self.name):
            assert_whole(name, OLD, NEW)

    def end(self):
        if self.other.is_linked():
            self.other.unlink()
        super().end()


class LinkReplace(Existing):
    forgiven = Existing.forgiven | NAME_LOCK | {"unlink"}  # a renamed temporary name

    def before(self):
        super().before()
        self.shm = SharedMemory.unlinked(SIZE, mode=0o640)
        self.shm.buf[:] = NEW

    def act(self):
        try:
            self.shm.link(self.name, replace=True)
        except OSError:
            if self.shm.name is not None:  # the last step failed: a temporary name
                self.shm.unlink()
            raise

    def succeeded(self):
        assert names(self.name) == [self.name]
        assert_whole(self.name, NEW)
        assert not self.first.is_linked() and self.shm.is_linked()
        self.shm.unlink()

    def failed(self):
        super().failed()
        assert self.shm.name is None or "~" in self.shm.name
        assert not self.shm.is_linked()

    def died(self):
        assert_whole(self.name, OLD, NEW)


# -- size and memory ----------------------------------------------------------------------------


class Grow(Existing):
    without_proc = True
    max_size, size = None, 5 * SIZE

    def before(self):
        self.first = SharedMemory.create(
            self.name, SIZE, mode=0o640, init=fill_old, max_size=self.max_size
        )
        self.blocks = os.stat(f"{SHM}/{self.name}").st_blocks

    def act(self):
        self.first.resize(self.size)

    def succeeded(self):
        size = os.stat(f"{SHM}/{self.name}").st_size
        assert size == self.size == self.first.size == len(self.first.buf)
        assert bytes(self.first.buf[:SIZE]) == OLD[: self.size]
        assert not any(self.first.buf[SIZE:])

    def failed(self):
        status = os.stat(f"{SHM}/{self.name}")
        assert status.st_size == SIZE == self.first.size == len(self.first.buf)
        assert status.st_blocks == self.blocks, "memory past the end is kept"
        assert bytes(self.first.buf) == OLD and names(self.name) == [self.name]

    def died(self):
        assert names(self.name) == [self.name]
        assert SIZE <= os.stat(f"{SHM}/{self.name}").st_size <= self.size
        with open(f"{SHM}/{self.name}", "rb") as file:
            assert file.read(SIZE) == OLD


class GrowInPlace(Grow):
    max_size = 10 * SIZE


class Shrink(Grow):
    without_proc = False
    forgiven = Grow.forgiven | {"fcntl"}  # fcntl() reads the seals
    interruptible = Grow.interruptible - {"open"}
    size = PAGE

    def act(self):
        self.first.resize(self.size, shrink=True)

    def died(self):
        assert os.stat(f"{SHM}/{self.name}").st_size in (PAGE, SIZE)


class ShrinkInPlace(Shrink):
    max_size = 10 * SIZE


class Refresh(Existing):
    without_proc = True

    def before(self):
        super().before()
        os.truncate(f"{SHM}/{self.name}", 2 * SIZE)

    def act(self):
        self.first.refresh()

    def succeeded(self):
        assert self.first.size == len(self.first.buf) == 2 * SIZE

    def failed(self):
        assert self.first.size == len(self.first.buf) == SIZE
        assert bytes(self.first.buf) == OLD and names(self.name) == [self.name]


class Map(Existing):
    without_proc = True

    def act(self):
        self.mapping = self.first.map(PAGE, PAGE, readonly=True)

    def succeeded(self):
        assert bytes(self.mapping) == OLD[:PAGE]
        self.unchanged()


class MapFd(Map):
    def act(self):
        self.mapping = MemoryMap(self.first.fileno(), PAGE, PAGE)


class Memory(Existing):
    same = Existing.same - {"st_ctime_ns", "st_mtime_ns"}  # any write changes the times
    # populate() works without the descriptor, and without knowing the free space.
    forgiven = Existing.forgiven | {"fstat", "fstatfs"}

    def act(self):
        self.first.populate()
        self.first.advise(posixshm.MADV_WILLNEED)
        self.first.sync()
        assert self.first.resident > 0
        self.first.lock_pages()
        self.first.unlock_pages()

    def failed(self):
        self.first.unlock_pages()
        super().failed()


class Protect(Existing):
    def act(self):
        self.first.protect(posixshm.PROT_READ)

    def succeeded(self):
        assert self.first.buf.readonly

    def failed(self):
        assert not self.first.readonly and not self.first.buf.readonly
        self.first.buf[0] = 1
        super().failed()


class Seal(Anonymous):
    def before(self):
        self.shm = SharedMemory.anonymous(SIZE)

    def act(self):
        self.shm.add_seals(posixshm.F_SEAL_GROW)

    def succeeded(self):
        assert self.shm.seals & posixshm.F_SEAL_GROW

    def failed(self):
        assert not self.shm.seals & posixshm.F_SEAL_GROW

    def died(self):
        assert bytes(self.shm.buf) == bytes(SIZE)


# -- inspecting and closing ---------------------------------------------------------------------


class Status(Existing):
    def act(self):
        self.status_read = self.first.stat(), self.first.mode, self.first.uid, self.first.gid
        assert self.first.is_linked()


class Own(Existing):
    def act(self):
        self.first.chown(os.geteuid(), os.getegid())
        self.first.chmod(0o640)

    def unchanged(self):
        self.status = os.stat(f"{SHM}/{self.name}")
        super().unchanged()


class SetList(Existing):
    def before(self):
        super().before()
        self.first.setfacl("g::r,o::-,m::r")
        self.status = os.stat(f"{SHM}/{self.name}")

    def act(self):
        self.first.setfacl(f"u:{os.geteuid()}:rw,m::r")

    def read(self):
        return self.first.getfacl(numeric=True)

    def failed(self):
        assert self.read() == "user::rw-\ngroup::r--\nmask::r--\nother::---\n"
        self.unchanged()

    def died(self):
        assert "mask::r--" in self.read()

    def succeeded(self):
        assert f"user:{os.geteuid()}:rw-\t#effective:r--\n" in self.read()
        assert_whole(self.name, OLD)


class ReadList(Existing):
    def act(self):
        assert self.first.getfacl() == "user::rw-\ngroup::r--\nother::---\n"


class List(Existing):
    without_proc = True

    def act(self):
        self.listed = posixshm.listdir()

    def succeeded(self):
        assert self.name in self.listed


class Close(Existing):
    """close() does not fail if close(2) and munmap(2) do."""

    # A descriptor that cannot be identified may belong to another file, so close() ignores it.
    forgiven = Existing.forgiven | {"fstat"}

    def before(self):
        super().before()
        self.shm = SharedMemory.open(self.name)

    def act(self):
        self.shm.close()

    def succeeded(self):
        assert self.shm.closed
        self.unchanged()


class CloseDelete(Scene):
    """As Close; if the name cannot be removed, it remains."""

    forked = False  # a forked child does not delete

    def before(self):
        self.shm = SharedMemory.create(self.name, SIZE, mode=0o640, init=fill_new, delete=True)

    def act(self):
        self.shm.close()

    def reported(self, number):
        return True

    def succeeded(self):
        assert self.shm.closed
        self.died()
        for name in names(self.name):
            os.unlink(f"{SHM}/{name}")

    def died(self):
        for name in names(self.name):
            assert_whole(name, NEW)


class Reclaim(Scene):
    one_process = True
    # reclaim() can find a use in /proc that the kernel does not report.
    forgiven = Scene.forgiven | NAME_LOCK | {"shm_open", "fcntl", "fstat"}
    interruptible = Scene.interruptible - {"open"}
    dry_run = False

    def before(self):
        self.left = [f"{self.name}-{number}" for number in range(2)]
        for name in self.left:
            SharedMemory.create(name, SIZE, mode=0o640, init=fill_new).close()
        self.leased = SharedMemory.create(f"{self.name}-leased", SIZE, mode=0o640, init=fill_new)
        self.mapped = SharedMemory.create(f"{self.name}-mapped", SIZE, mode=0o640, init=fill_new)
        self.mapped.close_fd()

    def act(self):
        found = posixshm.reclaim(self.name, dry_run=self.dry_run)
        self.found = {each.name: each for each in found}

    def reported(self, number):
        return any(
            each.state == "unknown" or (each.error is not None and each.error.errno == number)
            for each in self.found.values()
        )

    def succeeded(self):
        there = names(self.name)
        for name in self.left:
            assert (name in there) == (not self.found[name].removed), self.found
        for used in (self.leased, self.mapped):
            assert used.is_linked(), self.found
            assert not self.found[used.name].removed, self.found
        assert set(there) <= {*self.left, self.leased.name, self.mapped.name}

    def failed(self):
        assert names(self.name) == sorted([*self.left, self.leased.name, self.mapped.name])
        self.died()

    def died(self):
        # The process that died may have been inspecting these.
        assert self.leased.is_linked()
        for name in names(self.name):
            assert_whole(name, NEW)

    def end(self):
        super().end()
        for name in names(self.name):
            os.unlink(f"{SHM}/{name}")


class ReclaimDry(Reclaim):
    dry_run = True

    def died(self):
        assert names(self.name) == sorted([*self.left, self.leased.name, self.mapped.name])


def scenes():
    """All scenes, by name."""
    kinds, found = [Scene], {}
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.act is not Scene.act:
            found[kind.__name__] = kind
    return found


# -- the players --------------------------------------------------------------------------------


@contextlib.contextmanager
def played(kind, name):
    """Run a scene from before() to end(), and check that it leaves nothing."""
    scene = kind(name)
    scene.before()
    yield scene
    scene.end()
    gc.collect()
    assert names(name) == [], names(name)


def calls_of(kind, name, faults):
    """The system calls of the operation, in order, when none of them fails."""
    with played(kind, name) as scene:  # the first run makes the calls that happen only once
        scene.act()
        scene.succeeded()
    with played(kind, name) as scene:
        faults.arm(None, 0)
        scene.act()
        faults.disarm()
        calls = faults.log()
        scene.succeeded()
    assert "..." not in calls
    return calls


def act_with_fault(scene, faults, nth, number):
    """Run act(), in which the nth call fails; return its error or None, and the calls it made."""
    problem = None
    faults.arm(None, nth, Faults.FAIL, number)
    try:
        scene.act()
    except OSError as error:
        problem = error.with_traceback(None)
    except MemoryError:
        problem = OSError(errno.ENOMEM, "a MemoryError")
    finally:
        faults.disarm()
    return problem, faults.log()


@contextlib.contextmanager
def explained(*what):
    try:
        yield
    except BaseException as error:
        raise AssertionError(*what) from error


def setting(kinds, without_proc=""):
    """Mount a /dev/shm for the scenes; return the counts of this process's resources."""
    private_shm()
    if any(kind.one_process for kind in kinds):
        private_processes()
    holdings = Holdings()
    if without_proc:
        mount_tmpfs("/proc", "size=1m")
    return holdings


def fail_each(name, without_proc, *kinds):
    """Make each system call fail in turn, and interrupt each that a signal may interrupt."""
    kinds = [scenes()[kind] for kind in kinds]
    holdings, faults = setting(kinds, without_proc), Faults()
    raised = {}
    for kind in kinds:
        calls = calls_of(kind, name, faults)
        raised[kind.__name__] = failing = set()
        for nth, call in enumerate(calls, 1):
            numbers = (errno.EIO,) if without_proc else (errno.EIO, errno.ENOSPC)
            for number in numbers:
                with played(kind, name) as scene:
                    before = holdings.now()
                    problem, log = act_with_fault(scene, faults, nth, number)
                    # The number of mappings, and so of calls that list them, may vary by one.
                    call = log[nth - 1] if nth <= len(log) else None
                    with explained(f"{kind}: {call}, call {nth} of {log}, {number}: {problem!r}"):
                        if call is None:
                            assert problem is None, "no call failed"
                            scene.succeeded()
                            continue
                        if problem is None:
                            assert call in kind.forgiven or scene.reported(number), "not reported"
                            scene.succeeded()
                            continue
                        wanted = errno.ENOMEM if call == "realloc" else number
                        assert problem.errno == wanted, "another errno"
                        failing.add(call)
                        del problem
                        gc.collect()
                        left = holdings.now()
                        assert left == before, f"left: {left - before}, gone: {before - left}"
                        scene.failed()
            if call in kind.interruptible:
                with played(kind, name) as scene:
                    problem, log = act_with_fault(scene, faults, nth, errno.EINTR)
                    with explained(f"{kind}: {call}, call {nth} of {log} was not made again"):
                        if log[nth - 1 : nth] == [call]:
                            assert problem is None, problem
                        if problem is None:
                            scene.succeeded()
    print(json.dumps({kind: sorted(calls) for kind, calls in raised.items()}))


def kill_each(name, without_proc, *kinds):
    """Kill a process before and after each system call."""
    kinds = [scenes()[kind] for kind in kinds]
    setting(kinds, without_proc)
    faults = Faults()
    for kind in kinds:
        calls = calls_of(kind, name, faults)
        for nth, call in enumerate(calls, 1):
            around = calls[max(0, nth - 3) : nth - 1] + calls[nth : nth + 2]
            if call in Faults.MANY and around.count(call) > 1:
                continue
            for action in (Faults.KILL_BEFORE, Faults.KILL_AFTER):
                with explained(f"{kind}: {call}, call {nth} of {calls}, action {action}"):
                    kill_at(kind(f"{name}-{nth}-{action}"), faults, nth, action)


def kill_at(scene, faults, nth, action):
    if scene.forked:
        scene.before()
    child = os.fork()
    if child == 0:
        if not scene.forked:
            scene.before()
        faults.arm(None, nth, action)
        try:
            scene.act()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, status
    scene.died()
    # Close what this process has open, without removing names.
    scene.release()
    gc.collect()
    found = posixshm.reclaim(scene.name)
    assert {each.removed for each in found} <= {True}, found
    assert os.listdir(SHM) == [], os.listdir(SHM)
