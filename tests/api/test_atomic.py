"""Atomic: each operation is one step, wraps around as C's does, and wakes the waiters."""

import ctypes
import struct
import threading
import time

import numpy as np
import pytest
from _processes import PATH

from posixshm import Atomic, SharedMemory

DEADLINE = 30
FORMATS = {
    "i": (-(2**31), 2**31 - 1),
    "I": (0, 2**32 - 1),
    "q": (-(2**63), 2**63 - 1),
    "Q": (0, 2**64 - 1),
}
ORDERS = ["seq_cst", "acq_rel", "acquire", "release", "relaxed"]
CHANGES = ["exchange", "fetch_add", "fetch_sub", "fetch_and", "fetch_or", "fetch_xor"]
formats = pytest.mark.parametrize("format", FORMATS)


@pytest.fixture
def shm():
    with SharedMemory.anonymous(4096) as handle:
        yield handle


def wrapped(format, value):
    bits = 8 * struct.calcsize(format)
    value &= 2**bits - 1
    return value - 2**bits if format.islower() and value >> (bits - 1) else value


@formats
def test_load_and_store(shm, format):
    word = Atomic.at(shm, 64, format)
    assert word.format == format and word.load() == 0
    low, high = FORMATS[format]
    for value in (low, low + 1, 0, 1, 2**16, high - 1, high, np.int64(5), np.uint8(7)):
        assert word.store(value) is None
        assert word.load() == value == struct.unpack_from(format, shm.buf, 64)[0]
    assert type(word.load()) is int
    size = struct.calcsize(format)
    assert bytes(shm.buf[:64]) == bytes(64) and bytes(shm.buf[64 + size : 128]) == bytes(64 - size)


