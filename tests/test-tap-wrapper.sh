#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Covers tests/tap-wrapper: what it lets through, what it mends, what it refuses, and that it leaves nothing behind.
set -u
wrapper=${abs_top_srcdir:-$(dirname "$0")/..}/tests/tap-wrapper
n=0

# check NAME STATUS PATTERN SCRIPT - the wrapped bash script's status, and a line of the output that matches PATTERN whole.
check() {
        local output status=0
        n=$((n + 1))
        output=$("${PYTHON:-python3}" "$wrapper" bash -c "$4" 2>&1) || status=$?
        if [ "$status" -eq "$2" ] && grep -qE "^($3)$" <<<"$output"; then
                echo "ok $n - $1"
        else
                echo "not ok $n - $1"
                printf 'status %d\n%s\n' "$status" "$output" | sed 's/^not ok/(not ok)/; s/^/#   /'
        fi
}

# A number that no other process sleeps for, by which a process left behind is found.
mark=86400.$$

# shellcheck disable=SC2016 # the scripts are for the wrapped bash to expand
{
        echo 1..14
        check 'output and status pass' 0 'ok 1 - fine' 'echo ok 1 - fine'
        check 'the last line need not end' 0 'ok 1 - fine' 'printf "ok 1 - fine"'
        check 'a skip is ok' 0 'ok 2 # SKIP reason' 'echo "not ok 2 # SKIP reason"'
        check 'a failed test is told once' 0 'not ok 1 - bad' 'echo not ok 1 - bad; exit 1'
        check 'status 1 without a failed test stays' 1 'ok 1 - fine' 'echo ok 1 - fine; exit 1'
        check 'another status stays' 3 'not ok 1 - bad' 'echo not ok 1 - bad; exit 3'
        check 'a signal ends the test' 1 'Bail out!.*SIGSEGV' 'kill -SEGV $$'
        BATON_TEST_TIME_FACTOR=1 BATON_TEST_TIMEOUT=0.5 \
                check 'a time limit' 1 'Bail out!.* did not end within 0.5 s' "sleep $mark & sleep $mark"
        check 'a process left behind' 1 "Bail out!.*left processes behind: .*sleep $mark.*" "setsid sleep $mark >/dev/null 2>&1 & echo"
        check 'one that holds the output' 1 "Bail out!.*left processes behind: .*sleep $mark.*" "setsid sleep $mark & echo"
        check 'one that ends soon after' 0 'ok 1 - fine' 'sleep 0.2 & echo ok 1 - fine'
        check 'a file left behind' 1 'Bail out!.*left files behind: forgotten' 'touch "$TMPDIR/forgotten"'
        check 'a folder of its own' 0 'yes' '[ -z "$(ls -A "$TMPDIR")" ] && [ "$XDG_RUNTIME_DIR" = "$TMPDIR" ] && echo yes'
}
n=$((n + 1))
if grep -qsxz "[8]6400[.]$$" /proc/[0-9]*/cmdline; then
        echo "not ok $n - nothing runs on"
else
        echo "ok $n - nothing runs on"
fi
