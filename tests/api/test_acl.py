"""Access control lists: their text, getfacl and setfacl, and the users that get access.

Comparisons with the two programs go both ways: they read the lists that this library set, and the
library reads the lists that they set.
"""

import contextlib
import errno
import os
import re
import stat
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from _processes import (
    PATH,
    SHM,
    SOMEBODY,
    cannot_be_tested,
    needs_acl_programs,
    needs_acls,
    needs_mounts,
    needs_root,
    rounds,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import posixshm
from posixshm import SharedMemory, array

ATTRIBUTE = "system.posix_acl_access"
NO_ID = 2**32 - 1
# In a user namespace the kernel accepts some ids only.
EVERY_ID = Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(NO_ID)]


@pytest.fixture(autouse=True)
def acls():
    needs_acls()


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 100, mode=0o640, delete=True) as shm:
        yield shm


def getfacl(shm, *options):
    needs_acl_programs()
    command = ["getfacl", "--omit-header", "--absolute-names", *options, shm.path]
    text = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.decode()
    return text.removesuffix("\n")


def setfacl(shm, *options, **keywords):
    needs_acl_programs()
    command = ["setfacl", *options, shm.path]
    subprocess.run(command, check=True, timeout=60, **keywords)


def attribute_of(shm):
    """The extended attribute of the list; empty if the object has only a mode."""
    try:
        return os.getxattr(shm.fileno(), ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return b""


# -- the text -----------------------------------------------------------------------------------

OWNER, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


def entries_of(shm):
    """{(tag, id): rights}, as the kernel stores it."""
    data = attribute_of(shm)
    assert data[:4] == struct.pack("<I", 2)
    return {(tag, id): rights for tag, rights, id in struct.iter_unpack("<HHI", data[4:])}


BASE = {(OWNER, NO_ID): 6, (GROUP_OBJ, NO_ID): 4, (OTHER, NO_ID): 0}
TEXTS = {
    # long and short, names and ids, letters in any order and digits
    "user:7:rw-": {(USER, 7): 6, (MASK, NO_ID): 6},
    "u:7:wr": {(USER, 7): 6, (MASK, NO_ID): 6},
    "user:root:6": {(USER, 0): 6, (MASK, NO_ID): 6},
    "group:7:--x": {(GROUP, 7): 1, (MASK, NO_ID): 5},
    "g:root:x": {(GROUP, 0): 1, (MASK, NO_ID): 5},
    "u:7:-": {(USER, 7): 0, (MASK, NO_ID): 4},
    "u:7:0": {(USER, 7): 0, (MASK, NO_ID): 4},
    # those of a mode
    "user::rwx,user:7:r": {(OWNER, NO_ID): 7, (USER, 7): 4, (MASK, NO_ID): 4},
    "group::rw,u:7:r": {(GROUP_OBJ, NO_ID): 6, (USER, 7): 4, (MASK, NO_ID): 6},
    "o::r,u:7:r": {(OTHER, NO_ID): 4, (USER, 7): 4, (MASK, NO_ID): 4},
    "o:r,u:7:r": {(OTHER, NO_ID): 4, (USER, 7): 4, (MASK, NO_ID): 4},
    # the mask: not computed if it is given, and also alone
    "u:7:rw,m::r": {(USER, 7): 6, (MASK, NO_ID): 4},
    "u:7:rw,mask:-": {(USER, 7): 6, (MASK, NO_ID): 0},
    "m::7": {(MASK, NO_ID): 7},
    # several entries, comments, spaces
    "u:7:r,u:8:w,g:7:x": {(USER, 7): 4, (USER, 8): 2, (GROUP, 7): 1, (MASK, NO_ID): 7},
    "u:7:r\ng:7:r\n": {(USER, 7): 4, (GROUP, 7): 4, (MASK, NO_ID): 4},
    "# file: x\n# owner: root\n\n user : 7 : rw-\t#effective:r--\nmask::r--\n": {
        (USER, 7): 6, (MASK, NO_ID): 4,
    },
    "u:7:r,": {(USER, 7): 4, (MASK, NO_ID): 4},
    "u:7:r # all, of it\r\n": {(USER, 7): 4, (MASK, NO_ID): 4},
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_the_kernel_stores_the_entries_of_the_text(shm, names, text):
    expected = BASE | TEXTS[text]
    shm.setfacl(text)
    assert entries_of(shm) == expected
    assert shm.mode == (
        expected[OWNER, NO_ID] << 6 | expected[MASK, NO_ID] << 3 | expected[OTHER, NO_ID]
    )
    with SharedMemory.create(names(), 10, mode=0o640, acl=text, delete=True) as other:
        assert entries_of(other) == expected and other.mode == shm.mode


BAD = {
    "default:user:7:r": "directory",
    "d:u:7:r": "directory",
    "d::": "directory",
    "user:7": "user:NAME:RIGHTS",
    "u::r:w": "user:NAME:RIGHTS",
    "rw": "must begin with",
    "7:rw": "must begin with",
    "us:7:r": "must begin with",
    "User:7:r": "must begin with",
    "u:7:r,,g:7:r": "bad entry ''",
    ",u:7:r": "bad entry ''",
    "mask": "mask::RIGHTS",
    "mask:7:r": "mask::RIGHTS",
    "o:7:r": "other::RIGHTS",
    "u:7:": "not ''",
    "u:7:rr": "not 'rr'",
    "u:7:r w": "not 'r w'",
    "u:7:8": "not '8'",
    "u:7:06": "not '06'",
    "u:7:X": "write x",
    "u:7:R": "not 'R'",
    "u:007:r": "decimal",
    "u:4294967295:r": "decimal",
    "u:99999999999999999999:r": "decimal",
    "u:" + 5000 * "9" + ":r": "decimal",  # more digits than int() accepts
    "u:7:r,user:7:w": "second entry for the user 7",
    "u:root:r,u:0:w": "second entry for the user 0",
    "g::r,g::r": "second entry for the owning group",
    "m::r,m::r": "second entry for the mask",
    "u:a\0b:r": "null",
    "u:\ud800:r": "surrogate",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:30])
def test_a_bad_text_says_what_is_wrong_and_changes_nothing(shm, names, text):
    shm.setfacl("u:5:r")
    before = attribute_of(shm)
    other = names()
    for call in (shm.setfacl, lambda text: SharedMemory.create(other, 10, acl=text)):
        with pytest.raises(ValueError, match=re.escape(BAD[text])):
            call(text)
    assert attribute_of(shm) == before and shm.mode == 0o640
    assert not posixshm.exists(other)


def test_unknown_names_are_lookup_errors(shm, names):
    for text in ("u:no-such-user:r", "g:no-such-group:r", "u:7:r,user:-1:r"):
        for call in (shm.setfacl, lambda text: SharedMemory.create(names(), 10, acl=text)):
            with pytest.raises(LookupError, match="the (user|group) .* does not exist") as caught:
                call(text)
            assert type(caught.value) is LookupError
    assert attribute_of(shm) == b""


def test_other_types_are_type_errors(shm, names):
    for value in (7, b"u:7:r", ["u:7:r"], 0o600):
        for call in (
            shm.setfacl,
            lambda value: SharedMemory.create(names(), 10, acl=value),
            lambda value: SharedMemory.unlinked(10, acl=value),
            lambda value: posixshm.Lock(names(), create=True, acl=value),
        ):
            with pytest.raises(TypeError, match="must be a str or None"):
                call(value)


@pytest.mark.skipif(not EVERY_ID, reason="NOT TESTED: this user namespace has too few ids")
def test_more_entries_than_an_attribute_holds(shm):
    def listed(count):
        return "".join(f"u:{id}:r\n" for id in range(count))

    shm.setfacl(listed(8191 - 4))
    assert len(entries_of(shm)) == 8191 and shm.getfacl(numeric=True).count("\n") == 8191
    with pytest.raises(ValueError, match="at most 8191 entries, not 8192"):
        shm.setfacl(listed(8191 - 3))
    assert len(entries_of(shm)) == 8191


# -- replacing and removing ---------------------------------------------------------------------


def test_an_object_without_a_list_has_the_entries_of_its_mode(shm):
    assert shm.getfacl() == "user::rw-\ngroup::r--\nother::---\n"
    shm.chmod(0o4751)
    assert shm.getfacl() == "user::rwx\ngroup::r-x\nother::--x\n"


def test_the_list_is_replaced(shm):
    shm.setfacl("u:7:rw,g:8:r")
    shm.setfacl("u:9:r")
    assert entries_of(shm) == BASE | {(USER, 9): 4, (MASK, NO_ID): 4}
    assert shm.getfacl(numeric=True) == (
        "user::rw-\nuser:9:r--\ngroup::r--\nmask::r--\nother::---\n"
    )


def test_setting_the_list_that_was_read_changes_nothing(shm):
    for text in ("u:7:rw,g:8:r", "u:7:rwx,g::rx,m::w", "m::-", None):
        shm.setfacl(text)
        before = attribute_of(shm), shm.mode
        shm.setfacl(shm.getfacl())
        shm.setfacl(shm.getfacl(numeric=True))
        assert (attribute_of(shm), shm.mode) == before


@pytest.mark.parametrize("nothing", [None, "", "\n# nothing\n", "user::rw"])
def test_removing_the_list(shm, nothing):
    shm.setfacl("u:7:rw,g::rwx,m::rw")
    assert shm.mode == 0o660
    shm.setfacl(nothing)
    assert attribute_of(shm) == b""
    # The owning group does not get the rights that the mask removed.
    assert shm.mode == 0o660
    assert shm.getfacl() == "user::rw-\ngroup::rw-\nother::---\n"


def test_no_right_is_added_that_the_text_does_not_name(shm):
    shm.setfacl("g::rw,u:7:r,m::r")
    shm.setfacl("u:8:r")
    assert entries_of(shm) == BASE | {(USER, 8): 4, (MASK, NO_ID): 4}


@pytest.mark.once
def test_removing_has_the_result_of_setfacl(shm):
    for text in ("u:7:rw,g::rwx,m::rw", "u:7:rw", "g:7:x,m::-", "o::r,u::r"):
        shm.setfacl(text)
        setfacl(shm, "--remove-all")
        expected = attribute_of(shm), shm.mode
        shm.setfacl(text)
        shm.setfacl(None)
        assert (attribute_of(shm), shm.mode) == expected


def test_the_group_bits_of_the_mode_are_the_mask(shm):
    shm.setfacl("u:7:rw,g::r")
    assert shm.mode == stat.S_IMODE(shm.stat().st_mode) == 0o660
    shm.chmod(0o600)
    assert shm.getfacl(numeric=True).splitlines() == [
        "user::rw-",
        "user:7:rw-\t#effective:---",
        "group::r--\t#effective:---",
        "mask::---",
        "other::---",
    ]
    shm.chmod(0o4660)
    shm.setfacl("u:7:r")
    assert shm.mode == 0o4640


def test_a_read_only_handle_and_every_other_handle_see_it(shm, name):
    with SharedMemory.open(name, readonly=True) as reader:
        reader.setfacl("u:7:r")
        assert shm.getfacl(numeric=True) == reader.getfacl(numeric=True)
        assert (USER, 7) in entries_of(shm)
        assert repr(shm) == f"SharedMemory({name!r}, size=100)"


# -- against the two programs -------------------------------------------------------------------

IDS = st.integers(0, NO_ID - 1 if EVERY_ID else 0)
RIGHTS = st.integers(0, 7)


@st.composite
def lists(draw):
    """A list that the kernel accepts, {(tag, id): rights}."""
    entries = {(tag, NO_ID): draw(RIGHTS) for tag in (OWNER, GROUP_OBJ, OTHER)}
    for tag in (USER, GROUP):
        for id in draw(st.sets(st.one_of(IDS, st.integers(0, 12 if EVERY_ID else 0)), max_size=4)):
            entries[tag, id] = draw(RIGHTS)
    if draw(st.booleans()) or any(tag in (USER, GROUP) for tag, _ in entries):
        entries[MASK, NO_ID] = draw(RIGHTS)
    return entries


WORDS = {OWNER: "user", USER: "user", GROUP_OBJ: "group", GROUP: "group", MASK: "mask"}
WORDS |= {OTHER: "other"}


@st.composite
def texts(draw, entries, without_mask=False):
    """One of the ways to write a list."""
    lines = []
    for (tag, id), rights in entries.items():
        if tag == MASK and without_mask:
            continue
        word = WORDS[tag][: draw(st.sampled_from([1, None]))]
        name = "" if id == NO_ID else str(id)
        letters = "".join(draw(st.permutations([a for a, b in RWX.items() if rights & b] + ["-"])))
        lines.append(f"{word}:{name}:{draw(st.sampled_from([letters, str(rights)]))}")
    lines = draw(st.permutations(lines))
    return draw(st.sampled_from([",", "\n"])).join(lines)


RWX = {"r": 4, "w": 2, "x": 1}


@contextlib.contextmanager
def two_objects():
    with SharedMemory.create(None, 10) as one, SharedMemory.create(None, 10) as two:
        try:
            yield one, two
        finally:
            one.unlink()
            two.unlink()


def both(one, two):
    assert attribute_of(one) == attribute_of(two)
    assert one.mode == two.mode
    assert one.getfacl() == two.getfacl() == getfacl(one) == getfacl(two)
    assert one.getfacl(numeric=True) == getfacl(two, "--numeric")


@pytest.mark.long
@pytest.mark.once
@settings(max_examples=rounds(20, 60), deadline=None)
@given(data=st.data())
def test_the_bytes_are_those_of_setfacl(data):
    """Both with a given mask and with a computed mask."""
    entries = data.draw(lists())
    without_mask = data.draw(st.booleans())
    text = data.draw(texts(entries, without_mask))
    with two_objects() as (one, two):
        one.setfacl(text)
        setfacl(two, "--set-file=-", input=text.replace(",", "\n").encode())
        both(one, two)
        with SharedMemory.create(None, 10, acl=text) as three:
            three.unlink()
            assert attribute_of(three) == attribute_of(one) and three.mode == one.mode


@pytest.mark.long
@pytest.mark.once
@settings(max_examples=rounds(20, 60), deadline=None)
@given(entries=lists())
def test_a_list_is_restored_from_its_text(entries):
    with two_objects() as (one, two):
        packed = b"".join(struct.pack("<HHI", t, r, i) for (t, i), r in sorted(entries.items()))
        os.setxattr(one.fileno(), ATTRIBUTE, struct.pack("<I", 2) + packed)
        two.setfacl(one.getfacl())
        both(one, two)
        one.setfacl(None)
        one.setfacl(two.getfacl(numeric=True))
        both(one, two)
        one.setfacl(None)
        one.setfacl(two.getfacl(numeric=True).replace("\t#effective:", "\n#").replace("\n", ", \n"))
        both(one, two)


@pytest.mark.long
@pytest.mark.once
@settings(max_examples=rounds(20, 40), deadline=None)
@given(first=lists(), data=st.data())
def test_entries_are_added_as_setfacl_adds_them(first, data):
    """The entries are added to those of the mode of a new object."""
    entries = {key: rights for key, rights in first.items() if data.draw(st.booleans())}
    if not entries:
        return
    text = data.draw(texts(entries))
    with two_objects() as (one, two):
        two.chmod(0o640)
        setfacl(two, "--modify", text.replace("\n", ","))
        with SharedMemory.create(None, 10, mode=0o640, acl=text) as three:
            three.unlink()
            assert attribute_of(three) == attribute_of(two) and three.mode == two.mode
        one.chmod(0o640)
        one.setfacl(text)
        both(one, two)


@pytest.mark.once
def test_an_entry_is_added_to_a_list_that_was_read_without_the_mask():
    with two_objects() as (one, two):
        for shm in one, two:
            shm.setfacl("u:7:r,g::rw,m::r")
        lines = [line for line in one.getfacl().splitlines() if not line.startswith("mask")]
        one.setfacl("\n".join([*lines, "u:8:rwx"]))
        setfacl(two, "--modify", "u:8:rwx")
        both(one, two)


@pytest.mark.once
def test_names_that_need_quoting(run_python):
    """Names with characters that separate entries, and a name that reads like an id."""
    needs_mounts()
    needs_acl_programs()
    code = """
        import os, subprocess, sys
        from _processes import mount_over, private_shm
        private_shm()
        from posixshm import SharedMemory
        with SharedMemory.create("x", 10) as shm:
            passwd, group = "/dev/shm/passwd", "/dev/shm/group"
            for path in (passwd, group):
                with open(path, "w") as file:
                    file.write("root:x:0:0::/:/bin/sh\\n")
                os.chmod(path, 0o644)
                mount_over(path, f"/etc/{os.path.basename(path)}")
            for name in ("a b", "a,b", "a\\tb", "a\\\\b", "a\\\\040b", "ä b", "#a", "a #b", "a=b", "-1"):
                for path in (passwd, group):
                    with open(path, "w") as file:
                        file.write(f"{name}:x:0:0::/:/bin/sh\\n")
                shm.setfacl("u:0:rw,g:0:r")
                text = shm.getfacl()
                numeric = shm.getfacl(numeric=True)
                assert "user:0:rw" in numeric and "user:0:rw" not in text, (name, text)
                shm.setfacl(None)
                shm.setfacl(text)
                assert shm.getfacl(numeric=True) == numeric, (name, text)
                # The programs read it, and are read.
                shm.setfacl(None)
                subprocess.run(["setfacl", "--set-file=-", "x"], input=text.encode(), check=True, cwd="/dev/shm")
                assert shm.getfacl(numeric=True) == numeric, (name, text)
                theirs = subprocess.run(["getfacl", "-c", "x"], stdout=-1, check=True, cwd="/dev/shm")
                shm.setfacl(None)
                shm.setfacl(os.fsdecode(theirs.stdout))
                assert shm.getfacl(numeric=True) == numeric, (name, theirs.stdout)
            with open(passwd, "w") as file:
                file.write("1234:x:0:0::/:/bin/sh\\n")
            shm.setfacl("u:0:rw")
            assert "user:0:rw" in shm.getfacl()
    """
    run_python(code, env=PATH, options=["-X", "utf8"])


# -- creating objects ---------------------------------------------------------------------------


def made_by(name):
    """Every call that creates an object and accepts acl=, as a context manager of the new
    object."""

    @contextlib.contextmanager
    def opened(made):
        made.close()
        file = name if posixshm.exists(name) else f"sem.{name}"
        fd = os.open(f"{SHM}/{file}", os.O_RDONLY)
        with SharedMemory.from_fd(fd) as shm:
            yield shm
        os.unlink(f"{SHM}/{file}")

    def linked(**options):
        shm = SharedMemory.unlinked(10, **options)
        shm.link(name)
        return shm

    calls = {
        "create": lambda **options: SharedMemory.create(name, 10, **options),
        "create with init": lambda **options: SharedMemory.create(
            name, 10, init=lambda buf: None, **options
        ),
        "exist_ok": lambda **options: SharedMemory.create(name, 10, exist_ok=True, **options),
        "unlinked": linked,
        "array.create": lambda **options: array.create(name, 3, **options),
        "array.save": lambda **options: array.save(name, np.arange(3), **options),
    }
    for kind in ("Lock", "RLock", "Condition", "Event", "Barrier", "RWLock", "Semaphore"):
        arguments = (name, 2) if kind == "Barrier" else (name,)
        calls[kind] = lambda kind=kind, arguments=arguments, **options: getattr(posixshm, kind)(
            *arguments, create=True, **options
        )
    return calls, opened


MAKERS = list(made_by("")[0])


@pytest.mark.parametrize("maker", MAKERS)
def test_every_call_that_creates_an_object_sets_the_list(name, maker):
    calls, opened = made_by(name)
    old = os.umask(0o777)
    try:
        made = calls[maker](mode=0o1620, acl="u:7:rw,g:8:r,o::x")
    finally:
        os.umask(old)
    with opened(made) as shm:
        assert entries_of(shm) == {
            (OWNER, NO_ID): 6,
            (USER, 7): 6,
            (GROUP_OBJ, NO_ID): 2,
            (GROUP, 8): 4,
            (MASK, NO_ID): 6,
            (OTHER, NO_ID): 1,
        }
        assert shm.mode == 0o1661
    for acl in (None, ""):
        with opened(calls[maker](mode=0o620, acl=acl)) as shm:
            assert attribute_of(shm) == b"" and shm.mode == 0o620
    with pytest.raises(ValueError, match="directory"):
        calls[maker](acl="d:u:7:r")
    assert not posixshm.exists(name)


def test_owner_and_list_together(name):
    needs_root()
    with SharedMemory.create(
        name, 10, mode=0o6640, uid=SOMEBODY, gid=SOMEBODY, acl="u:7:r", delete=True
    ) as shm:
        assert (shm.uid, shm.gid, shm.mode) == (SOMEBODY, SOMEBODY, 0o6640)
        assert entries_of(shm) == BASE | {(USER, 7): 4, (MASK, NO_ID): 4}


def test_attaching_leaves_the_list_alone(name):
    with SharedMemory.create(name, 100, acl="u:7:r", delete=True) as shm:
        before = attribute_of(shm)
        for acl in ("u:8:rw", "", None):
            with SharedMemory.create(name, 100, exist_ok=True, acl=acl) as other:
                assert not other.created and attribute_of(other) == before
        with pytest.raises(LookupError):
            SharedMemory.create(name, 100, exist_ok=True, acl="u:no-such-user:r")
    event = posixshm.Event(name, create=True, acl="u:7:r")
    before = attribute_of(event.shm)
    posixshm.Event(name, create=True, exist_ok=True, acl="u:8:rw").close()
    assert attribute_of(event.shm) == before
    event.unlink()


def test_a_list_needs_a_name_and_create(name):
    with pytest.raises(ValueError, match="acl goes with a name"):
        posixshm.Lock(create=True, acl="u:7:r")
    with pytest.raises(ValueError, match="acl goes with create=True"):
        posixshm.Lock(name, acl="u:7:r")
    with pytest.raises(TypeError, match="acl"):
        array.create(None, 3, acl="u:7:r")
    with pytest.raises(TypeError, match="acl"):
        array.save(None, [1], acl="u:7:r")
    with pytest.raises(TypeError, match="acl"):
        SharedMemory.anonymous(10, acl="u:7:r")


def test_an_object_has_its_list_before_its_name(name):
    def of_the_object_in_the_making():
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}").startswith(f"{SHM}/#"):
                    yield os.getxattr(int(fd), ATTRIBUTE)

    def init(buf):
        assert not posixshm.exists(name)
        seen.extend(of_the_object_in_the_making())

    seen = []
    with SharedMemory.create(name, 10, init=init, acl="u:7:rw", delete=True) as shm:
        assert seen == [attribute_of(shm)] != [b""]


