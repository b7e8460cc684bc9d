"""Copying a tensor of another library into shared memory."""

from __future__ import annotations

import math

from ._core import SharedMemory, View, _copy_tensor, _read_tensor

TYPE_CHECKING = False  # typing's own would take longer to import than all of this package
if TYPE_CHECKING:
    from typing import Any

_CPU_DEVICES = (1, 3, 11)  # DLPack's numbers: the CPU; its memory pinned for CUDA, ROCm
_VERSION = (1, 1)


def from_dlpack(x: Any, name: str | None = None, *, replace: bool = False, **options: Any) -> View:
    """Copy a tensor into a new object, complete before anybody sees it.

    x: whatever has __dlpack__ and __dlpack_device__, as tensors of torch, jax
    and numpy have; one on another device is copied to the CPU by its library.
    name: of the object; None: an anonymous one. replace: take over the name of
    another object, as SharedMemory.link does. options: those of
    SharedMemory.unlinked, or of .anonymous.

    Returns a View of the copy: writable, in C order, of x's shape and type; a
    tensor without items lies in an object of one item. The object is
    SharedMemory.open(name), where its name is removed.

    Raises TypeError where x is no tensor; BufferError for a type that DLPack
    and View do not share; ValueError for replace=True without a name;
    FileExistsError, OSError, ValueError as SharedMemory.create; and what x's
    library raises. https://dmlc.github.io/dlpack/latest/python_spec.html
    """
    if replace and name is None:
        raise ValueError("replace=True takes the name of the object to take the place of")
    capsule = _capsule(x)
    format, shape, itemsize = _read_tensor(capsule)
    size = max(math.prod(shape), 1) * itemsize
    make = SharedMemory.anonymous if name is None else SharedMemory.unlinked
    with make(size, **options) as shm:
        view = shm.view(format, shape)
        _copy_tensor(capsule, view)
        if name is not None:
            shm.link(name, replace=replace)
    return view


def _capsule(x: Any) -> object:
    try:
        export, device_of = x.__dlpack__, x.__dlpack_device__
    except AttributeError:
        kind = type(x)
        if hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__"):
            raise  # it has them, and they raised it
        raise TypeError(
            f"x must have __dlpack__ and __dlpack_device__, not {kind.__name__}"
        ) from None
    arguments: dict[str, Any] = {"max_version": _VERSION}
    if device_of()[0] not in _CPU_DEVICES:
        arguments |= {"dl_device": (1, 0), "copy": True}
    try:
        return export(**arguments)
    except TypeError:
        if len(arguments) > 1:
            raise
        return export()  # from before DLPack 1.0