@formats
def test_arithmetic(shm, format):
    word = Atomic.at(shm, 0, format)
    low, high = FORMATS[format]
    values = [low, low + 1, 0, 1, 3, 0x5A5A, high // 3, high - 1, high]
    results = {
        "exchange": lambda old, value: value,
        "fetch_add": lambda old, value: old + value,
        "fetch_sub": lambda old, value: old - value,
        "fetch_and": lambda old, value: old & value,
        "fetch_or": lambda old, value: old | value,
        "fetch_xor": lambda old, value: old ^ value,
    }
    assert list(results) == CHANGES
    for method, result in results.items():
        for old in values:
            for value in values:
                word.store(old)
                assert getattr(word, method)(value) == old
                assert word.load() == wrapped(format, result(old, value)), (method, old, value)
    word.store(0)
    word.fetch_sub(1)
    assert word.load() == (-1 if format.islower() else high)


@formats
def test_compare_exchange(shm, format):
    word = Atomic.at(shm, 0, format)
    low, high = FORMATS[format]
    assert word.compare_exchange(0, high) == (True, 0)
    assert word.compare_exchange(0, 5) == (False, high)
    assert word.load() == high
    assert word.compare_exchange(expected=high, desired=low) == (True, high)
    assert word.compare_exchange(low, low) == (True, low)
    done, seen = word.compare_exchange(low, 7)
    assert done is True and type(seen) is int and word.load() == 7
    for i in range(1000):  # strong: it does not fail without a reason
        word.store(i)
        assert word.compare_exchange(i, i + 1) == (True, i)


@formats
def test_all_orders(shm, format):
    word = Atomic.at(shm, 0, format)
    for order in ("seq_cst", "acquire", "relaxed"):
        assert word.load(order) == word.load(order=order) == 0
    for order in ("seq_cst", "release", "relaxed"):
        word.store(0, order)
        word.store(0, order=order)
    for order in ("acq_rel", "release"):
        with pytest.raises(ValueError, match="order of a load must be"):
            word.load(order)
        with pytest.raises(ValueError, match="order of a load must be"):
            word.compare_exchange(0, 0, "seq_cst", order)
    for order in ("acq_rel", "acquire"):
        with pytest.raises(ValueError, match="order of a store must be"):
            word.store(1, order)
    for order in ORDERS:
        for change in CHANGES:
            word.store(6)
            assert getattr(word, change)(3, order) == 6
            assert word.load() == wrapped(
                format,
                {
                    "exchange": 3,
                    "fetch_add": 9,
                    "fetch_sub": 3,
                    "fetch_and": 2,
                    "fetch_or": 7,
                    "fetch_xor": 5,
                }[change],
            )
        for failure in (None, "seq_cst", "acquire", "relaxed"):
            word.store(1)
            assert word.compare_exchange(1, 2, order, failure) == (True, 1)
            assert word.compare_exchange(1, 3, order, failure=failure) == (False, 2)
        word.store(1)
        assert word.compare_exchange(1, 2, order) == (True, 1)
    for bad in ("", "seq", "SEQ_CST", "consume", "seq_cst\0"):
        for call in (
            lambda o: word.load(o),
            lambda o: word.store(1, o),
            lambda o: word.fetch_add(1, o),
            lambda o: word.compare_exchange(1, 1, o),
        ):
            with pytest.raises(ValueError, match="order"):
                call(bad)
    for bad in (5, None, b"seq_cst"):
        with pytest.raises(TypeError, match="order"):
            word.fetch_add(1, bad)
        with pytest.raises(TypeError, match="order"):
            word.load(bad)


@formats
def test_values_out_of_range(shm, format):
    word = Atomic.at(shm, 0, format)
    word.store(1)
    low, high = FORMATS[format]
    for value in (low - 1, high + 1, -(2**63) - 1, 2**64, 2**100, -(10**1000)):
        for method in ("store", *CHANGES, "wait"):
            with pytest.raises(OverflowError, match="integer of"):
                getattr(word, method)(value)
        for pair in ((value, 1), (1, value)):
            with pytest.raises(OverflowError, match="integer of"):
                word.compare_exchange(*pair)
    for value in (1.0, "1", None, True, b"1", 1j, np.float32(1)):
        for method in ("store", *CHANGES, "wait"):
            with pytest.raises(TypeError, match="int"):
                getattr(word, method)(value)
        with pytest.raises(TypeError, match="int"):
            word.compare_exchange(1, value)
    for method in ("store", "compare_exchange", "wait", *CHANGES):
        with pytest.raises(TypeError):
            getattr(word, method)()
        with pytest.raises(TypeError):
            getattr(word, method)(1, "seq_cst", None, None, None)
    assert word.load() == 1


def test_between_processes(run_python):
    code = """
import os
from posixshm import Atomic, SharedMemory
shm = SharedMemory.anonymous(4096)
words = [Atomic.at(shm, 64 * i, format) for i, format in enumerate("iIqQ")]
bits = Atomic.at(shm, 512, "Q")
children = []
for who in range(4):
    children.append(os.fork())
    if not children[-1]:
        for i in range(3000):
            for word in words:
                word.fetch_add(who + 1)
            bits.fetch_xor(1 << (16 * who))
        bits.fetch_or(1 << (16 * who + 1))
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
assert [word.load() for word in words] == [30000] * 4
assert bits.load() == 0x0002_0002_0002_0002, hex(bits.load())
"""
    run_python(code, env=PATH)


# -- waiting ------------------------------------------------------------------------------------


@formats
def test_wait_and_notify(shm, format):
    word = Atomic.at(shm, 0, format)
    assert word.wait(1) is word.wait(1, 0) is word.wait(expected=1, timeout=5) is True
    before = time.monotonic()
    assert word.wait(0, 0) is word.wait(0, 0.03) is False
    assert time.monotonic() - before >= 0.03
    assert word.notify() == word.notify(5) == word.notify(n=None) == 0
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(word.wait(0, DEADLINE))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    word.store(1)
    assert word.notify() <= 4
    for thread in threads:
        thread.join(DEADLINE)
    assert results == [True] * 4


def test_notify_returns_the_number_of_woken_waiters(shm):
    word = Atomic.at(shm, 0, "i")
    woken = []
    threads = [
        threading.Thread(target=lambda: woken.append(word.wait(0, DEADLINE))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + DEADLINE
    total = 0
    while total < 1:  # a waiter that sleeps at this time
        assert time.monotonic() < deadline
        total += word.notify(1)
        assert total <= 1 and not woken  # it checks the value and sleeps again
    word.store(-1)
    word.notify()
    for thread in threads:
        thread.join(DEADLINE)
    assert woken == [True] * 3
    for bad in (0, -1, 2**31):
        with pytest.raises((ValueError, OverflowError)):
            word.notify(bad)
    for bad in (1.0, "1", True):
        with pytest.raises(TypeError):
            word.notify(bad)


@pytest.mark.parametrize("format", ["q", "Q"])
def test_a_change_of_the_upper_half_ends_a_wait(shm, format):
    word = Atomic.at(shm, 0, format)
    result = []
    thread = threading.Thread(target=lambda: result.append(word.wait(0, DEADLINE)))
    thread.start()
    time.sleep(0.02)
    word.store(1 << 40)  # without a notify
    thread.join(DEADLINE)
    assert result == [True]


def test_arguments_of_wait(shm):
    word = Atomic.at(shm, 0)
    with pytest.raises(ValueError, match="timeout"):
        word.wait(0, float("nan"))
    for over in (0, -1, -0.5, float("-inf")):
        assert word.wait(0, over) is False
    for bad in ("1", True, 1j, []):
        with pytest.raises(TypeError, match="timeout"):
            word.wait(0, bad)
    for good in (None, 0, 1e300, float("inf")):
        assert word.wait(1, good) is True


# -- the memory of the word ---------------------------------------------------------------------


@pytest.mark.parametrize(("format", "kind"), [("i", ctypes.c_int32), ("Q", ctypes.c_uint64)])
def test_the_memory_is_only_the_word(shm, format, kind):
    word = Atomic.at(shm, 128, format)
    other = kind.from_buffer(shm.buf, 128)
    other.value = 12
    assert word.fetch_add(30) == 12 and other.value == 42
    del other
    array = np.ndarray(1, format, buffer=shm, offset=128)
    array[0] += 1
    assert word.load() == 43 and Atomic.at(shm, 128, format.swapcase()).load() == 43
    low = Atomic.at(shm, 128, "I")
    assert low.load() == 43


def test_memory_that_is_smaller_than_a_word():
    with SharedMemory.anonymous(4) as shm:
        for offset in (0, 8):
            with pytest.raises(
                ValueError, match=f"an Atomic at offset {offset} takes 8 bytes, past the end at 4"
            ):
                Atomic.at(shm, offset)
