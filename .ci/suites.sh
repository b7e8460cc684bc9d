# Functions that run the suites: every Python, other packages, sanitizers, CPython's tests,
# benchmarks.

ran=$scratch/ran # the versions whose suite passed, one on each line
touch "$ran"

# The tests that depend on the version of Python: reference counts, exit, fork, interpreters. The oldest
# Python and the free-threaded ones run all tests; the others run these.
its_own=(arguments exit fork leaks lifetime mapping pickle subinterpreters surface threads view)
its_own=("${its_own[@]/#/test_}")
its_own=("${its_own[@]/%/.py}")

# The long tests that may fail only in a free-threaded Python.
of_threads=(dlpack fork lifetime storm subinterpreters threads trust)
of_threads=("${of_threads[@]/#/test_}")
of_threads=("${of_threads[@]/%/.py}")

# The tests that take seconds each, which the README's command excludes.
run_long() {
    local venv=$scratch/python$readme_version
    make_venv "$venv" "$(command -v python3)" test
    cd "$tree"
    # The C tests are another step.
    POSIXSHM_ROUNDS=20 own_shm "$venv/bin/python" -m pytest -p no:cacheprovider --durations=8 -m long \
        --ignore tests/unit/test_posix_room.py
}

run_suite() { # run_suite VERSION PYTHON [FILE...]
    local venv=$scratch/python$1
    make_venv "$venv" "$2" test
    case $1 in
        *t) # the package and the modules of the tests must not turn the GIL on
            "$venv/bin/python" -W error -c 'import posixshm, sys; assert not sys._is_gil_enabled()'
            "$venv/bin/python" -c 'import hypothesis, numpy, pytest, rich, sys; assert not sys._is_gil_enabled()'
            ;;
    esac
    cd "$tree"
    # With FILEs each child of a test is a new interpreter; otherwise tests/_fork_server.py forks most.
    local new=${3:+1}
    # The README's command runs the tests that do not depend on the version, and those of the posixshm
    # command, which does not use threads.
    POSIXSHM_TEST_NEW=$new POSIXSHM_ROUNDS=20 own_shm "$venv/bin/python" -m pytest -p no:cacheprovider --durations=8 \
        -m 'not once and not long' --ignore-glob='*/test_command_*.py' $(test_paths "${@:3}")
    case $1 in
        *t) POSIXSHM_ROUNDS=20 own_shm "$venv/bin/python" -m pytest -p no:cacheprovider -m long $(test_paths "${of_threads[@]}") ;;
    esac
    echo "$1${3:+ (in part)}" >>"$ran"
}

