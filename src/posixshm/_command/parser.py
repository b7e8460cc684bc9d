"""The command line of `posixshm`: its commands, options and help."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from importlib import import_module

import posixshm
from posixshm._command.arguments import count, duration, mode

EPILOG = """\
exit codes:
  0      it is done
  1      the system refused, or the answer is no
  2      the arguments are wrong, or a package is missing
  128+N  signal N ended it

'posixshm COMMAND --help' shows the options of a command, and examples.
"""
SORTS = ("name", "size", "allocated", "age", "owner", "kind", "state")
_PATTERN = "a pattern such as 'camera-*', or the start of a name"
_OLDER = "only what is older: 90, 30s, 15m, 1h, 2d"


def _runner(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Import the module of a command when the command runs."""

    def run(args: argparse.Namespace) -> int:
        code: int = getattr(import_module(f"posixshm._command.{module}"), function)(args)
        return code

    return run


class Commands:
    """Adds commands to the parser."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(
            prog="posixshm",
            description="List, inspect, copy and remove the objects in /dev/shm.",
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        version = f"posixshm {posixshm.__version__}"
        self.parser.add_argument("--version", action="version", version=version)
        self._commands = self.parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        self, name: str, run: str, text: str, *examples: str, json: str | None = None
    ) -> argparse.ArgumentParser:
        """run: module.function. examples: lines of the help. json: what --json gives."""
        parts = []
        if examples:
            parts.append("examples:\n" + "\n".join(f"  {line}" for line in examples))
        if json is not None:
            lines = textwrap.wrap(json, 76, initial_indent="  ", subsequent_indent="  ")
            parts.append("json (bytes and seconds):\n" + "\n".join(lines))
        command = self._commands.add_parser(
            name,
            help=text,
            description=text,
            epilog="\n\n".join(parts),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=_runner(*run.split(".")))
        if json is not None:
            command.add_argument(
                "--json", action="store_true", help="in bytes and seconds, for a program"
            )
        return command


_ENTRY = (
    "name, kind, content, size, allocated, mode, acl, owner, uid, gid, age, state, pids, "
    "uninspected"
)
_JSON = {
    "ls": f"a list of objects: {_ENTRY}",
    "stat": f"{_ENTRY}, inode, device, links, changed, holders: a list of pid, uid, command, how",
    "holders": "holders: a list of pid, uid, command, how; uninspected",
    "df": (
        "path, size, used, free, inodes, inodes_free (null: no limit), objects, objects_size, "
        "objects_bytes, without_name, owners: a list of owner, uid, objects, size, allocated; "
        "container: null, or limit, used, shared"
    ),
    "reclaim": "a list of name, size, age, state, removed, uninspected, error (null, or why not)",
    "doctor": (
        "checks: a list of check, value, verdict (ok, note, problem), meaning, advice; problems"
    ),
}


def make_parser() -> argparse.ArgumentParser:
    commands = Commands()
    _add_listing(commands)
    _add_removing(commands)
    _add_rights(commands)
    _add_copying(commands)
    _add_waiting(commands)
    _add_more(commands)
    return commands.parser


def _add_listing(commands: Commands) -> None:
    ls = commands.add(
        "ls",
        "listing.ls",
        "List objects and semaphores: kind, size, mode, owner, age, and whether they are in use.",
        "posixshm ls                       all of them",
        "posixshm ls 'camera-*' --sort size",
        "posixshm ls -q -0 camera- | xargs -0 -r posixshm rm",
        json=_JSON["ls"],
    )
    ls.add_argument("pattern", nargs="?", metavar="GLOB", help=_PATTERN)
    order = "the column to sort by (default: name); the largest size is first"
    ls.add_argument("--sort", choices=SORTS, default="name", help=order)
    ls.add_argument("-r", "--reverse", action="store_true", help="reverse the order")
    ls.add_argument("-q", "--quiet", action="store_true", help="names only, one a line")
    ls.add_argument("-0", "--null", action="store_true", help="with -q: end names with a NUL")
    show = commands.add(
        "stat",
        "listing.show",
        "Show one object in detail: its processes, locks and contents.",
        "posixshm stat prices",
        "posixshm stat --json sem.jobs",
        json=_JSON["stat"],
    )
    show.add_argument("name", metavar="NAME", help="of an object; sem.NAME for a semaphore")
    holders = commands.add(
        "holders",
        "listing.holders",
        "List the processes that use an object. The exit code is 1 if no process is found.",
        "posixshm holders prices",
        "kill $(posixshm holders -q prices)",
        json=_JSON["holders"],
    )
    holders.add_argument("name", metavar="NAME")
    holders.add_argument("-q", "--quiet", action="store_true", help="pids only, one a line")
    commands.add(
        "df",
        "room.df",
        "Show the free space in /dev/shm, and how much each user uses.",
        "posixshm df",
        "posixshm df --json",
        json=_JSON["df"],
    )


def _add_removing(commands: Commands) -> None:
    rm = commands.add(
        "rm",
        "removing.rm",
        "Remove names. Processes that use the object keep it.",
        "posixshm rm prices",
        "posixshm rm 'camera-*' --dry-run",
        "posixshm rm sem.jobs              a semaphore",
    )
    rm.add_argument("names", nargs="*", metavar="NAME", help="or a pattern such as 'camera-*'")
    rm.add_argument("--prefix", metavar="P", help="all names that begin with P")
    rm.add_argument("--older-than", type=duration, metavar="TIME", help=_OLDER)
    rm.add_argument("--dry-run", action="store_true", help="only print the names")
    rm.add_argument("-f", "--force", action="store_true", help="a missing name is not an error")
    reclaim = commands.add(
        "reclaim",
        "removing.reclaim",
        "Remove the objects and semaphores that no living process uses.",
        "posixshm reclaim 'camera-*' --dry-run",
        "posixshm reclaim --older-than 1d -y",
        json=_JSON["reclaim"],
    )
    reclaim.add_argument("pattern", nargs="?", metavar="GLOB", help=_PATTERN)
    reclaim.add_argument("--prefix", metavar="P", help="only names that begin with P")
    reclaim.add_argument("--older-than", type=duration, metavar="TIME", help=_OLDER)
    reclaim.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    reclaim.add_argument("-y", "--yes", action="store_true", help="do not ask on a terminal")
    reclaim.add_argument(
        "--force", action="store_true", help="remove also what nothing proves to be unused"
    )


def _add_copying(commands: Commands) -> None:
    load = commands.add(
        "load",
        "copying.load",
        "Copy a file into a new object, which gets its name when it is complete.",
        "posixshm load prices.npy prices --replace",
        "zstdcat weights.zst | posixshm load - weights",
    )
    load.add_argument("file", metavar="FILE", help="'-' is standard input")
    load.add_argument("name", metavar="NAME")
    load.add_argument("--replace", action="store_true", help="replace NAME in one step")
    load.add_argument("--mode", type=mode, default=0o600, help="of the object, octal (600)")
    load.add_argument(
        "--reserve", action="store_true", help="reserve memory also for the holes of a sparse file"
    )
    dump = commands.add(
        "dump",
        "copying.dump",
        "Copy the bytes of an object into a file, which gets its name when it is complete.",
        "posixshm dump prices prices.npy",
        "posixshm dump weights - | zstd > weights.zst",
    )
    dump.add_argument("name", metavar="NAME")
    dump.add_argument("file", metavar="FILE", help="'-' is standard output, not to a terminal")


def _add_rights(commands: Commands) -> None:
    def names(command: argparse.ArgumentParser) -> None:
        command.add_argument("names", nargs="+", metavar="NAME")

    chmod = commands.add(
        "chmod",
        "rights.chmod",
        "Change the mode of objects.",
        "posixshm chmod 640 prices",
        "posixshm chmod g+r,o= prices",
    )
    chmod.add_argument("mode", metavar="MODE", help="octal, or changes as for chmod(1)")
    names(chmod)
    chown = commands.add(
        "chown",
        "rights.chown",
        "Change the owner or the group of objects.",
        "posixshm chown :traders prices",
    )
    chown.add_argument("owner", metavar="OWNER", help="USER, USER:GROUP or :GROUP; names or ids")
    names(chown)
    getfacl = commands.add(
        "getfacl",
        "rights.getfacl",
        "Print access control lists, as getfacl(1) does.",
        "posixshm getfacl prices",
    )
    getfacl.add_argument("-n", "--numeric", action="store_true", help="ids instead of names")
    getfacl.add_argument("-c", "--omit-header", action="store_true", help="only the entries")
    names(getfacl)
    setfacl = commands.add(
        "setfacl",
        "rights.setfacl",
        "Change access control lists, as setfacl(1) does.",
        "posixshm setfacl -m u:alice:r prices",
        "posixshm setfacl --set u:alice:rw,g:traders:r prices",
        "posixshm setfacl -b prices",
    )
    setfacl.add_argument("--set", metavar="ACL", help="replace the list")
    setfacl.add_argument("-m", "--modify", metavar="ACL", help="add or change entries")
    setfacl.add_argument("-b", "--remove-all", action="store_true", help="remove the list")
    names(setfacl)
    mv = commands.add(
        "mv",
        "naming.mv",
        "Give an object another name. Processes that use it keep it.",
        "posixshm mv prices.new prices --replace",
    )
    mv.add_argument("old", metavar="NAME")
    mv.add_argument("new", metavar="NEW")
    mv.add_argument("--replace", action="store_true", help="replace NEW in one step")
    ln = commands.add(
        "ln", "naming.ln", "Give an object a second name.", "posixshm ln prices prices-today"
    )
    ln.add_argument("old", metavar="NAME")
    ln.add_argument("new", metavar="NEW")


def _add_waiting(commands: Commands) -> None:
    wait = commands.add(
        "wait",
        "waiting.wait",
        "Wait until an object has the name. Exit code 1 after the timeout.",
        "posixshm wait prices --timeout 30 && ./reader",
        "posixshm wait --free prices && posixshm rm prices",
    )
    wait.add_argument("name", metavar="NAME")
    wait.add_argument("--timeout", type=duration, metavar="TIME", help="90, 30s, 15m, 1h, 2d")
    until = wait.add_mutually_exclusive_group()
    until.add_argument("--gone", action="store_true", help="until there is none")
    until.add_argument("--free", action="store_true", help="until no process uses it")
    watch = commands.add(
        "watch",
        "waiting.watch",
        "Show the objects repeatedly, until Ctrl-C.",
        "posixshm watch --sort allocated",
    )
    watch.add_argument("pattern", nargs="?", metavar="GLOB", help=_PATTERN)
    watch.add_argument("--sort", choices=SORTS, default="name", help="(name)")
    watch.add_argument("--interval", type=duration, default=2.0, metavar="TIME", help="(2s)")
    watch.add_argument("--count", type=count, metavar="N", help="stop after N times")


def _add_more(commands: Commands) -> None:
    commands.add(
        "doctor",
        "doctor.doctor",
        "Check this machine for problems with shared memory. Exit code 1 if there is one.",
        "posixshm doctor",
        json=_JSON["doctor"],
    )
    docs = commands.add(
        "docs",
        "docs.docs",
        "Show the guides and the reference. Without a topic: the list of topics.",
        "posixshm docs",
        "posixshm docs restarting",
        "posixshm docs SharedMemory.resize",
    )
    docs.add_argument(
        "topic", nargs="*", metavar="TOPIC", help="a page, a public name, or words of a title"
    )
    completion = commands.add(
        "completion",
        "completion.completion",
        "Print a script that completes commands, options and names in a shell.",
        'eval "$(posixshm completion bash)"        in ~/.bashrc',
        "posixshm completion fish > ~/.config/fish/completions/posixshm.fish",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    demo = commands.add(
        "demo",
        "showing.demo",
        "Process one array in several processes, in shared memory and through pipes.",
        "posixshm demo",
        "posixshm demo --plot demo.png",
    )
    demo.add_argument("--plot", metavar="FILE", help="write a picture; it needs matplotlib")
