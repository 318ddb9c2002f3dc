#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Completion: bash, fish and zsh are asked what they would offer, for commands, options, and runners with and without a
supervisor. zsh completes in its line editor only, so it gets a terminal, and keys."""

import os
import pty
import select
import shutil
import subprocess

from daemon_tests import BUILD, TIMEOUT, Skip, main, owned, test

SOURCE = os.environ.get("abs_top_srcdir", os.path.join(os.path.dirname(__file__), "../.."))
FOLDER = os.path.join(SOURCE, "docs/completion")
RUNNERS = """
runners:
  web:
    command: [sleep, "1000"]
    instances: 2
  db:
    command: [sleep, "1000"]
"""
# As bash does: the words of the line, and which one is being completed.
BASH = """
. "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_baton 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


# ^T puts all that there is into the line, ^Y says what is in it then, a word in a line.
ZSH = """
fpath=(%s $fpath)
autoload -Uz compinit && compinit -D -u
unsetopt PROMPT_SP ALWAYS_LAST_PROMPT
PS1='ready> '
every() { _main_complete; compstate[insert]=all }
zle -C every complete-word every
said() { zle -I; print -rl -- begin ${(z)BUFFER} end; BUFFER= }
zle -N said
bindkey -e; bindkey '^T' every; bindkey '^Y' said
"""


def environment_of(daemon):
    return {**daemon.environment, "PATH": BUILD + ":" + os.environ["PATH"], "HOME": daemon.folder}


def ask(daemon, command):
    done = subprocess.run(command, env=environment_of(daemon), text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and not done.stderr, (command, done.returncode, done.stderr)
    return done.stdout.split("\n")[:-1]


def bash(daemon, *words):
    return ask(daemon, ["bash", "--norc", "-c", BASH, "bash", os.path.join(FOLDER, "baton"), "baton", *words])


def fish(daemon, *words):
    if not shutil.which("fish"):
        raise Skip("fish is not installed")
    script = f"source {FOLDER}/baton.fish; complete -C '{' '.join(('baton', *words))}'"
    return [line.split("\t")[0] for line in ask(daemon, ["fish", "--no-config", "-c", script])]


def read_until(terminal, text):
    said = ""
    while text not in said:
        assert select.select([terminal], [], [], TIMEOUT)[0], f"{text!r} did not come: {said!r}"
        said += os.read(terminal, 65536).decode()
    return said


def zsh(daemon, *words):
    """In an editor of its own each time: what it remembers of the last line is no matter here."""
    if not shutil.which("zsh"):
        raise Skip("zsh is not installed")
    with open(os.path.join(daemon.folder, ".zshrc"), "w", encoding="utf-8") as file:
        file.write(ZSH % FOLDER)
    terminal, slave = pty.openpty()
    process = subprocess.Popen(["zsh", "-d", "-i"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                               env={**environment_of(daemon), "ZDOTDIR": daemon.folder, "TERM": "dumb"})
    owned.add(process.pid)
    os.close(slave)
    try:
        read_until(terminal, "ready> ")
        line = " ".join(("baton", *words))
        os.write(terminal, line.encode() + b"\x14\x19")
        said = read_until(terminal, "end\r\n").split("begin\r\n")[1].split("\r\n")[:-2]
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return [word for word in said[len(words):] if word != words[-1]]


def offers(daemon, shell):
    commands = shell(daemon, "")
    assert {"supervise", "status", "call", "help", "scale"} <= set(commands), commands
    assert sorted(shell(daemon, "res")) == ["reset", "restart"]
    assert {"--help", "--no-wait"} <= {option.rstrip("=") for option in shell(daemon, "stop", "--")}
    assert [option.rstrip("=") for option in shell(daemon, "supervise", "--run")] == ["--runtime-dir"]
    assert shell(daemon, "stop", "w") in ([], [""]), "runners without a supervisor"
    daemon.start(RUNNERS)
    assert sorted(shell(daemon, "stop", "")) == ["db", "web", "web.1", "web.2"]
    assert sorted(shell(daemon, "logs", "web.")) == ["web.1", "web.2"]
    assert shell(daemon, "restart", "web.1", "d") == ["db"]
    daemon.baton("takeover")  # of which the table says something, below the runners
    for command in ("upgrade", "checkpoint", "service", "fds", "events"):
        assert sorted(shell(daemon, command, "")) == ["db", "web", "web.1", "web.2"], command
    assert shell(daemon, "help", "upg") == ["upgrade"]
    assert shell(daemon, "takeovers", "") in ([], [""]), "it takes none"
    assert {"web.1", "web.2"} <= set(shell(daemon, "ping", "web"))
    with open(os.path.join(daemon.folder, "some.yaml"), "w", encoding="utf-8"):
        assert os.path.join(daemon.folder, "some.yaml") in shell(daemon, "check", os.path.join(daemon.folder, "some"))


@test
def bash_offers(daemon):
    offers(daemon, bash)
    assert bash(daemon, "signal", "web.1", "US") == ["USR1", "USR2"]
    elsewhere = dict(daemon.environment)
    try:
        daemon.environment["BATON_SOCKET"] = "/nowhere/control"
        assert bash(daemon, "stop", "--socket=" + elsewhere["BATON_SOCKET"], "d") == ["db"]
        assert bash(daemon, "stop", "--socket", "=", elsewhere["BATON_SOCKET"], "d") == ["db"]
        assert bash(daemon, "stop", "d") == [""]
    finally:
        daemon.environment = elsewhere


@test
def fish_offers(daemon):
    offers(daemon, fish)


@test
def zsh_offers(daemon):
    offers(daemon, zsh)


main()
