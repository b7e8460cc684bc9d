# Functions of .ci/run, .ci/release and .ci/dev.

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

# test_paths NAME...: prints the paths of the tests with these names: lock is tests/*/test_lock.py,
# and lock::repr is test_repr in it.
test_paths() {
    local name file
    for name in "$@"; do
        file=$(cd "$checkout" && compgen -G "tests/*/test_${name%%::*}.py") || fail "there is no $name" || return
        [[ $name != *::* ]] || grep -q "^def test_${name#*::}(" "$checkout/$file" || fail "there is no $name" || return
        echo "$file${name#"${name%%::*}"}" | sed 's/::/&test_/'
    done
}

# deselected NAME...: prints options that exclude these tests. pytest also excludes the tests whose
# names begin with an excluded name, so these must be in the list.
deselected() {
    local paths path longer
    paths=$(test_paths "$@") || return
    for path in $paths; do
        for longer in $(grep -ohE "^def ${path#*::}\w+" "$checkout/${path%%::*}" | sed 's/^def //'); do
            grep -qxF "${path%%::*}::$longer" <<<"$paths" || fail "with $path goes $longer" || return
        done
        echo "--deselect=$path"
    done
}

# The tests that do not run with the sanitizers. AddressSanitizer turns off mlock(), keeps freed
# memory for a while, and fails if the limit of mappings is reached; a child that is forked while
# another thread is in its allocator can wait for the allocator's lock forever. The commands, Python
# code on top of numpy, the examples of the documents, and the comparisons of names and signatures
# only make calls that other tests also make.
not_sanitized=(
    limits::{locked_memory_limit,a_limit_on_locked_memory_is_named,too_many_maps}
    mapping::{lock_pages,lock_pages_over_the_limit} storm::no_thread_and_no_forked_child_hangs
    pickle::pickling_ten_thousand_handles_needs_no_memory
    array_header array_pickle demo docs fork_server guides leaks readme surface sync_surface
)

# pytest_sanitized PYTHON ARGUMENT...: runs tests with an extension that was built with ASan and
# UBSan. Tests kill processes by SIGSEGV and SIGBUS on purpose, and request impossible sizes.
pytest_sanitized() {
    local left_out
    left_out=$(deselected "${not_sanitized[@]}")
    own_shm env LD_PRELOAD="$(gcc -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
        ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:handle_segv=0:handle_sigbus=0:allocator_may_return_null=1 \
        UBSAN_OPTIONS=print_stacktrace=1 POSIXSHM_ROUNDS=20 \
        "$1" -m pytest -p no:cacheprovider -o timeout=600 --ignore=tests/command $left_out "${@:2}"
}
