"""Creating and publishing: no process sees an incomplete object, and only one creator succeeds."""

import json
import os
import stat

import pytest
from _processes import PATH, SHM, SOMEBODY, go, needs_root

from posixshm import SharedMemory

# The size, mode and bytes of this object show whether it is complete: 8 bytes with its size, 2 with
# its mode, 6 with a version, and then copies of one byte that depends on these.
WHOLE = """
    import os, random, stat, sys
    from _processes import SHM, ready, stopped
    from posixshm import SharedMemory

    def fill_for(size, mode, version):
        stamp = (size + mode + version) % 251 + 1
        head = size.to_bytes(8, "little") + mode.to_bytes(2, "little") + version.to_bytes(6, "little")
        def fill(buf):
            assert len(buf) == size and not buf.readonly
            buf[:] = head + bytes([stamp]) * (size - len(head))
        return fill

    def check(data, size, mode):
        assert len(data) == size == int.from_bytes(data[:8], "little"), (len(data), size, data[:16])
        assert stat.S_IMODE(mode) == int.from_bytes(data[8:10], "little"), (oct(mode), data[:16])
        version = int.from_bytes(data[10:16], "little")
        stamp = (size + stat.S_IMODE(mode) + version) % 251 + 1
        assert data[16:] == bytes([stamp]) * (size - 16), data[:32]
        return version
"""

CREATOR = (
    WHOLE
    + """
    names, rounds = sys.argv[1].split(), int(sys.argv[2])
    ready()
    made = 0
    while made < rounds or not stopped():
        size, mode = random.randrange(16, 13000), random.choice((0o600, 0o644, 0o606))
        try:
            shm = SharedMemory.create(
                random.choice(names), size, mode=mode, init=fill_for(size, mode, made)
            )
        except FileExistsError:
            continue
        made += 1
        shm.unlink()
        shm.close()
"""
)

ATTACHER = (
    WHOLE
    + """
    names, rounds = sys.argv[1].split(), int(sys.argv[2])
    ready()
    got = 0
    while got < rounds:
        try:
            with SharedMemory.open(random.choice(names), readonly=got % 2 == 0) as shm:
                check(bytes(shm.buf), shm.size, shm.mode)
        except FileNotFoundError:
            continue
        got += 1
"""
)

# The object as a C program without this library sees it.
PLAIN_ATTACHER = (
    WHOLE
    + """
    names, rounds = sys.argv[1].split(), int(sys.argv[2])
    ready()
    got = 0
    while got < rounds:
        try:
            fd = os.open(f"{SHM}/{random.choice(names)}", os.O_RDONLY)
        except FileNotFoundError:
            continue
        status = os.fstat(fd)
        check(os.read(fd, status.st_size + 1), status.st_size, status.st_mode)
        os.close(fd)
        got += 1
"""
)


@pytest.mark.long
def test_attaching_processes_never_see_an_incomplete_object(start_python, names):
    several = " ".join(names() for _ in range(3))
    creators = [
        start_python(CREATOR, several, 10_000, env=PATH, umask=umask) for umask in (0o077, 0o000)
    ]
    attachers = [
        start_python(ATTACHER, several, 8_000, env=PATH),
        start_python(ATTACHER, several, 8_000, env=PATH),
        start_python(PLAIN_ATTACHER, several, 4_000, env=PATH),
    ]
    go(*creators, *attachers)
    for attacher in attachers:
        attacher.finish()
    for creator in creators:
        creator.say("stop")
        creator.finish()


