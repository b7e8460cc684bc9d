"""Audit events: a hook of sys.addaudithook is called before a name changes, and can refuse.

A hook stays until its process ends, so each test has a process of its own.
"""

import importlib.util

import pytest
from _processes import PATH

HEAD = """
    import os, pickle, sys
    from children.audited import heard, refusing
    import posixshm
    from posixshm import SharedMemory
    from _processes import shm_names
    name, other = sys.argv[1:3]
    before = set(os.listdir("/proc/self/fd"))
"""

# Each entry has code and the events that the code raises. A and B are the two names.
CASES = {
    "create": ("SharedMemory.create(name, 10).unlink()", [("create", "A", 10), ("unlink", "A")]),
    "create, a name with a slash": (
        "SharedMemory.create('/' + name, 10).unlink()",
        [("create", "A", 10), ("unlink", "A")],
    ),
    "create with init and delete": (
        "SharedMemory.create(name, 10, init=lambda view: None, delete=True).close()",
        [("create", "A", 10), ("unlink", "A")],
    ),
    "create, without closing it": (
        "SharedMemory.create(name, 10, delete=True)",
        [("create", "A", 10), ("unlink", "A")],
    ),
    "create or attach": (
        "a = SharedMemory.create(name, 10, exist_ok=True)\n"
        "SharedMemory.create(name, 10, exist_ok=True).unlink()",
        [("open", "A", False), ("create", "A", 10), ("open", "A", False), ("unlink", "A")],
    ),
    "open": (
        "with SharedMemory.create(name, 10, delete=True):\n"
        "    SharedMemory.open(name, readonly=True).close()\n"
        "    SharedMemory.open(name).close()",
        [("create", "A", 10), ("open", "A", True), ("open", "A", False), ("unlink", "A")],
    ),
    "the constructor": (
        "shm = SharedMemory(name, True, 10)\nSharedMemory(name).close()\nshm.unlink()",
        [("create", "A", 10), ("open", "A", False), ("unlink", "A")],
    ),
    "the drop-in": (
        "from posixshm import shared_memory\n"
        "shm = shared_memory.SharedMemory(name, True, 10)\n"
        "shared_memory.SharedMemory(name).close()\n"
        "shm.close()\n"
        "shm.unlink()",
        [("create", "A", 10), ("open", "A", False), ("unlink", "A")],
    ),
    "a ShareableList": (
        "from posixshm import shared_memory\n"
        "items = shared_memory.ShareableList([1, 2], name=name)\n"
        "items.shm.close()\n"
        "items.shm.unlink()",
        [("create", "A", None), ("unlink", "A")],
    ),
    "objects without a name": (
        "SharedMemory.anonymous(10)\nSharedMemory.unlinked(20)",
        [("create", None, 10), ("create", None, 20)],
    ),
    "link": (
        "shm = SharedMemory.unlinked(10)\nshm.link(name)\nshm.unlink()",
        [("create", None, 10), ("link", "A", False), ("unlink", "A")],
    ),
    "rename": (
        "shm = SharedMemory.create(name, 10)\nshm.rename(other, replace=True)\nshm.unlink()",
        [("create", "A", 10), ("rename", "A", "B", True), ("unlink", "B")],
    ),
    "unpickling": (
        "shm = SharedMemory.create(name, 10)\npickle.loads(pickle.dumps(shm))\nshm.unlink()",
        [("create", "A", 10), ("open", "A", False), ("unlink", "A")],
    ),
    "the raw calls": (
        "os.close(posixshm.shm_open(name, os.O_CREAT | os.O_RDWR))\n"
        "os.close(posixshm.shm_open(name, os.O_RDONLY))\n"
        "posixshm.shm_unlink(name)",
        [("create", "A", 0), ("open", "A", True), ("unlink", "A")],
    ),
    "reclaim": (
        "SharedMemory.create(name, 10).close()\n"
        "posixshm.reclaim(name, dry_run=True)\n"
        "posixshm.reclaim(name, older_than=0)",
        [("create", "A", 10), ("reclaim", "A", 0.0, False)],
    ),
    "a lock": (
        "lock = posixshm.Lock(name, create=True)\nposixshm.Lock(name)\nlock.unlink()",
        [("create", "A", None), ("open", "A", False), ("unlink", "A")],
    ),
    "a semaphore": (
        "posixshm.Semaphore(name, create=True)\n"
        "posixshm.Semaphore(name)\n"
        "posixshm.sem_unlink(name)",
        [("create", "sem.A", None), ("open", "sem.A", False), ("unlink", "sem.A")],
    ),
    "a primitive without a name": ("posixshm.Event()", [("create", None, None)]),
    "an array": (
        "from posixshm import array\n"
        "a = array.create(name, 3)\n"
        "array.load(name)\n"
        "array.unlink(name)",
        [("create", "A", None), ("open", "A", True), ("open", "A", True), ("unlink", "A")],
    ),
    "an array that is saved": (
        "from posixshm import array\narray.save(name, [1, 2], replace=True).unlink()",
        [("create", None, None), ("link", "A", True), ("unlink", "A")],
    ),
    "a table": (
        "from posixshm import arrow\n"
        "import pyarrow\n"
        "heard()\n"
        "arrow.write(name, pyarrow.table({'a': [1, 2]}))\n"
        "arrow.read(name)\n"
        "posixshm.shm_unlink(name)",
        [("create", None, None), ("link", "A", False), ("open", "A", True), ("unlink", "A")],
    ),
}


