"""Cycles of the methods of Atomic."""

import signal
from contextlib import suppress

from _leaks import cycle, misused, refused

from posixshm import Atomic, SharedMemory

shm = SharedMemory.anonymous(4096)
words = [Atomic.at(shm, 64 * i, format) for i, format in enumerate("iIqQ")]
wide, unsigned = words[2:]
CHANGES = "exchange fetch_add fetch_sub fetch_and fetch_or fetch_xor".split()
WRONG_ORDERS = (None, 5, "", "nonsense")


def fail(*_):
    raise KeyError


signal.signal(signal.SIGALRM, fail)


@cycle("Atomic.load", "Atomic.store")
def _():
    for word in words:
        word.store(2**30)
        assert word.load("acquire") == 2**30
    unsigned.store(2**64 - 1, "release")
    assert unsigned.load() == 2**64 - 1
    for wrong in (None, "", 1.5, 2**70, -1):
        refused(unsigned.store, wrong)
    for wrong in WRONG_ORDERS:
        refused(wide.load, wrong)
        refused(wide.store, 1, wrong)
    refused(wide.load, "release")
    refused(wide.store, 1, "acquire")
    misused(wide.load)
    misused(wide.store)


@cycle(*(f"Atomic.{change}" for change in CHANGES))
def _():
    for change in CHANGES:
        for word in words:
            getattr(word, change)(2**29, "relaxed")
        method = getattr(unsigned, change)
        method(2**63)
        for wrong in (None, "", 1.5, 2**70):
            refused(method, wrong)
        for wrong in WRONG_ORDERS:
            refused(method, 1, wrong)
        misused(method)


@cycle("Atomic.compare_exchange")
def _():
    unsigned.store(2**63)
    assert unsigned.compare_exchange(2**63, 2**63 + 1) == (True, 2**63)
    assert unsigned.compare_exchange(5, 6, "acq_rel", "relaxed") == (False, 2**63 + 1)
    for wrong in (None, "", 1.5, 2**70):
        refused(unsigned.compare_exchange, wrong, 1)
        refused(unsigned.compare_exchange, 1, wrong)
    for wrong in WRONG_ORDERS:
        refused(unsigned.compare_exchange, 1, 2, wrong)
        if wrong is not None:
            refused(unsigned.compare_exchange, 1, 2, "seq_cst", wrong)
    misused(unsigned.compare_exchange)


@cycle("Atomic.wait", "Atomic.notify")
def _():
    for word in words:
        word.store(1000)
        assert word.wait(1001)
        for timeout in (0, 0.0002):
            assert word.wait(1000, timeout) is False
        assert word.notify() == word.notify(1) == 0
    for wrong in (None, "", 1.5, 2**70):
        refused(wide.wait, wrong)
    for wrong in ("", float("nan")):
        refused(wide.wait, 1000, wrong)
    for wrong in ("", -1, 1.5, 2**70):
        refused(wide.notify, wrong)
    misused(wide.wait)
    misused(wide.notify)
    with suppress(KeyError):
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        wide.wait(1000)
        raise AssertionError("no signal came")
