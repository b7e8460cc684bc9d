# Functions of .ci/run, the checks before a release, and .ci/dev.

fail() {
    printf '%s\n' "$@" >&2
    return 1
}

# own_shm COMMAND...: runs the command with its own /dev/shm, which it must leave empty.
own_shm() {
    if ! can_own_shm; then
        "$@"
        return
    fi
    unshare --mount --propagation private bash -euc '
        mount -t tmpfs -o mode=1777 tmpfs /dev/shm
        export POSIXSHM_TEST_OWN_SHM=1
        "$@"
        left=$(ls -A /dev/shm)
        if [ -n "$left" ]; then printf "left in /dev/shm:\n%s\n" "$left"; exit 1; fi' own_shm "$@"
}

can_own_shm() {
    unshare --mount --propagation private mount -t tmpfs tmpfs /dev/shm 2>/dev/null
}

# The tests that do not run with the sanitizers. AddressSanitizer turns off mlock(), keeps freed
# memory for a while, and fails if the limit of mappings is reached; a child that is forked while
# another thread is in its allocator can wait for the allocator's lock forever. The commands, Python
# code on top of numpy, the examples of the documents, and the comparisons of names and signatures
# only make calls that other tests also make.
not_sanitized=(
    test_limits.py::test_locked_memory_limit
    test_limits.py::test_a_limit_on_locked_memory_is_named
    test_pickle.py::test_pickling_ten_thousand_handles_needs_no_memory
    test_limits.py::test_too_many_maps
    test_mapping.py::test_lock_pages
    test_mapping.py::test_lock_pages_over_the_limit
    test_leaks.py test_demo.py test_array_header.py test_array_pickle.py
    test_storm.py::test_no_thread_and_no_forked_child_hangs
    test_command.py test_command_completion.py test_command_copying.py test_command_doctor.py
    test_command_docs.py test_command_kinds.py test_command_listing.py test_command_removing.py
    test_command_rights.py test_command_terminal.py test_command_waiting.py
    test_docs.py test_fork_server.py test_guides.py test_readme.py test_surface.py test_sync_surface.py
)

# test_paths NAME...: prints the path of each test file, or of a test in it: test_lock.py::test_repr.
test_paths() {
    local name
    for name in "$@"; do
        find "$checkout/tests" -name "${name%%::*}" -printf "tests/%P${name#"${name%%::*}"}\n" | grep . ||
            fail "there is no $name"
    done
}

# deselected NAME...: prints the option that excludes each test file or test.
deselected() { test_paths "$@" | sed 's/^/--deselect=/'; }

# pytest_sanitized PYTHON ARGUMENT...: runs tests with an extension that was built with ASan and
# UBSan. Tests kill processes by SIGSEGV and SIGBUS on purpose, and request impossible sizes.
pytest_sanitized() {
    own_shm env LD_PRELOAD="$(gcc -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
        ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:handle_segv=0:handle_sigbus=0:allocator_may_return_null=1 \
        UBSAN_OPTIONS=print_stacktrace=1 POSIXSHM_ROUNDS=20 \
        "$1" -m pytest -p no:cacheprovider -o timeout=600 $(deselected "${not_sanitized[@]}") "${@:2}"
}

# quick_benchmarks PYTHON: checks that the benchmarks run; the figures are not meaningful.
quick_benchmarks() {
    own_shm "$1" -m benchmarks --quick
}