def needs_module(module, code):
    """Skip if the code needs this module, directly or through posixshm, and it is not installed."""
    word = {"numpy": "import array"}.get(module, module)
    if word in code and importlib.util.find_spec(module) is None:
        pytest.skip(f"without {module}")


@pytest.mark.parametrize("case", CASES)
def test_each_operation_raises_its_audit_events(run_python, names, case):
    code, expected = CASES[case]
    needs_module("numpy", code)
    needs_module("pyarrow", code)
    a, b = names(), names()
    rename = {"A": a, "B": b, "sem.A": f"sem.{a}"}
    expected = [tuple(rename.get(item, item) for item in event) for event in expected]
    out = run_python(HEAD + "    exec(sys.argv[3])\n    print(heard())", a, b, code, env=PATH)
    events = eval(out)
    # None in the expected event stands for the size of a primitive, which may change.
    for event, wanted in zip(events, expected, strict=True):
        if wanted[0] == "create" and wanted[2] is None:
            assert event[2] > 0
            event = (*event[:2], None)
        assert event == wanted


REFUSALS = {
    "create": "SharedMemory.create(name, 10)",
    "create, with init": "SharedMemory.create(name, 10, init=lambda view: 1 / 0)",
    "create, without a name": "SharedMemory.anonymous(10)",
    "create, a fresh name": "SharedMemory.create(None, 10)",
    "create, a lock": "posixshm.Lock(name, create=True)",
    "create, a semaphore": "posixshm.Semaphore(name, create=True)",
    "create, an array": "from posixshm import array; array.create(name, 10)",
    "create, raw": "posixshm.shm_open(name, os.O_CREAT | os.O_RDWR)",
    "open": "SharedMemory.open(there.name)",
    "open, the constructor": "SharedMemory(there.name)",
    "open, exist_ok": "SharedMemory.create(there.name, 5, exist_ok=True)",
    "open, raw": "posixshm.shm_open(there.name, os.O_RDONLY)",
    "open, a pickle": "pickle.loads(pickle.dumps(there))",
    "unlink": "there.unlink()",
    "unlink, raw": "posixshm.shm_unlink(there.name)",
    "unlink, of a semaphore": "posixshm.sem_unlink(semaphore)",
    "unlink, close() with delete=True": "doomed.close()",
    "link": "nameless.link(name)",
    "link, an array": "from posixshm import array; array.save(name, [1, 2])",
    "rename": "there.rename(name)",
    "reclaim": "posixshm.reclaim(left)",
}


@pytest.mark.parametrize("case", REFUSALS)
def test_an_exception_of_a_hook_stops_the_call(run_python, names, case):
    """Nothing has changed, and the handles remain usable."""
    needs_module("numpy", REFUSALS[case])
    run_python(
        HEAD
        + """
    event, code, semaphore, left, mortal = sys.argv[3:]
    there = SharedMemory.create(other, 10)
    nameless = SharedMemory.unlinked(10)
    doomed = SharedMemory.create(mortal, 10, delete=True)
    made = posixshm.Semaphore(semaphore, create=True)
    SharedMemory.create(left, 10).close()
    exec(code.partition(";")[0] if ";" in code else "")
    def state():
        return (shm_names(), os.listdir("/proc/self/fd"), there.name, nameless.name, doomed.closed,
                bytes(there.buf), bytes(nameless.buf), bytes(doomed.buf))
    then = state()
    heard()
    with refusing(event):
        exec(code)
    assert heard()[-1][0] == event
    assert state() == then, (then, state())
    # Without a refusal, every call succeeds.
    there.unlink()
    posixshm.sem_unlink(semaphore)
    doomed.close()
    posixshm.shm_unlink(left)
    """,
        names(),
        names(),
        case.partition(",")[0],
        REFUSALS[case],
        names(),
        names(),
        names(),
        env=PATH,
    )


def test_a_hook_that_refuses_an_unlink_at_the_end_of_a_handle_is_reported(run_python, names):
    """delete=True: a finalizer cannot raise, so the exception is unraisable. The name remains."""
    a = names()
    run_python(
        HEAD
        + """
    from children import audited
    shm = SharedMemory.create(name, 10, delete=True)
    reported = []
    sys.unraisablehook = lambda what: reported.append(what.exc_type)
    audited.refused = "posixshm.unlink"
    del shm
    audited.refused = None
    assert set(reported) == {audited.Refused}, reported
    assert posixshm.exists(name)
    posixshm.shm_unlink(name)
    """,
        a,
        names(),
        env=PATH,
    )


def test_a_call_with_bad_arguments_raises_no_event(run_python, names):
    run_python(
        HEAD
        + """
    for call in (
        lambda: SharedMemory.create("a/b", 10),
        lambda: SharedMemory.create(name, 0),
        lambda: SharedMemory.open(name, timeout="x"),
        lambda: posixshm.reclaim(),
        lambda: SharedMemory.anonymous(10).unlink(),
    ):
        try:
            call()
        except (ValueError, TypeError):
            pass
        else:
            raise AssertionError
    assert [event for event in heard() if event != ("create", None, 10)] == []
    """,
        names(),
        names(),
        env=PATH,
    )
