# Functions that install compilers, tools and interpreters, and build the package.

tree=$scratch/tree   # the files of the checkout that a commit would contain
tools=$scratch/tools # a venv with the tools that check the sources
sdist=$scratch/dist  # the source distribution, from which all wheels are built

python_version='import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)' # such as 3.12 or 3.13t

install_compilers() {
    local missing=()
    command -v gcc >/dev/null || missing+=(gcc libc6-dev)
    command -v clang >/dev/null || missing+=(clang)
    python3 -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' ||
        missing+=(python3-venv python3-dev)
    command -v nm >/dev/null || missing+=(binutils)
    command -v strace >/dev/null || missing+=(strace)
    command -v setfacl >/dev/null || missing+=(acl)
    command -v musl-gcc >/dev/null || missing+=(musl-tools)
    [ -n "$(find /usr/lib -path '*clang*' -name 'libclang_rt.asan*' -print -quit)" ] || missing+=(libclang-rt-dev)
    if [ "$(id -u)" = 0 ]; then apt-get update -qq || true; fi
    if [ ${#missing[@]} != 0 ]; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
    gcc --version | head -n 1
    clang --version | head -n 1
}

install_free_threaded() {
    if [ -n "$(find_python 3.13t)" ]; then
        echo "already installed: $(find_python 3.13t)"
    elif [ -x "$shared_tools/get-python-freethreaded" ]; then
        mkdir -p "$cache"
        # Without debugging information, which would add a quarter to the time.
        "$shared_tools/get-python-freethreaded" "$cache/py3.13t" OPT=-O2
    else
        echo "cannot install it: POSIXSHM_SHARED_TOOLS does not contain get-python-freethreaded"
    fi
}

copy_tree() { # copy_tree FOLDER: copies the files of a clean clone, with the uncommitted changes
    mkdir -p "$1"
    git -C "$checkout" ls-files -z --cached --others --exclude-standard |
        tar -C "$checkout" --null --files-from=- --ignore-failed-read -c | tar -C "$1" -x
}

type_checker=$(grep '^mypy==' "$checkout/.ci/requirements.txt")

install_tools() {
    copy_tree "$tree"
    python3 -m venv "$tools"
    "$tools/bin/pip" install -qq --no-compile -r "$checkout/.ci/requirements.txt" \
        build numpy 'pip>=25' pytest rich 'setuptools>=77'
}

make_sdist() {
    "$tools/bin/python" -m build -q --sdist --no-isolation --outdir "$sdist" "$tree"
    ls "$sdist"
}

# find_python VERSION: prints the newest interpreter of this version, such as 3.12 or 3.13t, that
# can make a venv.
find_python() {
    local version=$1 candidate
    while read -r candidate; do
        if [ "$("$candidate" -c "import ensurepip; $python_version" 2>/dev/null)" = "$version" ]; then
            echo "$candidate"
            return
        fi
    done < <(
        find "${PYENV_ROOT:-$HOME/.pyenv}/versions" -maxdepth 3 -path "*/bin/python$version" 2>/dev/null | sort -rV
        echo "$cache/py$version/bin/python$version"
        command -v "python$version"
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

# make_venv FOLDER PYTHON EXTRA: makes a venv with the package, built from the source distribution.
make_venv() {
    [ ! -d "$1" ] || return 0 # an earlier step made it
    local wheel
    wheel=$(make_wheel "$2")
    "$2" -m venv --without-pip "$1"
    pip_for "$1/bin/python" install -qq "${wheel}[$3]"
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

# make_main_venv: makes the venv of the first python3 on the path, for types and benchmarks.
make_main_venv() {
    main_venv=$scratch/python$(python3 -c "$python_version")
    make_venv "$main_venv" "$(command -v python3)" test,bench
}
