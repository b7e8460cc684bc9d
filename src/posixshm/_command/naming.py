"""`posixshm mv` and `ln`: other names for an object."""

from __future__ import annotations

import argparse
import errno
import os

from posixshm import SharedMemory
from posixshm._command.objects import MOUNT, SEMAPHORE, path_of
from posixshm._command.rights import opened


def mv(args: argparse.Namespace) -> int:
    with SharedMemory.open(args.old, readonly=True) as shm:
        try:
            shm.rename(args.new, args.replace)
        except FileExistsError:
            raise FileExistsError(errno.EEXIST, "File exists (see --replace)", args.new) from None
    return 0


def ln(args: argparse.Namespace) -> int:
    target = path_of(args.new)
    for name in (args.old, args.new):
        if name.removeprefix("/").startswith(SEMAPHORE):
            raise ValueError(f"bad name {name!r}: a semaphore cannot have a second name")
    folder = os.open(MOUNT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with opened(args.old) as path:
            # With a folder os.link() calls linkat(2), which follows the link in /proc.
            os.link(path, target, src_dir_fd=folder)
    except OSError as error:
        if error.filename2 is not None:
            error.filename, error.filename2 = args.new, None
        raise
    finally:
        os.close(folder)
    return 0
