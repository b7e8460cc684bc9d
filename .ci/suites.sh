# Functions that run the suites: every Python, the README's commands, other packages, sanitizers,
# CPython's tests, benchmarks.

# The tests that depend on the version of Python: reference counts, exit, fork, interpreters. The oldest
# Python and the free-threaded ones run all tests; the others run these.
its_own=(arguments exit fork leaks lifetime mapping pickle subinterpreters surface threads view)
# The long tests that may fail only in a free-threaded Python.
of_threads=(dlpack fork lifetime storm subinterpreters threads trust)
# The tests that depend on the environment: files, users, limits, terminals, other programs' objects.
of_place=(acl attach command{,_copying,_doctor,_listing,_removing,_rights,_terminal,_waiting} create)
of_place+=(demo exit growth handle limits names pickle readme reclaim semaphore shared_memory_dropin signals)

suite_of() { own_shm "$1/bin/python" -m pytest -p no:cacheprovider "${@:2}"; } # suite_of VENV ARGUMENT...

# The tests that take seconds each, which the README's command excludes; the C tests are another step.
run_long() {
    make_venv "$(command -v python3)" test
    cd "$tree"
    POSIXSHM_ROUNDS=20 suite_of "$venv" --durations=8 -m long --ignore tests/unit
}

run_suite() { # run_suite VERSION PYTHON [NAME...]
    local files new=${3:+1}
    make_venv "$2" test
    case $1 in *t) gil_is_off "$venv/bin/python" ;; esac
    cd "$tree"
    files=$(test_paths "${@:3}")
    # The README's command runs the tests that do not depend on the version, and those of the posixshm
    # command, which does not use threads. With NAMEs each child of a test is a new interpreter;
    # otherwise tests/_fork_server.py forks most.
    POSIXSHM_TEST_NEW=$new POSIXSHM_ROUNDS=20 suite_of "$venv" --durations=8 \
        -m 'not once and not long' --ignore-glob='*/test_command_*.py' $files
    case $1 in
        *t)
            files=$(test_paths "${of_threads[@]}")
            POSIXSHM_ROUNDS=20 suite_of "$venv" -m long $files
            ;;
    esac
}

readme_command() { # readme_command PATTERN: prints the first command of the README that matches
    awk '/^```/ { inside = !inside; next } inside' "$checkout/README.md" | grep -m 1 -E -- "$1" ||
        fail "README.md has no command $1"
}
readme_demo() { readme_command '^python3 -m venv .*posixshm demo$'; }
readme_tests() { readme_command '^\.venv/bin/python -m pytest$'; }

run_readme() {
    local demo tests
    demo=$(readme_demo) tests=$(readme_tests)
    copy_tree "$scratch/clone"
    cd "$scratch/clone"
    unset PYTHONPYCACHEPREFIX # as a user runs it
    printf '$ %s\n' "$demo"
    bash -euo pipefail -c "$demo"
    printf '$ %s\n' "$tests"
    own_shm bash -euo pipefail -c "$tests"
}

user=$scratch/user # the home of an ordinary user, which contains a clone

install_for_user() {
    mkdir "$user"
    copy_tree "$user/clone"
    in_way "$(readme_demo)"
}

in_way() { # in_way COMMAND [OPTION...]: runs the command with these options of .ci/way
    printf '$ %s\n' "$1"
    bash "$checkout/.ci/way" "${@:2}" "$user" bash -euo pipefail -c "cd clone; $1"
}

# Few permissions, little memory and other programs at once.
run_in_short() {
    local files
    files=$(test_paths "${of_place[@]}")
    install_for_user
    in_way "$(readme_tests) -q ${files//$'\n'/ }" --no-namespaces --no-pty --small-shm --busy-shm
}

# A dead link, a missing anchor or a page that the index does not list is an error.
run_site() {
    local venv=$scratch/site
    python3 -m venv "$venv"
    if "$venv/bin/pip" install -qq -r "$checkout/.ci/requirements-site.txt"; then
        NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --strict -f "$tree/.github/mkdocs.yml" -d "$scratch/pages"
    else
        echo "NOT TESTED: mkdocs-material cannot be installed here"
        [ "${CI:-}" != true ]
    fi
}

