# Checks of the sources and of a build that do not run it.

# tests_are_there NAME...: checks the names of files and tests that a run excludes. pytest ignores
# unknown names, and also excludes all tests whose names begin with an excluded name.
tests_are_there() {
    local test file longer
    for test in "$@"; do
        file=$checkout/$(test_paths "${test%%::*}") || return 1
        [[ $test == *::* ]] || continue
        grep -q "^def ${test#*::}(" "$file" || fail "there is no $test"
        for longer in $(grep -oE "^def ${test#*::}\w+" "$file" | sed 's/^def //'); do
            [[ " $* " == *" ${test%%::*}::$longer "* ]] || fail "with $test goes $longer"
        done
    done
}

lint_language() {
    cd "$checkout"
    .ci/language
}

lint_reference() { # are the pages those of the docstrings and signatures?
    make_main_venv
    pip_for "$main_venv/bin/python" install -qq "$(grep '^griffelib==' "$checkout/.ci/requirements.txt")"
    "$main_venv/bin/python" "$tree/.ci/reference" --check
}

lint_ruff() {
    "$tools/bin/ruff" check --no-cache "$tree"
}

# The flags of setup.py, one on each line, for tools that only read the sources.
compiler_flags() {
    cd "$tree"
    POSIXSHM_WERROR=1 "$tools/bin/python" - "$tree" <<'END'
import os, sys, sysconfig
import setuptools
from distutils.core import run_setup

[extension] = run_setup("setup.py", stop_after="init").ext_modules
for argument in extension.extra_compile_args:
    print(argument)
for name, value in extension.define_macros:
    print(f"-D{name}={value}")
for folder in extension.include_dirs:
    print("-I" + os.path.join(sys.argv[1], folder))
print("-isystem", sysconfig.get_path("include"), sep="\n")
END
}

lint_clang_tidy() {
    local flags=$scratch/clang-tidy
    mkdir "$flags"
    compiler_flags >"$flags/compile_flags.txt"
    echo "-I$tree/tests/unit" >>"$flags/compile_flags.txt"
    cd "$tree"
    ls .clang-tidy tests/unit/.clang-tidy
    find csrc tests/unit -name '*.c' | sort |
        xargs -P 2 -n 4 "$tools/bin/clang-tidy" --quiet -p "$flags"
}

# Only for csrc: the tests continue after a failed check.
lint_gcc_analyzer() {
    local flags=$scratch/gcc-analyzer-flags room
    compiler_flags >"$flags" # with -Werror
    for room in core posix; do
        mkdir -p "$scratch/gcc-analyzer/$room"
        cd "$scratch/gcc-analyzer/$room"
        find "$tree/csrc/$room" -name '*.c' | sort | xargs -P 2 -n 1 gcc "@$flags" -fanalyzer -c
    done
}

# Checks their format and their security: actions without a commit, permissions, injected text.
lint_workflows() {
    "$tools/bin/check-jsonschema" --builtin-schema vendor.github-workflows "$tree"/.github/workflows/*.yml
    "$tools/bin/zizmor" --offline --no-progress --min-severity medium "$tree/.github/workflows"
}

build_strict() { # build_strict COMPILER: a release build of the sources, all warnings errors
    cd "$tree"
    CC=$1 POSIXSHM_WERROR=1 "$tools/bin/python" setup.py -q build --build-base "$scratch/build-$1"
}

objects() { # objects FOLDER: the object files of the gcc build for csrc/FOLDER
    find "$scratch"/build-gcc/temp*/csrc/"$1" -name '*.o' | sort
}

# csrc/posix does not use Python or csrc/core; csrc/core makes no system call.
lint_rooms() {
    local core posix used known
    core=$(objects core)
    posix=$(objects posix)
    # Objects outside both folders would not be checked. Weak symbols may exist in some Pythons
    # only; the exception is a symbol of the C library, whose address is compared with NULL.
    used=$(find "$scratch"/build-gcc -name '*.o' | sort | comm -23 - <(printf '%s\n' $core $posix | sort))
    [ -z "$used" ] || fail "of neither room:" "$used"
    used=$(nm -A $core $posix | grep -E ' [vwVW] ' | grep -v ' w pthread_mutex_clocklock$' || true)
    [ -z "$used" ] || fail "weak symbols:" "$used"

    gcc -shared -Wl,-z,defs -o "$scratch/posix.so" $posix -lrt -lpthread -ldl ||
        fail "csrc/posix cannot be linked by itself"
    find "$tree/csrc/posix" -name '*.c' -exec gcc -M -D_GNU_SOURCE "-I$tree/csrc" {} + >"$scratch/headers" ||
        fail "csrc/posix cannot be compiled without Python"
    used=$(tr ' ' '\n' <"$scratch/headers" | grep -E 'csrc/(posix/\.\./)?core/|[Pp]ython' | sort -u || true)
    [ -z "$used" ] || fail "csrc/posix includes what is not its own:" "$used"
    used=$(grep -rnE '\b_?Py[A-Za-z]*_' "$tree/csrc/posix" || true) # for example in a string for dlsym()
    [ -z "$used" ] || fail "csrc/posix names what is Python's:" "$used"

    # csrc/core may use these functions of the C library, their fortified names, and functions of
    # Python except those in lower case, such as _Py_open(), which make system calls.
    known='(c|m)alloc|free|mem(cmp|cpy|move|set)|str(n?cmp|chr|error|len)|__isoc(99|23)_sscanf|_?Py_?[A-Z][A-Za-z0-9_]*'
    known+='|__(mem|str)[a-z]+_chk|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|__aarch64_[a-z0-9_]+'
    used=$(nm -u -A $core | grep -vE " U ($known)$" |
        grep -vwFf <(nm --defined-only --extern-only $core $posix | awk 'NF == 3 { print "U " $3 }') || true)
    [ -z "$used" ] || fail "csrc/core uses:" "$used"
    used=$(objdump -d --no-show-raw-insn $core | grep -wE 'syscall|sysenter|int +\$0x80|svc' || true)
    [ -z "$used" ] || fail "csrc/core enters the kernel:" "$used"
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
    local python venv
    make_main_venv
    cd "$tree"
    "$tools/bin/mypy" --strict --python-executable "$main_venv/bin/python" src tests/contracts/typing_usage.py
    # Compare the stubs with the module, from Python 3.12 on, in which buffer methods are visible.
    python=$(find_python 3.13)
    venv=$scratch/python$("$python" -c "$python_version")
    make_venv "$venv" "$python" test
    pip_for "$venv/bin/python" install -qq "$type_checker"
    cd "$scratch"
    "$venv/bin/python" -m mypy.stubtest --concise \
        --allowlist "$checkout/.ci/stubtest-allow" posixshm
}