def test_a_replaced_name_always_refers_to_a_complete_object(start_python, name):
    reader = (
        WHOLE
        + """
    name = sys.argv[1]
    ready()
    last = looks = 0
    while not stopped():
        with SharedMemory.open(name) as shm:
            version = check(bytes(shm.buf), shm.size, shm.mode)
        assert version >= last, (version, last)
        last = version
        looks += 1
    assert looks > 0
    print(last)
    """
    )
    writer = (
        WHOLE
        + """
    name = sys.argv[1]
    ready()
    for version in range(1, 3001):
        size = random.randrange(16, 9000)
        with SharedMemory.unlinked(size, mode=0o640) as shm:
            fill_for(size, 0o640, version)(shm.buf)
            assert shm.name is None
            shm.link(name, replace=True)
            assert shm.name == name and shm.is_linked()
    """
    )
    with SharedMemory.create(name, 16, mode=0o640) as first:
        first.buf[:] = (16).to_bytes(8, "little") + (0o640).to_bytes(2, "little") + bytes(6)
        readers = [start_python(reader, name, env=PATH) for _ in range(3)]
        writers = [start_python(writer, name, env=PATH)]
        go(*readers, *writers)
        writers[0].finish()
        for child in readers:
            child.say("stop")
        seen = [int(child.finish()[1]) for child in readers]
        assert max(seen) <= 3000
        assert not first.is_linked()
        assert bytes(first.buf[:8]) == (16).to_bytes(8, "little")
    os.unlink(f"{SHM}/{name}")
    assert not [left for left in os.listdir(SHM) if left.startswith(name)]


@pytest.mark.parametrize("exist_ok", [False, True])
def test_only_one_of_many_creators_succeeds(start_python, names, exist_ok):
    prefix, rounds = names(), 1000
    code = """
        import json, sys
        from _processes import ready
        from posixshm import SharedMemory

        prefix, rounds, me, exist_ok = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "True"

        def fill(buf):
            buf[:] = bytes([me]) * len(buf)

        ready()
        created, seen = [], []
        for number in range(rounds):
            try:
                shm = SharedMemory.create(f"{prefix}-{number}", 100, init=fill, exist_ok=exist_ok)
            except FileExistsError as error:
                assert not exist_ok and error.filename == f"{prefix}-{number}"
                continue
            data = bytes(shm.buf)
            assert len(data) == 100 and data == data[:1] * 100 and data[0] in range(1, 6)
            assert shm.created == (data[0] == me)
            seen.append(number)
            if shm.created:
                created.append(number)
            shm.close()
        print(json.dumps([created, seen]))
    """
    racers = [start_python(code, prefix, rounds, me, exist_ok, env=PATH) for me in range(1, 6)]
    go(*racers)
    results = [json.loads(racer.finish()[1]) for racer in racers]
    try:
        created = sorted(number for result in results for number in result[0])
        assert created == list(range(rounds))
        if exist_ok:
            assert all(seen == list(range(rounds)) for _, seen in results)
    finally:
        for left in os.listdir(SHM):
            if left.startswith(f"{prefix}-"):
                os.unlink(f"{SHM}/{left}")


# -- mode and owner -----------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o777])
def test_the_mode_ignores_the_umask(run_python, names, umask):
    code = """
        import os, stat, sys
        from posixshm import SharedMemory

        def mode_in_init(buf):
            assert not os.path.exists(f"/dev/shm/{sys.argv[1]}")

        for mode in (0o600, 0o640, 0o666, 0o400, 0o444, 0o777, 0o000):
            with SharedMemory.create(sys.argv[1], 10, mode=mode, init=mode_in_init) as shm:
                assert stat.S_IMODE(os.stat(f"/dev/shm/{shm.name}").st_mode) == mode
                assert stat.S_IMODE(shm.mode) == mode
                assert not shm.readonly
                shm.buf[0] = 1
                shm.unlink()
            with SharedMemory.unlinked(10, mode=mode) as shm:
                shm.link(sys.argv[1])
                assert stat.S_IMODE(os.stat(f"/dev/shm/{shm.name}").st_mode) == mode
                shm.unlink()
        with SharedMemory.create(sys.argv[1], 10) as shm:
            assert stat.S_IMODE(shm.mode) == 0o600
            shm.unlink()
        with SharedMemory(sys.argv[1], create=True, size=10) as shm:
            assert stat.S_IMODE(shm.mode) == 0o600
            shm.unlink()
    """
    run_python(code, names(), umask=umask)


