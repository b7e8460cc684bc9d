"""PyTorch takes a view by DLPack without a copy, including bfloat16 and float8.

PyTorch does not have read-only tensors. If the memory is read-only, a write kills the process and
does not change the object.
"""

import gc
import signal
import warnings

import numpy as np
import pytest
import torch
from _processes import PATH

from posixshm import SharedMemory

torch.zeros(1 << 20).sum()  # starts its threads

DTYPES = {
    "?": torch.bool,
    "b": torch.int8,
    "B": torch.uint8,
    "h": torch.int16,
    "H": torch.uint16,
    "i": torch.int32,
    "I": torch.uint32,
    "q": torch.int64,
    "Q": torch.uint64,
    "e": torch.float16,
    "f": torch.float32,
    "d": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "float8_e5m2": torch.float8_e5m2,
    "float8_e5m2fnuz": torch.float8_e5m2fnuz,
    "float8_e8m0fnu": torch.float8_e8m0fnu,
}


@pytest.fixture
def shm(name):
    with SharedMemory.create(name, 1 << 16, delete=True) as shm:
        yield shm


@pytest.mark.parametrize("format", DTYPES)
def test_every_type_is_the_same_memory(format, shm):
    view = shm.view(format, (3, 4), 256)
    tensor = torch.from_dlpack(view)
    assert (tensor.data_ptr(), tensor.dtype) == (view.address, DTYPES[format])
    assert (tuple(tensor.shape), tensor.stride()) == ((3, 4), (4, 1))
    tensor[2, 3] = 1
    expected = torch.ones(1, dtype=DTYPES[format]).view(torch.uint8).tolist()
    assert list(view[2, 3:].tobytes()) == expected


@pytest.mark.parametrize("format", ["float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"])
def test_types_that_torch_does_not_have_are_refused(format, shm):
    with pytest.raises(BufferError):
        torch.from_dlpack(shm.view(format, 8))


def test_a_write_by_another_process_is_seen(shm, run_python):
    tensor = torch.from_dlpack(shm.view("f", 16))
    run_python(
        """
        import sys
        from posixshm import SharedMemory
        SharedMemory.open(sys.argv[1]).view("f", 16)[7] = 2.5
        """,
        shm.name,
    )
    assert tensor[7].item() == 2.5


def test_shapes_and_strides(shm):
    view = shm.view("i", (4, 6))
    view.numpy()[:] = np.arange(24).reshape(4, 6)
    for part in (view[1:, ::2], view[2], view[1, 1:2], view[:0], shm.view("i", ())):
        tensor = torch.from_dlpack(part)
        assert tensor.tolist() == (part.tolist() if part.ndim else view[0, 0])
        if tensor.numel():
            assert tensor.data_ptr() == part.address
    fortran = shm.view("i", (6, 4), strides=(4, 24))
    assert torch.from_dlpack(fortran).stride() == (1, 6)
    assert torch.from_dlpack(fortran).tolist() == view.numpy().T.tolist()
    broadcast = shm.view("i", (3, 6), strides=(0, 4))
    assert torch.from_dlpack(broadcast).tolist() == [list(range(6))] * 3


def test_strides_and_addresses_that_torch_cannot_represent_are_refused(shm):
    """PyTorch before 2.14 would abort the process on a negative stride."""
    view = shm.view("i", (4, 6))
    for refused in (view[::-1], view[:, ::-2], shm.view("i", 4, 2), shm.view("i", 4, strides=(6,))):
        with pytest.raises(BufferError, match="copy=True"):
            torch.from_dlpack(refused)
        assert torch.from_dlpack(refused, copy=True).tolist() == refused.tolist()


def test_other_ways_to_create_a_tensor(shm):
    view = shm.view("i", (4, 6))
    for tensor in (torch.as_tensor(view), torch.from_numpy(view.numpy())):
        assert (tensor.data_ptr(), tuple(tensor.shape)) == (view.address, (4, 6))
    flat = torch.frombuffer(shm, dtype=torch.int32, count=24)
    assert (flat.data_ptr(), tuple(flat.shape)) == (view.address, (24,))
    flat = torch.asarray(view)  # loses the shape, and may read ints as float32
    assert flat.dtype in (torch.int32, torch.float32)
    assert (flat.data_ptr(), tuple(flat.shape)) == (view.address, (24,))
    tensor = torch.asarray(view, dtype=torch.int32)
    assert (tensor.data_ptr(), tensor.tolist()) == (view.address, view.cast("i").tolist())
    for copy in (torch.tensor(view), torch.from_dlpack(view, copy=True)):
        assert copy.data_ptr() != view.address


