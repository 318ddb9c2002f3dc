#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Fails on an include that points up, and on a call that belongs to one file only. A folder is a layer (HACKING.md):
# common <- proto <- supervisor | runner | client; common <- supervisor/keeper. TAP on standard output.
set -u
cd "${1:-${abs_top_srcdir:-$(dirname "$0")/..}}" || exit 1

sources() {
        find "$@" -name '*.[ch]' -type f 2>/dev/null | sort
}

# code FILE - without comments and strings; line numbers stay.
code() {
        perl -0777 -pe 's{/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"}{ my $t = $&; $t =~ s/[^\n]//g; $t }gse' "$1"
}

n=0 status=0
# report NAME FAULTS
report() {
        n=$((n + 1))
        if [ -z "$2" ]; then
                echo "ok $n - $1"
        else
                status=1
                echo "not ok $n - $1"
                printf '%s\n' "$2" | sed 's/^/#   /'
        fi
}

# layer FOLDER DEPTH ALLOWED... - the quoted includes of the folder's files are from the root and begin with an allowed
# folder; <baton/...> only where "baton" is allowed.
layer() {
        local folder=$1 depth=$2 allowed faults
        shift 2
        allowed=$(printf '|%s' "$@")
        faults=$(sources "$folder" -maxdepth "$depth" | xargs -r grep -HnE '^[[:space:]]*#[[:space:]]*include' |
                grep -E 'include[[:space:]]*("|<baton/)' |
                grep -vE "include[[:space:]]*[\"<](${allowed#|})/")
        report "$folder includes only $*" "$faults"
}

# only NAME PATTERN OWNER... - no other product file has the pattern in its code.
only() {
        local name=$1 pattern=$2 file faults=
        shift 2
        for file in $(sources common proto supervisor runner client include); do
                case " $* " in *" $file "*) continue ;; esac
                faults+=$(code "$file" | grep -nE "$pattern" | sed "s|^|$file:|")
        done
        report "$name only in $*" "$faults"
}

echo 1..12
layer common 9 common
layer proto 9 common proto baton
layer supervisor/keeper 9 common supervisor/keeper
layer supervisor 1 common proto supervisor
layer runner 9 common proto runner baton
layer client 9 common proto client baton
layer include 9 baton
only '<ev.h>' '#[[:space:]]*include[[:space:]]*<ev[.]h>' common/loop.c
report 'no public header includes a .pb-c.h' "$(sources include | xargs -r grep -Hn '[.]pb-c[.]h')"
only 'sendmsg() and recvmsg()' '(^|[^[:alnum:]_>.])(sendmsg|recvmsg|sendmmsg|recvmmsg)[[:space:]]*[(]' common/cmsg.c
only 'close()' '(^|[^[:alnum:]_>.])close[[:space:]]*[(]' common/fd.c
report 'an include of our own is quoted, from the root' "$(sources common proto supervisor runner client |
        xargs -r grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*(<(common|proto|supervisor|runner|client)/|"[^/"]*")')"
exit $status
