"""The workers of the demonstration: what each does, and the crew as its parent sees it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from posixshm import SharedMemory

SIDE = 512
FRAME = SIDE * SIDE * 4  # bytes: 1 MiB
# Bytes between two counters, so that no two workers write to one cache line.
COUNTER = 64
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Film = npt.NDArray[np.float32]
Counters = npt.NDArray[np.int64]


class DemoError(Exception):
    """The demonstration cannot go on; the text says why."""


class Stopped(BaseException):
    """A signal asked to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Job(NamedTuple):
    """All that a worker is told when the film is in shared memory."""

    name: str
    frames: int
    workers: int
    worker: int


def shoot(frame: Film, scene: Film, number: int) -> None:
    """Write frame `number` of the film: the scene, moved on and in another light."""
    np.multiply(np.roll(scene, number, axis=0), np.float32(1 + number % 7), out=frame)


def develop(frame: Film) -> None:
    """Stretch a frame to the range 0 to 1, then brighten it with gamma 2; in place."""
    frame -= frame.min()
    frame /= frame.max()
    np.sqrt(frame, out=frame)


def lay_out(buffer: memoryview, frames: int, workers: int) -> tuple[Film, Counters]:
    """The film, and behind it how many frames each worker has done."""
    film: Film = np.ndarray((frames, SIDE, SIDE), np.float32, buffer)
    counters: Counters = np.ndarray((workers,), np.int64, buffer, frames * FRAME, (COUNTER,))
    return film, counters


