"""Use locks whose bytes are overwritten at random while they are free or held.

A signal or a hang is a fault of the library. The methods of an overwritten lock may raise OSError
or RuntimeError, or wait until their timeout. A lock elsewhere must work normally.
"""

import contextlib
import faulthandler
import gc
import os
import random
import threading

from posixshm import Condition, Lock, RLock, RWLock, SharedMemory

PLACES = [0, 4096, 8192]
OTHER_PID = os.getppid()


def words(numbers):
    """32-bit values that have a meaning for the C library or the kernel."""
    yield from (0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFFE, 0x40000000, 0x80000000)
    tid = threading.get_native_id()
    yield from (tid, tid | 0x80000000, tid | 0x40000000, OTHER_PID, os.getpid(), 0x3FFFFFFE)
    yield numbers.getrandbits(32)


def overwrite(buf, start, length, numbers):
    """Overwrite words of the lock at `start`."""
    mutexes = [start]  # and the entry and the slots of an RWLock
    if length > 2048:
        mutexes += [start + 128 + 64 * numbers.randrange(33) for _ in range(3)]
    for _ in range(numbers.choice((1, 1, 1, 2, 3, 8))):
        mutex = numbers.choice(mutexes)
        tid = threading.get_native_id().to_bytes(4, "little")
        at = mutex + numbers.randrange(0, 64, 4)
        match numbers.randrange(10):
            case 0:  # copied from another lock, which may be held
                at = mutex + numbers.choice((0, 4, 8, 16, 24, 32))
                other = numbers.choice(PLACES) + (at - mutex)
                size = numbers.choice((4, 8, 16, 48))
                buf[at : at + size] = bytes(buf[other : other + size])
            case 1:  # the whole pthread_mutex_t
                buf[mutex : mutex + 40] = numbers.choice((bytes(40), b"\xff" * 40, b"\xa5" * 40))
            case 2:
                buf[at] ^= 1 << numbers.randrange(8)
            case 3:  # as if this thread held the mutex
                buf[mutex : mutex + 4] = tid
                buf[mutex + 8 : mutex + 12] = tid
                buf[mutex + 4 : mutex + 8] = numbers.choice((0, 1, 2)).to_bytes(4, "little")
            case 4:
                buf[mutex : mutex + 4] = numbers.choice((bytes(4), tid))
            case 5:  # the links of the robust list
                size = numbers.choice((8, 16))
                links = numbers.choice((bytes(16), b"\xa5" * 16, numbers.randbytes(16)))
                at = mutex + 24 + numbers.choice((0, 16 - size))
                buf[at : at + size] = links[:size]
            case 6:  # anywhere
                at = numbers.randrange(start, start + length, 4)
                buf[at : at + 4] = numbers.randbytes(4)
            case _:
                word = numbers.choice(list(words(numbers)))
                buf[at : at + 4] = word.to_bytes(4, "little")


def in_another_process(function):
    pid = os.fork()
    if pid == 0:
        function()
        os._exit(0)
    os.waitpid(pid, 0)


class Player:
    """The steps of a thread."""

    def __init__(self, shm, kinds, numbers):
        self.shm, self.kinds, self.numbers = shm, kinds, numbers
        self.objects = []
        self.errors = []

    def open(self):
        place = self.numbers.randrange(len(PLACES))
        self.objects.append(self.kinds[place].at(self.shm, PLACES[place]))

    def acquire(self):
        lock = self.numbers.choice(self.objects)
        timeout = self.numbers.choice((0, 0, 0, 0.002))
        recover = self.numbers.random() < 0.5
        if isinstance(lock, RWLock):
            if self.numbers.random() < 0.5:
                lock.acquire_read(timeout=timeout)
            else:
                lock.acquire_write(timeout=timeout, recover=recover)
        else:
            lock = lock.lock if isinstance(lock, Condition) else lock
            lock.acquire(timeout=timeout, recover=recover)

    def release(self):
        self.numbers.choice(self.objects).release()

    def drop(self):
        del self.objects[self.numbers.randrange(len(self.objects))]
        gc.collect(0)

    def overwrite(self):
        place = self.numbers.randrange(len(PLACES))
        change = lambda: overwrite(  # noqa: E731
            self.shm.buf, PLACES[place], self.kinds[place].nbytes, self.numbers
        )
        if self.numbers.random() < 0.02:
            in_another_process(change)
        else:
            change()

    def play(self):
        steps = [self.open, self.acquire, self.acquire, self.release, self.drop, self.overwrite]
        weights = [2, 4, 4, 5, 2, 3]
        try:
            for _ in range(self.numbers.randrange(5, 40)):
                if not self.objects:
                    self.open_any()
                with contextlib.suppress(OSError, RuntimeError, ValueError):
                    self.numbers.choices(steps, weights)[0]()
            if self.numbers.random() < 0.5:
                self.objects.clear()
        except BaseException as error:
            self.errors.append(error)
            raise

    def open_any(self):
        while not self.objects:
            try:
                self.open()
            except (OSError, ValueError):
                self.heal()

    def heal(self):
        """Create new locks in place of those that no call accepts any more."""
        for place, kind in zip(PLACES, self.kinds, strict=True):
            self.shm.buf[place : place + kind.nbytes] = bytes(kind.nbytes)
            with contextlib.suppress(OSError, ValueError):
                kind.at(self.shm, place, create=True)


def main(seed, rounds):
    faulthandler.enable()
    numbers = random.Random(seed)
    sound = Lock.at(SharedMemory.anonymous(4096), create=True)
    for _ in range(rounds):
        kinds = numbers.choices([Lock, RLock, RWLock, Condition], k=len(PLACES))
        shm = SharedMemory.anonymous(3 * 4096)
        for place, kind in zip(PLACES, kinds, strict=True):
            kind.at(shm, place, create=True)
        players = [Player(shm, kinds, random.Random(numbers.random())) for _ in range(2)]
        if numbers.random() < 0.2:
            threads = [threading.Thread(target=player.play) for player in players]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:  # one after the other, so that a seed always gives the same steps
            for player in players:
                thread = threading.Thread(target=player.play)
                thread.start()
                thread.join()
        assert not [error for player in players for error in player.errors]
        players[0].play()  # in the main thread, which does not end
        players.clear()
        del shm
        gc.collect()
        with sound:
            assert sound.acquire(timeout=0) is False
