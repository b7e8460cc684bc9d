"""JAX takes a view by DLPack, without a copy if its items begin at a multiple of 64 bytes.

Its arrays are immutable. Newer versions request read-only memory by DLPack. In older versions, or
if DLPack refuses, jax.device_put() of View.numpy() takes the memory without a copy.
"""

import gc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from posixshm import SharedMemory

jax.config.update("jax_enable_x64", True)
jnp.ones((100, 100)).sum().block_until_ready()  # starts its threads

TYPES = "?bBhHiIqQefd"
TYPES_BY_NAME = [
    "complex64",
    "complex128",
    "bfloat16",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
]


def address(array):
    return array.unsafe_buffer_pointer()


def take_readonly(view):
    """Take read-only memory in a way that works with every version."""
    return jax.device_put(view.numpy())


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 1 << 16, delete=True) as shm:
        yield shm


@pytest.mark.parametrize("format", [*TYPES, *TYPES_BY_NAME])
def test_every_type_is_the_same_memory(format, shm):
    view = shm.view(format, (3, 4), 256)
    array = jnp.from_dlpack(view)
    expected = getattr(ml_dtypes, format, format)
    assert (address(array), array.shape) == (view.address, (3, 4))
    assert array.dtype == np.dtype(expected)
    one = np.ones(1, expected)
    view[2, 3:].cast("B").numpy()[:] = one.view("u1")
    assert np.asarray(array)[2, 3] == one[0]


def test_a_write_by_another_process_is_seen(shm, run_python):
    array = jnp.from_dlpack(shm.view("f", 16))
    run_python(
        """
        import sys
        from posixshm import SharedMemory
        SharedMemory.open(sys.argv[1]).view("f", 16)[7] = 2.5
        """,
        shm.name,
    )
    assert array[7] == 2.5


def test_items_that_begin_elsewhere_are_copied(shm):
    for offset in range(8, 64, 8):
        view = shm.view("d", 8, offset)
        assert address(jnp.from_dlpack(view)) != view.address
        with pytest.raises(ValueError, match="copy"):
            jnp.from_dlpack(view, copy=False)
    view = shm.view("d", 8, 64)
    assert address(jnp.from_dlpack(view, copy=False)) == view.address
    assert address(jnp.array(view.numpy())) != view.address


@pytest.mark.parametrize("format", ["q", "Q", "d", "complex128"])
def test_types_of_64_bits_are_copied_and_narrowed_by_default(format, shm):
    view = shm.view(format, 8, 64)
    view.numpy()[:] = range(8)
    with jax.enable_x64(False):
        array = jnp.from_dlpack(view)
    assert array.dtype.itemsize == view.itemsize // 2
    assert address(array) != view.address
    view[1] = 100
    assert array[1] == 1


@pytest.mark.parametrize("take", [jnp.from_dlpack, take_readonly])
def test_an_array_that_shares_the_memory_changes_with_it(take, shm):
    """JAX does not change the array, but another process can."""
    view = shm.view("f", 16)
    array = take(view)
    before = array.tolist()
    view[3] = 5
    assert before[3] == 0 and array[3] == 5


def test_shapes_and_strides(shm):
    view = shm.view("i", (4, 6))
    view.numpy()[:] = np.arange(24).reshape(4, 6)
    for part in (view, view[:0], shm.view("i", (6, 4), strides=(4, 24)), shm.view("i", ())):
        array = jnp.from_dlpack(part)
        assert array.tolist() == np.asarray(part).tolist()
        if array.size:
            assert address(array) == part.address
    with pytest.raises(Exception, match="compact"):  # JAX raises its own class
        jnp.from_dlpack(view[:, ::2])
    with pytest.raises(BufferError):
        jnp.from_dlpack(view[::-1])


@pytest.mark.parametrize("take", [jnp.from_dlpack, take_readonly])
def test_arrays_outlive_the_handle_and_the_name(take, name):
    shm = SharedMemory.create(name, 4096)
    view = shm.view("i", 1024)
    view.numpy()[:] = np.arange(1024)
    array = take(view)
    assert address(array) == view.address
    shm.unlink()
    shm.close()
    del shm, view
    gc.collect()
    again = jnp.from_dlpack(array)
    del array
    gc.collect()
    assert again[1000:].tolist() == list(range(1000, 1024))


@pytest.mark.parametrize("way", ["jnp.from_dlpack(view)", "jax.device_put(view.numpy())"])
def test_interpreters_end_well_with_an_array_alive(way, run_python):
    run_python(
        f"""
        import sys
        import jax
        import jax.numpy as jnp
        from posixshm import SharedMemory
        view = SharedMemory.anonymous(4096).view("i", 1024)
        sys.late = {way}
        cycle = [{way}]
        cycle.append(cycle)
        later = sys.late + 1
        """
    )


# -- read-only ----------------------------------------------------------------------------------


def test_read_only_memory_without_a_copy(shm):
    shm.view("i", 8).numpy()[:] = 7
    with SharedMemory.open(shm.name, readonly=True) as reader:
        view = reader.view("i", 8)
    array = take_readonly(view)
    assert address(array) == view.address
    shm.view("i", 8)[3] = 8
    assert array.tolist() == [7, 7, 7, 8, 7, 7, 7, 7]


def test_read_only_memory_by_dlpack_is_taken_or_refused(shm):
    with SharedMemory.open(shm.name, readonly=True) as reader:
        view = reader.view("i", 8)
    try:
        array = jnp.from_dlpack(view)
    except BufferError as error:
        assert "read-only" in str(error)
    else:
        assert address(array) == view.address


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
@pytest.mark.parametrize("take", [jnp.from_dlpack, take_readonly])
def test_arrays_given_away_are_not_written(take, shm):
    """A function that may reuse the memory of its argument does not overwrite shared memory."""
    shm.view("f", 1024).numpy()[:] = 7
    with SharedMemory.open(shm.name, readonly=True) as reader:
        view = (shm if take is jnp.from_dlpack else reader).view("f", 1024)
    doubled = jax.jit(lambda x: x * 2, donate_argnums=0)(take(view))
    assert doubled.tolist() == [14] * 1024
    assert view.tolist() == [7] * 1024
    with pytest.raises(TypeError, match="immutable"):
        take(view)[0] = 1


# -- arrays in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [*TYPES, *TYPES_BY_NAME])
def test_copying_an_array_in(format, shm):
    array = jnp.arange(24).reshape(4, 6).astype(getattr(ml_dtypes, format, format))
    view = shm.view(format, array.shape)
    view.numpy()[:] = array
    assert view.tobytes() == np.asarray(array).tobytes()
    again = jnp.from_dlpack(view)
    assert (again.shape, again.dtype) == (array.shape, array.dtype)
    assert address(again) == view.address


def test_another_process_has_the_array(name, start_python):
    shm = SharedMemory.create(name, 48)
    shm.view("bfloat16").numpy()[:] = jnp.arange(24).astype(jnp.bfloat16)
    child = start_python(
        """
        import sys
        import jax.numpy as jnp
        from posixshm import SharedMemory
        array = jnp.from_dlpack(SharedMemory.open(sys.argv[1]).view("bfloat16"))
        print(array.sum())
        """,
        name,
    )
    assert float(child.hear()) == 276
    child.finish()
    shm.unlink()
