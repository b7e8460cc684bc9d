"""The buffers of View, MemoryMap and SharedMemory against the buffer protocol's own tables.

The tests request each combination of flags from views of each kind of layout.  They compare the
answer with the table of the protocol (https://docs.python.org/3/c-api/buffer.html), and with the
answer of CPython's _testbuffer for the same items.
"""

import ctypes
import itertools
import os
import struct

import pytest
from _processes import cannot_be_tested

from posixshm import SharedMemory

try:
    import _testbuffer
except ImportError:
    _testbuffer = None

WRITABLE, FORMAT, ND, STRIDES = 0x1, 0x4, 0x8, 0x18
C, F, ANY, INDIRECT = 0x38, 0x58, 0x98, 0x118
LAYOUTS = sorted(
    {0, ND} | {STRIDES | a | b | c | d for a, b, c, d in itertools.product((0, C), (0, F), (0, ANY), (0, INDIRECT))}
)  # fmt: skip
FLAGS = [layout | bits for layout in LAYOUTS for bits in (0, WRITABLE, FORMAT, WRITABLE | FORMAT)]

SHAPES = [(), (1,), (5,), (0,), (1, 1), (3, 4), (1, 4), (3, 0), (2, 3, 4), (2, 1, 3), (1,) * 6]
FORMATS = ["B", "<i", "d", "<hh"]


class Buffer(ctypes.Structure):
    _fields_ = [
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
        ("strides", ctypes.POINTER(ctypes.c_ssize_t)),
        ("suboffsets", ctypes.POINTER(ctypes.c_ssize_t)), ("internal", ctypes.c_void_p),
    ]  # fmt: skip


get_buffer = ctypes.pythonapi.PyObject_GetBuffer
get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(Buffer), ctypes.c_int]
release_buffer = ctypes.pythonapi.PyBuffer_Release
release_buffer.argtypes, release_buffer.restype = [ctypes.POINTER(Buffer)], None


def layouts():
    """Yield shapes and strides in items: C and Fortran order, reversed, with gaps."""
    for shape in SHAPES:
        orders = {tuple(c_order(shape)), tuple(reversed(c_order(shape[::-1])))}
        for strides in list(orders):
            orders.add(tuple(-s for s in strides))
            orders.add(tuple(2 * s for s in strides))
            orders.add((*strides[:-1], -strides[-1]) if strides else ())
        for strides in sorted(orders):
            yield shape, strides


def c_order(shape):
    step, strides = 1, []
    for items in reversed(shape):
        strides.insert(0, step)
        step *= items or 1
    return strides


def is_contiguous(shape, strides, order):
    if 0 in shape:
        return True
    step, dimensions = 1, list(zip(shape, strides, strict=True))
    for items, stride in dimensions[::-1] if order == "C" else dimensions:
        if items > 1 and stride != step:
            return False
        step *= items
    return True


def table(flags, shape, strides, readonly):
    """Return whether the buffer has a shape and strides, or None for BufferError."""
    c, fortran = is_contiguous(shape, strides, "C"), is_contiguous(shape, strides, "F")
    refused = (
        (flags & WRITABLE and readonly)
        or (flags & FORMAT and not flags & ND)
        or (flags & C == C and not c)
        or (flags & F == F and not fortran)
        or (flags & ANY == ANY and not (c or fortran))
        or (flags & STRIDES != STRIDES and not c)
    )
    if refused:
        return None
    dimensions = len(shape) > 0
    return (flags & ND != 0 and dimensions, flags & STRIDES == STRIDES and dimensions)


def views():
    """Yield each view with its shape, its strides in bytes, and whether it is read-only."""
    shm = SharedMemory.anonymous(4096)
    shm.buf[:] = bytes(n * 7 % 251 for n in range(4096))
    for format, (shape, steps), readonly in itertools.product(FORMATS, layouts(), (False, True)):
        size = struct.calcsize(format)
        strides = tuple(step * size for step in steps)
        before = -sum(min(s, 0) * max(n - 1, 0) for n, s in zip(shape, strides, strict=True))
        view = shm.view(format, shape, 512 + before, strides, readonly=readonly)
        yield view, shape, strides, readonly