@pytest.mark.parametrize("format", ["B", "h", "i", "q", "d"])
def test_asarray_misreads_views_that_from_dlpack_and_as_tensor_read(format, shm):
    """As the documents say: from_dlpack and as_tensor keep type and shape, asarray does not."""
    view = shm.view(format, (4, 6))
    view.numpy()[:] = np.arange(24).reshape(4, 6)
    for take in (torch.from_dlpack, torch.as_tensor):
        tensor = take(view)
        assert (tensor.data_ptr(), tensor.dtype) == (view.address, DTYPES[format])
        assert tensor.tolist() == view.tolist()
    assert torch.asarray(view).tolist() != view.tolist()


def take_frombuffer(view):
    return torch.frombuffer(view, dtype=torch.int32)


@pytest.mark.parametrize("take", [torch.from_dlpack, torch.as_tensor, take_frombuffer])
def test_tensors_outlive_the_handle_and_the_name(take, name):
    shm = SharedMemory.create(name, 4096)
    view = shm.view("i", 1024)
    view.numpy()[:] = np.arange(1024)
    tensor = take(view)
    shm.unlink()
    shm.close()
    del shm, view
    gc.collect()
    part = tensor[1000:]
    part += 1
    del tensor
    gc.collect()
    assert part.tolist() == list(range(1001, 1025))


def test_an_interpreter_can_end_while_a_tensor_exists(run_python):
    """The tensor is in a module, in a cycle, or in a capsule that was not consumed."""
    run_python(
        """
        import sys
        import torch
        from posixshm import SharedMemory
        view = SharedMemory.anonymous(4096).view("i", 1024)
        sys.late = torch.from_dlpack(view)
        cycle = [torch.from_dlpack(view)]
        cycle.append(cycle)
        capsule = view.__dlpack__(max_version=(1, 0))
        """
    )


# -- read-only ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "take",
    [
        "torch.from_dlpack(view)",
        "torch.as_tensor(view)",
        "torch.from_numpy(view.numpy())",
        "torch.frombuffer(view, dtype=torch.int32)",
    ],
)
def test_a_write_to_read_only_memory_ends_the_process_and_changes_nothing(take, shm, start_python):
    shm.view("i", 8).numpy()[:] = 7
    child = start_python(
        f"""
        import sys, warnings
        import torch
        from posixshm import SharedMemory
        warnings.simplefilter("ignore")
        view = SharedMemory.open(sys.argv[1], readonly=True).view("i", 8)
        tensor = {take}
        assert tensor.data_ptr() == view.address
        assert tensor.sum().item() == 56
        print("writes", flush=True)
        tensor[0] = 1
        """,
        shm.name,
    )
    child.hear("writes")
    status, _, err = child.finish(check=False)
    assert status == -signal.SIGSEGV, err
    assert shm.view("i", 8).tolist() == [7] * 8


def test_read_only_memory_warns_in_two_of_the_ways_only(shm):
    """The warnings that the documents mention."""
    with SharedMemory.open(shm.name, readonly=True) as reader:
        view = reader.view("i", 8)
    with pytest.warns(UserWarning, match="not writable"):
        torch.frombuffer(view, dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.from_dlpack(view).data_ptr() == view.address
        assert torch.as_tensor(view).data_ptr() == view.address


def test_a_copy_of_read_only_memory_can_be_written(shm):
    with SharedMemory.open(shm.name, readonly=True) as reader:
        view = reader.view("i", 8)
    for tensor in (torch.from_dlpack(view, copy=True), torch.from_dlpack(view).clone()):
        tensor[0] = 1
        assert tensor.data_ptr() != view.address


# -- tensors in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("format", DTYPES)
def test_copying_a_tensor_in(format, shm):
    tensor = torch.arange(24).reshape(4, 6).to(DTYPES[format]).T
    view = shm.view(format, tuple(tensor.shape))
    torch.from_dlpack(view).copy_(tensor)
    again = torch.from_dlpack(view)
    assert again.dtype == tensor.dtype
    assert torch.equal(again.view(torch.uint8), tensor.contiguous().view(torch.uint8))


def test_two_processes_have_one_tensor(name, start_python):
    shm = SharedMemory.create(name, 48)
    tensor = torch.from_dlpack(shm.view("bfloat16")).copy_(torch.arange(24))
    child = start_python(
        """
        import sys
        import torch
        from posixshm import SharedMemory
        from _processes import ready
        tensor = torch.from_dlpack(SharedMemory.open(sys.argv[1]).view("bfloat16"))
        ready()
        tensor *= 2
        """,
        name,
        env=PATH,
    )
    child.hear("ready")
    tensor += 1
    child.say("go")
    child.finish()
    assert tensor.tolist() == [2.0 * (n + 1) for n in range(24)]
    shm.unlink()
