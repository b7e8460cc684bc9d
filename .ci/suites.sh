# The suites that run: README, every Python, other packages, sanitizers, CPython's own tests, benchmarks.

ran=$scratch/ran # the versions whose whole suite passed, one a line
touch "$ran"

# The tests that depend on the version of Python: reference counts, exit, fork, interpreters. The oldest
# Python and the free-threaded ones run all tests; the others run these.
its_own=(arguments exit fork leaks lifetime mapping pickle subinterpreters surface threads view)
its_own=("${its_own[@]/#/tests/test_}")
its_own=("${its_own[@]/%/.py}")

# Of the long tests those that a Python without a GIL may fail and another one pass.
of_threads=(dlpack fork lifetime storm subinterpreters threads trust)
of_threads=("${of_threads[@]/#/tests/test_}")
of_threads=("${of_threads[@]/%/.py}")

# The tests that the README's command leaves out, for they take seconds each.
run_long() {
    local venv=$scratch/python$readme_version
    make_venv "$venv" "$(command -v python3)" test
    cd "$tree"
    # The C tests are a step of their own.
    POSIXSHM_ROUNDS=20 own_shm "$venv/bin/python" -m pytest -p no:cacheprovider --durations=8 -m long \
        --ignore tests/test_posix_room.py
}

run_suite() { # run_suite VERSION PYTHON [FILE...]
    local venv=$scratch/python$1
    make_venv "$venv" "$2" test
    case $1 in
        *t) # neither the package nor what the tests import may switch the GIL on
            "$venv/bin/python" -W error -c 'import posixshm, sys; assert not sys._is_gil_enabled()'
            "$venv/bin/python" -c 'import hypothesis, numpy, pytest, rich, sys; assert not sys._is_gil_enabled()'
            ;;
    esac
    cd "$tree"
    # The README's command runs the tests that do not depend on the version, and those of the posixshm
    # command, which does not use threads.
    POSIXSHM_ROUNDS=20 own_shm "$venv/bin/python" -m pytest -p no:cacheprovider --durations=8 \
        -m 'not once and not long' --ignore-glob='*/test_command_*.py' "${@:3}"
    case $1 in
        *t) POSIXSHM_ROUNDS=20 own_shm "$venv/bin/python" -m pytest -p no:cacheprovider -m long "${of_threads[@]}" ;;
    esac
    echo "$1${3:+ (in part)}" >>"$ran"
}

