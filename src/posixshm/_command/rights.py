"""`posixshm chmod`, `chown`, `getfacl` and `setfacl`: on the object, never through a link."""

from __future__ import annotations

import argparse
import contextlib
import errno
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator

from posixshm import SharedMemory
from posixshm._command.errors import about, complain
from posixshm._command.objects import expand, path_of
from posixshm._command.text import group_text, user_text


@contextlib.contextmanager
def opened(name: str) -> Iterator[str]:
    """Return a path of the object itself; the caller needs no right to read the object."""
    path = path_of(name)
    with about(name):
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "Not a shared memory object")
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)


def _for_each(names: list[str], act: Callable[[str], None]) -> int:
    code = 0
    for name in expand(names):
        try:
            act(name)
        except (OSError, ValueError, LookupError) as error:
            code = max(code, complain(error, name))
    return code


def chmod(args: argparse.Namespace) -> int:
    change = parse_mode(args.mode)

    def act(name: str) -> None:
        with opened(name) as path:
            os.chmod(path, change(stat.S_IMODE(os.stat(path).st_mode)))

    return _for_each(args.names, act)


_CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwx]*)")
_WHO = {"u": 0o700, "g": 0o070, "o": 0o007}
_RIGHTS = {"r": 0o444, "w": 0o222, "x": 0o111}


def parse_mode(text: str) -> Callable[[int], int]:
    """Return the mode after a change in the syntax of chmod(1). Raises ValueError."""
    if re.fullmatch(r"0?[0-7]{3}", text):
        octal = int(text, 8)
        return lambda mode: octal
    clauses = [_CLAUSE.fullmatch(clause) for clause in text.split(",")]
    if None in clauses:
        raise ValueError(f"bad mode {text!r}: a number such as 640, or a change such as g+r,o=")

    def change(mode: int) -> int:
        for clause in clauses:
            assert clause is not None
            who, operation, letters = clause.groups()
            mask = 0o777 if who in ("", "a") or "a" in who else sum(_WHO[w] for w in set(who))
            rights = sum(_RIGHTS[letter] for letter in set(letters)) & mask
            if operation == "+":
                mode |= rights
            elif operation == "-":
                mode &= ~rights
            else:
                mode = (mode & ~mask) | rights
        return mode

    return change


def chown(args: argparse.Namespace) -> int:
    owner, _, group = args.owner.partition(":")
    uid = -1 if owner == "" else _uid(owner)
    gid = -1 if group == "" else _gid(group)
    if (uid, gid) == (-1, -1):
        raise ValueError(f"bad owner {args.owner!r}: USER, USER:GROUP or :GROUP")

    def act(name: str) -> None:
        with opened(name) as path:
            os.chown(path, uid, gid)

    return _for_each(args.names, act)


def _uid(text: str) -> int:
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        return _number(text, "user")


def _gid(text: str) -> int:
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        return _number(text, "group")


def _number(text: str, what: str) -> int:
    if re.fullmatch(r"[0-9]{1,10}", text) and int(text) < 2**32 - 1:
        return int(text)
    raise ValueError(f"there is no {what} {text!r} on this machine")


def getfacl(args: argparse.Namespace) -> int:
    blank = ""

    def act(name: str) -> None:
        nonlocal blank
        with SharedMemory.open(name, readonly=True) as shm:
            text = shm.getfacl(numeric=args.numeric)
            if not args.omit_header:
                user, group = user_text(shm.uid), group_text(shm.gid)
                if args.numeric:
                    user, group = str(shm.uid), str(shm.gid)
                text = f"# file: {_quoted(name)}\n# owner: {user}\n# group: {group}\n{text}"
        print(blank + text, end="")
        blank = "\n"

    return _for_each(args.names, act)


def _quoted(name: str) -> str:
    """Return a name as getfacl(1) prints it."""
    plain = name.removeprefix("/")
    return "".join(
        chr(byte) if 32 < byte < 127 and byte != 92 else f"\\{byte:03o}"
        for byte in os.fsencode(plain)
    )


def setfacl(args: argparse.Namespace) -> int:
    chosen = [args.modify is not None, args.remove_all, args.set is not None]
    if sum(chosen) != 1:
        raise ValueError("setfacl needs one of --set, --modify and --remove-all")

    def act(name: str) -> None:
        with SharedMemory.open(name, readonly=True) as shm:
            text = args.set
            if args.modify is not None:
                text = modified(shm.getfacl(numeric=True), args.modify)
            shm.setfacl(None if args.remove_all else text)

    return _for_each(args.names, act)


def modified(text: str, changes: str) -> str:
    """Return the list after replacing the entries for the same users and groups.

    The mask is computed anew unless the changes have one, as with setfacl -m.
    """
    from posixshm import _acl

    parsed = _acl.parse(changes)
    kept = {key: rights for key, rights in _acl.parse(text).items() if key[0] != _acl._MASK}
    return _acl.to_text(kept | parsed, True)
