# airo-ugent/airo-mono#60, freemocap/skellycam#24, JdeRobot/RoboticsAcademy#2293, huggingface/lerobot#2808,
# rouges78/GameStringer#107, raspberrypi/picamera2#927: a camera process publishes 30 frames of
# 1080p in a second. Viewers of any speed read the newest frame, complete and without a copy. The
# camera does not wait for viewers, even if a viewer is stopped while it reads a frame, or died.
import multiprocessing as mp
import os
import signal
import time

import numpy as np
from _run import Missing, main

SHAPE = (1080, 1920, 3)
SECONDS = 4


def viewer_replace(ready):
    from posixshm import array
    frame = array.load("rep-frame", timeout=10)
    ready.set()
    seen = set()
    while int(frame[0, 0, 0]) != 255:
        if frame.is_linked():
            time.sleep(0.001)
            continue
        frame = array.load("rep-frame")
        first = frame[0, 0, 0]
        assert (frame[::97, ::89] == first).all(), "half of a frame"
        seen.add(int(first))
    print("viewer saw", len(seen))


def camera(publish):
    frame = np.empty(SHAPE, "u1")
    late, number, begin = 0.0, 0, time.monotonic()
    while time.monotonic() < begin + SECONDS:
        frame.fill(number % 250)
        at = time.monotonic()
        publish(frame)
        late = max(late, time.monotonic() - at)
        number += 1
        time.sleep(max(0, begin + number / 30 - time.monotonic()))
    frame.fill(255)
    publish(frame)
    return number, late


def stop_one(processes, ready):
    for event in ready:
        event.wait(10)
    os.kill(processes[0].pid, signal.SIGSTOP)
    os.kill(processes[1].pid, signal.SIGKILL)


def end(processes, number, late):
    os.kill(processes[0].pid, signal.SIGCONT)
    for process in processes:
        process.join(20)
    assert processes[2].exitcode == 0 and processes[0].exitcode == 0, "a viewer failed"
    print(number, "frames, the longest publish took", late)
    assert late < 2, f"the camera waited {late:.2f} s"
    assert number > 8 * SECONDS, f"only {number} frames in {SECONDS} s"


def native_replace():
    """With save(replace=True), which creates an object for each frame."""
    from posixshm import array
    ready = [mp.Event() for _ in range(3)]
    processes = [mp.Process(target=viewer_replace, args=(e,)) for e in ready]
    for process in processes:
        process.start()
    array.save("rep-frame", np.zeros(SHAPE, "u1"))
    stop_one(processes, ready)
    number, late = camera(lambda frame: array.save("rep-frame", frame, replace=True))
    end(processes, number, late)
    array.load("rep-frame").shm.unlink()


def viewer_lock(shm, lock, ready):
    frame = np.frombuffer(shm, "u1", offset=4096).reshape(SHAPE)
    ready.set()
    while True:
        with lock.read():
            first = int(frame[0, 0, 0])
            assert (frame[::97, ::89] == first).all(), "half of a frame"
            if first == 1:  # the test stops a viewer here
                time.sleep(0.3)
        if first == 255:
            return
        time.sleep(0.001)


def native_rwlock():
    """The way that the documents show for frames. A stopped reader keeps the lock."""
    from posixshm import RWLock, SharedMemory
    shm = SharedMemory.anonymous(4096 + 1080 * 1920 * 3)
    lock = RWLock.at(shm, create=True)
    picture = np.frombuffer(shm, "u1", offset=4096).reshape(SHAPE)
    picture[:] = 1
    ready = [mp.Event() for _ in range(3)]
    processes = [mp.Process(target=viewer_lock, args=(shm, lock, e)) for e in ready]
    for process in processes:
        process.start()
    time.sleep(0.2)
    stop_one(processes, ready)

    def publish(frame):
        if not lock.acquire_write(timeout=1):
            for process in processes:
                process.kill()
            raise AssertionError("a viewer that is stopped while it reads keeps the camera waiting")
        picture[:] = frame
        lock.release()

    end(processes, *camera(publish))


def native_latest():
    import posixshm
    if not any(hasattr(posixshm, name) for name in ("Latest", "SeqLock", "TripleBuffer", "Channel")):
        raise Missing("no primitive for the newest value without waiting (seqlock, triple buffer)")


if __name__ == "__main__":
    main(native_replace=native_replace, native_rwlock=native_rwlock, native_latest=native_latest)
