"""Objects made with huge_pages=True in an own /dev/shm: a child of test_huge_pages."""

import re
import warnings

from _processes import private_shm

SIZE = 8 << 20


def in_huge_pages(shm):
    """The bytes of the mappings of an object that are in huge pages."""
    total, counts = 0, False
    with open("/proc/self/smaps", encoding="utf-8") as file:
        for line in file:
            if re.match(r"[0-9a-f]+-", line):
                counts = line.split()[4] == str(shm.stat().st_ino)
            elif counts and line.startswith("ShmemPmdMapped:"):
                total += 1024 * int(line.split()[1])
    return total


def main(option):
    private_shm(f"size=64m,huge={option}")
    from posixshm import SharedMemory, array, exists

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shm = SharedMemory.create("huge", SIZE, huge_pages=True)
        table = array.create("array", SIZE, "u1", huge_pages=True)
        SharedMemory.create("small", SIZE)
    assert table.nbytes == SIZE
    assert {each.filename for each in caught} <= {__file__}, caught
    assert {each.category for each in caught} <= {RuntimeWarning}, caught
    print(in_huge_pages(shm) > 0, *{str(each.message) for each in caught})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            SharedMemory.create("refused", SIZE, huge_pages=True)
        except RuntimeWarning:
            assert not exists("refused")