def test_a_view_answers_each_request_by_the_protocol():
    asked = 0
    for view, shape, _, readonly in views():
        strides, itemsize = view.strides, view.itemsize
        steps = [stride / itemsize for stride in strides]
        for flags in FLAGS:
            case = (view, strides, hex(flags))
            asked += 1
            expected = table(flags, shape, steps, readonly)
            buffer = Buffer()
            try:
                get_buffer(view, buffer, flags)
            except BufferError:
                assert expected is None, case
                continue
            assert expected is not None, case
            assert (buffer.buf, buffer.len) == (view.address, view.nbytes), case
            assert (buffer.itemsize, buffer.readonly) == (itemsize, readonly), case
            assert buffer.ndim == (len(shape) if flags & ND else 1), case
            assert buffer.format == (view.format.encode() if flags & FORMAT else None), case
            assert (bool(buffer.shape), bool(buffer.strides)) == expected, case
            assert not buffer.suboffsets, case
            if buffer.shape:
                assert tuple(buffer.shape[: len(shape)]) == shape, case
            if buffer.strides:
                assert tuple(buffer.strides[: len(shape)]) == strides, case
            release_buffer(buffer)
    assert asked >= 13_440


@pytest.mark.parametrize("kind", ["SharedMemory", "MemoryMap"])
@pytest.mark.parametrize("readonly", [False, True])
def test_plain_bytes_answer_each_request_by_the_protocol(kind, readonly):
    with SharedMemory.anonymous(100) as shm:
        thing = SharedMemory.from_fd(os.dup(shm.fileno()), readonly=readonly)
        memory = thing if kind == "SharedMemory" else thing.map(readonly=readonly)
        for flags in FLAGS:
            buffer = Buffer()
            try:
                get_buffer(memory, buffer, flags)
            except BufferError:
                assert flags & WRITABLE and readonly, hex(flags)
                continue
            assert not (flags & WRITABLE and readonly), hex(flags)
            assert (buffer.len, buffer.itemsize, buffer.ndim) == (100, 1, 1)
            assert buffer.readonly == readonly
            assert buffer.format == (b"B" if flags & FORMAT else None)
            assert (bool(buffer.shape), bool(buffer.strides)) == (
                bool(flags & ND),
                flags & STRIDES == STRIDES,
            )
            assert not buffer.suboffsets
            release_buffer(buffer)
        thing.close()


def facts(buffer):
    names = ("ndim", "shape", "strides", "suboffsets", "format", "itemsize", "nbytes", "readonly")
    return {name: getattr(buffer, name) for name in names}


def answer(thing, flags):
    try:
        buffer = _testbuffer.ndarray(thing, getbuf=flags)
    except BufferError:
        return None
    return facts(buffer), buffer.tobytes(), buffer.tolist() if flags & FORMAT else None


def test_a_view_answers_each_request_like_cpython():
    if _testbuffer is None:
        cannot_be_tested(
            "this Python does not have _testbuffer, with which CPython tests the protocol"
        )
    for view, shape, strides, readonly in views():
        before = -sum(min(s, 0) * max(n - 1, 0) for n, s in zip(shape, strides, strict=True))
        start = view.offset - before
        span = view.obj.view("B")[start : start + 2048].tobytes()
        items = list(
            struct.iter_unpack(view.format, span[: len(span) // view.itemsize * view.itemsize])
        )
        if len(view.format.lstrip("<")) == 1:
            items = [item for (item,) in items]
        peer = _testbuffer.ndarray(
            items if shape else items[0], shape=list(shape), strides=list(view.strides),
            offset=before, format=view.format, flags=0 if readonly else _testbuffer.ND_WRITABLE,
        )  # fmt: skip
        for flags in FLAGS:
            assert answer(view, flags) == answer(peer, flags), (view, strides, hex(flags))
            if flags & FORMAT:
                assert answer(memoryview(view), flags) == answer(view, flags)