# Installs the newest version of each package that supports the interpreter, and runs tests/consumers;
# with torch also tests/contracts/cases. PyTorch is the CPU build if an index of pip has it, or the
# build of PyPI, which needs gigabytes of libraries for GPUs.
run_consumers() { # run_consumers PYTHON [with-torch]
    local torch options=(--ignore tests/consumers/test_torch.py --ignore tests/consumers/test_examples.py)
    make_venv "$1" "test,consumers${2:+,arrow}" # both may have the same version
    if [ $# = 2 ]; then
        options=()
        torch=$(pip_for "$venv/bin/python" index versions torch | grep -oE '[0-9.]+\+cpu' | head -n 1 || true)
        pip_for "$venv/bin/python" install -qq "torch${torch:+==$torch}"
    fi
    pip_for "$venv/bin/python" list | grep -E '^(jax|numpy|pandas|polars|pyarrow|torch) '
    cd "$tree"
    suite_of "$venv" tests/consumers "${options[@]}"
    [ $# = 2 ] || return 0
    pip_for "$venv/bin/python" install -qq -r tests/contracts/cases/requirements.txt
    own_shm env PATH="$venv/bin:$PATH" PYTHON="$venv/bin/python" tests/contracts/cases/run.sh
}

run_cpython_tests() { # run_cpython_tests PYTHON
    local wheel
    if "$1" -c 'import test._test_multiprocessing, test.lock_tests' 2>/dev/null; then
        wheel=$(make_wheel "$1")
        "$tree/tests/contracts/cpython/run" "$1" --wheel "$wheel"
    else
        echo "NOT TESTED: $1 comes without the test package"
        # Debian's python3 does. In CI, python3 must have it, or no version would be tested.
        [ "${CI:-}" != true ] || [ "$("$1" -c "$python_version")" != "$readme_version" ]
    fi
}

run_sanitized() {
    local sanitizer symbols which="not once and not long" # the C tests have their own sanitizers
    [ -z "$pattern" ] || which="not once" # long tests run only if this step is selected by name
    export POSIXSHM_SANITIZE=address,undefined
    scratch=$scratch/sanitized make_venv "$(command -v python3)" test
    symbols=$(nm -D "$venv"/lib/python3.*/site-packages/posixshm/_core.*.so)
    for sanitizer in asan ubsan; do
        [[ $symbols == *" __${sanitizer}_"* ]] || fail "the extension was built without $sanitizer"
    done
    cd "$tree"
    echo "NOT TESTED with sanitizers, see .ci/shared.sh: ${not_sanitized[*]}"
    pytest_sanitized "$venv/bin/python" --durations=8 -m "$which"
}

# The coverage of csrc by the C tests and most of the Python suite. The minimum, in percent, is a
# little less than the coverage when it was set. Failures are ignored, because the counters make
# system calls, which the tests that fail each system call mistake for calls of the extension.
coverage_floor=(--fail-under-line 97.5 --fail-under-branch 93.5)
# Not counted: the tests for NULL of CPython's macros.
not_covered='.*(Py_VISIT|Py_CLEAR)\(.*\);'

run_coverage() {
    local source=$scratch/coverage
    make_venv "$(command -v python3)" test
    pip_for "$venv/bin/python" install -qq "setuptools>=77" ml_dtypes "$(pinned gcovr)"
    copy_tree "$source"
    umask 0 # processes of other users must write counters, too
    mkdir "$source/c" "$source/python"
    cd "$source"
    CFLAGS='-O0 -DNDEBUG --coverage -fprofile-update=atomic' LDFLAGS=--coverage \
        "$venv/bin/python" setup.py -q build_ext --inplace --build-temp python
    chmod -R a+rwX "$source"
    own_shm tests/unit/run --coverage "$source/c" || echo "some C tests failed with the counters"
    PYTHONPATH=$source/src POSIXSHM_ROUNDS=2 suite_of "$venv" -q -o timeout=600 -m 'not once' \
        tests/api tests/faults tests/processes || echo "some tests failed with the counters"
    PYTHONPATH=$source/src suite_of "$venv" -q --noconftest tests/consumers/test_ml_dtypes.py
    "$venv/bin/gcovr" --root . --filter csrc/ --txt-metric branch --print-summary \
        --exclude-branches-by-pattern "$not_covered" --exclude-lines-by-pattern "$not_covered" \
        "${coverage_floor[@]}" c python
}

# musl lacks the functions with a clock argument and has other types.
run_musl() {
    local headers=$scratch/kernel-headers folder
    mkdir "$headers"
    for folder in linux asm-generic; do ln -s "/usr/include/$folder" "$headers"; done
    ln -s "/usr/include/$(gcc -print-multiarch)/asm" "$headers"
    CC="musl-gcc -isystem $headers" own_shm "$tree/tests/unit/run" --quick
}

run_benchmarks() {
    make_venv "$(command -v python3)" test,bench
    cd "$tree"
    own_shm "$venv/bin/python" -m benchmarks --quick # the figures are not meaningful
}

gil_is_off() { # gil_is_off PYTHON: the package and the modules of the tests must not turn it on
    "$1" -W error -c '
import posixshm, posixshm.aio, posixshm.array, posixshm.shared_memory, sys
assert not sys._is_gil_enabled()'
    "$1" -c 'import hypothesis, numpy, pytest, rich, sys; assert not sys._is_gil_enabled()'
}
