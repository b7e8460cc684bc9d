# What can be said of the sources and of a build without running it.

fail() {
    printf '%s\n' "$@" >&2
    return 1
}

lint_ruff() {
    "$tools/bin/ruff" check --no-cache "$tree"
}

lint_workflows() {
    "$tools/bin/python" "$tree/.ci/release/check_workflows" "$tree"
}

build_strict() { # build_strict COMPILER: a release build of the sources, all warnings errors
    cd "$tree"
    CC=$1 POSIXSHM_WERROR=1 "$tools/bin/python" setup.py -q build --build-base "$scratch/build-$1"
}

objects() { # objects ROOM: what the gcc build made of it
    ls "$scratch"/build-gcc/temp*/csrc/"$1"/*.o
}

# The posix room knows no Python, the core room makes no system call.
lint_rooms() {
    local calls core posix used headers
    core=$(objects core)
    posix=$(objects posix)
    calls='shm_.*|open(at)?|close|p?(read|write)v?|fcntl|ioctl|dup[23]?|mmap|munmap|mremap|mprotect|madvise|msync'
    calls+='|m(un)?lock|mincore|f?truncate|(posix_)?fallocate|(__)?[fl]?x?stat(at|fs|vfs|x)?|f?(chmod|chown)(at)?|flock'
    calls+='|(un)?link(at)?|rename(at2?)?|sem_.*|pthread_.*|memfd_create|syscall|(u|(clock_)?nano)?sleep|poll|signal'
    calls+='|sig(action|procmask|timedwait)|(open|read|close)dir|kill|fork'
    used=$(nm -u -A $core | grep -wE "U ($calls)(64)?(@.*)?" || true)
    [ -z "$used" ] || fail "csrc/core makes system calls:" "$used"
    used=$(nm -u -A $posix | grep -E ' U _?Py' || true)
    [ -z "$used" ] || fail "csrc/posix uses Python:" "$used"
    headers=$(grep -rnE '#[[:space:]]*include[[:space:]]*[<"](Python|core/.*)\.h' "$tree/csrc/posix" || true)
    [ -z "$headers" ] || fail "csrc/posix includes what is Python's:" "$headers"
}

lint_symbols() {
    local library symbols
    for library in "$scratch"/build-{gcc,clang}/lib*/posixshm/_core*.so; do
        symbols=$(nm -D --defined-only "$library" | awk '{ print $NF }')
        [ "$symbols" = PyInit__core ] || fail "$library exports:" "$symbols"
    done
}

lint_wheel() {
    local wheel
    wheel=$(make_wheel "$(command -v python3)")
    "$tree/.ci/release/check_wheel" "$wheel"
}

check_types() {
    local samples python venv
    make_main_venv
    cd "$tree"
    "$tools/bin/mypy" --strict --python-executable "$main_venv/bin/python" src
    samples=$(find tests -name 'typing_*.py')
    [ -z "$samples" ] || "$tools/bin/mypy" --strict --python-executable "$main_venv/bin/python" $samples
    # The stubs against the module, where a buffer can be seen from Python (from 3.12 on).
    python=$(find_python 3.13)
    venv=$scratch/python$("$python" -c "$python_version")
    make_venv "$venv" "$python" test
    "$venv/bin/pip" install -qq mypy types-psutil
    cd "$scratch"
    "$venv/bin/python" -m mypy.stubtest --concise \
        --allowlist "$checkout/.ci/stubtest-allow" posixshm
}
