"""Valid names, and the raw calls shm_open and shm_unlink."""

import errno
import os
import stat

import pytest
from _processes import shm_names

import posixshm
from posixshm import SharedMemory, shm_open, shm_unlink

SHM = "/dev/shm/"

BAD = {
    "empty": ("", "empty|at least one"),
    "slash": ("/", "empty|at least one"),
    "two slashes": ("//", "slash"),
    "inner slash": ("a/b", "slash"),
    "inner slash after the first": ("/a/b", "slash"),
    "leading two slashes": ("//a", "slash"),
    "trailing slash": ("a/", "slash"),
    "dot": (".", r"\."),
    "dots": ("..", r"\."),
    "slash dot": ("/.", r"\."),
    "slash dots": ("/..", r"\."),
    "way out": ("../etc/passwd", "slash"),
    "null": ("a\0b", "(?i)null|NUL"),
    "only null": ("\0", "(?i)null|NUL"),
    "null at the end": ("a\0", "(?i)null|NUL"),
    "null after a long start": ("a" * 300 + "\0", "(?i)null|NUL|255"),
    "too long": ("a" * 256, "255"),
    "too long after the slash": ("/" + "a" * 256, "255"),
    "much too long": ("a" * 1_000_000, "255"),
    "too long in UTF-8": ("ü" * 128, "255"),
    "too long in UTF-8 (4 bytes)": ("\U0001f600" * 64, "255"),
    "lone surrogate": ("a\ud800", "surrogate"),
    "low surrogate": ("\udc80abc", "surrogate"),
    "surrogate pair as two": ("\ud83d\ude00", "surrogate"),
    "surrogate and slash": ("\ud800/a", "surrogate|slash"),
}

NO_STR = [b"bytes", bytearray(b"a"), 5, 5.0, True, ["a"], ("a",), object(), str]


def link(name):
    with SharedMemory.unlinked(10) as shm:
        shm.link(name)


def rename(name):
    with SharedMemory.create(None, 10, delete=True) as shm:
        shm.rename(name)


# The calls that accept a name; None stands for a random name, or for no name.
CALLS = {
    "create": lambda name: SharedMemory.create(name, 10),
    "create with init": lambda name: SharedMemory.create(name, 10, init=print),
    "create or attach": lambda name: SharedMemory.create(name, 10, exist_ok=True),
    "create with delete": lambda name: SharedMemory.create(name, 10, delete=True),
    "open": SharedMemory.open,
    "open and wait": lambda name: SharedMemory.open(name, timeout=60),
    "attach": SharedMemory,
    "constructor": lambda name: SharedMemory(name, create=True, size=10),
    "link": link,
    "rename": rename,
    "shm_open": lambda name: shm_open(name, os.O_CREAT | os.O_RDWR),
    "shm_unlink": shm_unlink,
}
NAMELESS = {
    "create",
    "create with init",
    "create or attach",
    "create with delete",
    "constructor",
    "attach",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("name", "rule"), BAD.values(), ids=BAD)
def test_a_bad_name_is_refused_with_its_rule(call, name, rule, capsys):
    before = shm_names()
    with pytest.raises(ValueError, match=rule) as caught:
        call(name)
    assert not isinstance(caught.value, UnicodeError)
    assert "name" in str(caught.value)
    # The message can be printed in every encoding.
    str(caught.value).encode("ascii", "backslashreplace")
    assert shm_names() == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("call", CALLS)
def test_a_name_is_a_str(call):
    for name in NO_STR if call in NAMELESS else [*NO_STR, None]:
        with pytest.raises(TypeError, match="name"):
            CALLS[call](name)


@pytest.mark.parametrize(
    "call",
    [*(call for call in CALLS if call.startswith("create")), "constructor", "link", "rename"],
)
def test_the_name_of_a_semaphore_is_refused(names, call):
    """listdir() and reclaim() would skip the object."""
    name = "sem." + names()
    for given in (name, "/" + name, "sem."):
        before = shm_names()
        with pytest.raises(ValueError, match="'sem[.]'") as caught:
            CALLS[call](given)
        assert repr(given) in str(caught.value)
        assert shm_names() == before


def test_an_object_that_has_the_name_of_a_semaphore_can_be_used_and_renamed(names):
    name, other = "sem." + names(), names()
    os.close(shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR))
    os.truncate(SHM + name, 10)
    for attach in (SharedMemory.open, SharedMemory):
        with attach(name) as shm:
            assert shm.name == name and shm.is_linked()
    with SharedMemory.open(name) as shm:
        shm.rename(other)
        assert other in posixshm.listdir()
        shm.unlink()
    for good in (names() + "sem.", names.prefix + "sem.x"):
        with SharedMemory.create(good, 10, delete=True):
            assert good in posixshm.listdir()


