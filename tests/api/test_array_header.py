"""Headers that other programs wrote: a damaged or hostile header is a clear error, never a
crash."""

import os
import signal
import time
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from _processes import PATH, go, rounds
from hypothesis import strategies as st

import posixshm.array

SHM = "/dev/shm/"

property_test = hypothesis.settings(max_examples=rounds(60, 300), deadline=None, database=None)


def header(text, version=(1, 0), length=None):
    """The bytes of a header; without `length` it states its true length."""
    text = text if isinstance(text, bytes) else text.encode("utf8" if version[0] > 2 else "latin1")
    size = 2 if version[0] == 1 else 4
    count = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + count.to_bytes(size, "little") + text


def put(name, data):
    with open(SHM + name, "wb") as file:
        file.write(data)


@pytest.fixture
def refused(name):
    """refused(bytes): the message of the error that loading these bytes raises."""

    def message(data, kinds=ValueError):
        put(name, data)
        try:
            with pytest.raises(kinds) as caught:
                posixshm.array.load(name)
            with pytest.raises(kinds):
                posixshm.array.open(name, "r+")
            assert name in str(caught.value)
            assert Path(SHM + name).read_bytes() == data
            return str(caught.value)
        finally:
            os.unlink(SHM + name)

    return message


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"


def test_a_good_header_is_read(name):
    """Without this, the errors of the other tests would prove nothing."""
    put(name, header(GOOD) + np.arange(6, dtype="<f4").tobytes())
    assert posixshm.array.load(name).tolist() == [[0, 1, 2], [3, 4, 5]]
    os.unlink(SHM + name)


@pytest.mark.parametrize("offset", range(1, 9))
def test_items_anywhere(name, offset):
    """The items may even be misaligned, which numpy supports."""
    text = GOOD[:-1].ljust(100 + offset) + "\n"
    put(name, header(text) + np.arange(6, dtype="<f4").tobytes())
    array = posixshm.array.load(name)
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert array.flags.aligned == ((len(text) + 10) % 4 == 0)
    os.unlink(SHM + name)


@pytest.mark.parametrize("length", [*range(1, 12), 40, 10 + len(GOOD) - 1, 10 + len(GOOD) + 23])
def test_cut(refused, length):
    data = (header(GOOD) + bytes(24))[:length]
    assert any(word in refused(data) for word in ("begins with", "version", "truncated", "ends at byte"))


def test_an_empty_file(refused):
    refused(b"", OSError)


@pytest.mark.parametrize("data", [bytes(1000), b"\x93NUMPX\x01\x00", b"PK\x03\x04" * 9, b"\x93"])
def test_no_array(refused, data):
    assert "begins with" in refused(data)


@pytest.mark.parametrize("version", [(0, 0), (1, 1), (2, 1), (4, 0), (255, 255)])
def test_unknown_versions(refused, version):
    assert str(version) in refused(header(GOOD, version) + bytes(24))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("length", [0, 1, len(GOOD) + 24, 9_999, 10_001, 65_535, 2**31, 2**32 - 1])
def test_a_wrong_length(refused, version, length):
    if version == (1, 0) and length > 65_535:
        return
    message = refused(header(GOOD, version, length) + bytes(24))
    assert any(word in message for word in ("damaged", "truncated", "more than", "ends at byte")), message


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_a_header_longer_than_numpy_reads(refused, version):
    """The object contains the whole header."""
    assert "more than 10000" in refused(header(GOOD[:-1].ljust(20_000) + "\n", version) + bytes(24))


def with_(**values):
    """The good header with some other values."""
    entries = {"descr": "'<f4'", "fortran_order": "False", "shape": "(2, 3)"} | values
    return "{" + ", ".join(f"'{key}': {value}" for key, value in entries.items()) + "}\n"


SHAPES = {
    "negative": ["(-1,)", "(2, -3)", "(-2, -3)", f"(-{2**63},)"],
    "ends at byte": ["(7,)", "(2, 4)", f"({2**31}, {2**31})", f"({2**62},)", f"({2**64},)",
                     f"({2**63 - 1},)", f"({2**32}, {2**32})"],
    "damaged": ["5", "[2, 3]", "(2.0, 3)", "('2', 3)", "None", "(2, None)", "{}", "((2,), 3)",
                f"({10**300}, 2)", f"(0, {10**300})", "(02, 3)", "(2 3)", "(,)", "(2,,)"],
    "does not contain an array": [f"(0, {2**63})", f"(0, {2**62}, {2**62})", "(1,) * 65", str((1,) * 65),
                       str((1,) * 2000)],
}  # fmt: skip


