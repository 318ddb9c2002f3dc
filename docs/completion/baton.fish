# SPDX-License-Identifier: Apache-2.0
# Completion of baton for fish: commands, their options, and of what kind their arguments are, is what its help tells of;
# runners are those of the supervisor that the environment leads to. Where none answers there are none.

function __baton_commands
    baton --help 2>/dev/null | string match -r --groups-only '^  ([a-z]+) +(\S.*)$' | paste - -
end

function __baton_runners
    timeout 2 baton status 2>/dev/null | awk 'NR > 1 && !/^last takeover / { print $1; if (sub(/[.][0-9]+$/, "", $1)) print $1 }' | sort -u
end

function __baton_options
    set -l words (commandline -opc)
    baton $words[2] --help 2>/dev/null | sed -n 's/^  \(-.*\)/\1/p' | sed 's/  .*//' | grep -oE -- '--?[a-z-]+'
end

function __baton_needs_command
    test (count (commandline -opc)) -eq 1
end

# NAME, PROGRAM, CONFIG, COMMAND.
function __baton_command_takes
    set -l words (commandline -opc)
    test (count $words) -gt 1; and baton $words[2] --help 2>/dev/null | sed '/^$/q' | grep -qE -- $argv
end

complete -c baton -f
complete -c baton -n __baton_needs_command -a '(__baton_commands)'
complete -c baton -n '__baton_command_takes COMMAND' -a '(__baton_commands)'
complete -c baton -n 'not __baton_needs_command; and string match -q -- "-*" (commandline -ct)' -a '(__baton_options)'
complete -c baton -n '__baton_command_takes NAME' -a '(__baton_runners)'
complete -c baton -n "__baton_command_takes 'PROGRAM|CONFIG'" -F
