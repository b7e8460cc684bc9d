# Functions for steps, background jobs, and the summary.

failed=0
passed=0
touch "$scratch/summary"
jobs=0
declare -A running=() output=() # by process id

report() { # report RESULT SECONDS NAME
    printf '%-6s %4ss  %s\n' "$@" >>"$scratch/summary"
    case $1 in
        ok) passed=$((passed + 1)) ;;
        FAILED) failed=$((failed + 1)) ;;
    esac
    if [ "$1" != ok ]; then printf '%s: %s\n' "$1" "$3"; fi
}

shm_names() { ls -A /dev/shm | sort; }
shm_at_start=$(shm_names)

names=() # of the steps, and of those that the pattern excludes
left_out_by_pattern=()

wanted() {
    names+=("$1")
    [[ ! $1 =~ $pattern ]] || return 0
    left_out_by_pattern+=("$1")
    return 1
}

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

# step NAME COMMAND...: runs the command in a subshell. Names that it leaves in /dev/shm are a
# failure.
step() {
    wanted "$1" || return 0
    local name=$1 start=$SECONDS before status result=ok log=$scratch/step.log
    shift
    before=$(shm_names)
    printf '\n==> %s\n' "$name"
    set +e
    (set -e; "$@") </dev/null 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    set -e
    if [ "$status" != 0 ]; then
        result=FAILED
    elif [ "$(shm_names)" != "$before" ]; then
        result=FAILED
        echo "/dev/shm is not as it was before:"
        diff <(cat <<<"$before") <(cat <<<"$(shm_names)") || true
    fi
    report $result $((SECONDS - start)) "$name"
    report_untested "$name" "$log"
}

must() { # must NAME COMMAND...: a step without which later steps cannot run
    local failed_before=$failed pattern=
    step "$@"
    if [ "$failed" != "$failed_before" ]; then summary; fi
}

skip() { # skip NAME REASON
    printf '\n'
    report skip 0 "$1: $2"
}

# report_untested NAME LOG: reports skipped tests in the output of pytest, the C tests and our
# scripts.
report_untested() {
    local reason
    while read -r reason; do
        report skip 0 "$1: $reason"
    done < <(grep -aE '^SKIPPED |NOT TESTED' "$2" | sed -E 's/^SKIPPED //' | sort -u)
}

# begin NAME COMMAND...: starts a job in parallel with the next steps; finish prints its output.
begin() {
    wanted "$1" || return 0
    local name=$1 start=$SECONDS job=$scratch/job-$((jobs += 1))
    shift
    set -m # its own process group, which clean_up can kill
    (
        trap 'echo $((SECONDS - start)) >"$job.seconds"' EXIT
        set -e
        "$@"
    ) </dev/null >"$job.log" 2>&1 &
    set +m
    running[$!]=$name
    output[$!]=$job
}

finish() { # waits for the first job to end and reports it as a step
    local pid result=ok
    wait -n -p pid "${!running[@]}" || result=FAILED
    printf '\n==> %s\n' "${running[$pid]}"
    cat "${output[$pid]}.log"
    report $result "$(cat "${output[$pid]}.seconds")" "${running[$pid]}"
    report_untested "${running[$pid]}" "${output[$pid]}.log"
    unset "running[$pid]"
}

# beside NAME COMMAND...: as step, but in parallel with other such steps, in lanes. The command has
# its own /dev/shm by own_shm; without that, the steps run one by one.
beside() {
    while [ ${#running[@]} -ge "$lanes" ]; do finish; done
    begin "$@"
}

finish_named() { # waits for this job if it is running
    while [[ " ${running[*]} " == *" $1 "* ]]; do finish; done
}

finish_all() {
    while [ ${#running[@]} != 0 ]; do finish; done
}

lanes=1
if can_own_shm; then lanes=$(nproc); fi # more lanes would exceed the deadlines of tests

clean_up() {
    local pid
    for pid in "${!running[@]}"; do
        kill -- "-$pid" 2>/dev/null && wait "$pid" || true
    done
    rm -rf "$scratch"
}
trap clean_up EXIT

nothing_left() { # checks the real /dev/shm after the parallel steps
    diff <(cat <<<"$shm_at_start") <(cat <<<"$(shm_names)")
}

summary() { # prints the table and ends the run
    [ "$failed" != 0 ] || check_pattern # after a failed step, others may not have run
    printf '\n==> summary, %d seconds in all\n' "$SECONDS"
    cat "$scratch/summary"
    printf 'steps: %d passed, %d failed\n' "$passed" "$failed"
    exit $((failed > 0))
}