@pytest.mark.parametrize(
    "word, shape", [(word, shape) for word in SHAPES for shape in SHAPES[word]]
)
def test_absurd_shapes(refused, word, shape):
    assert word in refused(header(with_(shape=shape)) + bytes(24))


def test_booleans_in_a_shape_are_numbers_as_for_numpy(name):
    put(name, header(with_(shape="(True, 3)")) + bytes(12))
    array = posixshm.array.load(name)
    assert array.shape == (1, 3) and type(array.shape[0]) is int
    os.unlink(SHM + name)


OBJECTS = [
    "'O'",
    "'|O8'",
    "[('a', '<f4'), ('b', '|O')]",
    "[('a', [('b', 'O', (2,))])]",
    "('O', (2,))",
]


@pytest.mark.parametrize("descr", OBJECTS)
def test_python_objects(refused, descr):
    assert "Python objects" in refused(header(with_(descr=descr)) + bytes(1000))


@pytest.mark.parametrize("descr", ["'|S0'", "'<U0'", "'|V0'", "[]"])
def test_zero_sized_items(refused, descr):
    """Any number of them would fit into any file, and a loop over them would not end."""
    assert "0 bytes" in refused(header(with_(descr=descr, shape="(4611686018427387904,)")))


@pytest.mark.parametrize(
    "descr",
    [
        "'nonsense'", "''", "'f3'", "5", "None", "{}", "[5]", "[('a',)]", "[('a', 'f4', 5, 6)]",
        "['f4']", "[('a', 'f4'), ('a', 'f4')]", "[(5, 'f4')]", "('f4',)", "('f4', -1)", "('f4', 'x')",
        f"('f4', ({2**40}, {2**40}))", f"'V{2**40}'", "'V-1'", "'S99999999999'", "b'f4'", "[[]]",
        "[('a', 'V2147483647'), ('b', 'V2147483647')]", "()", "((), ())", "'<M8[nonsense]'",
        "'<M8[0s]'", "('f4', ((2,), 3))", "[('a', [[]])]", "f'f4'", "'f4' 'f4'", "True",
    ],
)  # fmt: skip
def test_absurd_dtypes(name, descr):
    """load() refuses them, or reads them as numpy does."""
    data = header(with_(descr=descr, shape="(2,)")) + bytes(8)
    put(name, data)
    try:
        array = posixshm.array.load(name)
    except ValueError as error:
        assert name in str(error)
    else:
        assert array.nbytes <= 8
    finally:
        os.unlink(SHM + name)


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "{}", "5", "[]", "{'descr': '<f4'}", "not a literal", "{'descr'", "'" * 3, "\0" * 20,
        "{**{}}", "()", "{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3)}",
        "{'descr': '<f4', 'fortran_order': 'no', 'shape': (2, 3)}", GOOD + GOOD, "{1: 2, 3: 4, 5: 6}",
        GOOD.replace("}", "'extra': 1}"), GOOD.replace("descr", "Descr"), GOOD.replace("'<f4'", "f4"),
        "{[]: 1}", "{'descr': {[]}, 'fortran_order': False, 'shape': (2, 3)}", "\tx\n  y\n z",
    ],
)  # fmt: skip
def test_bad_headers(refused, text):
    for version in [(1, 0), (2, 0), (3, 0)]:
        assert "damaged" in refused(header(text, version) + bytes(1000))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    "code",
    [
        "__import__('os')._exit(3)", "open('/dev/null')", "(lambda: 1)()", "[1 for _ in 'a']",
        "exec('1')", "f'{__import__(\"os\")._exit(3)}'", "2 ** 99999999", "'a' * 99999999", "x := 1",
    ],
)  # fmt: skip
def test_no_code_is_run(refused, code, version):
    for text in (
        code,
        with_(shape=f"({code}, 3)"),
        with_(descr=code),
        with_(**{"x'+" + code: "1"}),
    ):
        refused(header(text, version) + bytes(1000))


@pytest.mark.long
@pytest.mark.parametrize("depth", [50, 90, 150, 1000, 3000])
def test_deep_nesting(names, run_python, depth):
    """In a child, because a failure would crash the interpreter."""
    given = []
    for opening, closing in ["()", "[]", "{}", ("-", ""), ("(1,", ")"), ("{1:", "}")]:
        given.append(names())
        text = with_(shape=opening * depth + "1" + closing * depth)
        put(given[-1], header(text, (2, 0)) + bytes(24))
    out = run_python(
        """
        import sys
        import posixshm.array
        for name in sys.argv[1:]:
            try:
                posixshm.array.load(name)
            except ValueError as error:
                print(name in str(error))
        """,
        *given,
    )
    assert out == "True\n" * len(given)
    for name in given:
        os.unlink(SHM + name)