# The newest of each package that the interpreter can have.  Of PyTorch the build for the CPU, if
# an index of pip has it; otherwise the one of PyPI, with gigabytes of libraries for GPUs.
run_consumers() { # run_consumers PYTHON [with-torch]
    local venv torch options=(--ignore tests/consumers/test_torch.py --ignore tests/consumers/test_examples.py)
    venv=$scratch/consumers$("$1" -c "$python_version")${2:+-$2} # both may be of one version
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

# The needs of public bug reports, with the packages that these name, in the first consumers' environment.
run_cases() {
    local python
    python=$(ls "$scratch"/consumers*-with-torch/bin/python)
    pip_for "$python" install -qq -r "$tree/tests/cases/requirements.txt"
    own_shm env PATH="$(dirname "$python"):$PATH" PYTHON="$python" "$tree/tests/cases/run.sh"
}

run_consumers_and_cases() {
    run_consumers "$@"
    run_cases
}

run_cpython_tests() { # run_cpython_tests PYTHON
    local wheel
    if "$1" -c 'import test._test_multiprocessing, test.lock_tests' 2>/dev/null; then
        wheel=$(make_wheel "$1")
        "$tree/tests/cpython/run" "$1" --wheel "$wheel"
    else
        echo "NOT TESTED: $1 comes without the test package"
        # A Debian's does.  That which is python3 in CI may not, or none would be tested there.
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
    # Not what is marked "once", for the C tests have sanitizers of their own; and what is long runs only if
    # this step is asked for by name.
    local which="not once and not long"
    [ -z "$pattern" ] || which="not once"
    tests_are_there "${not_sanitized[@]}"
    echo "NOT TESTED with sanitizers, see .ci/shared.sh: ${not_sanitized[*]}"
    pytest_sanitized "$venv/bin/python" --durations=8 -m "$which"
}

# How much of csrc the C tests and part of the Python suite reach; the floor is a little less than what they
# reached when it was set.  Whether they pass is for the other steps to say: the counters make calls of their
# own, which tests that fail every call of the extension take for the extension's.
run_coverage() {
    local source=$scratch/coverage venv=$scratch/python$readme_version
    make_venv "$venv" "$(command -v python3)" test
    pip_for "$venv/bin/python" install -qq "setuptools>=77" ml_dtypes
    copy_tree "$source"
    umask 0 # other users' processes count too
    mkdir "$source/c" "$source/python"
    cd "$source"
    CFLAGS='-O0 -DNDEBUG --coverage -fprofile-update=atomic' LDFLAGS=--coverage \
        "$venv/bin/python" setup.py -q build_ext --inplace --build-temp python
    chmod -R a+rwX "$source"
    own_shm tests/c/run --coverage "$source/c" || echo "some C tests failed with the counters"
    export PYTHONPATH=$source/src
    POSIXSHM_ROUNDS=2 own_shm "$venv/bin/python" -m pytest -q -p no:cacheprovider \
        -o timeout=600 -m 'not once' "${reach_most[@]}" || echo "some tests failed with the counters"
    own_shm "$venv/bin/python" -m pytest -q -p no:cacheprovider --noconftest tests/consumers/test_ml_dtypes.py
    "$tree/.ci/coverage" "${coverage_floor[@]}" c python
}

reach_most=(acl arguments array failures attach atomic barrier primitive primitive_life condition create dlpack event faults handle)
reach_most+=(growth lifetime limits lock lock_dead mapping names pickle reclaim resize rwlock semaphore)
reach_most+=(shared_memory_dropin sync_surface view view_buffer view_format view_items view_pickle)
reach_most+=(attach_checked audit primitive_travel guard holders signals sync_hostile trust)
reach_most+=(primitive_names primitive_overlap primitive_renewed lock_replayed lost_descriptor owner_gone sync_readonly)
reach_most=("${reach_most[@]/#/tests/test_}")
reach_most=("${reach_most[@]/%/.py}")
coverage_floor=(97.5 93.5) # percent of lines and of branches

run_c() {
    own_shm "$tree/tests/c/run"
}

# The other C library, which has no functions that take a clock, and other types.
run_musl() {
    local headers=$scratch/kernel-headers folder
    mkdir "$headers"
    for folder in linux asm-generic; do ln -s "/usr/include/$folder" "$headers"; done
    ln -s "/usr/include/$(gcc -print-multiarch)/asm" "$headers"
    CC="musl-gcc -isystem $headers" own_shm "$tree/tests/c/run" --quick
}

run_benchmarks() {
    make_main_venv
    cd "$tree"
    quick_benchmarks "$main_venv/bin/python"
    # Figures are noise on a machine like this; which calls are made is not.
    local status=0
    own_shm "$main_venv/bin/python" benchmarks/bench_calls.py --calls --check || status=$?
    case $status in
        0) ;;
        2) # strace may not trace here
            echo "NOT TESTED: the system calls were not compared"
            [ "${CI:-}" != true ]
            ;;
        *) fail "raw C and posixshm make different system calls" ;;
    esac
}

check_pythons() {
    local version missing=()
    for version in $required_pythons; do
        grep -qE "^$version( |$)" "$ran" || missing+=("$version")
    done
    echo "the suite passed on: $(sort -V "$ran" | paste -sd ,)"
    if [ ${#missing[@]} != 0 ]; then
        echo "it did not on: ${missing[*]}"
        [ "${CI:-}" != true ] # only a warning for a developer
    fi
}
