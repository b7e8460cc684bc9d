"""huge_pages=True: a warning if the settings of the machine do not allow huge pages."""

import re

import pytest
from _processes import PATH, cannot_be_tested, needs_mounts

from posixshm import SharedMemory

ENABLED = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"


def shmem_enabled():
    try:
        with open(ENABLED, encoding="utf-8") as file:
            return re.search(r"\[(\w+)\]", file.read())[1]
    except OSError:
        return "unknown"


@pytest.mark.parametrize("option", ["never", "advise", "within_size", "always"])
def test_a_warning_says_that_a_mount_does_not_have_huge_pages(run_python, option):
    needs_mounts()
    enabled = shmem_enabled()
    if enabled in ("deny", "force", "unknown"):
        cannot_be_tested(f"{ENABLED} is {enabled}, which overrides the mount")
    code = "import sys; from children.huge_pages import main; main(sys.argv[1])"
    used, *message = run_python(code, option, env=PATH).split(maxsplit=1)
    if option == "never":
        assert used == "False"
        assert "huge_pages=True has no effect: /dev/shm is mounted with huge=never" in message[0]
        assert "mount -o remount,huge=advise /dev/shm" in message[0]
    else:
        # The kernel may not have found a huge page, but the call has not warned.
        assert message == [], message
        if used != "True":
            pytest.skip("NOT TESTED: the kernel did not have a huge page")


def test_a_warning_says_that_a_memfd_does_not_have_huge_pages():
    if shmem_enabled() not in ("never", "deny"):
        cannot_be_tested("this machine has huge pages for memfds")
    with pytest.warns(RuntimeWarning, match=ENABLED) as caught:
        SharedMemory.anonymous(4096, huge_pages=True).close()
    assert caught[0].filename == __file__
