"""`posixshm demo`: worker processes brighten a film, in shared memory and through pipes.

The film is a numpy array. Both ways run the same code: the parent process sends each frame to a
worker, and the worker brightens it and sends it back. A frame of a `posixshm.array` is sent as a
reference of a few hundred bytes, a frame of a plain array as its four million bytes.
"""

# matplotlib is installed only for --plot.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import errno
import os
import pickle
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from posixshm import array
from posixshm._command.errors import cleaning_up
from posixshm._command.text import how_many, size_text

Film = npt.NDArray[np.float32]

SIDE = 1024  # of a frame, in pixels
FRAME = SIDE * SIDE * 4  # bytes
FRAMES = 16  # if /dev/shm has room for them
ROUNDS = 3


def brighten(frame: Film) -> None:
    """Stretch the values to the range 0 to 1 and take their square roots, in place."""
    frame -= frame.min()
    frame /= frame.max()
    np.sqrt(frame, out=frame)


def work(pipe: Connection) -> None:
    """The worker process: it ends when the parent closes the pipe or ends."""
    with suppress(OSError, EOFError):  # OSError: the parent ended in the middle of a message
        while True:
            frame = pickle.loads(pipe.recv_bytes())
            brighten(frame)
            pipe.send_bytes(pickle.dumps(frame, protocol=5))


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block; processes that the block starts ignore it."""
    received = []
    handler = signal.signal(signal.SIGINT, lambda *_: received.append(True))
    resource_tracker.ensure_running()  # some versions of it unblock signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # new processes inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if received:
        raise KeyboardInterrupt


@contextmanager
def workers(count: int) -> Iterator[list[Connection]]:
    """Start worker processes and yield a pipe to each. None of them outlives the block."""
    context = get_context("spawn")
    processes, pipes = [], []
    try:
        with without_ctrl_c():
            for _ in range(count):
                ours, theirs = context.Pipe()
                pipes.append(ours)
                with theirs:
                    process = context.Process(target=work, args=(theirs,), daemon=True)
                    processes.append(process)
                    process.start()
        yield pipes
    except (EOFError, ConnectionError):
        raise ChildProcessError("a worker process ended before its work was done") from None
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


class Result(NamedTuple):
    seconds: float
    sent: int  # bytes through all pipes


def process_film(film: Film, pipes: list[Connection]) -> Result:
    """Have the workers brighten every frame."""
    sent = 0
    start = time.perf_counter()
    for first in range(0, len(film), len(pipes)):
        turn = list(zip(film[first:], pipes, strict=False))
        for frame, pipe in turn:
            message = pickle.dumps(frame, protocol=5)
            pipe.send_bytes(message)
            sent += len(message)
        for frame, pipe in turn:
            message = pipe.recv_bytes()
            sent += len(message)
            result = pickle.loads(message)
            if not np.may_share_memory(frame, result):
                frame[:] = result
    return Result(time.perf_counter() - start, sent)


def frames_that_fit() -> int:
    """FRAMES, or as many as half of the free memory of /dev/shm can hold."""
    mount = os.statvfs("/dev/shm")
    if mount.f_blocks == 0:  # mounted without a limit
        return FRAMES
    free = mount.f_bavail * mount.f_frsize
    if free < 2 * FRAME:
        text = f"{size_text(free)} are free; the demo needs {size_text(2 * FRAME)}"
        raise OSError(errno.ENOSPC, text, "/dev/shm")
    return min(FRAMES, free // (2 * FRAME))


def run(plot: str | None) -> int:
    """Run both ways, print what they took, and write a picture of it to the file `plot`."""
    original = np.random.default_rng(0).random((frames_that_fit(), SIDE, SIDE), np.float32)
    plain = np.empty_like(original)
    count = min(4, len(original), len(os.sched_getaffinity(0)))
    print(f"A film of {len(original)} frames, {SIDE} x {SIDE} float32", end=" ")
    crew = how_many(count, "worker process", "worker processes")
    print(f"({size_text(original.nbytes)}), for {crew}:", flush=True)
    in_memory, piped = [], []
    # If the process ends in any way but SIGKILL, delete=True removes the name; after SIGKILL the
    # resource tracker of multiprocessing does (track=True).
    name = f"posixshm-demo-{os.getpid()}"
    with cleaning_up(), workers(count) as pipes:
        with array.create(name, original.shape, "f4", delete=True, track=True) as shared:
            for _ in range(ROUNDS):
                shared[:] = plain[:] = original
                in_memory.append(process_film(shared, pipes))
                piped.append(process_film(plain, pipes))
            same = np.array_equal(shared, plain)
    best = {"in shared memory": min(in_memory), "through pipes": min(piped)}
    for way, result in best.items():
        print(f"  {way:<18}{result.seconds:7.3f} s {size_text(result.sent):>12} sent")
    ratio = best["through pipes"].seconds / best["in shared memory"].seconds
    results = "equal" if same else "NOT equal"
    print(f"Shared memory is {ratio:.1f} times as fast. The results are {results}.")
    if plot is not None:
        write_plot(plot, {way: result.seconds for way, result in best.items()})
        print(f"The picture is in {plot}.")
    return 0 if same else 1


def write_plot(path: str, seconds: dict[str, float]) -> None:
    figure = import_module("matplotlib.figure").Figure(figsize=(6, 2), layout="constrained")
    axes = figure.subplots()
    axes.bar_label(axes.barh(list(seconds), list(seconds.values())), fmt="%.3f s", padding=4)
    axes.set(xlabel="seconds for the same work, shorter is better", xmargin=0.15)
    axes.invert_yaxis()
    figure.savefig(path)
