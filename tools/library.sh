# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What tools/check, tools/demo and .ci/run share. Sourced, never run; $top is the checkout.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=$(nproc)

say() {
        printf '%s\n' "$*" >&2
}

# build_tree FOLDER [CONFIGURE-ARGUMENT...] - configures FOLDER unless it is configured, and builds in it, all or $targets.
# Make itself notices a changed configure.ac or Makefile.am. One log per tree; it is shown when something fails.
build_tree() {
        local folder=$1
        shift
        mkdir -p "$folder"
        # Several trees share the generated files of the checkout: one generates, the others wait.
        if [ -e "$top/config.status" ] && [ "$folder" != "$top" ]; then
                say "this source tree is configured itself, and no other folder can be built from it then: run" \
                        "'make distclean' in it, or 'make check' there instead"
                return 1
        fi
        exec 9<"$top/configure.ac"
        flock 9
        if [ ! -e "$folder/Makefile" ]; then
                say "configuring ${folder#"$top"/}"
                if [ ! -e "$top/configure" ] || [ "$top/configure.ac" -nt "$top/configure" ]; then
                        (cd "$top" && ./bootstrap) >"$folder/bootstrap.log" 2>&1 || {
                                cat "$folder/bootstrap.log" >&2
                                return 1
                        }
                fi
                (cd "$folder" && "$top/configure" "$@") >"$folder/configure.log" 2>&1 || {
                        tail -n 20 "$folder/configure.log" >&2
                        rm -f "$folder/Makefile"
                        return 1
                }
        fi
        make -C "$folder" -s Makefile >"$folder/make.log" 2>&1 || {
                tail -n 20 "$folder/make.log" >&2
                return 1
        }
        flock -u 9
        say "building ${folder#"$top"/}"
        # shellcheck disable=SC2086 # they are words
        { make -C "$folder" generated && make -C "$folder" -j"$jobs" ${targets:-all}; } >"$folder/make.log" 2>&1 || {
                grep -E -A5 'error:|undefined reference|[*][*][*]' "$folder/make.log" | head -n 60 >&2
                return 1
        }
}

# tree_results FOLDER - "PASSED FAILED SKIPPED", from what automake's TAP driver recorded of each test.
tree_results() {
        find "$1/tests" -name '*.trs' -exec cat {} + | awk '
                /^:test-result: (PASS|XFAIL)/ { passed++ }
                /^:test-result: (FAIL|XPASS|ERROR)/ { failed++ }
                /^:test-result: SKIP/ { skipped++ }
                END { print passed + 0, failed + 0, skipped + 0 }'
}

closing_line() {
        printf '%d passed, %d failed, %d skipped\n' "$1" "$2" "$3"
}

# show_failed FOLDER LOG - what make's LOG says of tests that failed or were skipped, then the output of each that failed.
show_failed() {
        local folder=$1 log
        grep -E '^(FAIL|ERROR|XPASS|SKIP): ' "$2" || true
        for log in $(grep -lE '^:global-test-result: (FAIL|ERROR|XPASS)' -r --include='*.trs' "$folder/tests" || true); do
                printf '%s\n' "--- ${log#"$folder"/}" | sed 's/[.]trs$/.log/'
                grep -vE '^(ok [0-9]|PASS: )' "${log%.trs}.log" | tail -n 60
        done
}

# test_tree FOLDER - runs the tests of a built tree; prints what failed or was skipped, then the closing line.
test_tree() {
        local folder=$1 results passed failed skipped status=0
        find "$folder/tests" -name '*.trs' -delete
        say "testing ${folder#"$top"/}"
        # More than there are processors: most of them wait most of the time.
        make -C "$folder" -j"$((2 * jobs))" check >"$folder/check.log" 2>&1 || status=$?
        results=$(tree_results "$folder")
        read -r passed failed skipped <<<"$results"
        if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
                # No test failed, so the tests themselves could not be built or run.
                tail -n 40 "$folder/check.log"
                failed=1
        fi
        show_failed "$folder" "$folder/check.log"
        closing_line "$passed" "$failed" "$skipped"
        [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
