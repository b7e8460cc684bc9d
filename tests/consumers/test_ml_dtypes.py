"""ml_dtypes: the numpy side of the types that only DLPack has."""

import ml_dtypes
import numpy as np
import pytest

from posixshm import SharedMemory

TYPES = [
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_arrays_share_the_memory(name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    values = np.array([[0.5, 1, 2], [4, 8, 0.25]], dtype)
    with SharedMemory.anonymous(64) as shm:
        view = shm.view(dtype, (2, 3))
        assert view.format == name
        array = view.numpy()
        assert (array.dtype, array.shape) == (dtype, (2, 3))
        array[:] = values
        assert shm.view(name, 6).numpy().tolist() == values.ravel().tolist()
        assert view[:, ::-1].numpy().tolist() == values[:, ::-1].tolist()
        reading = shm.view(name, 6, readonly=True).numpy()
    assert not reading.flags.writeable
    assert reading.tolist() == values.ravel().tolist()


@pytest.mark.parametrize("name", TYPES)
def test_numpy_asarray_shares_the_memory(name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    with SharedMemory.anonymous(64) as shm:
        view = shm.view(name, (2, 3))
        array = np.asarray(view)
        assert (array.dtype, array.shape) == (dtype, (2, 3))
        assert array.ctypes.data == view.address
        assert np.asarray(view[:0]).dtype == dtype
        assert np.asarray(view, "f4").tolist() == array.astype("f4").tolist()


@pytest.mark.parametrize("name", TYPES)
def test_arrays_are_assigned_to_ranges(name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    source = np.array([[0.5, 1, 2], [4, 8, 0.25]], dtype)
    with SharedMemory.anonymous(64) as shm:
        view = shm.view(name, (2, 3))
        view[:] = source
        assert view.numpy().tolist() == source.tolist()
        view[:, 1] = source[::-1, 2]
        assert view.numpy()[:, 1].tolist() == source[::-1, 2].tolist()
        for other in (source.astype("f4"), source.view("u1"), b"abcdef", source[:1]):
            with pytest.raises(ValueError):
                view[:] = other
        assert view.numpy()[0, 0] == source[0, 0]


@pytest.mark.parametrize("name", ["int2", "int4", "uint4", "float4_e2m1fn", "float6_e3m2fn"])
def test_a_type_without_a_format_is_refused(name):
    with SharedMemory.anonymous(64) as shm:
        with pytest.raises(ValueError, match=f"{name}.*can describe it"):
            shm.view(np.dtype(getattr(ml_dtypes, name)))


def test_an_older_ml_dtypes_raises_import_error(monkeypatch):
    monkeypatch.delattr(ml_dtypes, "bfloat16")
    with SharedMemory.anonymous(64) as shm:
        view = shm.view("bfloat16", 3)
        for call in (view.numpy, lambda: np.asarray(view)):
            with pytest.raises(ImportError, match="ml_dtypes does not have bfloat16"):
                call()


def test_another_byte_order_is_refused():
    dtype = np.dtype(ml_dtypes.bfloat16).newbyteorder("S")
    with SharedMemory.anonymous(64) as shm, pytest.raises(ValueError, match="byte order"):
        shm.view(dtype)
