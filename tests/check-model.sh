#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Checks tests/model/takeover.pml with Spin: what must hold holds, and each mutant is caught. TAP on standard output.
# With --deep the end is also looked for after two crashes (4 minutes and 3 GiB on a small machine).
set -u
crashes=1
[ "${1:-}" != --deep ] || crashes=2
model=$(cd "${abs_top_srcdir:-$(dirname "$0")/..}" && pwd)/tests/model/takeover.pml
mutants=$(grep -oE 'ifn?def MUTANT_[A-Z_]+' "$model" | cut -d ' ' -f 2 | sort -u)

if ! command -v spin >/dev/null; then
        echo "1..0 # SKIP there is no spin; tools/setup --all installs it"
        exit 0
fi
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT
cd "$directory" || exit 1

# search FORMULA OPTION... - the verifier's report on standard output; fails when it could not be made.
search() {
        local formula=$1 fair=()
        shift
        rm -f ./*.trail
        spin "$@" -a "$model" >spin.log || return 1
        "${CC:-cc}" -O2 -w -DVECTORSZ=2048 -DNFAIR=4 -o pan pan.c || return 1
        [ "$formula" != in_the_end ] || fair=(-f)
        ./pan -a "${fair[@]}" -m2000000 -N "$formula"
}

n=0 status=0
# expect HOLDS DESCRIPTION FORMULA OPTION...
expect() {
        local holds=$1 description=$2 report verdict=
        shift 2
        n=$((n + 1))
        report=$(search "$@" 2>&1) || verdict="the search itself failed"
        if grep -q 'errors: 0' <<<"$report"; then
                [ "$holds" = yes ] || verdict="no error was found"
        else
                [ "$holds" = no ] || verdict="an error was found"
        fi
        # A search that was cut short says so, and proves nothing.
        ! grep -qE 'max search depth too small|out of memory|Search not completed' <<<"$report" || [ "$holds" = no ] ||
                verdict="the search was not complete"
        if [ -z "$verdict" ]; then
                echo "ok $n - $description: $(sed -n 's/^ *\([0-9]*\) states, stored.*/\1 states/p' <<<"$report")"
        else
                echo "not ok $n - $description: $verdict"
                sed 's/^/# /' <<<"$report"
                status=1
        fi
}

echo "1..$((2 + $(wc -w <<<"$mutants")))"
expect yes "two crashes: never two active, no effect twice, nothing lost" always
expect yes "$crashes crash(es): in the end one serves, one runner runs, the exit has taken effect" in_the_end \
        -DCRASHES=$crashes
for mutant in $mutants; do
        expect no "$mutant is caught" always "-D$mutant" -DCRASHES=1
done
exit $status
