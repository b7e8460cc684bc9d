"""No part of a primitive looks like free memory, so another cannot be created over it."""

import pytest
from _primitives import WITH_HEADER, at, name_of, use

from posixshm import Barrier, Event, Lock, SharedMemory

LINE = 64  # bytes; the alignment of primitives
PLACE = 8192


@pytest.fixture
def shm():
    with SharedMemory.anonymous(3 * PLACE) as handle:
        yield handle


def overlapping(first, second):
    """All offsets at which `second` has a byte of a `first` at PLACE."""
    return range(PLACE - second.nbytes + LINE, PLACE + first.nbytes, LINE)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("second", WITH_HEADER, ids=name_of)
@pytest.mark.parametrize("first", WITH_HEADER, ids=name_of)
def test_no_primitive_is_created_over_another(first, second, used, shm):
    thing = at(first, shm, PLACE, create=True)
    if used:
        use(thing)
    before = bytes(shm.buf)
    for offset in overlapping(first, second):
        for keywords in ({}, {"exist_ok": True}):
            if offset == PLACE and first is second and keywords:
                continue
            with pytest.raises((ValueError, FileExistsError)):
                at(second, shm, offset, create=True, **keywords)
        if not (offset == PLACE and first is second):
            with pytest.raises((ValueError, FileNotFoundError)):
                second.at(shm, offset)
    assert bytes(shm.buf) == before
    use(thing)
    # Adjacent primitives do not overlap.
    for offset in (PLACE - second.nbytes, PLACE + first.nbytes):
        use(at(second, shm, offset, create=True))
    use(thing)


def test_no_line_of_an_unused_primitive_is_zero(shm):
    for kind in WITH_HEADER:
        at(kind, shm, PLACE, create=True)
        for offset in range(PLACE, PLACE + kind.nbytes, LINE):
            assert any(shm.buf[offset : offset + LINE]), (kind, offset - PLACE)
        shm.buf[PLACE : PLACE + kind.nbytes] = bytes(kind.nbytes)


def test_a_lock_before_an_unset_event(shm):
    """The flag of the event lies at the header of the lock."""
    event = Event.at(shm, 64, create=True)
    with pytest.raises(ValueError, match="other data at offset 0"):
        Lock.at(shm, 0, create=True)
    event.set()
    event.clear()
    with pytest.raises(ValueError, match="other data at offset 0"):
        Barrier.at(shm, 0, create=True, parties=1)
    use(event)