def test_a_temporary_name_never_gives_more_access_than_the_list(run_python, faults, name):
    """Without /proc. Only the owner can open the object until it has its list."""
    code = """
        import errno, os, stat, sys
        from _processes import SHM, Faults
        from posixshm import SharedMemory
        name, faults, seen = sys.argv[1], Faults(), []
        # How objects get their names is found out once.
        faults.arm("access", 1, Faults.FAIL, errno.ENOENT)
        with SharedMemory.create(name, 10, delete=True):
            assert faults.disarm() == 1

        def look():
            (found,) = [each for each in os.listdir(SHM) if each.startswith(name)]
            assert found.startswith(f"{name}~"), found
            seen.append(stat.S_IMODE(os.stat(f"{SHM}/{found}").st_mode))

        faults.call(look)
        for call, expected in (("fsetxattr", 0o600), ("fchmod", 0o660), ("fallocate", 0o4660)):
            seen.clear()
            faults.arm(call, 1, Faults.HOOK_BEFORE)
            shm = SharedMemory.create(name, 10, mode=0o4666, acl="g::-,o::-,u:7:rw")
            faults.disarm()
            shm.unlink()
            shm.close()
            assert seen == [expected], (call, list(map(oct, seen)))
    """
    run_python(code, name, env=faults)


