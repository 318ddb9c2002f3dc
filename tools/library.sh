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

# why_failed LOG - of one test program's output what a reader needs first: a sanitizer's first report; each result that is
# none, with the last lines of what was said about it: after it, or, where that is nothing, before it.
why_failed() {
        awk '
                function tell(lines, n,    i) {
                        for (i = n > 8 ? n - 7 : 1; i <= n; i++)
                                print "    " substr(lines[i], 1, 400)
                }
                function tell_about_it() {
                        if (is_failed && n > 0)
                                tell(after, n)
                        else if (is_failed)
                                tell(before, n_before)
                }
                /Sanitizer: |runtime error: / && !reports++ { left = 12 }
                left-- > 0 { print "    " substr($0, 1, 400) }
                /^(PASS|FAIL|SKIP|XFAIL|XPASS): / { next }
                /^ERROR: / {
                        tell_about_it()
                        n = is_failed = 0
                        print
                        next
                }
                /^(ok |not ok |Bail out!|1[.][.][0-9])/ {
                        tell_about_it()
                        n_before = 0
                        while (n_before < n) {
                                n_before++
                                before[n_before] = after[n_before]
                        }
                        n = 0
                        is_failed = (/^not ok / && !/# (SKIP|TODO)/) || /^Bail out!/
                        if (is_failed)
                                print
                        next
                }
                /[^# \t]/ { after[++n] = $0 }
                END { tell_about_it() }' "$1" | head -n 30
}

# show_failed FOLDER LOG - what make's LOG says of tests that failed; why each of them did; the output of each; what was
# skipped. Whoever sees only the beginning of this sees what matters.
show_failed() {
        local folder=$1 trs failed
        grep -E '^(FAIL|ERROR|XPASS): ' "$2" | head -n 10 || true
        mapfile -t failed < <(grep -lE '^:global-test-result: (FAIL|ERROR|XPASS)' -r --include='*.trs' "$folder/tests")
        for trs in "${failed[@]}"; do
                printf '%s\n' "--- why: ${trs#"$folder"/}" | sed 's/[.]trs$//'
                why_failed "${trs%.trs}.log"
        done
        for trs in "${failed[@]}"; do
                printf '%s\n' "--- ${trs#"$folder"/}" | sed 's/[.]trs$/.log/'
                grep -vE '^(ok [0-9]|PASS: )' "${trs%.trs}.log" | tail -n 60
        done
        grep -E '^SKIP: ' "$2" || true
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
