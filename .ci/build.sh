# Functions that install compilers, tools and interpreters, and build the package.

tree=$scratch/tree   # the files of the checkout that a commit would contain
tools=$scratch/tools # a venv with the tools that check the sources
sdist=$scratch/dist  # the source distribution, from which all wheels are built

python_version='import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)' # such as 3.12 or 3.13t

install_compilers() {
    local packages=(acl binutils clang gcc libc6-dev musl-tools strace)
    python3 -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' ||
        packages+=(python3-venv python3-dev)
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq || true
        apt "${packages[@]}"
    fi
    gcc --version | head -n 1
    clang --version | head -n 1
}

apt() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; }

# get TOOL ARGUMENT...: runs a program of the folder that POSIXSHM_SHARED_TOOLS names.
get() {
    local tool=${POSIXSHM_SHARED_TOOLS:-}/$1
    [ -x "$tool" ] || fail "there is no $1 in the folder POSIXSHM_SHARED_TOOLS" || return
    mkdir -p "$cache"
    "$tool" "${@:2}"
}

install_free_threaded() { # without debugging information, which would add a quarter to the time
    if ! find_python 3.13t; then
        if [ -n "${POSIXSHM_SHARED_TOOLS:-}" ]; then
            get get-python-freethreaded "$cache/py3.13t" OPT=-O2
        else
            echo "cannot install it: POSIXSHM_SHARED_TOOLS is not set"
        fi
    fi
}

copy_tree() { # copy_tree FOLDER: copies the files of a clean clone, with the uncommitted changes
    mkdir -p "$1"
    git -C "$checkout" ls-files -z --cached --others --exclude-standard |
        tar -C "$checkout" --null --files-from=- --ignore-failed-read -c | tar -C "$1" -x
}

make_sdist() { # make_sdist PACKAGE...: also installs these packages beside the tools that build
    copy_tree "$tree"
    python3 -m venv "$tools"
    "$tools/bin/pip" install -qq --no-compile build 'pip>=25' 'setuptools>=77' "$@"
    "$tools/bin/python" -m build -q --sdist --no-isolation --outdir "$sdist" "$tree"
    ls "$sdist"
}

pinned() { grep "^$1==" "$checkout/.ci/requirements.txt"; }

# find_python VERSION: prints the newest interpreter of this version, such as 3.12 or 3.13t, that
# can make a venv.
find_python() {
    local candidate
    while read -r candidate; do
        if [ "$("$candidate" -c "import ensurepip; $python_version" 2>/dev/null)" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done < <(
        find "${PYENV_ROOT:-$HOME/.pyenv}/versions" -maxdepth 3 -path "*/bin/python$1" 2>/dev/null | sort -rV
        echo "$cache/py$1/bin/python$1"
        command -v "python$1"
    )
    return 1
}

# pip_for PYTHON ARGUMENT...: runs the pip of the tools for an interpreter that may not have pip.
pip_for() {
    local options=()
    # To compile all modules takes most of the time; each is compiled when it is imported.
    [ "$2" != install ] || options=(--no-compile)
    "$tools/bin/pip" --python "$1" "$2" "${options[@]}" "${@:3}"
}

# make_venv PYTHON EXTRAS: sets venv to an environment with the package, built from the
# source distribution, which an earlier step may have made.
make_venv() {
    venv=$scratch/python$("$1" -c "$python_version")-$2
    [ ! -d "$venv" ] || return 0
    local wheel
    wheel=$(make_wheel "$1")
    "$1" -m venv --without-pip "$venv"
    pip_for "$venv/bin/python" install -qq "${wheel}[$2]"
}

# make_wheel PYTHON: prints the wheel. The first of the parallel steps that needs it builds it.
make_wheel() {
    local folder
    folder=$scratch/wheels/$("$1" -c "$python_version")-${POSIXSHM_SANITIZE:-plain}
    mkdir -p "$folder"
    (
        flock 9
        ls "$folder"/*.whl >/dev/null 2>&1 || {
            POSIXSHM_WERROR=1 pip_for "$1" wheel -qq --no-deps --wheel-dir "$folder" "$sdist"/*.tar.gz
        } >&2
    ) 9>"$folder/lock" && ls "$folder"/*.whl
}

exports_one_symbol() { # exports_one_symbol LIBRARY
    local symbols
    symbols=$(nm -D --defined-only "$1" | awk '{ print $NF }')
    [ "$symbols" = PyInit__core ] || fail "$1 exports:" "$symbols"
}