def share(frames: int, workers: int, worker: int) -> range:
    """The frames that are this worker's."""
    return range(frames * worker // workers, frames * (worker + 1) // workers)


# A worker process.


def work(pipe: Connection, not_mine: Sequence[Connection]) -> None:
    """Take jobs until the parent closes the pipe or is gone."""
    # The parent alone answers to the terminal. It started us with these held back.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for other in not_mine:
        other.close()
    with suppress(EOFError, OSError):  # the parent is gone
        pipe.send("ready")
        while True:
            job = pipe.recv()
            try:
                if isinstance(job, Job):
                    work_in_place(job, pipe)
                else:
                    for frame in job:
                        develop(frame)
                    pipe.send(job)
            except (MemoryError, OSError, ValueError) as error:
                if isinstance(error, ConnectionError):
                    raise
                pipe.send(f"{type(error).__name__}: {error}")


def work_in_place(job: Job, pipe: Connection) -> None:
    with SharedMemory.open(job.name) as shm:
        film, counters = lay_out(shm.buf, job.frames, job.workers)
        pipe.send("attached")
        for number in share(job.frames, job.workers, job.worker):
            develop(film[number])
            counters[job.worker] += 1
        pipe.send("done")


# The parent's side.


class Stopper:
    """Turns the first signal into Stopped, and lets nothing disturb the way out."""

    def __init__(self) -> None:
        self.signum = 0
        self.holding = False
        self.before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self.unraisable = sys.unraisablehook

    def __enter__(self) -> Stopper:
        for signum in SIGNALS:
            before = signal.getsignal(signum)
            if before != signal.SIG_IGN:  # as under nohup
                self.before[signum] = before
                signal.signal(signum, self.stop)
        self.unraisable, sys.unraisablehook = sys.unraisablehook, self.not_raised
        return self

    def __exit__(self, *_: object) -> None:
        # After the first signal the process only ends, and that in peace.
        for signum, before in self.before.items():
            signal.signal(signum, signal.SIG_IGN if self.signum else before)
        sys.unraisablehook = self.unraisable

    def not_raised(self, what: sys.UnraisableHookArgs) -> None:
        # Python would print a Stopped that goes under in a finalizer; check() raises it again.
        if what.exc_type is not Stopped:
            self.unraisable(what)

    def stop(self, signum: int, _frame: FrameType | None) -> None:
        if not self.signum:
            self.signum = signum
            if not self.holding:
                raise Stopped(signum)

    def check(self) -> None:
        """Stop here, where the exception was put off, or went under as in a finalizer."""
        if self.signum:
            raise Stopped(self.signum)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put signals off, here and in the processes that are started meanwhile.

        The mask is for those. Here it is not enough: another thread may take the
        signal, and its handler in Python runs all the same.
        """
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.holding = True
        try:
            resource_tracker.ensure_running()  # on some versions it takes the mask away
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            yield
        finally:
            self.holding = False
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.check()


class Crew:
    """The workers and the pipe to each. Leaving the block ends them, at once after an error."""

    def __init__(self, count: int, method: str, stopper: Stopper) -> None:
        self.count = count
        self.method = method
        self.stopper = stopper
        self.pipes: list[Connection] = []
        self.processes: list[BaseProcess] = []

    def __enter__(self) -> Crew:
        try:
            with self.stopper.held():
                for _ in range(self.count):
                    self.start_one()
        except BaseException:
            self.dismiss()
            raise
        return self

    def start_one(self) -> None:
        context = multiprocessing.get_context(self.method)
        ours, theirs = context.Pipe()
        self.pipes.append(ours)
        # A forked worker has our ends of all pipes so far, which would keep them open.
        not_mine = [*self.pipes] if self.method == "fork" else []
        process = context.Process(target=work, args=(theirs, not_mine), daemon=True)  # type: ignore[attr-defined]
        try:
            with theirs:
                process.start()
        except ConnectionError:  # spawning, it is written to
            raise DemoError(first_obituary()) from None
        self.processes.append(process)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            for pipe in self.pipes:
                pipe.close()  # a worker ends at the end of its pipe
            for process in self.processes:
                process.join(timeout=5)
        self.dismiss()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def dismiss(self) -> None:
        self.kill()
        for process in self.processes:
            process.join()
        for pipe in self.pipes:
            pipe.close()

    def watch(self, pipes: Sequence[Connection], timeout: float | None) -> list[Connection]:
        """Wait for one of pipes to have something; DemoError if a worker has ended."""
        ends = {process.sentinel: process for process in self.processes}
        ready = wait([*pipes, *ends], timeout)
        for one in ready:
            if isinstance(one, int):
                raise DemoError(self.obituary(self.processes.index(ends[one])))
        return [pipe for pipe in pipes if pipe in ready]

    def tell(self, pipe: Connection, job: Job) -> int:
        """Give a worker its job; returns the length of that in bytes."""
        message = pickle.dumps(job)
        try:
            pipe.send_bytes(message)
        except ConnectionError:
            raise DemoError(self.obituary(self.pipes.index(pipe))) from None
        return len(message)

    def hear(self, pipe: Connection, *expected: str) -> tuple[str, int]:
        """What a worker says, and the length of that in bytes."""
        try:
            message = pipe.recv_bytes()
        except (EOFError, ConnectionError):
            raise DemoError(self.obituary(self.pipes.index(pipe))) from None
        word = pickle.loads(message)
        if word not in expected:
            raise DemoError(f"a worker failed: {word}")
        return word, len(message)

    def wait_until_ready(self) -> None:
        for pipe in self.pipes:
            while not self.watch([pipe], None):
                pass
            self.hear(pipe, "ready")

    def obituary(self, worker: int) -> str:
        process = self.processes[worker]
        process.join(timeout=1)
        return obituary(process.pid, process.exitcode)


def obituary(pid: int | None, exitcode: int | None) -> str:
    how = f"ended with exit code {exitcode}"
    if exitcode is not None and exitcode < 0:
        how = f"was killed by {signal.Signals(-exitcode).name}"
    return f"the worker with pid {pid} {how}; the others were stopped, nothing is left"


def first_obituary() -> str:
    """Of a child that ended while it was started, and that multiprocessing does not tell of."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if dead is not None:
            exited = dead.si_code == os.CLD_EXITED
            return obituary(dead.si_pid, dead.si_status if exited else -dead.si_status)
        time.sleep(0.01)
    return "a worker ended while it was started; the others were stopped, nothing is left"
