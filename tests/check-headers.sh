#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Each public header compiles alone, as C99, as C11 and as C++, without a warning. TAP on standard output.
set -u
cd "${1:-${abs_top_srcdir:-$(dirname "$0")/..}}" || exit 1

headers=$(find include/baton -name '*.h' 2>/dev/null | sort)
if [ -z "$headers" ]; then
        echo '1..0 # SKIP there is no public header yet'
        exit 0
fi

warnings='-Wall -Wextra -Wpedantic -Wundef -Wshadow -Werror'
echo "1..$(($(wc -w <<<"$headers") * 3))"
n=0 status=0
for header in $headers; do
        for language in c99 c11 c++11; do
                n=$((n + 1))
                case $language in
                c++*) compiler=${CXX:-c++} kind=c++ ;;
                *) compiler=${CC:-cc} kind=c ;;
                esac
                if ! command -v "${compiler%% *}" >/dev/null; then
                        echo "ok $n - $header as $language # SKIP there is no $compiler"
                        continue
                fi
                # shellcheck disable=SC2086 # both may hold several words
                if errors=$(echo "#include <${header#include/}>" |
                        $compiler -x $kind -std=$language $warnings -Iinclude -fsyntax-only - 2>&1); then
                        echo "ok $n - $header as $language"
                else
                        status=1
                        echo "not ok $n - $header as $language"
                        printf '%s\n' "$errors" | sed 's/^/#   /'
                fi
        done
done
exit $status