def test_owner_and_mode_are_as_requested(name):
    needs_root()
    # The kernel clears these bits of the mode on a change of the owner.
    with SharedMemory.create(name, 10, mode=0o4750, uid=SOMEBODY, gid=SOMEBODY + 1) as shm:
        status = os.stat(f"{SHM}/{name}")
        assert (status.st_uid, status.st_gid) == (shm.uid, shm.gid) == (SOMEBODY, SOMEBODY + 1)
        assert stat.S_IMODE(status.st_mode) == 0o4750
        shm.unlink()
    with SharedMemory.create(name, 10, gid=SOMEBODY) as shm:
        assert (shm.uid, shm.gid) == (os.geteuid(), SOMEBODY)
        shm.unlink()


def test_without_permission_to_chown_no_object_is_created(run_python, name):
    needs_root()
    code = """
        import errno, os, sys
        from _processes import SOMEBODY, become, raises, shm_names, unchanged
        from posixshm import SharedMemory

        become(SOMEBODY)
        for owner in ({"uid": 0}, {"gid": 0}, {"uid": 0, "gid": 0}):
            with unchanged(), raises(errno.EPERM) as caught:
                SharedMemory.create(sys.argv[1], 10, **owner)
            assert isinstance(caught[0], PermissionError)
            assert caught[0].filename == sys.argv[1]
            with unchanged(), raises(errno.EPERM):
                SharedMemory.unlinked(10, **owner)
        with SharedMemory.create(sys.argv[1], 10, uid=SOMEBODY, gid=SOMEBODY) as shm:
            assert (shm.uid, shm.gid) == (SOMEBODY, SOMEBODY)
            shm.unlink()
    """
    run_python(code, name, env=PATH)


def test_a_second_user_gets_the_permissions_of_the_mode(run_python, names):
    needs_root()
    code = """
        import errno, os, sys
        from _processes import SOMEBODY, become, raises, shm_names, unchanged
        from posixshm import SharedMemory

        secret, public, shared, mine = sys.argv[1:]
        become(SOMEBODY)
        for readonly in (False, True):
            with unchanged(), raises(errno.EACCES) as caught:
                SharedMemory.open(secret, readonly=readonly)
            assert isinstance(caught[0], PermissionError)
            with unchanged(), raises(errno.EACCES):
                SharedMemory.open(secret, readonly=readonly, timeout=10)
        with unchanged(), raises(errno.EACCES):
            SharedMemory.create(secret, 10, exist_ok=True)
        with unchanged(), raises(errno.EACCES):
            SharedMemory.open(public)
        with SharedMemory.open(public, readonly=True) as shm:
            assert bytes(shm.buf[:6]) == b"public" and shm.uid == 0
        with SharedMemory.open(shared) as shm:
            shm.buf[:4] = b"from"

        # The directory is sticky: write permission for an object does not allow removing its name.
        for name in (secret, public, shared):
            with raises(errno.EEXIST):
                SharedMemory.create(name, 10)
            before = shm_names()
            try:
                with SharedMemory.open(name, readonly=True) as shm:
                    with raises(errno.EPERM, errno.EACCES):
                        shm.unlink()
                    with raises(errno.EPERM, errno.EACCES):
                        shm.rename(mine)
                    assert shm.is_linked() and shm.name == name
            except PermissionError:
                assert name == secret
            with SharedMemory.unlinked(10) as shm:
                with raises(errno.EPERM, errno.EACCES):
                    shm.link(name, replace=True)
                assert shm.name is None and not shm.is_linked()
            assert shm_names() == before

        shm = SharedMemory.create(mine, 10)
        shm.close()
    """
    secret, public, shared, mine = several = [names() for _ in range(4)]
    made = [
        SharedMemory.create(secret, 10, mode=0o600),
        SharedMemory.create(public, 10, mode=0o644),
        SharedMemory.create(shared, 10, mode=0o666),
    ]
    made[1].buf[:6] = b"public"
    try:
        run_python(code, *several, env=PATH)
        assert bytes(made[2].buf[:4]) == b"from"
        with SharedMemory.open(mine) as shm:
            assert shm.uid == SOMEBODY
            shm.unlink()  # root has permission
    finally:
        for shm in made:
            shm.unlink()
            shm.close()


