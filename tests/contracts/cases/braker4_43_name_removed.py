# Gaius-Augustus/BRAKER4#43 (Slurm), alihaydaroglu/suite3d#51: RemoveIPC of systemd, an epilog
# script or a colleague removes the files of /dev/shm while a job runs. Its memory remains intact,
# and the job can detect that the name was removed and give the name to the object, or to a copy,
# again.
import os

from _run import main


def native():
    from posixshm import SharedMemory, array
    shm = SharedMemory.create("rep-job", 100_000)
    shm.buf[:5] = b"hello"
    data = array.create("rep-data", 1000)
    data[:] = 7
    os.unlink("/dev/shm/rep-job")
    os.unlink("/dev/shm/rep-data")
    assert not shm.is_linked() and not data.is_linked()
    assert bytes(shm.buf[:5]) == b"hello" and (data == 7).all()
    array.save("rep-data", data)
    assert (array.load("rep-data") == 7).all()
    copy = SharedMemory.unlinked(shm.size)
    copy.buf[:] = shm.buf
    copy.link("rep-job")
    assert bytes(SharedMemory.open("rep-job").buf[:5]) == b"hello"
    copy.unlink()
    array.load("rep-data").shm.unlink()


def native_same_object():
    # Linux cannot link an object that has lost its last name (linkat(2)), so another name is
    # needed.
    from posixshm import SharedMemory
    shm = SharedMemory.create("rep-job", 100_000)
    os.link("/dev/shm/rep-job", "/dev/shm/rep-kept")
    os.unlink("/dev/shm/rep-job")
    shm.link("rep-job")
    os.unlink("/dev/shm/rep-kept")
    other = SharedMemory.open("rep-job")
    other.buf[0] = 1
    assert shm.buf[0] == 1
    shm.unlink()


if __name__ == "__main__":
    main(native=native, native_same_object=native_same_object)
