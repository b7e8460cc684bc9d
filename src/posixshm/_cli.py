"""The `posixshm` command: a demonstration, and tools for what lies in /dev/shm.

Tables need `rich` and the answer to "who maps it" needs `psutil`, both asked for by
the `cli` extra only; `rm`, `load`, `dump` and most of `--json` work without them.

Exit codes: 0; 1 when the system refused; 2 when the caller has to change something
(usage, a bad name, a missing package); 128 + N when signal N ended it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import json
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import posixshm
from posixshm._cli_objects import (
    MOUNT,
    Entry,
    age_text,
    entries,
    holders,
    path_of,
    print_table,
    printable,
    size_text,
    states,
)

CHUNK = 1 << 20


class MissingPackage(Exception):
    """A package of the `cli` extra is not installed."""


def _need(*modules: str) -> None:
    # Nothing has been made yet, so Ctrl-C may simply end the process; some modules
    # turn a KeyboardInterrupt into an ImportError.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        for module in modules:
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                text = f"this needs {module}, which is not installed: pip install 'posixshm[cli]'"
                raise MissingPackage(text) from None
            except ImportError as error:
                raise MissingPackage(f"{module} cannot be imported: {error}") from None
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


# The commands: each takes the parsed arguments and returns the exit code.


def _ls(args: argparse.Namespace) -> int:
    _need(*([] if args.json else ["rich"]), *(["psutil"] if args.pids else []))
    found = entries(args.prefix)
    records = [entry.record() for entry in found]
    silent = 0
    if args.pids:
        mapped, silent = holders({entry.key for entry in found})
        for entry, record in zip(found, records, strict=True):
            record["pids"] = [holder.pid for holder in mapped[entry.key]]
    if args.json:
        _print_json(records)
    elif found:
        columns = ["NAME", ">SIZE", "MODE", "OWNER", ">AGE", "STATE"]
        rows = [
            [e.name, size_text(e.status.st_size), e.mode, e.owner, age_text(e.age), e.state]
            for e in found
        ]
        if args.pids:
            columns.append("MAPPED BY")
            for row, record in zip(rows, records, strict=True):
                row.append(" ".join(map(str, record["pids"])) or "-")
        print_table(columns, rows)
    if silent:
        print(f"posixshm: processes not allowed to look at: {silent}", file=sys.stderr)
    return 0


def _stat(args: argparse.Namespace) -> int:
    _need(*([] if args.json else ["rich"]), "psutil")
    with _about(args.name):
        status = os.lstat(path_of(args.name))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a shared memory object")
    name = args.name.removeprefix("/")
    entry = Entry(name, status, states(name).get(name, "unknown"))
    mapped, silent = holders([entry.key])
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    record = entry.record() | {
        "inode": status.st_ino,
        "device": device,
        "links": status.st_nlink,
        "changed": status.st_ctime,
        "mapped_by": [holder._asdict() for holder in mapped[entry.key]],
        "not_looked_at": silent,
    }
    if args.json:
        _print_json(record)
        return 0
    allocated = record["allocated"]
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.st_ctime))
    rows = [
        ["size", f"{status.st_size} bytes ({size_text(status.st_size)})"],
        ["allocated", f"{allocated} bytes ({size_text(allocated)})"],
        ["mode", f"{entry.mode} ({stat.filemode(status.st_mode)})"],
        ["owner", f"{entry.owner} (uid {status.st_uid}, gid {status.st_gid})"],
        ["inode", f"{status.st_ino} on device {device}, links: {status.st_nlink}"],
        ["changed", f"{changed} ({age_text(entry.age)} ago)"],
        ["state", entry.state],
    ]
    who = [f"{each.pid} {each.process} ({each.user})" for each in mapped[entry.key]]
    rows += [["mapped by", text] for text in who or ["nobody"]]
    if silent:
        rows.append(["", f"(not allowed to look at: {silent})"])
    print_table(["name", name], rows)
    return 0


def _rm(args: argparse.Namespace) -> int:
    code = 0
    for name in args.names:
        try:
            posixshm.shm_unlink(name)
        except (OSError, ValueError) as error:
            if not (args.force and isinstance(error, FileNotFoundError)):
                code = max(code, _complain(error, name))
    return code


def _reclaim(args: argparse.Namespace) -> int:
    _need(*([] if args.json else ["rich"]))
    if args.prefix is None and args.older_than is None:
        raise ValueError("reclaim needs --prefix, --older-than or both")
    found = sorted(
        posixshm.reclaim(
            args.prefix, older_than=args.older_than, dry_run=args.dry_run, force=args.force
        ),
        key=lambda each: each.name,
    )
    code = int(any(each.error for each in found))
    if args.json:
        keys = ("name", "size", "age", "state", "removed", "uninspected")
        _print_json(
            [
                {key: getattr(each, key) for key in keys}
                | {"error": each.error and each.error.strerror}
                for each in found
            ]
        )
        return code
    if found:
        rows = [[e.name, size_text(e.size), age_text(e.age), _outcome(e)] for e in found]
        print_table(["NAME", ">SIZE", ">AGE", "STATE"], rows)
    states = ("free", "unknown") if args.force else ("free",)
    gone = [each.size for each in found if each.removed or args.dry_run and each.state in states]
    verb = "Could remove" if args.dry_run else "Removed"
    print(f"{verb} {len(gone)} of {len(found)} ({size_text(sum(gone))}).")
    unknown = [each.uninspected for each in found if each.state == "unknown"]
    if unknown and not args.force:
        print(
            f"posixshm: unknown: {len(unknown)}. Processes that could not be inspected: "
            f"{max(unknown)}. --force removes these names too.",
            file=sys.stderr,
        )
    return code


def _outcome(found: posixshm.Reclaimed) -> str:
    if found.error is not None:
        return f"{found.state}, not removed: {found.error.strerror}"
    return "removed" if found.removed else found.state


def _df(args: argparse.Namespace) -> int:
    _need(*([] if args.json else ["rich"]))
    objects = []
    for name in posixshm.listdir():
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed
            objects.append(os.lstat(MOUNT / name).st_blocks * 512)
    mount = os.statvfs(MOUNT)
    # A tmpfs that has no limit says 0 blocks, or 0 inodes.
    limited, counted = mount.f_blocks > 0, mount.f_files > 0
    unit = mount.f_frsize
    record = {
        "path": str(MOUNT),
        "size": mount.f_blocks * unit if limited else None,
        "used": (mount.f_blocks - mount.f_bfree) * unit if limited else sum(objects),
        "free": mount.f_bavail * unit if limited else None,
        "inodes": mount.f_files if counted else None,
        "inodes_free": mount.f_favail if counted else None,
        "objects": len(objects),
        "objects_bytes": sum(objects),
    }
    if args.json:
        _print_json(record)
        return 0

    def text(key: str, form: Callable[[Any], str]) -> str:
        return "no limit" if record[key] is None else form(record[key])

    row = [str(MOUNT), *(text(key, size_text) for key in ("size", "used", "free"))]
    row += [text(key, str) for key in ("inodes", "inodes_free", "objects")]
    columns = ["MOUNT", ">SIZE", ">USED", ">FREE", ">INODES", ">FREE INODES", ">OBJECTS"]
    print_table([*columns, ">IN OBJECTS"], [[*row, size_text(sum(objects))]])
    return 0


def _load(args: argparse.Namespace) -> int:
    # Gigabytes are not read for a bad or taken name; link() has the last word.
    taken = "File exists (see --replace)"
    if os.path.lexists(path_of(args.name)) and not args.replace:
        raise FileExistsError(errno.EEXIST, taken, args.name)
    with contextlib.ExitStack() as stack:
        source, label = 0, "standard input"
        if args.file != "-":
            source, label = stack.enter_context(open(args.file, "rb", 0)).fileno(), args.file
        with _about(label):
            status = os.fstat(source)
            if _is_endless(source, status):
                raise OSError(
                    errno.EINVAL,
                    "It is a device without an end (head -c SIZE copies a part of it)",
                )
        expected = status.st_size if stat.S_ISREG(status.st_mode) else 0
        with _about(args.name):
            shm = posixshm.SharedMemory.unlinked(max(expected, 1), mode=args.mode)
        with shm, _about(args.name):
            length = _copy(source, label, shm.fileno(), args.name)
            if length == 0:
                raise OSError(errno.ENODATA, "Nothing to load, it is empty", label)
            if length < expected:  # the file became shorter meanwhile
                shm.resize(length, shrink=True)
            try:
                shm.link(args.name, replace=args.replace)
            except FileExistsError:
                raise FileExistsError(errno.EEXIST, taken, args.name) from None
    return 0


def _is_endless(source: int, status: os.stat_result) -> bool:
    """Whether it is a character device such as /dev/zero; not a terminal or /dev/null."""
    device = status.st_rdev
    return (
        stat.S_ISCHR(status.st_mode) and device != os.stat(os.devnull).st_rdev
    ) and not os.isatty(source)


def _dump(args: argparse.Namespace) -> int:
    # Through the descriptor, not the mapping: there a truncation by another
    # process is a short read, here it would be SIGBUS.
    with posixshm.SharedMemory.open(args.name, readonly=True) as shm:
        size = os.fstat(shm.fileno()).st_size
        with _target(args.file, shm) as (target, label):
            length = _copy(shm.fileno(), args.name, target, label, size)
    if length < size:
        text = f"Truncated by another process: got {length} of {size} bytes"
        raise OSError(errno.EIO, text, args.name)
    return 0


@contextlib.contextmanager
def _target(file: str, shm: posixshm.SharedMemory) -> Iterator[tuple[int, str]]:
    """The descriptor to write to, and what to call it."""
    if file == "-":
        yield 1, "standard output"
        return
    # A new file is as private as the object. No O_TRUNC: it might be the object.
    target = os.open(file, os.O_WRONLY | os.O_CREAT, shm.mode & 0o777)
    try:
        if os.path.sameopenfile(target, shm.fileno()):
            raise OSError(errno.EINVAL, "It is the object itself", file)
        if stat.S_ISREG(os.fstat(target).st_mode):
            os.ftruncate(target, 0)
        yield target, file
    finally:
        os.close(target)


@contextlib.contextmanager
def _about(subject: str) -> Iterator[None]:
    """Give a system error that names nothing, or a path of ours, the user's word for it."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename).startswith(f"{MOUNT}/"):
            error.filename = subject
        raise