# -- init ---------------------------------------------------------------------------------------


class Trouble(Exception):
    pass


def shm_names(prefix):
    return [found for found in os.listdir(SHM) if found.startswith(prefix)]


def test_init_fills_the_bytes_before_the_name_exists(name):
    seen = []

    def init(buf):
        seen.append((len(buf), buf.readonly, bytes(buf), shm_names(name)))
        buf[:5] = b"early"

    with SharedMemory.create(name, 100, init=init) as shm:
        assert shm.created
        assert bytes(shm.buf) == b"early" + bytes(95)
        shm.unlink()
    assert seen == [(100, False, bytes(100), [])]


def test_exceptions_of_init_are_propagated_and_leave_no_object(name):
    for trouble in (Trouble("no"), KeyboardInterrupt(), SystemExit(3), OSError(5, "disk")):

        def init(buf, trouble=trouble):
            buf[0] = 1
            raise trouble

        with pytest.raises(type(trouble)) as caught:
            SharedMemory.create(name, 1 << 20, init=init)
        assert caught.value is trouble
        assert shm_names(name) == []


def test_a_view_that_init_kept_remains_valid(name):
    kept = []

    def init(buf):
        buf[:4] = b"kept"
        kept.append(buf[:])
        if len(kept) == 2:
            raise Trouble

    with SharedMemory.create(name, 100, init=init) as shm:
        shm.buf[4:8] = b"also"
        shm.unlink()
    with pytest.raises(Trouble):
        SharedMemory.create(name, 100, init=init)
    try:
        assert bytes(kept[0][:8]) == b"keptalso"
        assert bytes(kept[1][:8]) == b"kept\0\0\0\0"
    except ValueError:
        # Releasing the kept view would also be valid.
        pass
    kept.clear()


def test_init_may_create_an_object_of_the_same_name(name):
    def init(buf):
        buf[:5] = b"outer"
        with SharedMemory.create(name, 50) as inner:
            inner.buf[:5] = b"inner"

    with pytest.raises(FileExistsError):
        SharedMemory.create(name, 100, init=init)
    with SharedMemory.create(name, 50, init=lambda buf: None, exist_ok=True) as shm:
        assert not shm.created
        assert bytes(shm.buf[:5]) == b"inner"
        shm.unlink()


def test_init_is_not_called_for_an_object_that_exists(name):
    with SharedMemory.create(name, 100, init=lambda buf: None) as shm:

        def init(buf):
            raise Trouble

        with SharedMemory.create(name, 100, init=init, exist_ok=True) as second:
            assert (shm.created, second.created) == (True, False)
        shm.unlink()


# -- names that exist ---------------------------------------------------------------------------


def test_an_existing_object_that_is_too_small_is_an_error(name):
    with SharedMemory.create(name, 100) as shm:
        with pytest.raises(FileExistsError, match="100") as caught:
            SharedMemory.create(name, 101, exist_ok=True)
        assert "101" in str(caught.value)
        with SharedMemory.create(name, 99, exist_ok=True) as second:
            assert second.size == 100
        shm.unlink()


def test_create_names_the_existing_file_and_does_not_change_it(name):
    path = f"{SHM}/{name}"

    def refusals():
        before = os.lstat(path)
        with pytest.raises(FileExistsError) as caught:
            SharedMemory.create(name, 10)
        assert caught.value.filename == name
        with pytest.raises(OSError) as caught:
            SharedMemory.create(name, 10, exist_ok=True)
        assert os.lstat(path) == before
        assert shm_names(name) == [name]
        return caught.value

    os.mkfifo(path)
    assert "FIFO" in str(refusals())
    os.unlink(path)
    os.mkdir(path)
    assert isinstance(refusals(), IsADirectoryError)
    os.rmdir(path)
    os.symlink("/dev/null", path)
    assert "symbolic link" in str(refusals())
    os.unlink(path)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR))
    assert "0 bytes" in str(refusals())
    os.unlink(path)
