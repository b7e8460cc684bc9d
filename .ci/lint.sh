# Checks of the sources and of a build that do not run it.

lint_language() {
    cd "$checkout"
    "$tools/bin/python" .ci/language
}

lint_reference() { # are the pages those of the docstrings and signatures?
    make_venv "$(command -v python3)" test
    pip_for "$venv/bin/python" install -qq "$(pinned griffelib)"
    "$venv/bin/python" "$tree/.ci/reference" --check
}

lint_clang_tidy() {
    cd "$tree"
    ls .clang-tidy tests/unit/.clang-tidy
    find csrc tests/unit -name '*.c' | sort |
        xargs -P 2 -n 4 "$tools/bin/clang-tidy" --quiet -p "$scratch/build-gcc"
}

# Only for csrc: the tests continue after a failed check.
lint_gcc_analyzer() {
    cd "$tree"
    "$tools/bin/python" - "$scratch/build-gcc/compile_commands.json" <<'END' | xargs -P 2 -I{} sh -c {}
import json, shlex, sys
for entry in json.load(open(sys.argv[1])):
    options = ["-O0", "-U_FORTIFY_SOURCE", "-fanalyzer", "-MF", "/dev/null", "-o", "/dev/null"]
    print(shlex.quote(shlex.join(entry["arguments"] + options)))
END
}

# Checks their format and their security: actions without a commit, permissions, injected text.
lint_workflows() {
    "$tools/bin/check-jsonschema" --builtin-schema vendor.github-workflows "$tree"/.github/workflows/*.yml
    "$tools/bin/zizmor" --offline --no-progress --min-severity medium "$tree/.github/workflows"
}

build_strict() { # build_strict COMPILER: a release build of the sources, all warnings errors
    cd "$tree"
    CC=$1 POSIXSHM_WERROR=1 "$tools/bin/python" setup.py -q build --build-base "$scratch/build-$1"
    mv build/compile_commands.json "$scratch/build-$1"
    exports_one_symbol "$scratch/build-$1"/lib*/posixshm/_core*.so
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
    # only.
    used=$(objects . | grep -vE '/csrc/\./(core|posix)/' || true)
    [ -z "$used" ] || fail "of neither room:" "$used"
    used=$(nm -A $core $posix | grep -E ' [vwVW] ' || true)
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
    known+='|pthread_mutex_(try|un)lock' # in functions of csrc/posix/sync/robust.h that are inlined
    known+='|__(mem|str)[a-z]+_chk|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_|__aarch64_[a-z0-9_]+'
    used=$(nm -u -A $core | grep -vE " U ($known)$" |
        grep -vwFf <(nm --defined-only --extern-only $core $posix | awk 'NF == 3 { print "U " $3 }') || true)
    [ -z "$used" ] || fail "csrc/core uses:" "$used"
    used=$(objdump -d --no-show-raw-insn $core | grep -wE 'syscall|sysenter|int +\$0x80|svc' || true)
    [ -z "$used" ] || fail "csrc/core enters the kernel:" "$used"
}

lint_wheel() {
    local wheel
    wheel=$(make_wheel "$(command -v python3)")
    "$tools/bin/python" "$tree/.ci/check_wheel" "$wheel"
}

check_types() {
    make_venv "$(command -v python3)" test
    cd "$tree"
    "$tools/bin/mypy" --strict --python-executable "$venv/bin/python" src benchmarks tests/contracts/typing_usage.py
    # Compare the stubs with the module, from Python 3.12 on, in which buffer methods are visible.
    make_venv "$(find_python 3.13)" test
    pip_for "$venv/bin/python" install -qq "$(pinned mypy)"
    cd "$scratch"
    "$venv/bin/python" -m mypy.stubtest --concise --allowlist "$checkout/.ci/stubtest-allow" posixshm
}