def test_a_name_that_is_not_utf_8(refused):
    text = with_(descr="[('\xff', 'f4')]").encode("latin1")
    assert "damaged" in refused(header(text, (3, 0)) + bytes(24))


@pytest.mark.parametrize("version", [(2, 0), (3, 0)])
@pytest.mark.parametrize(
    "field", ["plain", "größe", "日本", "🙂", "back\\slash", "quote'", "\ud800"]
)
def test_names_of_fields(name, version, field):
    text = with_(descr=f"[({field!r}, '<f4')]")
    try:
        data = header(text, version)
    except UnicodeEncodeError:
        return
    put(name, data + bytes(24))
    array = posixshm.array.load(name)
    assert array.dtype.names == (field,)
    assert array.dtype == np.load(SHM + name).dtype
    os.unlink(SHM + name)


def test_a_header_of_python_2(name):
    """In such a header numbers may end in L, and strings may begin with u."""
    put(name, header(with_(shape="(2L, 3L)", descr="[(u'a', u'<f4')]")) + bytes(24))
    assert posixshm.array.load(name).shape == (2, 3)
    os.unlink(SHM + name)


def test_a_refused_object_leaves_no_descriptor_open(name):
    def holdings():
        with open("/proc/self/maps") as maps:
            return len(os.listdir("/proc/self/fd")), sum(f"{SHM}{name}" in line for line in maps)

    put(name, header(with_(shape="(7,)")) + bytes(24))
    before = holdings()
    with pytest.raises(ValueError) as caught:
        posixshm.array.load(name)
    # The exception, which is still alive, does not keep a descriptor.
    assert holdings()[0] == before[0] and caught
    del caught
    os.unlink(SHM + name)


# -- random damage ------------------------------------------------------------------------------

SOURCE = header(GOOD) + bytes(24)


@pytest.mark.long
@property_test
@hypothesis.given(st.data())
def test_any_damage(data):
    """After bytes were changed, added or removed, load() returns an array within the object or
    fails."""
    damaged = bytearray(SOURCE)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(len(damaged) - 1, 0)))
        piece = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"9", b"L", b"(", b"-"]))
        )
        damaged[place : place + data.draw(st.integers(0, 3))] = piece
    check(bytes(damaged))


def loaded_in_time(name):
    """Load the array within half a second; return None if load() refused it."""
    start = time.process_time()
    try:
        return posixshm.array.load(name)
    except ValueError as error:
        assert name in str(error)
    finally:
        assert time.process_time() - start < 0.5


@pytest.mark.long
@pytest.mark.parametrize("descr", ["<f4", "<M8[25ns]", [("größe", "<f4"), ("b", "|V4", (2, 2))]])
def test_every_change_of_one_byte_is_answered_at_once(name, descr):
    """Both in the text of the header and in the padding."""
    values = b"\0\n\xff '\"()[]{},:-09FLTau\\<|$?!"
    dtype = np.dtype(descr)
    with posixshm.array.create(name, (2, 3), dtype, delete=True).shm as shm:
        text = len(bytes(shm.buf[:4096]).rstrip())
        cases = [(place, value) for place in range(text) for value in values]
        cases += [(place, values[place % len(values)]) for place in range(text, 4096)]
        found = 0
        for place, value in cases:
            before = shm.buf[place]
            shm.buf[place] = value
            found += loaded_in_time(name) is not None
            shm.buf[place] = before
        assert len(cases) > found > text
        assert loaded_in_time(name).dtype == dtype


HOSTILE = [
    "(" * 9000, "[" * 9000, "{" * 9000, "'" * 9000, '"' * 9000, "\\" * 9000, "'" + "\\" * 9000, "-" * 9000,
    "9" * 9000, "9," * 4500, "u" * 9000, "u'" * 4500, " " * 9000, " (" * 4500, "'\\x" * 2000, "#" * 9000,
    with_(descr="'" + "f4," * 3000 + "'"), with_(descr="'<f4" + " " * 8000 + "'"),
    with_(descr="'" + "(1," * 3000 + "'"), with_(shape="(" + "1," * 4000 + ")"),
    with_(shape="(" + "0," * 4000 + ")"), with_(descr=str([(f"{n}", "<f4") for n in range(500)])),
    with_(descr=str([("", "|V9999")] * 500)), with_(descr=str([("same", "<f4")] * 500)),
    with_(descr="[('a'," * 14 + "'<f4'" + ")]" * 14), with_(descr="(" * 9 + "'V9'" + ", (9,))" * 9),
    with_(descr="(" * 9 + "'<f4'" + f", ({2**30},))" * 9), with_(descr="'<U" + "9" * 4000 + "'"),
    with_(descr=f"'<U{2**30}'", shape="(0,)"), with_(descr=f"'|V{2**31}'", shape="(0,)"),
    with_(descr="'" + "\\U0010ffff" * 800 + "'"), with_(descr="[('" + "x" * 8000 + "', '<f4')]"),
    GOOD[:-1] + "\r\x0c" * 4000, GOOD[:-1] + "\n" * 8000 + "x", GOOD[:-1] + "  x" * 3000,
    GOOD[:-1] + " " * 9000 + "$", GOOD[:-1] + " " * 9000 + "\0", "\x0c " * 4500 + "?",
]  # fmt: skip


