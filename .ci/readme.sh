# Functions that run the two commands of the README as root and as an ordinary user, and build the
# site.

readme_command() { # readme_command PATTERN: prints the first command of the README that matches
    awk '/^```/ { inside = !inside; next } inside' "$tree/README.md" | grep -m 1 -E -- "$1" ||
        fail "README.md has no command $1"
}

demo_command() { readme_command '^python3 -m venv .*posixshm demo$'; }
tests_command() { readme_command '^\.venv/bin/python -m pytest$'; }

run_readme() {
    local demo tests
    demo=$(demo_command) tests=$(tests_command)
    copy_tree "$scratch/clone"
    cd "$scratch/clone"
    unset PYTHONPYCACHEPREFIX # as a user runs it
    printf '$ %s\n' "$demo"
    bash -euo pipefail -c "$demo"
    printf '$ %s\n' "$tests"
    own_shm bash -euo pipefail -c "$tests"
    .venv/bin/python -c "$python_version" >>"$ran"
}

run_site() {
    local status=0
    "$tree/.ci/site" "$scratch/site" || status=$?
    [ "$status" != 3 ] || echo "NOT TESTED: mkdocs-material cannot be installed here"
    [ "$status" = 0 ] || { [ "$status" = 3 ] && [ "${CI:-}" != true ]; }
}

user=$scratch/user # the home of an ordinary user, which contains a clone

install_for_user() {
    mkdir "$user"
    copy_tree "$user/clone"
    in_way "$(demo_command)"
}

in_way() { # in_way COMMAND [OPTION...]: runs the command with these options of .ci/way
    printf '$ %s\n' "$1"
    python3 "$checkout/.ci/way" "${@:2}" "$user" bash -euo pipefail -c "cd clone; $1"
}

# The tests that depend on the environment: files, users, limits, terminals, other programs'
# objects.
depends_on_place=(acl attach command command_copying command_doctor command_listing command_removing)
depends_on_place+=(command_rights command_terminal command_waiting create demo)
depends_on_place+=(exit growth handle limits names pickle readme reclaim semaphore)
depends_on_place+=(shared_memory_dropin signals)
depends_on_place=("${depends_on_place[@]/#/test_}")
depends_on_place=("${depends_on_place[@]/%/.py}")

# Few permissions, little memory and other programs at once.
run_in_short() {
    install_for_user
    in_way "$(tests_command) -q $(test_paths "${depends_on_place[@]}" | tr '\n' ' ')" \
        --no-namespaces --no-pty --small-shm --busy-shm
}