def _copy(source: int, source_label: str, target: int, label: str, most: int = -1) -> int:
    """Copy to the end of source, or most bytes; returns how many."""
    done = 0
    while True:
        with _about(source_label):
            chunk = os.read(source, CHUNK if most < 0 else min(CHUNK, most - done))
        if not chunk:
            return done
        rest = memoryview(chunk)
        with _about(label):
            while rest:
                rest = rest[os.write(target, rest) :]
        done += len(chunk)


def _demo(args: argparse.Namespace) -> int:
    _need("numpy", "rich")
    from posixshm import _demo as demo

    workers = args.workers or len(os.sched_getaffinity(0))
    return demo.run(args.size_mib, workers, args.rounds, args.start_method)


# The command line.


def _duration(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]+)?)([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90, 30s, 15m, 1h, 2d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mode such as 600 or 0640")
    return int(text, 8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posixshm", description="POSIX shared memory: a demonstration, and tools for /dev/shm."
    )
    version = f"posixshm {posixshm.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="in bytes and seconds, for a program")

    def add(
        name: str,
        run: Callable[[argparse.Namespace], int],
        text: str,
        *parents: argparse.ArgumentParser,
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=parents)
        command.set_defaults(run=run)
        return command

    demo = add("demo", _demo, "See several processes work on one array without copying it.")
    demo.add_argument(
        "--size-mib", type=_count, default=256, metavar="N", help="of the array (256)"
    )
    demo.add_argument("--workers", type=_count, metavar="N", help="processes (as many as CPUs)")
    demo.add_argument("--rounds", type=_count, default=3, metavar="N", help="the median counts (3)")
    methods = ("spawn", "forkserver", "fork")
    demo.add_argument("--start-method", choices=methods, default="spawn", help="of the workers")
    ls = add("ls", _ls, "List the objects, and whether somebody uses them.", as_json)
    ls.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="only such names")
    ls.add_argument("--pids", action="store_true", help="also who maps them")
    show = add("stat", _stat, "Show all about one object, and who maps it.", as_json)
    show.add_argument("name", metavar="NAME")
    rm = add("rm", _rm, "Remove names. Whoever has the object mapped keeps it.")
    rm.add_argument("-f", "--force", action="store_true", help="a missing name is no error")
    rm.add_argument("names", nargs="+", metavar="NAME")
    reclaim = add("reclaim", _reclaim, "Remove what no living process uses.", as_json)
    reclaim.add_argument("--prefix", metavar="P", help="only names that start like this")
    age = "only what is older: 90, 30s, 15m, 1h, 2d"
    reclaim.add_argument("--older-than", type=_duration, metavar="TIME", help=age)
    reclaim.add_argument("--dry-run", action="store_true", help="only say what would go")
    reclaim.add_argument(
        "--force", action="store_true", help="remove also what nothing proves to be unused"
    )
    add("df", _df, "Show the room in /dev/shm.", as_json)
    load = add("load", _load, "Copy a file into a new object, seen only when complete.")
    load.add_argument("file", metavar="FILE", help="'-' is standard input")
    load.add_argument("name", metavar="NAME")
    load.add_argument("--replace", action="store_true", help="replace NAME in one step")
    load.add_argument("--mode", type=_mode, default=0o600, help="of the object, octal (600)")
    dump = add("dump", _dump, "Copy the bytes of an object into a file.")
    dump.add_argument("name", metavar="NAME")
    dump.add_argument("file", metavar="FILE", help="'-' is standard output")
    return parser


def _complain(error: Exception, subject: str | None = None) -> int:
    """Say it in one line on standard error; returns the exit code."""
    where, text, code = "", str(error), 2
    if isinstance(error, OSError):
        if subject is None and error.filename is not None:
            subject = str(error.filename)
        where = "" if subject is None else f"{subject}: "
        text, code = error.strerror or text, 1
        if isinstance(error, FileNotFoundError) and MOUNT.is_dir():
            text = os.strerror(errno.ENOENT)  # a shell has no use for advice on Python
    elif isinstance(error, MemoryError):
        text, code = text or "Not enough memory", 1
    print(f"posixshm: {printable(where + text)}", file=sys.stderr)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    try:
        args = _parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the flush at exit
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (OSError, ValueError, MemoryError, MissingPackage) as error:
        return _complain(error)
