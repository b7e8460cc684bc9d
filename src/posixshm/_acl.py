"""Access control lists: the text form of getfacl(1), and the extended attribute of the kernel.

A list is a dict that maps (tag, id) to rights (read 4, write 2, execute 1). The tags are those of
the kernel (linux/posix_acl.h), and the id of an entry without a name is _NO_ID. Sorted by key, the
entries have the order of acl(5): owner, users, owning group, groups, mask, others.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import struct
from collections.abc import Callable, Iterator

_Key = tuple[int, int]
_List = dict[_Key, int]

_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NAMED = (_USER, _GROUP)
_MASKED = (_USER, _OWNING_GROUP, _GROUP)
_WORDS = {_OWNER: "user", _USER: "user", _OWNING_GROUP: "group", _GROUP: "group"}
_WORDS |= {_MASK: "mask", _OTHER: "other"}
_NO_ID = 0xFFFF_FFFF
_LETTERS = {"r": 4, "w": 2, "x": 1}

# The attribute is little-endian on every machine: linux/posix_acl_xattr.h.
_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")  # tag, rights, id
_MOST = (65536 - _HEADER.size) // _ENTRY.size  # the most entries of an attribute


# -- the attribute of an object -------------------------------------------------------------


def of_object(attribute: bytes, mode: int) -> _List:
    """Return the list of an object; attribute: empty if the object has only a mode."""
    if not attribute:
        return {
            (_OWNER, _NO_ID): mode >> 6 & 7,
            (_OWNING_GROUP, _NO_ID): mode >> 3 & 7,
            (_OTHER, _NO_ID): mode & 7,
        }
    (version,) = _HEADER.unpack_from(attribute)
    if version != _VERSION:
        raise ValueError(
            f"the object's access control list has version {version} of the kernel's format; this "
            f"package supports version {_VERSION}"
        )
    return {(tag, id): rights for tag, rights, id in _ENTRY.iter_unpack(attribute[_HEADER.size :])}


def encode(text: str | None, mode: int, current: bytes) -> tuple[bytes, int]:
    """Return the new attribute and mode of an object, given a text and its mode and attribute.

    If the text does not have an entry for the owner, the owning group or others, that entry keeps
    its effective rights: no right is added that the text does not name.
    """
    entries = parse(text)
    before = of_object(current, mode)
    mask = before.get((_MASK, _NO_ID), 7)
    for tag in (_OWNER, _OWNING_GROUP, _OTHER):
        kept = before[tag, _NO_ID]
        entries.setdefault((tag, _NO_ID), kept & mask if tag == _OWNING_GROUP else kept)
    if any(tag in _NAMED for tag, _ in entries):
        entries.setdefault((_MASK, _NO_ID), _union(entries))
    if len(entries) > _MOST:
        raise ValueError(
            f"an access control list has at most {_MOST} entries, not {len(entries)}; give a group "
            "the rights of its members"
        )
    return pack(entries), mode & 0o7000 | _mode(entries)


def pack(entries: _List) -> bytes:
    """Return the attribute of a complete list."""
    packed = [_ENTRY.pack(tag, rights, id) for (tag, id), rights in sorted(entries.items())]
    return _HEADER.pack(_VERSION) + b"".join(packed)


def _union(entries: _List) -> int:
    """Return the mask that limits no entry."""
    union = 0
    for (tag, _), rights in entries.items():
        if tag in _MASKED:
            union |= rights
    return union


def _mode(entries: _List) -> int:
    """Return the permission bits of a list: the bits of the group are the mask if it has a mask."""
    group = entries.get((_MASK, _NO_ID), entries[_OWNING_GROUP, _NO_ID])
    return entries[_OWNER, _NO_ID] << 6 | group << 3 | entries[_OTHER, _NO_ID]


# -- text ---------------------------------------------------------------------------------------


def to_text(entries: _List, numeric: bool) -> str:
    """Return the long text form, as getfacl(1) prints it."""
    lines = []
    mask = entries.get((_MASK, _NO_ID), 7)
    for (tag, id), rights in sorted(entries.items()):
        name = "" if tag not in _NAMED else str(id) if numeric else _name(tag, id)
        line = f"{_WORDS[tag]}:{name}:{_rights_text(rights)}"
        if tag in _MASKED and rights & ~mask:
            line += f"\t#effective:{_rights_text(rights & mask)}"
        lines.append(line + "\n")
    return "".join(lines)


def _rights_text(rights: int) -> str:
    return "".join(letter if rights & bit else "-" for letter, bit in _LETTERS.items())


def _name(tag: int, id: int) -> str:
    """Return the name of a user or group; its id if the name is missing or looks like an id."""
    try:
        name = pwd.getpwuid(id).pw_name if tag == _USER else grp.getgrgid(id).gr_name
    except KeyError:
        return str(id)
    return str(id) if not name or _is_number(name) else _SPECIAL.sub(_quote, name)


_SPECIAL = re.compile(r"[:,#\s\\]")
_QUOTED = re.compile(rb"\\(\\|[0-3][0-7]{2})")


def _quote(found: re.Match[str]) -> str:
    return "".join("\\\\" if byte == 92 else f"\\{byte:03o}" for byte in os.fsencode(found[0]))


def _unquote(name: str) -> str:
    """\\040 is a space, and \\\\ a backslash."""
    return os.fsdecode(_QUOTED.sub(_byte, os.fsencode(name)))


def _byte(found: re.Match[bytes]) -> bytes:
    return b"\\" if found[1] == b"\\" else bytes([int(found[1], 8)])


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def parse(text: str | None) -> _List:
    """Return the entries of a text in the long or short form. The list may be incomplete.

    Raises TypeError; ValueError for a bad entry or two entries for one subject; LookupError for an
    unknown name.
    """
    if text is None:
        return {}
    if not isinstance(text, str):
        raise TypeError(
            f"an access control list must be a str or None, not {type(text).__name__}: "
            "'user:alice:rw'"
        )
    entries: _List = {}
    for words in _split(text):
        try:
            key, rights = _entry(words)
        except (ValueError, LookupError) as error:
            message = f"bad entry {words!r} in the access control list: {error}"
            raise type(error)(message) from None
        if key in entries:
            raise ValueError(f"{words!r} is a second entry for {_subject(*key)}")
        entries[key] = rights
    return entries


def _split(text: str) -> Iterator[str]:
    """Yield the entries, without comments and surrounding space."""
    for line in text.split("\n"):
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line:
            yield from map(str.strip, line.removesuffix(",").split(","))


def _subject(tag: int, id: int) -> str:
    subjects = {_OWNER: "the owner", _OWNING_GROUP: "the owning group", _OTHER: "all others"}
    return subjects.get(tag, "the mask" if tag == _MASK else f"the {_WORDS[tag]} {id}")


_TAGS = {"user": (_OWNER, _USER), "group": (_OWNING_GROUP, _GROUP)}
_SINGLE = {"mask": _MASK, "other": _OTHER}
_SHORT = {"u": "user", "g": "group", "m": "mask", "o": "other", "d": "default"}


def _entry(words: str) -> tuple[_Key, int]:
    first, *rest = map(str.strip, words.split(":"))
    if first in _SHORT:  # without get(): see _support.imported()
        first = _SHORT[first]
    if first == "default":
        raise ValueError(
            "a default entry applies to new files in a directory, and a shared memory object is "
            "not a directory; leave it out"
        )
    if first in _SINGLE:
        # "mask::rw" and, as setfacl(1) takes it, "mask:rw".
        if len(rest) == 2 and not rest[0]:
            del rest[0]
        if len(rest) != 1:
            raise ValueError(f"it must be {first}::RIGHTS, such as {first}::r")
        return (_SINGLE[first], _NO_ID), _rights(rest[0])
    if first not in _TAGS:
        raise ValueError("it must begin with user:, group:, mask: or other: (u:, g:, m:, o:)")
    if len(rest) != 2:
        raise ValueError(f"it must be {first}:NAME:RIGHTS, or {first}::RIGHTS for {_OWNS[first]}")
    single, named = _TAGS[first]
    name, rights = rest
    return (named, _id(first, name)) if name else (single, _NO_ID), _rights(rights)


_OWNS = {"user": "the owner", "group": "the owning group"}


def _id(kind: str, name: str) -> int:
    if _is_number(name):
        number = int(name[:11])  # one digit more than the longest id is enough
        if number >= _NO_ID or name != str(number):
            raise ValueError(f"an id is a decimal number from 0 to {_NO_ID - 1}, not {name}")
        return number
    find: Callable[[str], int] = _uid if kind == "user" else _gid
    try:
        return find(_unquote(name))
    except UnicodeEncodeError:
        raise ValueError("a name must not contain a surrogate character") from None
    except KeyError:
        raise LookupError(
            f"the {kind} {name!r} does not exist on this machine; a numeric id always works"
        ) from None


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _rights(letters: str) -> int:
    if len(letters) == 1 and letters in "01234567":
        return int(letters)
    plain = letters.replace("-", "")
    if not letters or len(set(plain)) != len(plain) or not set(plain) <= _LETTERS.keys():
        hint = "; write x instead of X" if "X" in letters else ""
        raise ValueError(
            "rights are the letters r, w and x, each at most once, a digit from 0 to 7, or '-' for "
            f"no rights, not {letters!r}{hint}"
        )
    return sum(map(_LETTERS.__getitem__, plain))


# -- file systems without lists -----------------------------------------------------------------


def explain(device: int) -> str:
    """Return why the objects of a device do not have access control lists, and what to do."""
    instead = "mode= and gid=, or chmod() and chown(), give access to a group"
    for number, mount, kind, options in _mounts():
        if number != f"{os.major(device)}:{os.minor(device)}":
            continue
        where = f"Access control lists do not exist on {mount}, a {kind}"
        if kind == "tmpfs":
            return f"{where} of a kernel without CONFIG_TMPFS_POSIX_ACL; {instead}"
        if "noacl" in options:
            return f"{where} mounted with noacl: mount -o remount,acl {mount}; or {instead}"
        return f"{where}: mount a tmpfs there (mount -t tmpfs tmpfs {mount}), or {instead}"
    return f"Access control lists do not exist on the file system of the object; {instead}"


def _mounts() -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield device, folder, file system type and options of all mounts: proc_pid_mountinfo(5)."""
    try:
        with open("/proc/self/mountinfo", errors="surrogateescape") as mounts:
            lines = list(mounts)
    except OSError:
        return
    for line in reversed(lines):  # a later mount hides an earlier one
        mount, _, system = line.partition(" - ")
        fields, (kind, _, options) = mount.split(), system.split(maxsplit=2)
        yield fields[2], fields[4], kind, options.strip().split(",")
