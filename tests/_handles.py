"""The uses of a handle that need it to be open."""

import ctypes

import numpy as np

import posixshm
from posixshm import PROT_READ

USES = {
    "buf": lambda shm: shm.buf,
    "fileno": lambda shm: shm.fileno(),
    "detach": lambda shm: shm.detach(),
    "stat": lambda shm: shm.stat(),
    "mode": lambda shm: shm.mode,
    "uid": lambda shm: shm.uid,
    "gid": lambda shm: shm.gid,
    "chmod": lambda shm: shm.chmod(0o600),
    "chown": lambda shm: shm.chown(),
    "getfacl": lambda shm: shm.getfacl(),
    "setfacl": lambda shm: shm.setfacl(None),
    "map": lambda shm: shm.map(),
    "resize": lambda shm: shm.resize(2000),
    "shrink": lambda shm: shm.resize(1, shrink=True),
    "refresh": lambda shm: shm.refresh(),
    "protect": lambda shm: shm.protect(PROT_READ),
    "advise": lambda shm: shm.advise(posixshm.MADV_NORMAL),
    "sync": lambda shm: shm.sync(),
    "lock_pages": lambda shm: shm.lock_pages(),
    "unlock_pages": lambda shm: shm.unlock_pages(),
    "populate": lambda shm: shm.populate(),
    "resident": lambda shm: shm.resident,
    "seals": lambda shm: shm.seals,
    "add_seals": lambda shm: shm.add_seals(0),
    "link": lambda shm: shm.link("posixshm-test-never"),
    "rename": lambda shm: shm.rename("posixshm-test-never"),
    "enter": lambda shm: shm.__enter__(),
    "memoryview": lambda shm: memoryview(shm),
    "frombuffer": lambda shm: np.frombuffer(shm, "u1"),
    "ndarray": lambda shm: np.ndarray(1, "u1", buffer=shm),
    "bytes": bytes,
    "ctypes": lambda shm: (ctypes.c_char * 1).from_buffer(shm),
}