def test_the_message_shows_the_name():
    with pytest.raises(ValueError, match="'a/b'"):
        SharedMemory.open("a/b")


GOOD = {
    "one letter": "x",
    "three dots": "...",
    "dot in front": ".hidden",
    "blank": " ",
    "line break": "a\nb",
    "control characters": "\1\x1b[31m\x7f",
    "not ASCII": "größe-μ-名前",
    "not in the basic plane": "\U0001f600",
    "format characters": "%s%n{0}",
    "back slash": "a\\b",
    "tilde": "~",
    "dash": "-rf",
    "star": "*",
    "right-to-left": "\u202eabc",
    "combining": "e\u0301",
    "not normalized": "\ufb01",
    "deleted": "a (deleted)",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_all_other_characters_are_valid(names, text):
    name = text + names() + text
    with SharedMemory.create(name, 10, delete=True) as shm:
        shm.buf[0] = 5
        assert shm.name == name
        assert name in os.listdir(SHM) and name in posixshm.listdir()
        with SharedMemory.open("/" + name) as other:
            assert other.name == name and other.buf[0] == 5
        assert repr(name) in repr(shm)
    assert not os.path.exists(SHM + name)


@pytest.mark.parametrize("letter", ["a", "ü", "\U0001f600"])
def test_the_longest_name(names, letter):
    """NAME_MAX counts bytes without the leading slash."""
    start = names()
    room = posixshm.NAME_MAX - len(start)
    width = len(letter.encode())
    name = start + letter * (room // width) + "b" * (room % width)
    assert len(name.encode()) == posixshm.NAME_MAX == 255
    for given in (name, "/" + name):
        with SharedMemory.create(given, 10, delete=True) as shm:
            assert shm.name == name and shm.is_linked()
            with SharedMemory.open(given) as other, SharedMemory.create(None, 5) as third:
                assert other.size == 10
                third.rename(given, replace=True)
                assert not shm.is_linked()
                third.unlink()


@pytest.mark.parametrize("call", ["create", "create with init", "open", "constructor", "shm_open"])
def test_a_long_name_that_exists_leaves_no_temporary_name(names, call):
    """The temporary name for it would be too long."""
    name = names().ljust(255, "x")
    before = shm_names()
    with SharedMemory.create(name, 10, delete=True):
        if call in ("open", "shm_open"):
            result = CALLS[call](name)
            os.close(result) if call == "shm_open" else result.close()
        else:
            with pytest.raises(FileExistsError) as caught:
                CALLS[call](name)
            assert caught.value.filename == name
    assert shm_names() == before


def test_a_subclass_of_str_is_a_name(name):
    class Text(str):
        def __str__(self):
            raise AssertionError("__str__ was called")

        __eq__ = __hash__ = __len__ = __getitem__ = __str__

    with SharedMemory.create(Text(name), 10, delete=True) as shm:
        assert type(shm.name) is str and shm.name == name


# -- the raw calls ------------------------------------------------------------------------------


def test_shm_open_and_shm_unlink(name):
    fd = shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    assert isinstance(fd, int) and fd > 2
    assert not os.get_inheritable(fd)
    status = os.fstat(fd)
    assert stat.S_ISREG(status.st_mode) and status.st_size == 0
    os.ftruncate(fd, 100)
    os.close(fd)
    reader = shm_open("/" + name, os.O_RDONLY)
    assert os.read(reader, 200) == bytes(100)
    with pytest.raises(OSError):
        os.write(reader, b"x")
    os.close(reader)
    assert shm_unlink("/" + name) is None
    assert not os.path.exists(SHM + name)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_umask_applies_to_the_mode_of_shm_open(name, umask):
    """The C function does the same."""
    for arguments, mode in [((), 0o600), ((0o666,), 0o666), ((0o644,), 0o644), ((0,), 0)]:
        old = os.umask(umask)
        try:
            fd = shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, *arguments)
        finally:
            os.umask(old)
        assert stat.S_IMODE(os.fstat(fd).st_mode) == mode & ~umask
        os.close(fd)
        shm_unlink(name)


def test_shm_open_takes_keywords(name):
    os.close(shm_open(name=name, flags=os.O_CREAT | os.O_RDWR, mode=0o640))
    shm_unlink(name=name)


@pytest.mark.parametrize("method", ["link", "rename"])
def test_the_error_for_an_existing_name_suggests_arguments(names, method):
    name, taken = names(), names()
    with SharedMemory.create(taken, 10, delete=True):
        shm = SharedMemory.unlinked(10) if method == "link" else SharedMemory.create(name, 10)
        with pytest.raises(FileExistsError, match="replace=True") as caught:
            getattr(shm, method)(taken)
        assert caught.value.filename == taken
        getattr(shm, method)(taken, replace=True)
        assert shm.is_linked()
        shm.unlink()


def test_shm_open_flags(name):
    os.close(shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR))
    os.truncate(SHM + name, 100)
    os.close(shm_open(name, os.O_RDWR | os.O_TRUNC))
    assert os.stat(SHM + name).st_size == 0
    with pytest.raises(FileExistsError) as caught:
        shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, name)
    shm_unlink(name)


