"""Attaching checks the owner, the mode and the size that the caller expects."""

import pytest
from _primitives import KINDS, name_of
from _processes import PATH, SOMEBODY, needs_root

import posixshm
from posixshm import Atomic, SharedMemory, array

NAMED = [kind for kind in KINDS if kind is not Atomic]
WIDE = r"The object has mode 0o666, which is more than mode_at_most 0o600"


def make(kind, name, mode):
    if kind is SharedMemory:
        return SharedMemory.create(name, 10, mode=mode, delete=True)
    if kind is array:
        return array.create(name, 10, mode=mode, delete=True)
    arguments = {"parties": 2} if kind is posixshm.Barrier else {}
    return kind(name, create=True, mode=mode, delete=True, **arguments)


def ways_to_attach(kind, name):
    """The calls that attach to an object of this kind, by its name and by exist_ok."""
    if kind is SharedMemory:
        yield lambda **checks: SharedMemory.open(name, **checks)
        yield lambda **checks: SharedMemory.create(name, 10, exist_ok=True, **checks)
    elif kind is array:
        yield lambda **checks: array.open(name, "r+", **checks)
        yield lambda **checks: array.load(name, **checks)
        yield lambda **checks: array.create(name, 10, exist_ok=True, **checks)
    else:
        new = {"parties": 2} if kind is posixshm.Barrier else {}
        yield lambda **checks: kind(name, **checks)
        yield lambda **checks: kind(name, create=True, exist_ok=True, **new, **checks)


@pytest.mark.parametrize("kind", [SharedMemory, array, *NAMED], ids=name_of)
def test_the_mode_of_the_object_is_checked(name, kind):
    with_mode = make(kind, name, 0o666)
    shm = with_mode if kind is SharedMemory else with_mode.shm
    for attach in ways_to_attach(kind, name):
        with pytest.raises(PermissionError, match=WIDE) as caught:
            attach(mode_at_most=0o600)
        assert caught.value.filename.endswith(name)
        attach(mode_at_most=0o666).close()
        attach(mode_at_most=None).close()
    shm.chmod(0o640)
    for attach in ways_to_attach(kind, name):
        attach(mode_at_most=0o660).close()
        with pytest.raises(PermissionError, match="has mode 0o640, which is more than mode_at_most 0o604"):
            attach(mode_at_most=0o604)
    with_mode.close()


def test_the_size_of_the_object_is_checked(name):
    with SharedMemory.create(name, 100, max_size=300, delete=True) as shm:
        for enough in (0, 1, 100):
            SharedMemory.open(name, size_at_least=enough).close()
        with pytest.raises(ValueError, match=f"'{name}' has 100 bytes, fewer than size_at_least, 101"):
            SharedMemory.open(name, size_at_least=101)
        with pytest.raises(
            TimeoutError, match=r"has 100 bytes.* size_at_least, 200 bytes, within 0\.01"
        ):
            SharedMemory.open(name, size_at_least=200, timeout=0.01)
        shm.resize(200)
        SharedMemory.open(name, size_at_least=200).close()


def test_open_waits_for_an_object_that_is_large_enough(name, start_python):
    """A writer with larger frames replaces the object."""
    with SharedMemory.create(name, 100):
        reader = start_python(
            """
            import sys
            from posixshm import SharedMemory
            print("waits", flush=True)
            with SharedMemory.open(sys.argv[1], size_at_least=200, timeout=50) as shm:
                print(bytes(shm.buf[:3]), flush=True)
            """,
            name,
        )
        reader.hear("waits")
        with SharedMemory.unlinked(200) as larger:
            larger.buf[:3] = b"new"
            larger.link(name, replace=True)
            reader.hear("b'new'")
            larger.unlink()
    reader.finish()


def test_an_array_and_its_size(name):
    with array.create(name, 1000, "u1", delete=True) as made:
        assert array.load(name, size_at_least=1000).shape == (1000,)
        with pytest.raises(ValueError, match=f"has {made.shm.size} bytes, fewer than size_at_least"):
            array.load(name, size_at_least=made.shm.size + 1)


def test_the_owner_is_checked_before_the_mode(name, run_python):
    needs_root()
    with SharedMemory.create(name, 10, mode=0o666, delete=True):
        run_python(
            """
            import sys
            from _processes import become
            from posixshm import SharedMemory
            become(int(sys.argv[2]))
            for checks, text in (
                ({"owner": "self", "mode_at_most": 0o600}, None),
                ({"owner": {0}, "mode_at_most": 0o600}, "more than mode_at_most 0o600"),
                ({"owner": {12345}}, "belongs to the user with uid 0"),
                ({"owner": {0}, "mode_at_most": 0o666}, ""),
            ):
                try:
                    SharedMemory.open(sys.argv[1], **checks)
                except PermissionError as error:
                    assert text is None or text and text in str(error), error
                else:
                    assert text == ""
            """,
            name,
            SOMEBODY,
            env=PATH,
        )


def test_self_may_be_one_of_a_set(name):
    with SharedMemory.create(name, 10, delete=True):
        for attach in ways_to_attach(SharedMemory, name):
            for owner in {"self"}, {"self", 12345}, ["self"], (12345, "self"):
                attach(owner=owner).close()


def test_a_bad_owner_is_named(name):
    with SharedMemory.create(name, 10, delete=True):
        for attach in ways_to_attach(SharedMemory, name):
            for wrong in "", "\0", "\ud800", {"any"}, {"self", "no such user"}:
                with pytest.raises(ValueError, match="owner: the user .* does not exist"):
                    attach(owner=wrong)
            for wrong in None, b"root", 1.5, True, {None}, {1: 2}:
                with pytest.raises(TypeError, match="owner must be a uid, a user name, 'self'"):
                    attach(owner=wrong)


def test_bad_expectations_are_refused(name):
    with SharedMemory.create(name, 10, delete=True):
        for attach in [*ways_to_attach(SharedMemory, name), lambda **checks: posixshm.Lock(name, **checks)]:
            for wrong in (-1, 0o10000, 2**64):
                with pytest.raises(ValueError, match="mode_at_most must be between 0o0 and 0o7777"):
                    attach(mode_at_most=wrong)
            for wrong in ("600", 1.5, b""):
                with pytest.raises(TypeError, match="mode_at_most must be an int"):
                    attach(mode_at_most=wrong)
        with pytest.raises(ValueError, match="size_at_least must be at least 0"):
            SharedMemory.open(name, size_at_least=-1)
        with pytest.raises(TypeError, match="size_at_least must be an int"):
            SharedMemory.open(name, size_at_least="10")
    with pytest.raises(
        ValueError, match=r"mode_at_most goes with a name: Lock\(name, mode_at_most"
    ):
        posixshm.Lock(mode_at_most=0o600)
