# Folders, steps, background jobs and the summary of .ci/run and .ci/release.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
chmod 755 "$scratch" # tests read files here as a second user
cache=${POSIXSHM_CI_CACHE:-${XDG_CACHE_HOME:-/var/tmp}/posixshm-ci} # keeps interpreters between runs
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_PREFER_BINARY=1
cd "$scratch"
. "$checkout/.ci/shared.sh"

failed=0 passed=0 jobs=0
touch "$scratch/summary"
declare -A running=() output=() # by process id
names=() left_out_by_pattern=() # names of steps

report() { # report RESULT SECONDS NAME
    printf '%-6s %4ss  %s\n' "$@" >>"$scratch/summary"
    case $1 in
        ok) passed=$((passed + 1)) ;;
        FAILED) failed=$((failed + 1)) ;;
    esac
    if [ "$1" != ok ]; then printf '%s: %s\n' "$1" "$3"; fi
}

skip() { report skip 0 "$1: $2"; } # skip NAME REASON

# begin NAME COMMAND...: if the pattern selects the step, starts it in the background and sets begun.
# It must not run in a condition, in which the shell would ignore errors of the command.
begin() {
    local start=$SECONDS job=$scratch/job-$((jobs += 1))
    names+=("$1") begun=
    if [[ ! $1 =~ $pattern ]]; then
        left_out_by_pattern+=("$1")
        return
    fi
    touch "$job.log"
    set -m # its own process group, which clean_up can kill
    (
        trap 'echo $((SECONDS - start)) >"$job.seconds"' EXIT
        set -e
        "${@:2}"
    ) </dev/null >"$job.log" 2>&1 &
    set +m
    begun=$!
    running[$begun]=$1 output[$begun]=$job
}

finish() { # finish [PID]: reports this job, or the first that ends, after its output
    local pid=${1:-} result=ok job reason
    wait -n -p pid "${@:-${!running[@]}}" || result=FAILED
    job=${output[$pid]}
    if [ $# = 0 ]; then
        printf '\n==> %s\n' "${running[$pid]}"
        cat "$job.log"
    fi
    if [ -n "${shm_before+set}" ] && ! diff <(cat <<<"$shm_before") <(cat <<<"$(shm_names)"); then
        echo "/dev/shm is not as it was before"
        result=FAILED
    fi
    report $result "$(<"$job.seconds")" "${running[$pid]}"
    # Tests that pytest, the C tests or our scripts skipped.
    while read -r reason; do
        skip "${running[$pid]}" "$reason"
    done < <(grep -aE '^SKIPPED |NOT TESTED' "$job.log" | sed -E 's/^SKIPPED //' | sort -u)
    unset "running[$pid]"
}

# step NAME COMMAND...: runs a step and shows its output. Names that it leaves in /dev/shm are a
# failure.
step() {
    local shm_before
    shm_before=$(shm_names)
    begin "$@"
    [ -n "$begun" ] || return 0
    printf '\n==> %s\n' "$1"
    tail -n +1 -f --pid="$begun" "${output[$begun]}.log"
    finish "$begun"
}

must() { # must NAME COMMAND...: a step without which later steps cannot run
    local failed_before=$failed pattern=
    step "$@"
    [ "$failed" = "$failed_before" ] || summary
}

# beside NAME COMMAND...: as step, but in parallel with other such steps, in lanes. The command has
# its own /dev/shm by own_shm; without that, the steps run one by one.
beside() {
    while [ ${#running[@]} -ge "$lanes" ]; do finish; done
    begin "$@"
}

finish_all() {
    while [ ${#running[@]} != 0 ]; do finish; done
}

lanes=1
if can_own_shm; then lanes=$(nproc); fi # more lanes would exceed the deadlines of tests

shm_names() { ls -A /dev/shm | sort; }
shm_at_start=$(shm_names)
nothing_left() { diff <(cat <<<"$shm_at_start") <(cat <<<"$(shm_names)"); } # after parallel steps

clean_up() {
    local pid
    for pid in "${!running[@]}"; do
        kill -- "-$pid" 2>/dev/null && wait "$pid" || true
    done
    rm -rf "$scratch"
}
trap clean_up EXIT

# check_pattern: each alternative of the pattern must match the name of a step, so that a typo does
# not skip a step.
check_pattern() {
    local alternative
    while read -r alternative; do
        grep -qE -- "$alternative" <<<"$(printf '%s\n' "${names[@]}")" ||
            report FAILED 0 "no step is called '$alternative'"
    done < <(tr '|' '\n' <<<"$pattern")
    [ ${#left_out_by_pattern[@]} = 0 ] || skip "left out by '$pattern'" "$(printf '%s; ' "${left_out_by_pattern[@]}")"
}

summary() { # prints the table and ends the run
    [ "$failed" != 0 ] || check_pattern # after a failed step, others may not have run
    printf '\n==> summary, %d seconds in all\n' "$SECONDS"
    cat "$scratch/summary"
    printf 'steps: %d passed, %d failed\n' "$passed" "$failed"
    exit $((failed > 0))
}