@pytest.mark.parametrize("version", [(1, 0), (3, 0)])
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:40])
def test_a_hostile_header_costs_no_more_than_its_length(name, text, version):
    put(name, header(text, version) + bytes(24))
    loaded_in_time(name)
    os.unlink(SHM + name)


def test_what_a_signal_handler_raises_is_not_taken_for_damage(name, run_python):
    """An exception of any class, at any time while a header is read."""
    run_python(
        """
        import itertools, random, signal, sys
        import posixshm.array
        classes = ValueError, TypeError, MemoryError, TimeoutError
        name, raised, armed = sys.argv[1], [], []
        def handler(number, frame):
            if armed:
                raised.append(random.choice(classes)("from the handler"))
                raise raised[-1]
        signal.signal(signal.SIGALRM, handler)
        for number in itertools.count():
            # Another header each time, or it would be remembered.
            text = ("{'descr': [('%d', '<f4'), ('b', [('c', 'V9', (2,))])], 'shape': (0,),"
                    "'fortran_order': True}\\n" % number)
            data = b"\\x93NUMPY\\1\\0" + len(text).to_bytes(2, "little") + text.encode()
            with open("/dev/shm/" + name, "wb") as file:
                file.write(data)
            try:
                try:
                    armed.append(True)
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 400e-6))
                    posixshm.array.load(name)
                finally:
                    armed.clear()
            except classes as error:
                assert error is raised[-1], error
            signal.setitimer(signal.ITIMER_REAL, 0)
            if len(raised) > 500:
                break
        """,
        name,
    )
    os.unlink(SHM + name)


literals = st.recursive(
    st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.none(),
              st.sampled_from(["<f4", "O", "V3", "S", "M8", "f4,i2", "(2,3)f4", "f4, O"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner), st.tuples(inner, inner),
                            st.tuples(inner, inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.long
@property_test
@hypothesis.given(
    literals,
    st.one_of(st.booleans(), literals),
    st.one_of(
        st.lists(st.integers(-1, 9)).map(tuple), st.lists(st.integers()).map(tuple), literals
    ),
)
def test_any_literal(descr, fortran, shape):
    text = ascii({"descr": descr, "fortran_order": fortran, "shape": shape})
    check(header(text, (2, 0)) + bytes(100))


def check(data):
    import warnings

    name = f"posixshm-test-{os.getpid()}-hypothesis"
    put(name, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns about deprecated dtypes
            array = posixshm.array.load(name)
    except (ValueError, OSError) as error:
        assert name in str(error)
    else:
        assert not array.dtype.hasobject and array.nbytes <= len(data)
        array.tobytes()
    finally:
        os.unlink(SHM + name)


# -- concurrent changes -------------------------------------------------------------------------


def test_an_object_that_is_truncated_while_it_is_opened(name, start_python):
    """Opening it returns an array or raises an exception, and is never a bus error."""
    whole = header(GOOD.rstrip("\n").ljust(8180) + "\n") + bytes(24)
    put(name, whole)
    cutter = start_python(
        """
        import os, sys
        from _processes import ready, stopped
        path = "/dev/shm/" + sys.argv[1]
        with open(path, "rb") as file:
            whole = file.read()
        fd = os.open(path, os.O_RDWR)
        ready()
        while not stopped():
            for length in (0, 5, 4096, len(whole) - 1):
                os.ftruncate(fd, length)
                os.pwrite(fd, whole, 0)
        """,
        name,
        env=PATH,
    )
    opener = start_python(
        """
        import sys
        import posixshm.array
        from _processes import ready, stopped
        ready()
        counts = {}
        while not stopped() or len(counts) < 2:
            try:
                posixshm.array.load(sys.argv[1])
                kind = "array"
            except (OSError, ValueError) as error:
                kind = type(error).__name__
                assert sys.argv[1] in str(error), error
            counts[kind] = counts.get(kind, 0) + 1
            if sum(counts.values()) == 2000:
                print("enough", flush=True)
        """,
        name,
        env=PATH,
    )
    go(cutter, opener)
    opener.hear("enough")
    opener.say("stop")
    status, _, errors = opener.finish()
    assert status != -signal.SIGBUS, errors
    cutter.say("stop")
    cutter.finish()
    os.unlink(SHM + name)
