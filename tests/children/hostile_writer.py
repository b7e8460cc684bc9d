"""A process that writes random bytes over an object until its input ends.

arguments: NAME, OFFSET, LENGTH (bytes), SEED
"""

import random
import select
import sys

from posixshm import SharedMemory

# Words that code often treats specially: zero, all ones, one, and the high bits.
WORDS = [bytes(8), b"\xff" * 8, b"\1" + bytes(7), b"\0\0\0\x80" * 2, b"\0\0\0\x40" * 2]


def overwrite(buf, numbers):
    """Write one to sixteen random or special bytes somewhere in `buf`, or overwrite all of it."""
    if numbers.random() < 0.01:
        buf[:] = numbers.randbytes(len(buf))
        return
    new = numbers.choice(WORDS) if numbers.random() < 0.5 else numbers.randbytes(16)
    new = new[: numbers.randint(1, min(16, len(buf)))]
    start = numbers.randrange(len(buf) - len(new) + 1)
    buf[start : start + len(new)] = new


def main():
    name, offset, length, seed = sys.argv[1], *map(int, sys.argv[2:5])
    numbers = random.Random(seed)
    with SharedMemory.open(name) as shm:
        buf = shm.buf[offset : offset + length]
        print("ready", flush=True)
        while not select.select([0], [], [], 0)[0]:
            for _ in range(200):
                overwrite(buf, numbers)


if __name__ == "__main__":
    main()
