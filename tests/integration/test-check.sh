#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `baton check' as its users see it: what ships is good, what is wrong is told on standard error with the exit code of
# docs/errors.md, and nothing has to run. TAP on standard output.
set -u
build=${abs_top_builddir:-$PWD}
source=${abs_top_srcdir:-$(dirname "$0")/../..}
baton=${BATON_PROGRAM:-$build/baton}
export BATON_LIBEXEC=${BATON_LIBEXEC:-$build}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1

n=0 status=0
# expect NAME CODE OUT ERR ARGUMENT... - runs baton with the arguments.
expect() {
        local name=$1 code=$2 out=$3 err=$4 found
        shift 4
        "$baton" "$@" >out 2>err
        found=$?
        n=$((n + 1))
        if [ $found = "$code" ] && [ "$(cat out)" = "$out" ] && [ "$(cat err)" = "$err" ]; then
                echo "ok $n - $name"
        else
                status=1
                echo "not ok $n - $name"
                echo "#   exit $found, expected $code"
                sed 's/^/#   /' out err
        fi
}

echo 1..9
cp -r "$source/examples/fleet" . && chmod -R u+w fleet
expect 'what ships is good' 0 'fleet: good: 5 runners, 7 instances, 1 group' '' check fleet
expect 'one file' 0 'fleet/fleet.yaml: good: 5 runners, 7 instances, 1 group' '' check fleet/fleet.yaml

printf 'runners: { a: { command: sh, nice: 99 } }\n' >wrong.yaml
expect 'a value out of range' 49 '' "wrong.yaml:1: runners.a.nice: expected a number from -20 to 19, not '99'" check wrong.yaml
printf 'runners: { b: { comand: sh } }\n' >more.yaml
expect 'all at once, in the order of files' 49 '' "more.yaml:1: runners.b.comand: there is no such key; did you mean command?
more.yaml:1: runners.b: 'command' is missing: expected a list of words as [/usr/bin/program, --option, value]
wrong.yaml:1: runners.a.nice: expected a number from -20 to 19, not '99'" check wrong.yaml more.yaml
printf 'runners: { a: { command: [/nowhere/program] } }\n' >missing.yaml
expect 'a program that is not there' 49 '' 'missing.yaml:1: runners.a.command: program /nowhere/program: No such file or directory' check missing.yaml
expect 'a file that is not there' 49 '' 'nothing: cannot be read: No such file or directory' check nothing
printf 'runners: { a: { command: sh } }\n' >-a.yaml
expect 'a name like an option' 0 '-a.yaml: good: 1 runner, 1 instance, 0 groups' '' check -- -a.yaml
expect 'no file' 2 '' "baton: check: a file or directory is missing; try 'baton check --help'" check
BATON_LIBEXEC=/nowhere expect 'a baton that is not whole' 1 '' 'baton: check: cannot execute /nowhere/baton-supervisor: No such file or directory; is baton installed whole? '\$'BATON_LIBEXEC names another directory' check wrong.yaml
exit $status
