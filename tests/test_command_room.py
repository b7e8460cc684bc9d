"""`posixshm df`: the room of /dev/shm."""

import json
import os

from _command import COMMAND, MOUNT, good, in_namespace


def test_df_shows_the_room(make):
    name = make(bytes(1 << 20))
    record = json.loads(good("df", "--json"))
    mount = os.statvfs(MOUNT)
    assert record["path"] == "/dev/shm"
    assert record["size"] == (mount.f_blocks * mount.f_frsize or None)
    assert record["inodes"] == (mount.f_files or None)
    assert record["objects"] >= 1
    assert record["objects_bytes"] >= os.stat(MOUNT / name).st_blocks * 512
    head, row, *_ = good("df").splitlines()
    assert head.split()[:4] == ["MOUNT", "SIZE", "USED", "FREE"]
    assert row.startswith("/dev/shm")


def test_df_says_where_there_is_no_limit():
    done = in_namespace("size=0,nr_inodes=0", *COMMAND, "df")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no limit") == 4  # size, free, inodes, free inodes
    done = in_namespace("size=0,nr_inodes=0", *COMMAND, "df", "--json")
    record = json.loads(done.stdout)
    assert [record[key] for key in ("size", "free", "inodes", "inodes_free")] == [None] * 4
    assert record["used"] == 0
