"""CPython's shared-memory tests with one start method, in the environment that `run` creates.

    suite.py START_METHOD

Prints one summary line "START_METHOD: ..." and exits with 0 if every test passed, except
those of DIFFERENCES, which must fail.
"""

import faulthandler
import inspect
import os
import subprocess
import sys
import tempfile
import time
import types
import unittest

FEWEST = 13  # tests that CPython 3.11 has in _TestSharedMemory; later versions have more

# The tests that must fail: the first version that has the test, and the reason. If such a test
# passes or is missing, the suite fails.
DIFFERENCES = {
    "test_shared_memory_tracking": (
        (3, 13),
        "there, the end of an attached process deletes the object; here it must not",
    ),
}

# The modules in which a fresh interpreter finds the two classes.
PROBE = """\
import sys
from multiprocessing import managers, shared_memory
for found in shared_memory, managers.shared_memory, sys.modules["multiprocessing.shared_memory"]:
    print(found.SharedMemory.__module__, found.ShareableList.__module__)
"""
EXPECTED_PROBE = "posixshm.shared_memory posixshm.shared_memory\n" * 3


def check_substitution(tests: types.ModuleType, generic: types.ModuleType) -> None:
    """Check that the tests use the drop-in, in this process and in every interpreter that they
    start."""
    import multiprocessing.managers

    import posixshm
    import posixshm.shared_memory as drop_in

    for holder in tests, multiprocessing, multiprocessing.managers:
        if holder.shared_memory is not drop_in:
            sys.exit(f"{holder.__name__} uses another shared_memory: {holder.shared_memory}")
    if generic.ShareableList is not drop_in.ShareableList:
        sys.exit(f"{generic.__name__} uses another ShareableList: {generic.ShareableList}")
    if not issubclass(drop_in.SharedMemory, posixshm.SharedMemory):
        sys.exit("the drop-in is not posixshm's")
    for flags in [], ["-E"], ["-I"], ["-X", "faulthandler", "-I"]:
        done = subprocess.run(
            [sys.executable, *flags, "-c", PROBE], stdout=subprocess.PIPE, text=True
        )
        if done.returncode != 0 or done.stdout != EXPECTED_PROBE:
            sys.exit(f"python {' '.join(flags)} uses another shared_memory:\n{done.stdout}")


class Result(unittest.TextTestResult):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.ran: list[str] = []

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.ran.append(test._testMethodName)


def run_logged(suite: unittest.TestSuite) -> tuple[Result, str]:
    """Run the suite; return the result and the standard error of all its processes."""
    stderr = os.dup(2)
    faulthandler.dump_traceback_later(540, file=stderr, exit=True)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            runner = unittest.TextTestRunner(sys.stderr, verbosity=2, resultclass=Result)
            result = runner.run(suite)
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
        log.seek(0)
        said = log.read().decode(errors="replace")
    print(said, file=sys.stderr)
    return result, said


def shm_left(before: set[str]) -> list[str]:
    """The names that were added; trackers get time to finish."""
    deadline = time.monotonic() + 10
    while left := set(os.listdir("/dev/shm")) - before:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return sorted(left)


def main() -> int:
    method = sys.argv[1]

    import multiprocessing

    import test._test_multiprocessing as tests
    from test import test_genericalias

    if method not in multiprocessing.get_all_start_methods():
        sys.exit(f"this Python has no start method {method!r}")
    check_substitution(tests, test_genericalias)
    before = set(os.listdir("/dev/shm"))

    # The parts of CPython's own test_multiprocessing_fork, _spawn and _forkserver.
    module = types.ModuleType(f"test_multiprocessing_{method}")
    sys.modules[module.__name__] = module
    tests.install_tests_in_module_dict(vars(module), method)
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    case = vars(module)["WithProcessesTestSharedMemory"]
    suite = load(case)
    names = [test._testMethodName for test in suite]
    # The two other tests that use these classes.
    others = [vars(module)["TestResourceTracker"]("test_resource_tracker")]
    others.append(test_genericalias.BaseTest("test_subscriptable"))
    suite.addTests(others)
    different = {name for name, (since, _) in DIFFERENCES.items() if sys.version_info >= since}
    result, said = run_logged(suite)

    problems = []
    if len(names) < FEWEST:
        problems.append(f"only {len(names)} tests")
    everything = [test._testMethodName for test in others] + names
    if sorted(result.ran) != sorted(everything):
        problems.append(f"ran {sorted(result.ran)}, not {sorted(everything)}")
    if missing := different - set(names):
        problems.append(f"CPython has these no more: {sorted(missing)}")
    failed = {
        getattr(test, "_testMethodName", str(test)) for test, _ in result.failures + result.errors
    }
    problems += [f"{name} failed" for name in sorted(failed - different)]
    problems += [f"{name} passed, so it is no difference" for name in sorted(different - failed)]
    problems += [f"{test} was skipped: {reason}" for test, reason in result.skipped]
    problems += [f"{test} is marked to fail" for test, _ in result.expectedFailures]
    problems += [f"{test} is marked to fail" for test in result.unexpectedSuccesses]
    problems += [f"{name} was left in /dev/shm" for name in shm_left(before)]
    # If a test unregisters a segment that attaching registers there, the segment is not registered
    # here, and the tracker prints a message. It must not print anything else.
    called = sum(
        inspect.getsource(getattr(case, name)).count("resource_tracker.unregister(")
        for name in names
    )
    if (complaints := said.count("KeyError: '")) != called:
        problems.append(f"the trackers printed {complaints} times KeyError, not {called}")
    if "UserWarning: resource_tracker" in said:
        problems.append("a tracker warned")
    if problems:
        print("\n".join(problems))
        return 1
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"{method}: CPython {version}: {len(everything) - len(different)} tests pass", end="")
    for name in sorted(different):
        print(f"; {name} differs: {DIFFERENCES[name][1]}", end="")
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