# -- access by other users ----------------------------------------------------------------------

ATTEMPT = """
    import os, sys
    from _processes import become
    from posixshm import SharedMemory
    become(int(sys.argv[2]))
    for readonly in (True, False):
        try:
            with SharedMemory.open(sys.argv[1], readonly=readonly) as shm:
                assert shm.buf[0] == 5
                print("reads" if readonly else "writes")
        except PermissionError:
            print("no" if readonly else "not")
"""


def attempt(run_python, name, user):
    return run_python(ATTEMPT, name, user, env=PATH).split()


@pytest.mark.parametrize("how", ["create", "setfacl"])
def test_a_second_user_gets_the_rights_of_the_list_and_a_third_none(run_python, name, how):
    needs_root()
    second, third, fourth = SOMEBODY, SOMEBODY + 1, SOMEBODY + 2
    text = f"u:{second}:rw,u:{third}:r"

    def init(buf):
        buf[0] = 5

    if how == "create":
        shm = SharedMemory.create(name, 10, init=init, acl=text)
    else:
        shm = SharedMemory.create(name, 10, init=init)
        assert attempt(run_python, name, second) == ["no", "not"]
        shm.setfacl(text)
    assert attempt(run_python, name, second) == ["reads", "writes"]
    assert attempt(run_python, name, third) == ["reads", "not"]
    assert attempt(run_python, name, fourth) == ["no", "not"]
    shm.setfacl(f"{text},m::r")
    assert attempt(run_python, name, second) == ["reads", "not"]
    shm.setfacl(f"g:{fourth}:rw,u:{third}:-,o::r")  # become() sets the group to the user's id
    assert attempt(run_python, name, fourth) == ["reads", "writes"]
    assert attempt(run_python, name, third) == ["no", "not"]
    assert attempt(run_python, name, second) == ["reads", "not"]
    shm.setfacl(None)
    shm.chmod(0o600)
    assert attempt(run_python, name, second) == ["no", "not"]
    shm.unlink()
    shm.close()


