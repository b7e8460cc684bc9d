"""Bad arguments raise a clear error before the call does anything."""

import contextlib
import decimal
import errno
import fractions
import inspect
import math
import os
import resource

import numpy as np
import pytest

import posixshm
from posixshm import (
    PAGESIZE,
    Condition,
    Lock,
    MemoryMap,
    RLock,
    RWLock,
    Semaphore,
    SharedMemory,
    listdir,
    reclaim,
    shm_open,
    shm_unlink,
)

SHM = "/dev/shm/"
HAS_BUFFER_METHODS = hasattr(memoryview, "__buffer__")  # PEP 688, from Python 3.12 on


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 4 * PAGESIZE, delete=True) as handle:
        yield handle


class Index:
    """An object that can be used as an int."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Raising:
    def __index__(self):
        raise KeyError("from __index__")

    def __bool__(self):
        raise KeyError("from __bool__")

    def __float__(self):
        raise KeyError("from __float__")

    def fileno(self):
        raise KeyError("from fileno")


class NotReally:
    """The special methods return wrong types."""

    def __index__(self):
        return 1.5

    def __bool__(self):
        return 1

    def __float__(self):
        return "1"

    def fileno(self):
        return "1"


# -- sizes --------------------------------------------------------------------------------------

SIZES = {
    "create": lambda size, name: SharedMemory.create(name, size),
    "create with delete": lambda size, name: SharedMemory.create(name, size, delete=True),
    "create with init": lambda size, name: SharedMemory.create(name, size, init=print),
    "create or attach": lambda size, name: SharedMemory.create(name, size, exist_ok=True),
    "create without a name": lambda size, name: SharedMemory.create(None, size),
    "unlinked": lambda size, name: SharedMemory.unlinked(size),
    "constructor": lambda size, name: SharedMemory(name, create=True, size=size),
    "constructor without a name": lambda size, name: SharedMemory(create=True, size=size),
    "anonymous": lambda size, name: SharedMemory.anonymous(size),
}
LIMITED_BY_THE_MOUNT = [constructor for constructor in SIZES if constructor != "anonymous"]
NO_NUMBERS = [1.0, math.nan, math.inf, True, False, "10", b"10", [1], object(), 1j]
NO_NUMBERS += [np.float64(10), np.bool_(True), decimal.Decimal(10), fractions.Fraction(10)]
NOT_POSITIVE = [0, -1, -4096, -(2**31), -(2**63), -(2**64), -(2**100), Index(0), Index(-1)]
TOO_LARGE = [2**63, 2**63 + 1, 2**64 - 1, 2**64, 2**100, 10**1000, Index(2**63)]
TOO_MUCH = [2**50, 2**62, 2**63 - 1, 2**63 - PAGESIZE, 2**63 - PAGESIZE - 1]
NO_SIZES = [*NOT_POSITIVE, *TOO_LARGE]
NO_MODES = [-1, 0o10000, 0o100600, 2**31, 2**32 + 0o600, 2**64, -(2**64)]
NO_IDS = [-2, 2**32 - 1, 2**32, 2**64, -(2**64)]


def calls_with_an_int(shm, new):
    """(argument, call of the argument, values that are not ints, ints out of range)."""
    for make in SIZES.values():
        yield "size", lambda size, make=make: make(size, new), [None], NO_SIZES
    yield "size", shm.resize, [None], NO_SIZES
    for make in (
        lambda **options: SharedMemory.create(new, 10, **options),
        lambda **options: SharedMemory.unlinked(10, **options),
    ):
        yield "mode", lambda mode, make=make: make(mode=mode), [None, "rw-r--r--"], NO_MODES
        yield "uid", lambda uid, make=make: make(uid=uid), ["root"], NO_IDS
        yield "gid", lambda gid, make=make: make(gid=gid), ["root"], NO_IDS
    yield "mode", lambda mode: shm_open(new, os.O_CREAT | os.O_RDWR, mode), [None], NO_MODES
    for make in (
        lambda **options: SharedMemory.create(new, 10, **options),
        lambda **options: SharedMemory.open(shm.name, **options),
        lambda **options: SharedMemory.anonymous(10, **options),
        lambda **options: SharedMemory.unlinked(10, **options),
        lambda **options: SharedMemory.from_fd(shm.fileno(), **options),
    ):
        yield "max_size", lambda size, make=make: make(max_size=size), [], NO_SIZES


def test_ints(shm, names):
    """Neither another type nor a number out of range makes or changes an object."""
    new, before = names(), listdir()
    for argument, call, others, out_of_range in calls_with_an_int(shm, new):
        for value in NO_NUMBERS + others:
            with pytest.raises(TypeError, match=argument):
                call(value)
        for value in out_of_range:
            rule = r"size.*2\*\*63" if value in TOO_LARGE and "size" in argument else argument
            with pytest.raises(ValueError, match=rule):
                call(value)
    assert listdir() == before and shm.size == len(shm.buf) == shm.stat().st_size == 4 * PAGESIZE


@pytest.mark.parametrize("make", LIMITED_BY_THE_MOUNT)
def test_sizes_that_no_machine_has(make, name):
    for size in TOO_MUCH:
        with pytest.raises(OSError) as caught:
            SIZES[make](size, name)
        assert caught.value.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG)


def test_anonymous_sizes_that_no_machine_has(run_python):
    """No mount limits them, so without a check in advance they would use all memory of the machine.

    The child makes itself the process that the kernel kills first if memory runs out.
    """
    run_python(
        f"""
        import errno
        from posixshm import SharedMemory
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
        for size in {TOO_MUCH}:
            for options in ({{}}, {{"populate": True}}, {{"populate": True, "reserve": False}}):
                try:
                    SharedMemory.anonymous(size, **options)
                except OSError as error:
                    assert error.errno in (errno.ENOMEM, errno.ENOSPC, errno.EFBIG), error
                else:
                    raise SystemExit(f"made an object of {{size}} bytes")
        with SharedMemory.anonymous(10) as shm:
            try:
                shm.resize({TOO_MUCH[0]})
            except OSError as error:
                assert error.errno in (errno.ENOMEM, errno.ENOSPC, errno.EFBIG), error
            else:
                raise SystemExit("grew it")
            assert shm.size == len(shm.buf) == 10
        """
    )


def test_a_size_over_the_mount(name):
    """ENOSPC, with a message that names the size, the free space, the mount and a way out."""
    status = os.statvfs(SHM)
    size = status.f_blocks * status.f_frsize + (1 << 30)
    for constructor in ("create", "create with init", "constructor"):
        with pytest.raises(OSError, match=rf"/dev/shm.*{size}.*free.*reclaim") as caught:
            SIZES[constructor](size, name)
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == name


@contextlib.contextmanager
def limit(which, soft):
    old = resource.getrlimit(which)
    resource.setrlimit(which, (soft, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, old)


@pytest.mark.parametrize("make", SIZES.values(), ids=SIZES)
def test_a_size_over_the_file_size_limit(make, name):
    """The call raises EFBIG; SIGXFSZ does not end the process."""
    with limit(resource.RLIMIT_FSIZE, PAGESIZE), pytest.raises(OSError) as caught:
        make(PAGESIZE + 1, name)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("make", SIZES.values(), ids=SIZES)
def test_without_descriptors(make, name):
    lowest = os.dup(0)
    with limit(resource.RLIMIT_NOFILE, lowest + 1), pytest.raises(OSError) as caught:
        make(10, name)
    os.close(lowest)
    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize(
    "size", [1, Index(1), np.int64(1), np.uint8(1), PAGESIZE - 1, PAGESIZE + 1]
)
def test_every_object_with_index_is_a_size(name, size):
    expected = size.__index__()
    with SharedMemory.create(name, size, delete=True) as shm:
        assert shm.size == len(shm.buf) == shm.stat().st_size == expected
    for make in (SharedMemory.anonymous, SharedMemory.unlinked):
        with make(size) as shm:
            assert shm.size == len(shm.buf) == shm.stat().st_size == expected


# -- owners, times ------------------------------------------------------------------------------


def test_timeouts(shm, name):
    for timeout in ("1", b"1", [1], 1j, True, False, object(), NotReally()):
        with pytest.raises(TypeError):
            SharedMemory.open(name, timeout=timeout)
    for timeout in (math.nan, np.float64("nan")):
        with pytest.raises(ValueError, match="timeout"):
            SharedMemory.open(name, timeout=timeout)
    with pytest.raises(KeyError, match="__float__"):
        SharedMemory.open(name, timeout=Raising())
    with pytest.raises((OverflowError, ValueError)):
        SharedMemory.open(name, timeout=10**400)
    for timeout in (
        None,
        0,
        -0.0,
        -1,
        -1e300,
        -math.inf,
        5,
        1e308,
        math.inf,
        np.float32(1),
        decimal.Decimal("0.5"),
    ):
        SharedMemory.open(name, timeout=timeout).close()


def test_accepted_owners(shm, name):
    for constructor in (
        lambda owner: SharedMemory.open(name, owner=owner),
        lambda owner: SharedMemory.create(name, 10, exist_ok=True, owner=owner),
    ):
        for owner in (None, 1.5, b"root", object(), True, {"root": 0}, [None], {1.5}):
            with pytest.raises(TypeError):
                constructor(owner)
        for owner in ("nobody of that name", "", -1, 2**32 - 1, 2**64, set(), [], range(0)):
            with pytest.raises((ValueError, TypeError)):
                constructor(owner)
        with pytest.raises(ValueError, match="16"):
            constructor(list(range(100)))
        for kind in (
            list,
            tuple,
            set,
            frozenset,
            type("Users", (frozenset,), {}),
            type("Ids", (set,), {}),
        ):
            constructor(kind([os.geteuid()])).close()
        for owner in ("any", "self", os.geteuid(), {os.geteuid()}, [0, os.geteuid()] * 50):
            constructor(owner).close()


def test_reclaim_arguments():
    for arguments, keywords in [((), {}), ((None,), {}), ((), {"dry_run": True})]:
        with pytest.raises(ValueError, match=r"prefix.*older_than|older_than.*prefix"):
            reclaim(*arguments, **keywords)
    with pytest.raises(ValueError, match="prefix"):
        reclaim("")
    with pytest.raises(ValueError):
        reclaim("", older_than=5)
    for prefix in (5, b"x", True, ["x"]):
        with pytest.raises(TypeError, match="prefix"):
            reclaim(prefix, dry_run=True)
    for prefix in ("a\0b", "\ud800"):
        with pytest.raises(ValueError):
            reclaim(prefix, dry_run=True)
    for age in ("1", True, 1j, [1]):
        with pytest.raises(TypeError, match="older_than"):
            reclaim("posixshm-test-nobody", older_than=age, dry_run=True)
    for age in (-1, -math.inf, math.nan):
        with pytest.raises(ValueError, match="older_than"):
            reclaim("posixshm-test-nobody", older_than=age, dry_run=True)
    for age in (0, 0.0, 1e300, math.inf):
        assert reclaim("posixshm-test-nobody", older_than=age) == []
    with pytest.raises(TypeError):
        reclaim("posixshm-test-nobody", 5)
    with pytest.raises(TypeError):
        listdir("/dev/shm")


# -- positional and keyword arguments -----------------------------------------------------------

# Arguments that do no harm if the call succeeds.
FUNCTIONS = {
    "SharedMemory": (SharedMemory, []),
    "create": (SharedMemory.create, ["posixshm-test-never", -1]),
    "open": (SharedMemory.open, ["posixshm-test-never"]),
    "anonymous": (SharedMemory.anonymous, [-1]),
    "unlinked": (SharedMemory.unlinked, [-1]),
    "from_fd": (SharedMemory.from_fd, [-1]),
    "MemoryMap": (MemoryMap, [-1]),
    "shm_open": (shm_open, ["posixshm-test-never", 0]),
    "shm_unlink": (shm_unlink, ["posixshm-test-never"]),
    "reclaim": (reclaim, ["posixshm-test-never"]),
}
METHODS = {
    "link": ["posixshm-test-never"],
    "rename": ["posixshm-test-never"],
    "map": [],
    "resize": [4 * PAGESIZE],
    "advise": [0],
    "sync": [],
    "lock_pages": [],
    "unlock_pages": [],
    "populate": [],
    "chown": [],
}
WITHOUT_KEYWORDS = {
    "close": [],
    "close_fd": [],
    "detach": [],
    "fileno": [],
    "unlink": [],
    "is_linked": [],
    "refresh": [],
    "stat": [],
    "protect": [3],
    "chmod": [0o600],
    "setfacl": [None],
    "add_seals": [0],
}


def check_positional_and_keyword_arguments(function, good):
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind != p.KEYWORD_ONLY]
    fillers = [None] * (len(positional) - len(good))
    # Too many.
    with pytest.raises(TypeError, match="argument"):
        function(*good, *fillers, None)
    with pytest.raises(TypeError, match="argument"):
        function(*good, *[None] * 1000)
    # Too few.
    required = [p for p in positional if p.default is p.empty]
    for count in range(len(required)):
        with pytest.raises(TypeError, match="argument"):
            function(*good[:count])
    # Unknown keywords, some of them nearly right.
    for wrong in ("no_such_argument", "", "sizes", "größe", "name\0", "\ud800"):
        with pytest.raises(TypeError, match="keyword"):
            function(*good, **{wrong: 1})
    # Twice.
    for parameter, value in zip(positional, good, strict=False):
        if parameter.kind != parameter.POSITIONAL_ONLY:
            with pytest.raises(TypeError, match="argument"):
                function(*good, **{parameter.name: value})


@pytest.mark.parametrize(("function", "good"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_positional_and_keyword_arguments(function, good):
    check_positional_and_keyword_arguments(function, good)


@pytest.mark.parametrize(("method", "good"), METHODS.items(), ids=METHODS)
def test_positional_and_keyword_arguments_of_methods(shm, method, good):
    check_positional_and_keyword_arguments(getattr(shm, method), good)
    assert shm.is_linked() and shm.size == 4 * PAGESIZE
    if hasattr(MemoryMap, method):
        check_positional_and_keyword_arguments(getattr(shm.map(), method), good)


@pytest.mark.parametrize(("method", "good"), WITHOUT_KEYWORDS.items(), ids=WITHOUT_KEYWORDS)
def test_methods_without_keyword_arguments(shm, method, good):
    bound = getattr(shm, method)
    with pytest.raises(TypeError):
        bound(*good, None)
    with pytest.raises(TypeError):
        bound(*good, key=1)
    if good:
        with pytest.raises(TypeError):
            bound()
    assert not shm.closed and shm.is_linked()


def test_positional_arguments_can_be_keyword_arguments(name, names):
    with SharedMemory.create(size=100, name=name, delete=True) as shm:
        assert shm.size == 100
        SharedMemory.open(name=name).close()
        SharedMemory(name=name, create=False, size=0, track=False).close()
        SharedMemory.from_fd(fd=os.dup(shm.fileno())).close()
        MemoryMap(fd=shm.fileno(), length=10, offset=0)
        MemoryMap(offset=0, fd=shm.fileno())
        shm.map(length=5, offset=0)
        shm.resize(shrink=False, size=200)
        shm.sync(length=10, flags=posixshm.MS_ASYNC, offset=0)
        shm.advise(length=10, advice=posixshm.MADV_NORMAL)
        shm.chown(gid=-1, uid=-1)
        other = names()
        shm.rename(replace=False, name=other)
    with SharedMemory.anonymous(size=10) as shm, SharedMemory.unlinked(size=10) as unnamed:
        unnamed.link(replace=True, name=name)
        unnamed.unlink()
        assert shm.size == 10


def test_keywords_are_compared_by_their_text(name):
    """Not by identity: the caller may pass a dict that it read from a file."""

    class Text(str):
        pass

    for make in ("".join, lambda parts: Text("".join(parts))):
        keywords = {make(["si", "ze"]): 10, make(["del", "ete"]): True}
        with SharedMemory.create(name, **keywords) as shm:
            assert shm.size == 10
        with SharedMemory(create=True, **{make(["si", "ze"]): 11}) as shm:
            assert shm.size == 11
            shm.unlink()


def test_keywords_that_are_not_strings():
    with pytest.raises(TypeError, match="keywords must be strings"):
        SharedMemory(**{1: 2})


def test_optional_arguments_accept_none_and_their_type_only(shm):
    fd = shm.fileno()
    for call in (
        lambda wrong: shm.map(readonly=wrong),
        lambda wrong: SharedMemory.from_fd(fd, readonly=wrong),
        lambda wrong: shm.view().__array__(copy=wrong),
    ):
        with pytest.raises(KeyError, match="__bool__"):
            call(Raising())
    shm.map(readonly=None)
    SharedMemory.from_fd(os.dup(fd), readonly=None).close()
    assert shm.view().__array__(copy=None).nbytes == shm.size
    for wrong, error in ((-1, ValueError), ("x", TypeError)):
        with pytest.raises(error):
            SharedMemory.from_fd(fd, require_seals=wrong)
        with pytest.raises(error):
            SharedMemory(shm.name, size=wrong)
    for wrong in (-1, 0o10000, "x", 1.5):
        for call in (SharedMemory.open, Lock):
            with pytest.raises((TypeError, ValueError), match="mode_at_most"):
                call(shm.name, mode_at_most=wrong)
    with pytest.raises(ValueError, match="mode_at_most goes with a name"):
        Lock(mode_at_most=0o600)
    with pytest.raises(ValueError, match="exist_ok"):
        SharedMemory.create(None, 10, exist_ok=True)
    assert fd == shm.fileno() and os.fstat(fd).st_size == shm.size


def test_flags_are_truth_values(name):
    """Any object is a flag, as usual in Python, and exceptions of its __bool__ are propagated."""
    for yes in (1, "x", [0], np.True_, object()):
        delete = isinstance(yes, str) or yes  # "last" is the only valid text
        with SharedMemory.create(
            name, 10, delete=delete, populate=yes, reserve=yes, huge_pages=yes
        ):
            with SharedMemory.open(name, readonly=yes) as reader:
                assert reader.readonly
            with SharedMemory.create(name, 10, exist_ok=yes) as other:
                assert not other.created
        assert not os.path.exists(SHM + name)
    for no in (0, "", [], None, np.False_):
        delete = False if isinstance(no, str) else no
        with SharedMemory.create(name, 10, delete=delete, exist_ok=no, populate=no) as shm:
            with SharedMemory.open(name, readonly=no) as other:
                assert not other.readonly
        shm.unlink()
    with pytest.raises(TypeError):
        SharedMemory.create(name, 10, populate=NotReally())


def flags_of(function):
    """The parameters whose default is a bool."""
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if isinstance(each.default, bool)]


def functions_with_flags(shm, new):
    """All public callables with flags, and their other required arguments."""
    things = [shm, shm.map(), shm.view(), *(kind() for kind in (Lock, RLock, Condition, RWLock))]
    things += [Semaphore(), posixshm, SharedMemory, MemoryMap]
    things += [kind for kind in vars(posixshm).values() if hasattr(kind, "at")]
    needed = {"shm": shm, "name": new, "size": 100, "fd": shm.fileno(), "parties": 2, "prefix": new}
    for thing in things:
        for name, function in inspect.getmembers(thing, callable):
            if name.startswith("_") and name != "__array__":
                continue
            try:
                parameters = inspect.signature(function).parameters
            except ValueError:  # a class from another module
                continue
            if "self" not in parameters and flags_of(function):
                yield function, {each: needed[each] for each in parameters if each in needed}
    yield SharedMemory, {"name": new, "size": 100}
    yield shm.view().__dlpack__, {}
    yield shm.view().__array__, {}


def test_every_flag_is_evaluated_before_the_call_does_anything(shm, names):
    tried = set()
    new, before = names(), listdir()
    for function, keywords in functions_with_flags(shm, new):
        for flag in flags_of(function) or ["copy"]:
            making = {"create": True} if "create" in flags_of(function) else {}
            with pytest.raises(KeyError, match="__bool__"):
                function(**{**keywords, **making, flag: Raising()})
            tried.add(f"{getattr(function, '__qualname__', function)} {flag}")
    assert len(tried) > 60, tried
    assert listdir() == before and shm.size == 4 * PAGESIZE


# -- Python code in the middle ------------------------------------------------------------------


def test_exceptions_of_index_are_propagated(shm, name, names):
    never = names()
    mapping = shm.map()
    calls = [
        lambda value: SharedMemory.create(never, value),
        lambda value: SharedMemory.create(never, 10, mode=value),
        lambda value: SharedMemory.create(never, 10, uid=value),
        lambda value: SharedMemory.create(never, 10, gid=value),
        lambda value: SharedMemory.create(never, 10, max_size=value),
        lambda value: SharedMemory.anonymous(value),
        lambda value: SharedMemory.unlinked(value),
        lambda value: SharedMemory.open(name, max_size=value),
        lambda value: SharedMemory(never, True, value),
        lambda value: SharedMemory.from_fd(value),
        lambda value: shm_open(never, value),
        lambda value: shm_open(never, os.O_CREAT, value),
        lambda value: MemoryMap(shm.fileno(), value),
        lambda value: MemoryMap(shm.fileno(), 1, value),
        lambda value: shm.map(value),
        lambda value: shm.map(0, value),
        lambda value: shm.resize(value),
        lambda value: shm.protect(value),
        lambda value: shm.advise(value),
        lambda value: shm.advise(0, value),
        lambda value: shm.advise(0, 0, value),
        lambda value: shm.sync(value),
        lambda value: shm.sync(0, value),
        lambda value: shm.sync(0, 0, value),
        lambda value: shm.lock_pages(value),
        lambda value: shm.unlock_pages(0, value),
        lambda value: shm.populate(value),
        lambda value: shm.chmod(value),
        lambda value: shm.chown(value),
        lambda value: shm.chown(-1, value),
        lambda value: shm.add_seals(value),
        lambda value: mapping[value],
        lambda value: mapping.__setitem__(value, 1),
        lambda value: mapping.__setitem__(0, value),
        lambda value: mapping[value:],
        lambda value: mapping[:value],
        lambda value: mapping[::value],
        lambda value: mapping.__setitem__(slice(value), b""),
    ]
    for call in calls:
        with pytest.raises(KeyError, match="__index__"):
            call(Raising())
        with pytest.raises(TypeError):
            call(NotReally())
    with pytest.raises(KeyError, match="fileno"):
        MemoryMap(Raising())
    with pytest.raises(TypeError):
        MemoryMap(NotReally())
    assert shm.size == 4 * PAGESIZE and shm.mode == 0o600 and not shm.readonly


class Acting(Index):
    """An object that calls a function when its value is read."""

    def __init__(self, value, act):
        super().__init__(value)
        self.act = act

    def __index__(self):
        with contextlib.suppress(ValueError, OSError, BufferError):
            self.act()
        return self.value

    def __bool__(self):
        return bool(self.__index__())

    def __buffer__(self, flags):
        self.act()
        return memoryview(self.value)


ENDS = {
    "close": lambda shm, other: shm.close(),
    "close_fd": lambda shm, other: shm.close_fd(),
    "detach": lambda shm, other: os.close(shm.detach()),
    "init": lambda shm, other: shm.__init__(other, create=True, size=8 * PAGESIZE),
    "grow": lambda shm, other: shm.resize(8 * PAGESIZE),
    "unlink": lambda shm, other: shm.unlink(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_an_argument_whose_code_closes_or_changes_the_handle(names, end):
    """The call reads the state of the handle after it has converted all arguments."""
    one, two, three = names(), names(), names()

    def ending(value):
        return Acting(value, lambda: end(shm, two))

    calls = [
        lambda: shm.map(ending(0)),
        lambda: shm.map(0, ending(PAGESIZE)),
        lambda: shm.map(readonly=ending(1)),
        lambda: shm.resize(ending(6 * PAGESIZE)),
        lambda: shm.resize(ending(PAGESIZE), shrink=True),
        lambda: shm.resize(PAGESIZE, shrink=ending(1)),
        lambda: shm.protect(ending(1)),
        lambda: shm.advise(ending(0)),
        lambda: shm.advise(0, ending(0)),
        lambda: shm.sync(0, ending(PAGESIZE)),
        lambda: shm.populate(ending(0)),
        lambda: shm.lock_pages(ending(0)),
        lambda: shm.unlock_pages(ending(0)),
        lambda: shm.chmod(ending(0o600)),
        lambda: shm.chown(ending(-1)),
        lambda: shm.add_seals(ending(0)),
        lambda: shm.link(three, replace=ending(0)),
        lambda: shm.rename(three, replace=ending(1)),
        lambda: shm.__init__(one, create=ending(0)),
        lambda: shm.__init__(three, True, ending(10)),
    ]
    for number, call in enumerate(calls):
        shm = SharedMemory.create(one, 4 * PAGESIZE)
        view = shm.buf
        # A buffer of the handle itself shows that the address may be kept; one of shm.buf does not.
        array = np.ndarray(4, "u1", buffer=shm if number % 2 else shm.buf)
        with contextlib.suppress(ValueError, OSError, BufferError):
            call()
        view[0] = array[1] = 1
        assert view[1] == array[0] == 1
        shm.close()
        for left in (one, two, three):
            if os.path.exists(SHM + left):
                os.unlink(SHM + left)


def test_init_that_closes_other_handles(name, names):
    """init may close other handles."""
    others = [SharedMemory.create(names(), 10, delete=True) for _ in range(3)]

    def fill(buf):
        for other in others:
            other.close()
        buf.release()

    with SharedMemory.create(name, 10, init=fill, delete=True) as shm:
        assert shm.buf[0] == 0


def test_init_that_calls_create_again(name):
    """Each call uses one name; the innermost call creates the object."""

    def fill(buf):
        depth = len(buf)
        if depth < 5:
            try:
                SharedMemory.create(name, depth + 1, init=fill)
            except FileExistsError:
                results.append("taken")
            else:
                results.append("made")

    results = []
    with pytest.raises(FileExistsError):
        SharedMemory.create(name, 1, init=fill)
    assert results == ["made", "taken", "taken", "taken"]
    with SharedMemory.open(name) as shm:
        assert shm.size == 5
        shm.unlink()


def test_a_second_init_in_the_middle_of_the_first(names):
    one, two = names(), names()
    shm = SharedMemory.__new__(SharedMemory)
    shm.__init__(two, True, Acting(20, lambda: shm.__init__(one, True, 10)))
    assert shm.name == two and shm.size == 20
    shm.unlink()
    shm.close()
    shm_unlink(one)


def test_a_source_whose_buffer_method_closes_the_handle(name):
    """Copying into a mapping may run the Python code that returns the buffer of the source."""
    shm = SharedMemory.create(name, PAGESIZE, delete=True)
    mapping = shm.map()

    def act():
        shm.close()
        mapping.protect(posixshm.PROT_READ)

    # Before Python 3.12 the object is not a buffer, and act() is not called.
    with pytest.raises(TypeError):
        mapping[:4] = Acting(b"abcd", act)
    assert shm.closed == mapping.readonly == HAS_BUFFER_METHODS
    shm.close()
    assert bytes(mapping[:4]) == bytes(4)


def test_a_subclass_with_buffer_methods_of_its_own(name):
    """The buffer methods may close the handle."""

    class Sub(SharedMemory):
        def __buffer__(self, flags):
            view = super().__buffer__(flags)
            self.close()
            return view

        def __release_buffer__(self, view):
            released.append(len(view))
            view.release()

    released = []
    shm = Sub.create(name, 100, delete=True)
    with memoryview(shm) as view:
        view[0] = 1
        assert len(view) == 100
        assert shm.closed == HAS_BUFFER_METHODS
    assert released == ([100] if HAS_BUFFER_METHODS else [])
    shm.close()
    with pytest.raises(ValueError):
        memoryview(shm)


def test_buffer_methods_called_by_name(shm):
    mapping = shm.map()
    assert hasattr(shm, "__buffer__") == hasattr(mapping, "__buffer__") == HAS_BUFFER_METHODS
    for owner in (shm, mapping) if HAS_BUFFER_METHODS else ():
        view = owner.__buffer__(0)
        other = owner.__buffer__(0)
        other[0] = 1
        for stranger in (memoryview(b"abc"), memoryview(bytearray(5)), 5, None):
            with pytest.raises((ValueError, TypeError)):
                owner.__release_buffer__(stranger)
        # The views of a handle belong to its MemoryMap, which must release them.
        with contextlib.suppress(ValueError):
            owner.__release_buffer__(view)
        with contextlib.suppress(ValueError):
            view[0] = 2
        other[0] = 3
        assert owner.__buffer__(0)[0] == 3
        with pytest.raises((ValueError, OverflowError)):
            owner.__buffer__(2**40)
        with pytest.raises(TypeError):
            owner.__buffer__("0")


def test_a_metaclass_that_hides_the_base(name):
    """The library rejects a class whose method resolution order does not contain SharedMemory."""

    class Meta(type):
        def mro(cls):
            return [cls, object]

    odd = Meta("Odd", (SharedMemory,), {})
    for use in (
        lambda: odd(),
        lambda: odd.create(name, 10),
        lambda: SharedMemory.__dict__["create"].__get__(None, odd)(name, 10),
        lambda: SharedMemory.__new__(odd),
        lambda: SharedMemory.__init__(object.__new__(odd), name, True, 10),
        lambda: SharedMemory.close(object.__new__(odd)),
        lambda: memoryview(object.__new__(odd)),
        lambda: repr(object.__new__(odd)),
        lambda: SharedMemory.size.__get__(object.__new__(odd)),
    ):
        with contextlib.suppress(TypeError, AttributeError):
            use()
    assert not os.path.exists(SHM + name)


def test_methods_of_the_wrong_object(shm):
    mapping = shm.map()
    for method in ("close", "fileno", "detach", "unlink", "stat", "refresh"):
        for wrong in (mapping, None, 5, object(), SharedMemory):
            with pytest.raises(TypeError):
                getattr(SharedMemory, method)(wrong)
    for method in ("sync", "populate", "lock_pages"):
        for wrong in (shm, None, b"abc", memoryview(b"abc")):
            with pytest.raises(TypeError):
                getattr(MemoryMap, method)(wrong)
    for attribute in ("size", "buf", "name"):
        with pytest.raises(TypeError):
            getattr(SharedMemory, attribute).__get__(mapping)


def test_base_classes_with_conflicting_layouts():
    for base in (MemoryMap, int, dict, Exception):
        with pytest.raises(TypeError):
            type("Both", (SharedMemory, base), {})


def test_the_class_of_a_handle_cannot_be_changed(shm):
    class Sub(SharedMemory):
        pass

    for cls in (Sub, object, int, MemoryMap):
        with pytest.raises(TypeError):
            shm.__class__ = cls
    assert type(shm) is SharedMemory
