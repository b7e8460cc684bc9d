"""Objects that grow under several processes: no process maps again or loses a byte."""

import os

import pytest
from _processes import PATH, SHM, go

from posixshm import SharedMemory

MIB = 1 << 20

@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 10_000, max_size=256 * MIB) as shm:
        shm.buf[0] = 1
        yield shm
        shm.unlink()


@pytest.mark.parametrize("max_size", ["None", "1 << 26"])
def test_concurrent_growers_end_with_the_largest_size_and_all_bytes(start_python, name, max_size):
    code = f"""
        import random, sys
        from _processes import ready
        from posixshm import SharedMemory
        name, me = sys.argv[1], int(sys.argv[2])
        random.seed(me)
        shm = SharedMemory.open(name, max_size={max_size})
        ready()
        largest = 0
        for turn in range(400):
            size = shm.refresh()
            assert size >= largest, "it became smaller"
            largest = size
            wanted = size + random.randrange(1, 3 * 4096)
            try:
                shm.resize(wanted)
            except ValueError:
                # Another process has already made the object larger.
                assert shm.stat().st_size > wanted
                continue
            # The bytes that this process wrote remain when another process grows the object.
            assert len(shm.buf) >= wanted
            at = wanted - 1 - (wanted - 1 - me) % 4  # this process's bytes are those = me mod 4
            if at >= size:
                assert shm.buf[at] == 0
                shm.buf[at] = me + 1
                assert shm.buf[at] == me + 1
                print(at)
            largest = wanted
    """
    with SharedMemory.create(name, 100) as shm:
        growers = [start_python(code, name, me, env=PATH) for me in range(4)]
        go(*growers)
        written = [[int(at) for at in grower.finish()[1].split()] for grower in growers]
        size = shm.refresh()
        data = bytes(shm.buf)
        assert len(data) == size == os.stat(f"{SHM}/{name}").st_size
        assert sum(map(len, written)) > 0
        for me, places in enumerate(written):
            assert {data[at] for at in places} <= {me + 1}
        assert sum(map(bool, data)) == len({at for places in written for at in places})
        # All memory is reserved.
        assert os.stat(f"{SHM}/{name}").st_blocks * 512 >= size
        shm.unlink()


def test_a_reader_during_continuous_growth(start_python, name):
    """Sizes never decrease, and every byte of a new view is accessible."""
    reader = """
        import json, sys
        from _processes import ready, stopped
        from posixshm import SharedMemory
        shm = SharedMemory.open(sys.argv[1], readonly=True, max_size=1 << 26)
        ready()
        last, seen = 0, 0
        while not stopped():
            view = shm.buf
            assert len(view) >= last and view[-1] in (0, 7)
            seen += len(view) > last
            last = len(view)
        assert len(shm.buf) == shm.size >= last
        print(seen)
    """
    grower = """
        import sys
        from _processes import ready
        from posixshm import SharedMemory
        shm = SharedMemory.open(sys.argv[1], max_size=1 << 26)
        ready()
        while shm.size < 1 << 25:
            shm.resize(shm.size + 30_000)
            shm.buf[-1] = 7
    """
    with SharedMemory.create(name, 100) as shm:
        readers = [start_python(reader, name, env=PATH) for _ in range(2)]
        growers = [start_python(grower, name, env=PATH)]
        go(*readers, *growers)
        growers[0].finish()
        for each in readers:
            each.say("stop")
            assert int(each.finish()[1]) > 0
        shm.unlink()


def test_an_anonymous_object_grows_until_it_is_sealed(run_python):
    code = """
        import errno, os
        from _processes import raises
        from posixshm import F_SEAL_GROW, SharedMemory
        shm = SharedMemory.anonymous(10_000, max_size=1 << 20)
        view = shm.buf
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(into)
            os.read(out, 1)
            os._exit(0 if shm.size == len(shm.buf) == 50_000 and shm.buf[-1] == 3 else 1)
        shm.resize(50_000)
        shm.buf[-1] = 3
        os.close(into)
        assert os.waitpid(child, 0)[1] == 0
        shm.add_seals(F_SEAL_GROW)
        with raises(errno.EPERM):
            shm.resize(60_000)
        with raises(errno.EPERM):
            shm.resize(10_000, shrink=True)
        assert shm.size == len(shm.buf) == 50_000 and len(view) == 10_000
    """
    run_python(code, env=PATH)


def test_a_process_that_is_killed_while_it_grows_does_not_affect_others(start_python, name):
    code = """
        import sys
        from posixshm import SharedMemory
        shm = SharedMemory.open(sys.argv[1], max_size=1 << 28)
        print("on it", flush=True)
        while shm.size < 1 << 27:
            shm.resize(shm.size + 1_000_003)
    """
    with SharedMemory.create(name, 5000, max_size=1 << 28) as shm:
        shm.buf[:] = bytes([6]) * 5000
        for _ in range(5):
            child = start_python(code, name)
            child.hear("on it")
            child.kill()
            size = shm.size
            assert size >= 5000 and size == os.stat(f"{SHM}/{name}").st_size
            assert bytes(shm.buf[:5000]) == bytes([6]) * 5000
            shm.resize(size + 10)
            assert not any(shm.buf[size:])
        shm.unlink()


def test_shrinking_by_another_process_is_visible(run_python, shm, name):
    shm.resize(50_000)
    code = (
        "import sys, posixshm; posixshm.SharedMemory.open(sys.argv[1]).resize(20_000, shrink=True)"
    )
    run_python(code, name)
    assert shm.size == len(shm.buf) == 20_000
    shm.resize(30_000)
    assert shm.size == 30_000 and not any(shm.buf[20_000:])
    assert shm.resize(10) == shm.size == 30_000  # at least 10