def test_only_the_owner_and_root_may_change_it(run_python, name):
    needs_root()
    code = """
        import errno, sys
        from _processes import SOMEBODY, become, raises
        from posixshm import SharedMemory
        SharedMemory.anonymous(1).getfacl()  # imports what it takes
        become(SOMEBODY)
        with SharedMemory.open(sys.argv[1]) as shm:
            assert f"user:{SOMEBODY}:rw-" in shm.getfacl()
            before = shm.getfacl()
            with raises(errno.EPERM) as caught:
                shm.setfacl(None)
            assert caught[0].filename == sys.argv[1] and "owner" in str(caught[0])
            assert shm.getfacl() == before
    """
    with SharedMemory.create(name, 10, acl=f"u:{SOMEBODY}:rw", delete=True):
        run_python(code, name, env=PATH)


# -- file systems and kernels without lists -----------------------------------------------------


def test_a_file_system_without_lists_is_an_error(run_python):
    needs_mounts()
    code = """
        import errno, os
        from _processes import SHM, mount_ramfs, private_shm, raises, unchanged
        private_shm()
        mount_ramfs(SHM)
        import posixshm
        from posixshm import SharedMemory
        calls = [
            lambda: SharedMemory.create("x", 10, acl="u:0:r"),
            lambda: SharedMemory.unlinked(10, acl="m::r"),
            lambda: posixshm.Lock("x", create=True, acl="u:0:r"),
        ]
        for call in calls:
            with unchanged(), raises(errno.EOPNOTSUPP) as caught:
                call()
            assert "/dev/shm, a ramfs" in str(caught[0]) and "mount" in str(caught[0]), caught
        # Rights that a mode can express do not need a list.
        for umask in (0, 0o777):
            os.umask(umask)
            with SharedMemory.create("x", 10, acl="u::rw,g::r", mode=0o777, delete=True) as shm:
                assert shm.mode == 0o647
        with SharedMemory.create("x", 10, acl="u::rw,g::r", mode=0o777) as shm:
            assert shm.getfacl() == "user::rw-\\ngroup::r--\\nother::rwx\\n"
            shm.setfacl("o::-")
            assert shm.mode == 0o640
            shm.setfacl(None)
            with raises(errno.EOPNOTSUPP) as caught:
                shm.setfacl("u:0:r")
            assert caught[0].filename == "x" and "/dev/shm, a ramfs" in str(caught[0])
            assert shm.mode == 0o640
            shm.unlink()
    """
    run_python(code, env=PATH)


