"""Checks of the system: systemd, resource limits, /proc, huge pages, the kernel."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import re
import resource
from collections.abc import Iterator

from posixshm import _huge_pages
from posixshm._command.checks import Check, mount_of, option, read
from posixshm._command.text import size_text

_SYSTEM_USERS = 999  # the highest user id that systemd takes for a system's: SYS_UID_MAX
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # its inode, in every kernel


def remove_ipc() -> Iterator[Check]:
    meaning = "systemd-logind removes a user's objects when the last session of the user ends."
    if not os.path.isdir("/run/systemd/system"):
        yield Check("RemoveIPC of systemd", "systemd does not run here", "ok", meaning)
        return
    value = _logind_option("RemoveIPC") or "yes"
    uid = os.geteuid()
    if value.lower() in ("no", "false", "off", "0") or uid <= _SYSTEM_USERS:
        who = "" if uid > _SYSTEM_USERS else f", but not for system users as {uid}"
        yield Check("RemoveIPC of systemd", value + who, "ok", meaning)
    elif os.path.exists(f"/var/lib/systemd/linger/{_user_name(uid)}"):
        yield Check("RemoveIPC of systemd", f"{value}, but this user lingers", "ok", meaning)
    else:
        advice = "Set RemoveIPC=no in /etc/systemd/logind.conf, or run 'loginctl enable-linger'."
        yield Check("RemoveIPC of systemd", value, "problem", meaning, advice)


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _logind_option(name: str) -> str | None:
    """Return a value of the configuration of logind: the last one counts."""
    folders = ("/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd")
    files = [f"{folder}/logind.conf" for folder in folders]
    dropped: dict[str, str] = {}
    for folder in folders:
        for path in glob.glob(f"{folder}/logind.conf.d/*.conf"):
            dropped[os.path.basename(path)] = path
    value = None
    for path in [*files, *(dropped[base] for base in sorted(dropped))]:
        for found in re.findall(rf"^\s*{name}\s*=\s*(\S+)", read(path) or "", re.MULTILINE):
            value = found
    return value


def limits() -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    meaning = "lock_pages() keeps pages out of the swap, up to this limit for a process."
    if soft == resource.RLIM_INFINITY:
        yield Check("RLIMIT_MEMLOCK", "no limit", "ok", meaning)
    else:
        advice = "'ulimit -l', LimitMEMLOCK= of systemd, or --ulimit memlock=-1 of Docker raise it."
        few = soft < 8 << 20
        verdict = "note" if few else "ok"
        yield Check("RLIMIT_MEMLOCK", size_text(soft), verdict, meaning, advice if few else "")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    meaning = "A handle has one descriptor until close() or close_fd()."
    limit = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    most = "" if hard in (soft, resource.RLIM_INFINITY) else f", at most {hard:,}"
    few = soft != resource.RLIM_INFINITY and soft < 1024
    advice = "'ulimit -n' or LimitNOFILE= of systemd raise it."
    verdict = "note" if few else "ok"
    yield Check("RLIMIT_NOFILE", limit + most, verdict, meaning, advice if few else "")
    text = (read("/proc/sys/vm/max_map_count") or "").strip()
    if text.isdigit():
        meaning = "A process can have this many mappings. Each attached object takes one."
        few = int(text) < 65530
        advice = "As root: sysctl vm.max_map_count=262144"
        value = f"{int(text):,}"
        yield Check("max_map_count", value, "note" if few else "ok", meaning, advice if few else "")


def processes() -> Iterator[Check]:
    meaning = "The processes that use an object are found in /proc."
    if not os.path.exists("/proc/self/status"):
        advice = "As root: mount -t proc proc /proc"
        yield Check("/proc", "not mounted", "problem", meaning, advice)
        return
    hidden = option(mount_of("/proc"), "hidepid")
    if hidden not in (None, "0", "off") and os.geteuid() != 0:
        text = "Processes of other users are hidden: holders are missing from lists, not counted."
        advice = "Ask root, or mount /proc with gid= for your group."
        yield Check("hidepid of /proc", hidden or "", "note", text, advice)
    else:
        yield Check("hidepid of /proc", "off", "ok", meaning)
    text = "A lock records its owner by thread id: all its users must be in one PID namespace."
    try:
        inode = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return
    if inode == _FIRST_PID_NAMESPACE:
        yield Check("PID namespace", "the initial one", "ok", text)
    else:
        advice = "Docker: --pid=container:NAME. Kubernetes: shareProcessNamespace."
        yield Check("PID namespace", "a container's", "note", text, advice)


def huge_pages() -> Iterator[Check]:
    enabled, mount = _huge_pages.settings()
    value = f"shmem_enabled {enabled or 'unknown'}, huge={mount or 'unknown'} of the mount"
    meaning = "Pages of 2 MiB make large objects faster to fill and to read."
    obstacle = _huge_pages.obstacle(memfd=False)
    advice = f"They are off: {obstacle}" if obstacle else ""
    yield Check("huge pages", value, "ok", meaning, advice)


_FUTEX_WAITV = 449  # on every architecture


def kernel() -> Iterator[Check]:
    meaning = "It waits for many words in one call, from Linux 5.16 on. No wait here depends on it."
    release = os.uname().release
    call = ctypes.CDLL(None, use_errno=True).syscall
    if call(_FUTEX_WAITV, None, 0, 0, None, 0) < 0 and ctypes.get_errno() == errno.EINVAL:
        yield Check("futex_waitv", f"yes, Linux {release}", "ok", meaning)
    else:
        reason = os.strerror(ctypes.get_errno())
        yield Check("futex_waitv", f"no ({reason}), Linux {release}", "ok", meaning)


CHECKS = [remove_ipc, limits, processes, huge_pages, kernel]
