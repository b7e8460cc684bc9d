# Functions of the checks before a release. A check is a script in this folder: bash
# .ci/release/NAME. It works on copies in a temporary folder and does not change the checkout. If
# something that it needs is missing, it fails, because no check may be skipped.

set -euo pipefail

pattern=
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
cache=${POSIXSHM_CI_CACHE:-${XDG_CACHE_HOME:-/var/tmp}/posixshm-ci} # keeps interpreters between runs
shared_tools=${POSIXSHM_SHARED_TOOLS:-$checkout/../shared/tools}

. "$checkout/.ci/shared.sh"
. "$checkout/.ci/steps.sh"
. "$checkout/.ci/build.sh"
. "$checkout/.ci/lint.sh"

chmod 755 "$scratch" # tests read files here as a second user
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_PREFER_BINARY=1
export PYTHONDONTWRITEBYTECODE=1

release=$checkout/.ci/release

# prepare PACKAGE...: installs the build tools and these packages from PyPI, and builds the source
# distribution.
prepare() {
    copy_tree "$tree"
    python3 -m venv "$tools"
    "$tools/bin/pip" install -qq build 'setuptools>=77' "$@"
    make_sdist
}

# get TOOL ARGUMENT...: runs a program of the folder POSIXSHM_SHARED_TOOLS:
#   get-python-freethreaded PREFIX [OPTION...]  builds a free-threaded CPython 3.13 with these options of
#                                               configure: PREFIX/bin/python3.13t
#   get-python-newest ROOT                      makes a root file system with gcc, acl and CPython 3.14 and
#                                               3.15, release and debug builds, with venv, setuptools and pytest
#   cibuildwheel-local FOLDER                   runs cibuildwheel on the working directory; the wheels are in
#                                               FOLDER then
get() {
    local tool=$1
    shift
    [ -x "$shared_tools/$tool" ] || fail "there is no $tool in POSIXSHM_SHARED_TOOLS ($shared_tools)"
    mkdir -p "$cache"
    "$shared_tools/$tool" "$@"
}

# suite NAME PYTHON PACKAGE ARGUMENT...: see the script suite.
suite() {
    local name=$1
    shift
    own_shm "$release/suite" "$scratch/$name" "$1" "$2" "$(ls "$sdist"/*.tar.gz)" "${@:3}"
}

# in_root ROOT COMMAND...: runs the command in another root, in which scratch is /tmp/scratch and
# this folder is /tmp/release, with its own /tmp and /dev/shm. The mounts end with the command.
in_root() {
    local root=$1
    shift
    unshare --mount --propagation private bash -euc '
        root=$1 scratch=$2 release=$3
        shift 3
        mount --bind "$root" "$root" # the new root must be a mount, because tests also make mounts
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
        mkdir "$root/tmp/scratch" "$root/tmp/release"
        mount --bind "$scratch" "$root/tmp/scratch"
        mount --bind "$release" "$root/tmp/release"
        cd "$root"
        pivot_root . mnt
        umount -l /mnt
        cd /
        export LC_ALL=C.UTF-8 TMPDIR=/tmp
        status=0
        "$@" || status=$?
        left=$(ls -A /dev/shm)
        if [ -n "$left" ]; then printf "left in /dev/shm:\n%s\n" "$left"; exit 1; fi
        exit "$status"' in_root "$root" "$scratch" "$release" "$@"
}
