"""If memory runs out at any step, the call raises and leaves everything as it was."""

import sys

import pytest

# aio is pure Python; the drop-in gives nameless objects a name that the cycle does not learn.
MODULES = "array atomic primitives functions guard handle memory numpy view waits".split()

pytestmark = [
    pytest.mark.new_interpreter,
    pytest.mark.skipif(
        sys.version_info >= (3, 12), reason="from 3.12 on CPython itself crashes if memory runs out"
    ),
]


@pytest.mark.long
@pytest.mark.parametrize("module", MODULES)
def test_each_allocation_of_a_cycle_fails_once(run_python, faults, name, module):
    code = f"from _failures import main; main('_leak_{module}')"
    run_python(code, name, env=faults, timeout=200)


@pytest.mark.long
def test_a_failed_creation_leaves_no_name(run_python, faults, name):
    code = "import sys; from _failures import fail_to_make; fail_to_make(sys.argv[1])"
    run_python(code, name, env=faults, timeout=200)


@pytest.mark.long
def test_python_functions_of_the_package_without_memory(run_python, faults, name):
    code = """
        import sys
        from _processes import Faults
        from posixshm import SharedMemory, _core
        name, faults = sys.argv[1], Faults()
        faults.count_allocations()
        kept = SharedMemory.create(name, 10, delete=True)
        for call in (
            lambda: _core._inspect([name, "absent"]),
            lambda: _core._reclaim_files([name, "absent"], None, False),
            lambda: _core._guard_leave(_core._guard_enter(kept.map())),
        ):
            for step in range(1, 1000):
                faults.arm("allocate", step, Faults.FAIL)
                try:
                    call()
                except MemoryError:
                    faults.disarm()
                else:
                    if faults.disarm() < step:
                        break
            assert step > 1, call
        kept.close()
    """
    run_python(code, name, env=faults)


@pytest.mark.long
def test_an_import_that_fails_can_be_tried_again(run_python, faults):
    code = """
        import importlib, numpy, sys
        from contextlib import suppress
        from _processes import Faults
        faults = Faults()
        faults.count_allocations()
        for step in range(1, 10_000):
            del sys.modules["posixshm._core"]
            faults.arm("allocate", step, Faults.FAIL)
            try:
                module = importlib.import_module("posixshm._core")
            except MemoryError:
                module = None
            except SystemError as error:  # by CPython 3.11, if it is for the name of a type
                assert "without" in str(error)
                module = None
            else:
                with suppress(MemoryError, SystemError):
                    module._array_type(numpy.ndarray)
            met = faults.disarm()
            if met < step:
                break
            sys.modules["posixshm._core"] = module
        shm = module.SharedMemory.anonymous(10)
        lock = module.Lock()
        with lock:
            assert shm.size == 10 and lock.locked()
    """
    run_python(code, env=faults)


def test_a_descriptor_is_closed_if_its_int_cannot_be_allocated(run_python, faults):
    code = """
        import errno, fcntl, os
        from _processes import Faults, raises
        from posixshm import SharedMemory
        faults, kept = Faults(), SharedMemory.anonymous(10)
        faults.count_allocations()
        for step in range(1, 100):
            shm = SharedMemory.from_fd(fcntl.fcntl(kept.fileno(), fcntl.F_DUPFD_CLOEXEC, 300))
            faults.arm("allocate", step, Faults.FAIL)
            try:
                fd = shm.detach()
            except MemoryError:
                fd = None
            met = faults.disarm()
            assert shm.closed
            if fd is not None:
                os.close(fd)
            with raises(errno.EBADF):
                os.fstat(300)
            if met < step:
                break
        assert step > 1
    """
    run_python(code, env=faults)
