#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# libbaton exports exactly what the public headers declare, each symbol with a version, and needs no library but
# protobuf-c and libc; a runner started by hand says what is missing. TAP on standard output.
set -u
source=${abs_top_srcdir:-$(dirname "$0")/..}
build=${abs_top_builddir:-$PWD}
library=$build/.libs/libbaton.so

n=0
# report NAME FAULTS
report() {
        n=$((n + 1))
        if [ -z "$2" ]; then
                echo "ok $n - $1"
        else
                echo "not ok $n - $1"
                printf '%s\n' "$2" | sed 's/^/#   /'
        fi
}

if [ ! -e "$library" ]; then
        echo '1..0 # SKIP there is no shared library in this build'
        exit 0
fi
echo 1..5

declared=$(cat "$source"/include/baton/*.h | perl -0777 -ne '
        s{/\*.*?\*/}{}gs;
        s/^\s*#(?:[^\n]*\\\n)*[^\n]*\n//gm;
        print "$1\n" while /BATON_PUBLIC\b[^;(]*?\b(baton_\w+)\s*\(/g;' | LC_ALL=C sort -u)
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | LC_ALL=C sort -u)
listed=$(sed -n 's/^ *\(baton_[a-z0-9_]*\);$/\1/p' "$source/runner/libbaton.map" | LC_ALL=C sort -u)

report 'the headers declare functions' "$([ "$(wc -l <<<"$declared")" -ge 30 ] || echo "only: $declared")"
report 'the map lists what the headers declare' "$(diff <(echo "$declared") <(echo "$listed"))"
report 'the library exports what the headers declare, with versions' \
        "$(diff <(sed 's/$/@@LIBBATON_0/' <<<"$declared") <(echo "$exported"))"
# Sanitizers and coverage add libraries of their own.
report 'the library needs protobuf-c and libc only' "$(objdump -p "$library" |
        awk '$1 == "NEEDED" && $2 !~ /^(libprotobuf-c|libc|libasan|libubsan|libtsan|libgcc_s|libm|ld-linux[-a-z0-9_]*)\.so/ { print $2 }')"

output=$(env -u BATON_BOOTSTRAP "$build/examples/greeter" 2>&1)
status=$?
report 'a runner started by hand says in one line what is missing' "$(
        if [ $status -ne 1 ] || [ "$(wc -l <<<"$output")" -ne 1 ] ||
                [[ $output != *'not started by baton: BATON_BOOTSTRAP is not set; start it with: baton call --exec '* ]]; then
                echo "status $status: $output"
        fi)"
