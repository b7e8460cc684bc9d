"""Start Python children quickly: a server imports their modules once and forks each child.

`Forked` is a `subprocess.Popen` whose process is a fork of a server. The process has its own
standard streams, environment, working directory and `sys.argv`, runs the program as `__main__`,
exits like an interpreter, and is a child of the test process. Only the modules of the server are
imported before the program begins. With POSIXSHM_TEST_NEW=1, every child is a new interpreter.

As a program: python _fork_server.py DESCRIPTOR MODULE... is a server.
"""

import atexit
import builtins
import collections
import ctypes
import gc
import importlib.machinery
import io
import json
import os
import socket
import subprocess
import sys
import threading
import types

_PR_SET_CHILD_SUBREAPER = 36
_PRELOADED = ["posixshm", "_processes"]
_libc = ctypes.CDLL(None, use_errno=True)


# -- in the test --------------------------------------------------------------------------------


class _Server:
    def __init__(self, modules, env):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # numpy's OpenBLAS would start threads, which a fork does not copy.
        env = {**env, "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", __file__, str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=env,
            )
        self._socket.settimeout(60)
        self._lock = threading.Lock()  # tests also start children in threads

    def holdings(self):
        """The holdings of this process that belong to the server, with the names of conftest."""
        fd = self._socket.fileno()
        link = os.readlink(f"/proc/self/fd/{fd}")
        return {f"descriptor {fd} -> {link}", f"child process {self._process.pid}"}

    def fork(self, request, descriptors):
        """Fork a process, which becomes a child of the test process, and return its id."""
        # Its parent, an intermediate process, exits, so the nearest subreaper becomes its parent.
        with self._lock:
            _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
                answer = self._socket.recv(100)
            finally:
                _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))
        if not answer:
            raise RuntimeError("the fork server ended")
        return int(answer)

    def close(self):
        self._socket.close()
        self._process.wait(60)


_servers = {}
_starts = collections.Counter()


def holdings():
    """The holdings of this process that belong to all servers."""
    found = set()
    for server in _servers.values():
        found |= server.holdings()
    return found


def close():
    """Stop all servers."""
    while _servers:
        _servers.popitem()[1].close()


def _server_for(modules, env):
    """The server for a process with these modules and variables; None for the first such process.

    The variables are those that an interpreter or its libraries read when they start.
    """
    prefixes = ("PYTHON", "LANG", "LC_", "LD_", "GLIBC_", "MALLOC_", "ASAN_", "UBSAN_")
    seen = {key: value for key, value in env.items() if key.startswith(prefixes)}
    kind = json.dumps([modules, sorted(seen.items())])
    if kind not in _servers:
        _starts[kind] += 1
        if _starts[kind] == 1:
            return None
        _servers[kind] = _Server(modules, env)
    return _servers[kind]


class Forked(subprocess.Popen):
    """Popen([sys.executable, "-X", "faulthandler", "-c", code, *args]), or with "-m", module.

    terminal: standard input is the controlling terminal of the process's new session.
    """

    def __init__(self, args, modules=(), terminal=False, **popen):
        self._modules = [*_PRELOADED, *modules]
        self._terminal = terminal
        super().__init__(args, **popen)

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
        creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
        restore_signals, gid, gids, uid, umask, start_new_session, *rest
    ):  # fmt: skip
        env = dict(os.environ if env is None else env)
        server = None
        if os.environ.get("POSIXSHM_TEST_NEW") != "1":
            server = _server_for(self._modules, env)
        if server is None:
            if self._terminal:
                preexec_fn = take_terminal
            super()._execute_child(
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
                restore_signals, gid, gids, uid, umask, start_new_session, *rest
            )  # fmt: skip
            return
        flags = args[1:]
        if flags[:2] == ["-X", "faulthandler"]:
            flags = flags[2:]
        request = {
            "kind": flags[0],
            "program": flags[1],
            "args": flags[2:],
            "env": env,
            "cwd": os.fspath(cwd or os.getcwd()),
            "session": start_new_session,
            "terminal": self._terminal,
        }
        standard = [p2cread, c2pwrite, errwrite]
        standard = [own if fd == -1 else fd for own, fd in enumerate(standard)]
        try:
            self.pid = server.fork(request, standard)
            self._child_created = True
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


def _check(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def take_terminal():
    """Make standard input the controlling terminal of this process's session."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


# -- in the server ------------------------------------------------------------------------------


def _serve(connection):
    """Fork a process for each request; return the request in the new process."""
    reading, writing = os.pipe()
    waiting, adopted = os.pipe()
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not data:
            os._exit(0)
        middle = os.fork()
        if middle == 0:
            pid = os.fork()
            if pid == 0:
                os.read(waiting, 1)
                for fd in (connection.detach(), reading, writing, waiting, adopted):
                    os.close(fd)
                return json.loads(data), descriptors
            os.write(writing, str(pid).encode())
            os._exit(0)
        # Answer after the process has its new parent.
        os.waitpid(middle, 0)
        os.write(adopted, b"x")  # now the process has its new parent and may run
        connection.send(os.read(reading, 100))
        for fd in descriptors:
            os.close(fd)


def _become(request, descriptors):
    """Set the streams, the environment and the other values of the request."""
    for own, fd in enumerate(descriptors):
        os.dup2(fd, own)
    for fd in descriptors:
        os.close(fd)
    if request["session"]:
        os.setsid()
    if request["terminal"]:
        take_terminal()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for fd, name in enumerate(["stdin", "stdout", "stderr"]):
        old = getattr(sys, name)
        buffering = 0 if isinstance(old.buffer, io.FileIO) else -1
        new = io.TextIOWrapper(
            open(fd, "wb" if fd else "rb", buffering, closefd=False),
            old.encoding,
            old.errors,
            line_buffering=old.line_buffering or os.isatty(fd),
            write_through=old.write_through,
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _end(main, status):
    """End like an interpreter with this status, but keep the modules, whose objects would take
    longer to free than most programs run. Returns if only an interpreter can end this process."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for name in list(vars(main)):
        vars(main)[name] = None
    gc.collect()
    if threading.active_count() > 1:
        return  # daemon threads must not run on while the C library ends
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        return
    ctypes.PyDLL(None).exit(status)


def _run():
    """Run the server, and in each new process its program."""
    descriptor, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    request, descriptors = _serve(socket.socket(fileno=int(descriptor)))
    _become(request, descriptors)
    program = request["program"]
    if request["kind"] == "-c":
        sys.path[0], sys.argv = "", ["-c", *request["args"]]
    else:
        sys.path[0], sys.argv = os.getcwd(), ["-m", *request["args"]]
        program = f"import runpy; runpy._run_module_as_main({program!r})"
    code = compile(program, "<string>", "exec", dont_inherit=True)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__loader__ = importlib.machinery.BuiltinImporter
    main.__annotations__, main.__builtins__ = {}, builtins
    try:
        exec(code, vars(main))
    except SystemExit as end:
        status = 0 if end.code is None else end.code
        end.__traceback__ = None
        if isinstance(status, int):
            _end(main, status & 0xFF)
        raise
    _end(main, 0)


if __name__ == "__main__":
    _run()