def test_raw_calls_with_a_missing_name(name):
    for call in (lambda: shm_open(name, os.O_RDWR), lambda: shm_unlink(name)):
        with pytest.raises(FileNotFoundError) as caught:
            call()
        assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, name)


def test_shm_open_does_not_follow_links(name):
    """shm_open(3) uses O_NOFOLLOW."""
    os.symlink("/etc/passwd", SHM + name)
    with pytest.raises(OSError) as caught:
        shm_open(name, os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP
    shm_unlink(name)
    assert os.path.exists("/etc/passwd")


def test_shm_open_and_shm_unlink_of_a_directory(name):
    os.mkdir(SHM + name)
    for flags in (os.O_RDONLY, os.O_RDWR):
        with pytest.raises(IsADirectoryError):
            shm_open(name, flags)
    with pytest.raises(OSError) as caught:
        shm_unlink(name)
    assert caught.value.errno in (errno.EISDIR, errno.EPERM)
    assert caught.value.filename == name
    os.rmdir(SHM + name)


def test_a_fifo_is_refused_by_a_raw_open_at_once(name, run_python):
    """SharedMemory.open() raises the same error."""
    os.mkfifo(SHM + name)
    run_python(
        """
        import errno, os, sys
        from posixshm import SharedMemory, shm_open
        name = sys.argv[1]
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            descriptors = os.listdir("/proc/self/fd")
            for act in (lambda: shm_open(name, flags), lambda: SharedMemory.open(name)):
                try:
                    act()
                except OSError as error:
                    assert (error.errno, error.filename) == (errno.EINVAL, name), error
                    assert "a FIFO" in error.strerror, error
                else:
                    raise SystemExit("no error")
            assert os.listdir("/proc/self/fd") == descriptors
        """,
        name,
        timeout=30,
    )
    shm_unlink(name)


@pytest.mark.parametrize("flags", [-1, 2**31, 2**64])
def test_shm_open_flags_are_an_int_of_c(name, flags):
    with pytest.raises(ValueError, match="flags"):
        shm_open(name, flags)


def test_shm_open_does_not_return_a_standard_descriptor(name, run_python):
    run_python(
        """
        import os, sys
        from posixshm import shm_open, shm_unlink
        os.close(0)
        fd = shm_open(sys.argv[1], os.O_CREAT | os.O_RDWR)
        assert fd > 2, fd
        assert not os.get_inheritable(fd)
        assert sorted(map(int, os.listdir("/proc/self/fd")))[0] in (0, 1)
        shm_unlink(sys.argv[1])
        """,
        name,
    )


# -- listdir ------------------------------------------------------------------------------------


def test_listdir(names):
    made = [names() for _ in range(5)]
    for name in made:
        SharedMemory.create(name, 10).close()
    os.mkdir(SHM + names.prefix + "directory")
    os.symlink("/etc/passwd", SHM + names.prefix + "link")
    os.mkfifo(SHM + names.prefix + "fifo")
    found = posixshm.listdir()
    assert isinstance(found, list)
    assert sorted(name for name in found if name.startswith(names.prefix)) == sorted(made)
    os.rmdir(SHM + names.prefix + "directory")
    os.unlink(SHM + names.prefix + "link")
    os.unlink(SHM + names.prefix + "fifo")
    for name in made:
        shm_unlink(name)
    assert not any(name.startswith(names.prefix) for name in posixshm.listdir())


def test_listdir_leaves_semaphores_out(names):
    name = "sem." + names()
    with open(SHM + name, "wb") as file:
        file.write(bytes(32))
    assert name not in posixshm.listdir()
    os.unlink(SHM + name)


def test_listdir_of_names_that_are_not_text(names):
    """Names of files of other programs, in the form of os.listdir()."""
    path = os.fsencode(SHM + names()) + b"\xff\xfe"
    with open(path, "wb") as file:
        file.write(b"x")
    assert os.path.basename(os.fsdecode(path)) in posixshm.listdir()
    os.unlink(path)


def test_fresh_names_do_not_repeat():
    handles = [SharedMemory.create(None, 1, delete=True) for _ in range(100)]
    assert len({shm.name for shm in handles}) == 100
    for shm in handles:
        shm.close()
