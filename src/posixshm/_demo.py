"""The demonstration: several processes work on one array, and nobody copies it.

The array is a film of float32 frames in one shared-memory object. Workers attach to
it by name and develop their part of the frames where they lie. Beside it the same
workers do the same to the same film sent through a `multiprocessing` Pipe, a few
frames at a time, and sent back. The parent checks every pixel of both.

Nothing stays behind, whatever ends it: the name is removed as soon as every worker
has attached, before that by the handle's `delete=True`; workers end with the pipe to
their parent; and a signal leaves through the same `with` blocks as everything else.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from posixshm import SharedMemory, listdir
from posixshm._command.progress import progress
from posixshm._demo_crew import (
    COUNTER,
    FRAME,
    SIDE,
    Crew,
    DemoError,
    Film,
    Job,
    Stopped,
    Stopper,
    develop,
    lay_out,
    share,
    shoot,
)

PREFIX = "posixshm-demo-"
# Frames in one message of the Pipe. From 1 to 4 it is at its fastest, and from 16 on
# slower and slower, since the copies leave the processor's cache.
MESSAGE = 4


class Round(NamedTuple):
    """What one way of doing the job took."""

    seconds: float
    pipe_bytes: int


class Demo:
    """One film, one crew, and a bar that is told of each frame."""

    def __init__(self, crew: Crew, frames: int, advance: Callable[[str, int], None]) -> None:
        self.crew = crew
        self.frames = frames
        self.advance = advance
        random = np.random.default_rng(20)
        self.scene = random.random((SIDE, SIDE), dtype=np.float32)

    def shoot_film(self, film: Film) -> None:
        for number in range(self.frames):
            shoot(film[number], self.scene, number)
            self.advance("preparing the film", 1)

    def check(self, film: Film) -> None:
        expected = np.empty((SIDE, SIDE), np.float32)
        for number in range(self.frames):
            shoot(expected, self.scene, number)
            develop(expected)
            if not np.array_equal(film[number], expected):
                raise DemoError(f"frame {number} is wrong")
            self.advance("checking every pixel", 1)

    def in_shared_memory(self) -> Round:
        """The workers attach by name and work in place."""
        crew = self.crew
        name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        size = self.frames * FRAME + crew.count * COUNTER

        def fill(buffer: memoryview) -> None:
            self.shoot_film(lay_out(buffer, self.frames, crew.count)[0])

        with SharedMemory.create(name, size, init=fill, delete=True) as shm:
            film, counters = lay_out(shm.buf, self.frames, crew.count)
            start = time.perf_counter()
            sent = 0
            for worker, pipe in enumerate(crew.pipes):
                sent += crew.tell(pipe, Job(name, self.frames, crew.count, worker))
            attached = done = shown = 0
            while done < crew.count:
                for pipe in crew.watch(crew.pipes, 0.05):
                    word, length = crew.hear(pipe, "attached", "done")
                    sent += length
                    if word == "done":
                        done += 1
                        continue
                    attached += 1
                    if attached == crew.count:
                        # Nobody needs the name any more, so not even SIGKILL can leave it.
                        shm.unlink()
                frames = int(counters.sum())
                self.advance("in place, in shared memory", frames - shown)
                shown = frames
            seconds = time.perf_counter() - start
            self.check(film)
        return Round(seconds, sent)

    def through_pipes(self) -> Round:
        """Each frame is sent to a worker and back."""
        crew = self.crew
        film: Film = np.empty((self.frames, SIDE, SIDE), np.float32)
        self.shoot_film(film)
        done = [0] * crew.count
        failures: list[tuple[int, str]] = []

        def converse(worker: int) -> None:
            mine = share(self.frames, crew.count, worker)
            pipe = crew.pipes[worker]
            try:
                for first in mine[::MESSAGE]:
                    last = min(first + MESSAGE, mine.stop)
                    pipe.send(film[first:last])
                    reply = pipe.recv()
                    if isinstance(reply, str):
                        failures.append((worker, reply))
                        return
                    film[first:last] = reply
                    done[worker] += last - first
            # TypeError: a signal came as this thread began, and its pipe was closed.
            except (EOFError, OSError, TypeError):
                failures.append((worker, ""))
            except MemoryError:
                failures.append((worker, "not enough memory for a message"))

        # A thread for each pipe: one alone would keep the workers waiting.
        threads = [
            threading.Thread(target=converse, args=(worker,), daemon=True)
            for worker in range(crew.count)
        ]
        start = time.perf_counter()
        shown = 0
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(timeout=0.05)
                    frames = sum(done)
                    self.advance("through a Pipe and back", frames - shown)
                    shown = frames
            seconds = time.perf_counter() - start
        except BaseException:
            crew.kill()  # which ends what the threads wait for
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        for worker, text in failures:
            raise DemoError(f"a worker failed: {text}" if text else crew.obituary(worker))
        self.check(film)
        return Round(seconds, 2 * film.nbytes)


def run(size_mib: int, workers: int, rounds: int, method: str) -> int:
    """Show it, and return the exit code of the command."""
    frames = size_mib * (1 << 20) // FRAME
    workers = min(workers, frames)
    try:
        with Stopper() as stopper:
            show(frames, workers, rounds, method, stopper)
    except Stopped as stopped:
        name = signal.Signals(stopped.signum).name
        print(f"posixshm: demo: stopped by {name}; nothing is left behind", file=sys.stderr)
        return 128 + stopped.signum
    except BrokenPipeError:  # of standard output
        raise
    except MemoryError as error:
        print(f"posixshm: demo: not enough memory: {error}", file=sys.stderr)
    except OSError as error:
        advice = "; or ask for less (--size-mib)" if error.errno == errno.ENOSPC else ""
        print(f"posixshm: demo: {error.strerror or error}{advice}", file=sys.stderr)
    except DemoError as error:
        print(f"posixshm: demo: {error}", file=sys.stderr)
    else:
        return 0
    return 1


def show(frames: int, workers: int, rounds: int, method: str, stopper: Stopper) -> None:
    size = f"{frames * FRAME >> 20} MiB"
    print(f"An array of {size}: a film of {frames} frames, {SIDE} x {SIDE} float32.")
    print("The job: stretch each frame to the full range of brightness, then gamma 2.", flush=True)
    shared: list[Round] = []
    piped: list[Round] = []
    with Crew(workers, method, stopper) as crew:
        crew.wait_until_ready()
        pids = [str(process.pid) for process in crew.processes]
        some = ", ".join(pids[:8]) + (", ..." if len(pids) > 8 else "")
        print(f"The workers: {workers} by {method}, pid {some}.", flush=True)
        # Each frame is prepared, worked on and checked, in each round, on both sides.
        with progress("", frames * 6 * rounds, in_bytes=False) as bar:

            def advance(what: str, frames: int) -> None:
                stopper.check()
                bar(frames, what)

            demo = Demo(crew, frames, advance)
            for _ in range(rounds):
                shared.append(demo.in_shared_memory())
                piped.append(demo.through_pipes())
    report(frames, workers, shared, piped)


def report(frames: int, workers: int, shared: Sequence[Round], piped: Sequence[Round]) -> None:
    fast, slow = (statistics.median(each.seconds for each in way) for way in (shared, piped))
    pixels = frames * SIDE * SIDE
    left = [name for name in listdir() if name.startswith(f"{PREFIX}{os.getpid()}-")]

    def line(what: str, way: Sequence[Round], median: float, sent: str) -> str:
        times = " ".join(f"{each.seconds:.3f}" for each in way)
        return f"  {what:<25}{median:6.3f} s   {sent:<40}{times}"

    print()
    processes = "process" if workers == 1 else "processes"
    print(f"{workers} {processes} attached to one object by its name and worked on the frames")
    print("where they lie. No frame was copied.")
    print()
    print(f"  {'':<25}{'median':>8}   {'through pipes, each round':<40}rounds")
    sent = f"{shared[0].pipe_bytes} bytes: the name, and who does what"
    print(line("in shared memory", shared, fast, sent))
    sent = f"{piped[0].pipe_bytes >> 20} MiB: every frame, there and back"
    print(line("through a Pipe and back", piped, slow, sent))
    print()
    print(f"In shared memory {slow / fast:.1f} times as fast: same film, same steps, same workers.")
    runs = len(shared) + len(piped)
    print(f"Checked after each of the {runs} runs: all {pixels:,} pixels equal, bit for bit,")
    print("what the same steps give in this process alone.")
    print(f"Left in /dev/shm: {', '.join(left) or 'nothing'}.")