# Installs the newest version of each package that supports the interpreter. For PyTorch this is the
# CPU build if an index of pip has it, or the build of PyPI, which needs gigabytes of libraries for
# GPUs.
run_consumers() { # run_consumers PYTHON [with-torch]
    local venv torch options=(--ignore tests/consumers/test_torch.py --ignore tests/consumers/test_examples.py)
    venv=$scratch/consumers$("$1" -c "$python_version")${2:+-$2} # both may have the same version
    make_venv "$venv" "$1" test,consumers
    if [ $# = 2 ]; then
        options=()
        torch=$(pip_for "$venv/bin/python" index versions torch | grep -oE '[0-9.]+\+cpu' | head -n 1 || true)
        pip_for "$venv/bin/python" install -qq "torch${torch:+==$torch}"
    fi
    pip_for "$venv/bin/python" list | grep -E '^(jax|numpy|pandas|polars|pyarrow|torch) '
    cd "$tree"
    own_shm "$venv/bin/python" -m pytest -p no:cacheprovider tests/consumers "${options[@]}"
}

# Runs tests/contracts/cases with their packages in the environment of the first consumers.
run_cases() {
    local python
    python=$(ls "$scratch"/consumers*-with-torch/bin/python)
    pip_for "$python" install -qq -r "$tree/tests/contracts/cases/requirements.txt"
    own_shm env PATH="$(dirname "$python"):$PATH" PYTHON="$python" "$tree/tests/contracts/cases/run.sh"
}

run_consumers_and_cases() {
    run_consumers "$@"
    run_cases
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
    local venv=$scratch/sanitized sanitizer symbols
    export POSIXSHM_SANITIZE=address,undefined
    make_venv "$venv" "$(command -v python3)" test
    symbols=$(nm -D "$venv"/lib/python3.*/site-packages/posixshm/_core.*.so)
    for sanitizer in asan ubsan; do
        [[ $symbols == *" __${sanitizer}_"* ]] || fail "the extension was built without $sanitizer"
    done
    cd "$tree"
    # Without the tests marked "once", because the C tests have their own sanitizers. Long tests run
    # only if this step is selected by name.
    local which="not once and not long"
    [ -z "$pattern" ] || which="not once"
    tests_are_there "${not_sanitized[@]}"
    echo "NOT TESTED with sanitizers, see .ci/shared.sh: ${not_sanitized[*]}"
    pytest_sanitized "$venv/bin/python" --durations=8 -m "$which"
}

# The coverage of csrc by the C tests and part of the Python suite. The minimum is a little less
# than the coverage when it was set. Failures are ignored, because the counters make system calls,
# which the tests that fail each system call mistake for calls of the extension.
run_coverage() {
    local source=$scratch/coverage venv=$scratch/python$readme_version
    make_venv "$venv" "$(command -v python3)" test
    pip_for "$venv/bin/python" install -qq "setuptools>=77" ml_dtypes
    copy_tree "$source"
    umask 0 # processes of other users must write counters, too
    mkdir "$source/c" "$source/python"
    cd "$source"
    CFLAGS='-O0 -DNDEBUG --coverage -fprofile-update=atomic' LDFLAGS=--coverage \
        "$venv/bin/python" setup.py -q build_ext --inplace --build-temp python
    chmod -R a+rwX "$source"
    own_shm tests/unit/run --coverage "$source/c" || echo "some C tests failed with the counters"
    export PYTHONPATH=$source/src
    POSIXSHM_ROUNDS=2 own_shm "$venv/bin/python" -m pytest -q -p no:cacheprovider \
        -o timeout=600 -m 'not once' $(test_paths "${reach_most[@]}") || echo "some tests failed with the counters"
    own_shm "$venv/bin/python" -m pytest -q -p no:cacheprovider --noconftest tests/consumers/test_ml_dtypes.py
    "$tree/.ci/coverage" "${coverage_floor[@]}" c python
}

reach_most=(acl arguments array failures attach atomic barrier primitive primitive_life condition create dlpack event faults handle)
reach_most+=(growth lifetime limits lock lock_dead mapping names pickle reclaim resize rwlock semaphore)
reach_most+=(shared_memory_dropin sync_surface view view_buffer view_format view_items view_pickle)
reach_most+=(attach_checked audit primitive_travel guard holders signals sync_hostile trust)
reach_most+=(primitive_names primitive_overlap primitive_renewed lock_replayed lost_descriptor owner_gone sync_readonly)
reach_most=("${reach_most[@]/#/test_}")
reach_most=("${reach_most[@]/%/.py}")
coverage_floor=(97.5 93.5) # percent of lines and of branches

run_c() {
    own_shm "$tree/tests/unit/run"
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
    make_main_venv
    cd "$tree"
    quick_benchmarks "$main_venv/bin/python"
}

check_pythons() {
    local version missing=()
    for version in $required_pythons; do
        grep -qE "^$version( |$)" "$ran" || missing+=("$version")
    done
    echo "the suite passed on: $(sort -V "$ran" | paste -sd ,)"
    if [ ${#missing[@]} != 0 ]; then
        echo "the suite did not pass on: ${missing[*]}"
        [ "${CI:-}" != true ] # only a warning for a developer
    fi
}