def test_an_id_that_is_not_in_the_user_namespace(run_python):
    needs_mounts()
    code = """
        import errno, os, sys
        from _processes import SOMEBODY, become, private_shm, raises, unchanged
        from posixshm import SharedMemory
        SharedMemory.anonymous(1).setfacl(None)  # imports what it takes
        if os.geteuid() == 0:
            become(SOMEBODY)
        try:
            private_shm()
        except PermissionError as error:
            sys.exit(print(error))
        with SharedMemory.create("x", 10) as shm:
            for call in (shm.setfacl, lambda text: SharedMemory.create("y", 10, acl=text)):
                with unchanged(), raises(errno.EINVAL) as caught:
                    call("u:7:r")
                assert "user namespace" in str(caught[0])
            shm.setfacl("u:0:r")
            shm.unlink()
        print("done")
    """
    out = run_python(code, env=PATH)
    if out != "done\n":
        cannot_be_tested(f"this kernel gives an ordinary user no namespaces: {out}")


def test_anonymous_objects_have_lists():
    """A process that opens /proc/PID/fd/N also needs the permission of the list."""
    with SharedMemory.anonymous(10) as shm:
        shm.setfacl("u:7:r")
        assert (USER, 7) in entries_of(shm)
        shm.setfacl(None)
        assert attribute_of(shm) == b""
