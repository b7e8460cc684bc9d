"""CPython's test.lock_tests with the primitives, in the environment that `run` creates.

    locks.py

Prints one summary line "locks: ..." and exits with 0 if every test passed, except
those of DIFFERENCES, which must fail.
"""

import faulthandler
import sys
import unittest

import posixshm

FEWEST = 85  # tests that CPython 3.11 has for these types; later versions have more

PRIVATE = "it uses private attributes of threading's own type"
REPR = "it expects threading's repr; ours says the name and the offset"
OWNED = "it releases a lock in another thread; ours belongs to the thread that acquired it"
LONG = "it expects OverflowError; here a timeout beyond 146 years is no limit"
FOREIGN = "it passes a lock of threading, which other processes cannot see"

# The tests that must fail, and the reason. If one of them passes, the run fails.
DIFFERENCES = {
    "LockTests.test_at_fork_reinit": PRIVATE,
    "LockTests.test_different_thread": OWNED,
    "LockTests.test_reacquire": OWNED,
    "LockTests.test_repr": REPR,
    "LockTests.test_locked_repr": REPR,
    "LockTests.test_timeout": LONG,
    "RLockTests.test__is_owned": PRIVATE,
    "RLockTests.test_recursion_count": PRIVATE,
    "RLockTests.test_release_save_unacquired": PRIVATE,
    "RLockTests.test_repr": REPR,
    "RLockTests.test_locked_repr": REPR,
    "RLockTests.test_timeout": LONG,
    "ConditionAsRLockTests.test__is_owned": PRIVATE,
    "ConditionAsRLockTests.test_recursion_count": PRIVATE,
    "ConditionAsRLockTests.test_release_save_unacquired": PRIVATE,
    "ConditionAsRLockTests.test_repr": REPR,
    "ConditionAsRLockTests.test_locked_repr": REPR,
    "ConditionAsRLockTests.test_timeout": LONG,
    "EventTests.test_at_fork_reinit": PRIVATE,
    "EventTests.test_repr": REPR,
    "ConditionTests.test_acquire": FOREIGN,
    "SemaphoreTests.test_repr": REPR,
    "BarrierTests.test_repr": REPR,
}


def condition(lock: posixshm.Lock | posixshm.RLock | None = None) -> posixshm.Condition:
    return posixshm.Condition(lock=lock)


def semaphore(value: int = 1) -> posixshm.Semaphore:
    return posixshm.Semaphore(None, value)


def barrier(parties: int, action: object = None, timeout: float | None = None) -> posixshm.Barrier:
    return posixshm.Barrier(None, parties, action, timeout)


# The classes of lock_tests, as test_threading derives from them: the base class, the attribute with
# the tested type, and our type. The primitives have no name, so each has its own object.
TYPES = {
    "LockTests": ("LockTests", "locktype", posixshm.Lock),
    "RLockTests": ("RLockTests", "locktype", posixshm.RLock),
    "ConditionAsRLockTests": ("RLockTests", "locktype", condition),
    "EventTests": ("EventTests", "eventtype", posixshm.Event),
    "ConditionTests": ("ConditionTests", "condtype", condition),
    "SemaphoreTests": ("SemaphoreTests", "semtype", semaphore),
    "BarrierTests": ("BarrierTests", "barriertype", barrier),
}


def name_of(test: unittest.TestCase) -> str:
    return f"{type(test).__name__}.{getattr(test, '_testMethodName', test)}"


def main() -> int:
    from test import lock_tests

    faulthandler.dump_traceback_later(540, exit=True)
    suite = unittest.TestSuite()
    for name, (base, attribute, kind) in TYPES.items():
        case = type(name, (getattr(lock_tests, base),), {attribute: staticmethod(kind)})
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    names = {name_of(test) for test in suite}
    result = unittest.TextTestRunner(sys.stderr, verbosity=2).run(suite)

    problems = []
    if len(names) < FEWEST:
        problems.append(f"only {len(names)} tests")
    if result.testsRun != len(names):
        problems.append(f"ran {result.testsRun} tests, not {len(names)}")
    different = DIFFERENCES.keys() & names  # older versions have fewer tests
    failed = {name_of(test) for test, _ in result.failures + result.errors}
    problems += [f"{name} failed" for name in sorted(failed - different)]
    problems += [f"{name} passed, so it is no difference" for name in sorted(different - failed)]
    problems += [f"{test} was skipped: {reason}" for test, reason in result.skipped]
    if problems:
        print("\n".join(problems))
        return 1
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"locks: CPython {version}: {len(names) - len(different)} tests pass", end="")
    for reason in dict.fromkeys(DIFFERENCES[name] for name in sorted(different)):
        which = [name for name in sorted(different) if DIFFERENCES[name] == reason]
        print(f"; {', '.join(which)}: {reason}", end="")
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
